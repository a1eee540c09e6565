"""The first table of resources, and how far a claimed namespace's past hours have been moved to its team."""

from datetime import UTC, datetime

from django.db import migrations, models
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

#: Valid since before any hour a cluster could tell of: a rule that changes begins later.
SINCE = datetime(2015, 1, 1, tzinfo=UTC)
#: NVIDIA MIG user guide, tables "GPU instance profiles": compute slices of seven (A100, H100, H200, B200), of four (A30).
_SEVENTHS = {
    "1g.5gb": 1, "1g.5gb.me": 1, "1g.10gb": 1, "1g.10gb.me": 1, "1g.20gb": 1, "2g.10gb": 2, "2g.20gb": 2, "3g.20gb": 3,
    "3g.40gb": 3, "4g.20gb": 4, "4g.40gb": 4, "7g.40gb": 7, "7g.80gb": 7,
    "1g.12gb": 1, "1g.12gb.me": 1, "1g.24gb": 1, "2g.24gb": 2, "3g.48gb": 3, "4g.48gb": 4, "7g.96gb": 7,
    "1g.18gb": 1, "1g.18gb.me": 1, "1g.35gb": 1, "2g.35gb": 2, "3g.71gb": 3, "4g.71gb": 4, "7g.141gb": 7,
    "1g.23gb": 1, "1g.23gb.me": 1, "1g.45gb": 1, "2g.45gb": 2, "3g.90gb": 3, "4g.90gb": 4, "7g.180gb": 7,
}  # fmt: skip
_FOURTHS = {"1g.6gb": 1, "1g.6gb.me": 1, "2g.12gb": 2, "2g.12gb.me": 2, "4g.24gb": 4}
_WHOLE = (
    ("nvidia.com/gpu", "A whole device; where it is time-sliced, the node's replicas or the flavour say what is held."),
    ("amd.com/gpu", "AMD's device plug-in: a whole device."),
    ("gpu.intel.com/i915", "Intel's device plug-in with one container a device."),
    ("gpu.intel.com/xe", "Intel's device plug-in with one container a device."),
)


def seed(apps, schema_editor):
    rule = apps.get_model("metering", "ResourceRule")
    valid = DateTimeTZRange(SINCE, None, "[)")
    rows = [
        *((name, 1, 1, note) for name, note in _WHOLE),
        *((f"nvidia.com/mig-{name}", slices, 7, "Compute slices of seven.") for name, slices in _SEVENTHS.items()),
        *((f"nvidia.com/mig-{name}", slices, 4, "A30: compute slices of four.") for name, slices in _FOURTHS.items()),
        ("nvidia.com/gpucores", 1, 100, "HAMi: per cent of a device's compute, per virtual GPU."),
    ]
    rule.objects.bulk_create(
        [
            rule(resource=name, numerator=top, denominator=bottom, note=note, valid=valid)
            for name, top, bottom, note in rows
        ]
    )


def unseed(apps, schema_editor):
    apps.get_model("metering", "ResourceRule").objects.filter(set_by=None, valid__startswith=SINCE).delete()


class Migration(migrations.Migration):
    dependencies = [("metering", "0005_source_checks")]
    operations = [
        migrations.AddField(
            model_name="namespaceowner",
            name="pending_from",
            field=models.DateTimeField(
                null=True, help_text="Hours from here on are still to be moved to whom the claims name."
            ),
        ),
        migrations.RunPython(seed, unseed),
    ]
