from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('events', '0004_types_without_migrations'),
    ]

    operations = [
        migrations.AlterField(
            model_name='event',
            name='parent_uuid',
            field=models.UUIDField(blank=True, db_index=True, null=True),
        ),
    ]
