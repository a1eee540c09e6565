"""The log of changed rows goes with the month whose events go: notes of rows, their times and logins are no longer needed.

Only what a reconciliation has looked at goes, and only of months that two persons had purged.
"""

from django.db import migrations

TAKE_ROLE = """
SELECT set_config('commons.came_as', current_user, true);
SELECT set_config('role', 'commons_audit', true);
"""
GIVE_ROLE_BACK = """
SELECT set_config('role', current_setting('commons.came_as'), true);
"""
#: As the owner of the portal's tables: the purge looks whether a reconciliation came after the month.
READ_RUNS = """
GRANT SELECT (finished_at) ON public.audit_reconciliation_run TO commons_audit;
"""
FUNCTIONS = """
CREATE OR REPLACE FUNCTION audit.deny() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
  -- Only audit.erase_notes() sets this, and only the owner may delete at all: for the portal's role it opens nothing.
  IF TG_OP = 'DELETE' AND TG_TABLE_NAME ~ '^note(_[0-9]{4}_[0-9]{2})?$' AND current_user = 'commons_audit'
     AND current_setting('commons.erasing_notes', true) = 'on' THEN
    RETURN OLD;
  END IF;
  -- Only audit.purge_changes() sets this; as above.
  IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'change' AND current_user = 'commons_audit'
     AND current_setting('commons.purging_changes', true) = 'on' THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'audit rows are never changed or removed (% on %)', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END $body$;

-- Removes the log of changed rows of a purged month; returns how many rows. A transaction that was open for a day after
-- its change would be looked at late: so the reconciliation has to come a day after the month.
CREATE FUNCTION audit.purge_changes(month date) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' AS $body$
DECLARE
  starts timestamptz := date_trunc('month', month::timestamp);
  ends timestamptz := date_trunc('month', month::timestamp) + interval '1 month';
  gone bigint;
BEGIN
  IF NOT EXISTS (SELECT FROM audit.purge p WHERE p.month = starts::date) THEN
    RAISE EXCEPTION 'the events of % were not purged', to_char(starts, 'YYYY-MM') USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF NOT EXISTS (SELECT FROM public.audit_reconciliation_run r WHERE r.finished_at >= ends + interval '1 day') THEN
    RETURN 0;
  END IF;
  PERFORM set_config('commons.purging_changes', 'on', true);
  DELETE FROM audit.change c WHERE c.at >= starts AND c.at < ends;
  GET DIAGNOSTICS gone = ROW_COUNT;
  PERFORM set_config('commons.purging_changes', '', true);
  RETURN gone;
END $body$;
CREATE INDEX change_at ON audit.change (at);
REVOKE ALL ON FUNCTION audit.purge_changes(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.purge_changes(date) TO commons_app;
"""


class Migration(migrations.Migration):
    dependencies = [("audit", "0008_watch_sign_in")]
    operations = [
        # Not undone: what was purged does not come back.
        migrations.RunSQL(READ_RUNS + TAKE_ROLE + FUNCTIONS + GIVE_ROLE_BACK),
    ]
