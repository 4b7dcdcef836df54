from django.db import migrations


def forget_progress(apps, schema_editor):
    """Until now it named hosts, and only administrators saw it. A job at work says it anew."""
    apps.get_model('jobs', 'AsyncJob').objects.exclude(progress='').update(progress='')


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0004_progress_for_operator'),
    ]

    operations = [
        migrations.RunPython(forget_progress, migrations.RunPython.noop),
    ]
