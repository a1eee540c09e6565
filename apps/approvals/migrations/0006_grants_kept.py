"""A grant is what was granted: it is revoked or ends sooner, and never becomes more, whoever writes."""

from typing import ClassVar

from django.db import migrations

_FREE = "'expires_at', 'revoked_at', 'revoked_reason', 'noticed_days', 'end_handled_at'"
_FORWARD = """
CREATE FUNCTION approvals_guard_grant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'a grant is revoked, never deleted' USING ERRCODE = 'restrict_violation';
  END IF;
  IF to_jsonb(NEW) - ARRAY[@free] IS DISTINCT FROM to_jsonb(OLD) - ARRAY[@free]
     OR (OLD.expires_at IS NOT NULL AND (NEW.expires_at IS NULL OR NEW.expires_at > OLD.expires_at))
     OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at) THEN
    RAISE EXCEPTION 'a grant never becomes more than was granted' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER approvals_grant_guard BEFORE UPDATE OR DELETE ON approvals_grant
  FOR EACH ROW EXECUTE FUNCTION approvals_guard_grant();
""".replace("@free", _FREE)
_BACKWARD = """
DROP TRIGGER approvals_grant_guard ON approvals_grant;
DROP FUNCTION approvals_guard_grant();
"""


class Migration(migrations.Migration):
    dependencies: ClassVar = [("approvals", "0005_reasons")]

    operations: ClassVar = [migrations.RunSQL(_FORWARD, _BACKWARD)]
