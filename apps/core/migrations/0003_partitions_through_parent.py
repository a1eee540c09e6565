"""A month's rows are written through the table itself, never through its partitions.

Statement-level triggers fire for the table that a statement names. Where they guard a partitioned table, the portal's
role must not reach past them by naming a partition; reading stays allowed.
"""

from django.db import migrations

_ENSURE_MONTH = """
CREATE OR REPLACE FUNCTION commons.ensure_month(parent text, month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' AS $body$
DECLARE
  starts date := date_trunc('month', month)::date;
  ends date := (date_trunc('month', month) + interval '1 month')::date;
  child text := parent || to_char(date_trunc('month', month), '_YYYY_MM');
BEGIN
  IF NOT EXISTS (SELECT FROM commons.partitioned_table t WHERE t.parent = ensure_month.parent) THEN
    RAISE EXCEPTION '% is not a table partitioned by month', parent USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF month NOT BETWEEN date '2000-01-01' AND date '2199-12-31' THEN
    RAISE EXCEPTION 'no partition for %: the year is out of range', month USING ERRCODE = 'datetime_field_overflow';
  END IF;
  IF to_regclass(format('public.%I', child)) IS NOT NULL THEN
    RETURN false;
  END IF;
  -- Two workers may want the same month at once: the second waits for the first and finds it made.
  PERFORM pg_advisory_xact_lock(hashtext('commons.ensure_month'), hashtext(child));
  IF to_regclass(format('public.%I', child)) IS NOT NULL THEN
    RETURN false;
  END IF;
  -- CREATE … PARTITION OF would lock out every reader of the parent; attaching an empty table does not.
  EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL EXCLUDING IDENTITY)', child, parent);
  {revoke}EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                 parent, child, starts::text || ' 00:00:00+00', ends::text || ' 00:00:00+00');
  RETURN true;
END $body$;
"""
_REVOKE = "EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON public.%I FROM commons_app', child);\n  "
_EXISTING = """
DO $do$ DECLARE child regclass; BEGIN
  FOR child IN SELECT i.inhrelid::regclass FROM pg_inherits i
    JOIN commons.partitioned_table t ON i.inhparent = to_regclass(format('public.%I', t.parent)) LOOP
    EXECUTE format('{verb} INSERT, UPDATE, DELETE ON %s {word} commons_app', child);
  END LOOP;
END $do$;
"""


def _statements(revoke: str, verb: str, word: str) -> str:
    return _ENSURE_MONTH.replace("{revoke}", revoke) + _EXISTING.replace("{verb}", verb).replace("{word}", word)


class Migration(migrations.Migration):
    dependencies = [("core", "0002_month_partitions")]
    operations = [
        migrations.RunSQL(_statements(_REVOKE, "REVOKE", "FROM"), _statements("", "GRANT", "TO")),
    ]
