"""Accounts and users are not told apart by the case of their names: MariaDB does not, and log-ins are counted so."""

from django.db import migrations, models
from django.db.models.functions import Lower


class Migration(migrations.Migration):
    dependencies = [("accounts", "0005_nobody_is_called_system")]

    operations = [
        migrations.AddConstraint(
            model_name="account",
            constraint=models.UniqueConstraint(
                models.F("domain"),
                Lower("name"),
                name="account_name_once_in_any_case",
                violation_error_message="The domain has an account of this name already.",
            ),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.UniqueConstraint(
                Lower("username"),
                name="username_once_in_any_case",
                violation_error_message="A user with that username already exists.",
            ),
        ),
    ]
