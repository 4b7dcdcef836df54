from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('events', '0001_initial'),
    ]

    operations = [
        migrations.AlterField(
            model_name='event',
            name='type',
            field=models.CharField(choices=[('VM.CREATE', 'Vm Create'), ('VM.DESTROY', 'Vm Destroy'), ('VM.EXPUNGE', 'Vm Expunge'), ('VM.START', 'Vm Start'), ('VM.STOP', 'Vm Stop'), ('VM.REBOOT', 'Vm Reboot'), ('VM.MIGRATE', 'Vm Migrate'), ('VM.UPDATE', 'Vm Update'), ('VM.RECOVER', 'Vm Recover'), ('VM.RESETPASSWORD', 'Vm Resetpassword'), ('VM.RESETSSHKEY', 'Vm Resetsshkey'), ('VM.RESETUSERDATA', 'Vm Resetuserdata'), ('VM.CONFIGDRIVE', 'Vm Configdrive'), ('NIC.CREATE', 'Nic Create'), ('NIC.DELETE', 'Nic Delete'), ('NETWORK.CREATE', 'Network Create'), ('NETWORK.DELETE', 'Network Delete'), ('NETWORK.RESTART', 'Network Restart'), ('NETWORK.OFFERING.CREATE', 'Network Offering Create'), ('NETWORK.OFFERING.EDIT', 'Network Offering Edit'), ('NETWORK.OFFERING.DELETE', 'Network Offering Delete'), ('TEMPLATE.CREATE', 'Template Create'), ('CONFIGURATION.VALUE.EDIT', 'Configuration Edit'), ('REGISTER.USER.KEY', 'Api Key Create'), ('REGISTER.SSH.KEYPAIR', 'Ssh Key Pair Register'), ('DELETE.SSH.KEYPAIR', 'Ssh Key Pair Delete'), ('EXTERNAL.DHCP.VM.IP.FETCH', 'Ip Fetch')], db_index=True, max_length=64),
        ),
    ]
