from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("networks", "0008_endpoint_trust"),
    ]

    operations = [
        migrations.AddField(
            model_name="virtualmachine",
            name="group_name",
            field=models.CharField(blank=True, default="", max_length=255),
            preserve_default=False,
        ),
    ]
