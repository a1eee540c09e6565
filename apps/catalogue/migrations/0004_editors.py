"""Everybody who changed a draft, and everybody who keeps an evidence producer: none of them decides."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar = [("catalogue", "0003_registry_sync")]

    operations: ClassVar = [
        migrations.AddField(
            "modelversion",
            "editors",
            ArrayField(
                models.BigIntegerField(),
                default=list,
                blank=True,
                help_text="Ids of everybody who changed the draft.",
            ),
        ),
        migrations.AddField(
            "evidenceproducer",
            "keepers",
            ArrayField(
                models.BigIntegerField(),
                default=list,
                blank=True,
                help_text="Ids of everybody who gave it a token or a key.",
            ),
        ),
    ]
