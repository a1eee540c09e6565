"""A step for the end of an approval."""

from typing import ClassVar

from django.db import migrations, models

_KINDS: list[tuple[str, str]] = [
    ("started", "Started"),
    ("canary", "Canary share changed"),
    ("promoted", "Promoted"),
    ("held", "Held"),
    ("resumed", "Resumed"),
    ("rolled_back", "Rolled back"),
    ("failed", "Failed"),
    ("stopped", "Stopped"),
    ("started_again", "Started again"),
    ("scaled_back", "Scaled back at the end of its grant"),
    ("removed", "Removed"),
    ("approval_ended", "Its approval ended"),
]


class Migration(migrations.Migration):
    dependencies: ClassVar = [("deployments", "0002_rollout_log")]

    operations: ClassVar = [
        migrations.AlterField(
            model_name="rolloutstep", name="kind", field=models.CharField(choices=_KINDS, max_length=20)
        )
    ]
