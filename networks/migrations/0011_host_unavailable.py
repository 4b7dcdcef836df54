from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("networks", "0010_offering_max_connections"),
    ]

    operations = [
        migrations.AddField(
            model_name="host",
            name="unavailable",
            field=models.CharField(blank=True, default="", editable=False, max_length=255),
        ),
    ]
