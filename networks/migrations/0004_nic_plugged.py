from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("networks", "0003_host_may_be_over_committed"),
    ]

    operations = [
        migrations.AddField(
            model_name="nic",
            name="plugged",
            field=models.BooleanField(
                default=True,
                editable=False,
                help_text="Whether the running guest has it; all are plugged in at a start.",
            ),
        ),
    ]
