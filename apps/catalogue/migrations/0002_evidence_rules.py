"""Cards, evidence, answers and controls keep what they said: the database refuses to rewrite them."""

from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models

_FORWARD = """
CREATE FUNCTION catalogue_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER catalogue_card_append_only BEFORE UPDATE OR DELETE ON catalogue_cardrevision
  FOR EACH ROW EXECUTE FUNCTION catalogue_append_only();
CREATE TRIGGER catalogue_answer_append_only BEFORE UPDATE OR DELETE ON catalogue_controlanswer
  FOR EACH ROW EXECUTE FUNCTION catalogue_append_only();
CREATE TRIGGER catalogue_result_append_only BEFORE UPDATE OR DELETE ON catalogue_evaluationresult
  FOR EACH ROW EXECUTE FUNCTION catalogue_append_only();
CREATE FUNCTION catalogue_guard_evidence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'evidence is withdrawn, never deleted' USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.withdrawn_at IS NOT NULL OR
     to_jsonb(NEW) - ARRAY['withdrawn_at', 'withdrawn_by_id', 'withdrawn_reason', 'version', 'updated_at']
     IS DISTINCT FROM
     to_jsonb(OLD) - ARRAY['withdrawn_at', 'withdrawn_by_id', 'withdrawn_reason', 'version', 'updated_at'] THEN
    RAISE EXCEPTION 'evidence keeps what it said' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER catalogue_evidence_guard BEFORE UPDATE OR DELETE ON catalogue_evidence
  FOR EACH ROW EXECUTE FUNCTION catalogue_guard_evidence();
CREATE FUNCTION catalogue_guard_control() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR OLD.superseded_at IS NOT NULL OR
     to_jsonb(NEW) - ARRAY['superseded_at'] IS DISTINCT FROM to_jsonb(OLD) - ARRAY['superseded_at'] THEN
    RAISE EXCEPTION 'a control is superseded by a later revision, never edited' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER catalogue_control_guard BEFORE UPDATE OR DELETE ON catalogue_control
  FOR EACH ROW EXECUTE FUNCTION catalogue_guard_control();
CREATE FUNCTION catalogue_guard_exception() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR OLD.approved IS NOT NULL THEN
    RAISE EXCEPTION 'a decided exception stays as it was decided' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER catalogue_exception_guard BEFORE UPDATE OR DELETE ON catalogue_versionexception
  FOR EACH ROW EXECUTE FUNCTION catalogue_guard_exception();
"""
_BACKWARD = """
DROP TRIGGER catalogue_exception_guard ON catalogue_versionexception;
DROP TRIGGER catalogue_control_guard ON catalogue_control;
DROP TRIGGER catalogue_evidence_guard ON catalogue_evidence;
DROP TRIGGER catalogue_result_append_only ON catalogue_evaluationresult;
DROP TRIGGER catalogue_answer_append_only ON catalogue_controlanswer;
DROP TRIGGER catalogue_card_append_only ON catalogue_cardrevision;
DROP FUNCTION catalogue_guard_exception();
DROP FUNCTION catalogue_guard_control();
DROP FUNCTION catalogue_guard_evidence();
DROP FUNCTION catalogue_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0001_initial")]

    operations = [
        migrations.AddField(
            "regime",
            "card_fields",
            ArrayField(
                models.CharField(max_length=40),
                default=list,
                blank=True,
                help_text="Fields of a model card that the regime asks for (catalogue.cards).",
            ),
        ),
        migrations.AddField(
            "regime", "as_of", models.DateField(null=True, help_text="The state of the law that the data describe.")
        ),
        migrations.RunSQL(_FORWARD, _BACKWARD),
    ]
