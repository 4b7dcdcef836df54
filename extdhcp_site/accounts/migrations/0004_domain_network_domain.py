"""A domain names the DNS suffix of its networks."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0003_removed_rows")]

    operations = [
        migrations.AddField(
            model_name="domain",
            name="network_domain",
            field=models.CharField(
                blank=True, help_text="The DNS suffix that its networks are said to have.", max_length=255
            ),
        ),
    ]
