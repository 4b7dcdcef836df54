from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0003_instance_name'),
    ]

    operations = [
        migrations.AddField(
            model_name='asyncjob',
            name='progress_for_operator',
            field=models.CharField(blank=True, default='', max_length=200),
        ),
    ]
