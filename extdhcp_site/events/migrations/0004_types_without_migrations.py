from django.db import migrations, models

import extdhcp_site.events.models


class Migration(migrations.Migration):

    dependencies = [
        ('events', '0003_address_event_types'),
    ]

    operations = [
        migrations.AlterField(
            model_name='event',
            name='type',
            field=models.CharField(choices=extdhcp_site.events.models.event_types, db_index=True, max_length=64),
        ),
    ]
