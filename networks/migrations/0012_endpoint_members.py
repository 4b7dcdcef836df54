from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("networks", "0011_host_unavailable"),
    ]

    operations = [
        migrations.AddField(
            model_name="endpoint",
            name="members",
            field=models.JSONField(blank=True, default=list, editable=False),
        ),
        migrations.AddField(
            model_name="endpoint",
            name="members_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
    ]
