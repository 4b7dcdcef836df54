"""Every installation begins with the domain ROOT."""

from django.db import migrations


def create_root(apps, schema_editor):
    apps.get_model("accounts", "Domain").objects.get_or_create(name="ROOT", parent=None, path="ROOT/")


def remove_root(apps, schema_editor):
    apps.get_model("accounts", "Domain").objects.filter(path="ROOT/").delete()


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]
    operations = [migrations.RunPython(create_root, remove_root)]
