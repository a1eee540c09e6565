import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("quotas", "0005_adoption"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="baselinestate",
            name="asked_at",
            field=models.DateTimeField(
                help_text="A person asked for the request; a worker has not made it yet.", null=True
            ),
        ),
        migrations.AddField(
            model_name="baselinestate",
            name="asked_by",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="baselinestate",
            name="asked_reason",
            field=models.TextField(blank=True, default=""),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="baselinestate",
            name="asked_problem",
            field=models.TextField(blank=True, default="", help_text="Why the request could not be made."),
            preserve_default=False,
        ),
    ]
