from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0002_remarks'),
    ]

    operations = [
        migrations.AddField(
            model_name='asyncjob',
            name='instance_name',
            field=models.CharField(blank=True, default='', max_length=255),
        ),
    ]
