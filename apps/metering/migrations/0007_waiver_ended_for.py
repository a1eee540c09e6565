"""Why a waiver ended: what of its source was changed."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("metering", "0006_rules_and_claims")]
    operations = [
        migrations.AddField(
            "sourcewaiver",
            "ended_for",
            models.CharField(
                max_length=300,
                blank=True,
                db_default="",
                help_text="What was changed of its source, which ended it.",
            ),
        ),
    ]
