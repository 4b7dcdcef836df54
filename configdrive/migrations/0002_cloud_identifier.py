"""Give this installation the identifier that its guests will read."""

import uuid

from django.db import migrations


def create_identifier(apps, schema_editor):
    apps.get_model("configuration", "Setting").objects.get_or_create(
        name="cloud.identifier", defaults={"value": str(uuid.uuid4())}
    )


def keep_identifier(apps, schema_editor):
    """Guests have read it already: going back does not forget it."""


class Migration(migrations.Migration):
    dependencies = [("configdrive", "0001_initial"), ("configuration", "0001_initial")]
    operations = [migrations.RunPython(create_identifier, keep_identifier)]
