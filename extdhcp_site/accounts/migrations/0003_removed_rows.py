"""Accounts and users that were removed keep their rows, for the events about them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_root_domain")]

    operations = [
        migrations.AddField(
            model_name="user",
            name="removed_at",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AlterField(
            model_name="account",
            name="state",
            field=models.CharField(
                choices=[
                    ("enabled", "Enabled"),
                    ("disabled", "Disabled"),
                    ("locked", "Locked"),
                    ("removed", "Removed"),
                ],
                default="enabled",
                max_length=8,
            ),
        ),
    ]
