"""In the log of events, system is the server itself."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0004_domain_network_domain")]

    operations = [
        migrations.AddConstraint(
            model_name="user",
            constraint=models.CheckConstraint(
                condition=models.Q(("username__iexact", "system"), _negated=True),
                name="nobody_is_called_system",
                violation_error_message="The name system stands for the server itself. Choose another.",
            ),
        ),
    ]
