"""Decisions and published policy versions are never changed or removed, whoever asks: the database says so."""

from django.db import migrations

_FORWARD = """
CREATE FUNCTION approvals_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER approvals_decision_append_only BEFORE UPDATE OR DELETE ON approvals_decision
  FOR EACH ROW EXECUTE FUNCTION approvals_append_only();
CREATE TRIGGER approvals_policyversion_append_only BEFORE UPDATE OR DELETE ON approvals_policyversion
  FOR EACH ROW EXECUTE FUNCTION approvals_append_only();
"""
_BACKWARD = """
DROP TRIGGER approvals_decision_append_only ON approvals_decision;
DROP TRIGGER approvals_policyversion_append_only ON approvals_policyversion;
DROP FUNCTION approvals_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("approvals", "0001_initial")]

    operations = [migrations.RunSQL(_FORWARD, _BACKWARD)]
