"""The log of rollouts is append-only, and what ran where is only ever closed: the database says so."""

from typing import ClassVar

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import RangeOperators
from django.db import migrations, models

from apps.core.models import IntRange

_FORWARD = """
CREATE FUNCTION deployments_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER deployments_rolloutstep_append_only BEFORE UPDATE OR DELETE ON deployments_rolloutstep
  FOR EACH ROW EXECUTE FUNCTION deployments_append_only();
CREATE FUNCTION deployments_interval_closes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR upper(OLD.valid) IS NOT NULL
     OR (to_jsonb(NEW) - 'valid') IS DISTINCT FROM (to_jsonb(OLD) - 'valid')
     OR isempty(NEW.valid) OR lower(NEW.valid) IS DISTINCT FROM lower(OLD.valid) THEN
    RAISE EXCEPTION 'a serving interval is only ever closed' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER deployments_servinginterval_closes BEFORE UPDATE OR DELETE ON deployments_servinginterval
  FOR EACH ROW EXECUTE FUNCTION deployments_interval_closes();
"""
_BACKWARD = """
DROP TRIGGER deployments_servinginterval_closes ON deployments_servinginterval;
DROP FUNCTION deployments_interval_closes();
DROP TRIGGER deployments_rolloutstep_append_only ON deployments_rolloutstep;
DROP FUNCTION deployments_append_only();
"""
_STATUSES: list[tuple[str, str]] = [
    ("in_review", "In review"),
    ("waiting_for_capacity", "Waiting for capacity"),
    ("starting", "Starting"),
    ("canary", "Canary"),
    ("held", "Held"),
    ("live", "Live"),
    ("superseded", "Replaced by a later release"),
    ("rolled_back", "Rolled back"),
    ("failed", "Failed"),
    ("rejected", "Rejected"),
    ("withdrawn", "Withdrawn"),
    ("lapsed", "Lapsed"),
    ("ended", "Ended with its endpoint"),
]


class Migration(migrations.Migration):
    dependencies: ClassVar = [("deployments", "0001_initial")]

    operations: ClassVar = [
        migrations.AlterField(
            model_name="release",
            name="status",
            field=models.CharField(choices=_STATUSES, default="in_review", max_length=30),
        ),
        migrations.AddConstraint(
            model_name="servinginterval",
            constraint=ExclusionConstraint(
                name="interval_no_overlap",
                expressions=[(IntRange("release"), RangeOperators.OVERLAPS), ("valid", RangeOperators.OVERLAPS)],
            ),
        ),
        migrations.RunSQL(_FORWARD, _BACKWARD),
    ]
