"""Schema `commons`: the register of tables partitioned by month and the one function that makes their partitions.

Also: the portal's role may read which migrations have run, not rewrite it.
"""

from django.db import migrations

REGISTER = """
CREATE TABLE commons.partitioned_table (parent text PRIMARY KEY);
REVOKE INSERT, UPDATE, DELETE ON commons.partitioned_table FROM commons_app;
REVOKE INSERT, UPDATE, DELETE ON public.django_migrations FROM commons_app;
"""

ENSURE_MONTH = """
CREATE FUNCTION commons.ensure_month(parent text, month date) RETURNS boolean
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
  EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                 parent, child, starts::text || ' 00:00:00+00', ends::text || ' 00:00:00+00');
  RETURN true;
END $body$;
REVOKE ALL ON FUNCTION commons.ensure_month(text, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commons.ensure_month(text, date) TO commons_app;
"""


class Migration(migrations.Migration):
    dependencies = [("core", "0001_initial")]
    operations = [
        migrations.RunSQL(REGISTER, "DROP TABLE commons.partitioned_table"),
        migrations.RunSQL(ENSURE_MONTH, "DROP FUNCTION commons.ensure_month(text, date)"),
    ]
