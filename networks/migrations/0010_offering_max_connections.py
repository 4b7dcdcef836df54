from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("networks", "0009_vm_group"),
    ]

    operations = [
        migrations.AddField(
            model_name="networkoffering",
            name="max_connections",
            field=models.PositiveIntegerField(blank=True, editable=False, null=True),
        ),
    ]
