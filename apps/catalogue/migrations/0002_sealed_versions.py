"""A sealed version never changes, whoever writes: its manifest, and all that went into it."""

import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models
from django.db.models import F, Q

#: What may still change of a sealed version: whether it is in use.
_FREE = "'status', 'retired_at', 'version', 'updated_at'"
_GUARDED = ("catalogue_versionfile", "catalogue_versionsource", "catalogue_classificationrecord")
_FORWARD = """
CREATE FUNCTION catalogue_guard_version() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF OLD.status NOT IN ('sealed', 'retired') THEN
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
  END IF;
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'version % is sealed: it is never deleted', OLD.uid USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.status NOT IN ('sealed', 'retired')
     OR to_jsonb(NEW) - ARRAY[@free] IS DISTINCT FROM to_jsonb(OLD) - ARRAY[@free] THEN
    RAISE EXCEPTION 'version % is sealed: it never changes', OLD.uid USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER sealed BEFORE UPDATE OR DELETE ON catalogue_modelversion
  FOR EACH ROW EXECUTE FUNCTION catalogue_guard_version();

CREATE FUNCTION catalogue_guard_part() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  part record;
  state text;
BEGIN
  FOR part IN
    SELECT DISTINCT id FROM unnest(ARRAY[
      CASE WHEN TG_OP <> 'INSERT' THEN OLD.model_version_id END,
      CASE WHEN TG_OP <> 'DELETE' THEN NEW.model_version_id END]) AS id WHERE id IS NOT NULL ORDER BY id
  LOOP
    -- Waits for a seal under way, and reads what it left.
    SELECT status INTO state FROM catalogue_modelversion WHERE id = part.id FOR SHARE;
    IF state IN ('sealed', 'retired') THEN
      RAISE EXCEPTION 'version % is sealed: % takes no change', part.id, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
    END IF;
  END LOOP;
  IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
  RETURN NEW;
END $body$;
""".replace("@free", _FREE) + "".join(
    f"CREATE TRIGGER sealed BEFORE INSERT OR UPDATE OR DELETE ON {table}"
    " FOR EACH ROW EXECUTE FUNCTION catalogue_guard_part();\n"
    for table in _GUARDED
)
_BACKWARD = """
DROP TRIGGER sealed ON catalogue_classificationrecord;
DROP TRIGGER sealed ON catalogue_versionsource;
DROP TRIGGER sealed ON catalogue_versionfile;
DROP TRIGGER sealed ON catalogue_modelversion;
DROP FUNCTION catalogue_guard_part();
DROP FUNCTION catalogue_guard_version();
"""


class Migration(migrations.Migration):
    """Numbers that are never used again, uploads in pieces, and the guards of sealed versions."""

    dependencies = [
        ("catalogue", "0002_evidence_rules"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [
        migrations.AddField(
            model_name="model",
            name="last_number",
            field=models.PositiveIntegerField(default=0, help_text="The highest number any version had, ever."),
        ),
        migrations.CreateModel(
            name="Upload",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("uid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ("version", models.PositiveIntegerField(default=1, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("path", models.CharField(max_length=500)),
                ("size", models.BigIntegerField(help_text="As announced, in bytes.")),
                ("received", models.BigIntegerField(default=0, help_text="Bytes that are here.")),
                ("author", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL)),
                ("model_version", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="uploads", to="catalogue.modelversion")),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("model_version", "path"), name="upload_once"),
                    models.CheckConstraint(condition=Q(received__gte=0, received__lte=F("size")), name="upload_within_size"),
                ],
            },
        ),
        migrations.RunSQL(_FORWARD, _BACKWARD),
    ]
