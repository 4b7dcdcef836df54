from django.db import migrations


class Migration(migrations.Migration):
    """A VM that others moved to a host holds room there, whether there was any or not."""

    dependencies = [
        ("networks", "0002_guest_data"),
    ]

    operations = [
        migrations.RemoveConstraint(model_name="host", name="memory_not_over_committed"),
    ]
