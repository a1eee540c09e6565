"""A published price is immutable but for an earlier end (design invariant 9), whoever writes."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION rates_guard_rate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a published price is never removed' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (to_jsonb(NEW) - 'valid') IS DISTINCT FROM (to_jsonb(OLD) - 'valid')
       OR isempty(NEW.valid)
       OR lower(NEW.valid) IS DISTINCT FROM lower(OLD.valid)
       OR upper_inf(NEW.valid)
       OR (NOT upper_inf(OLD.valid) AND upper(NEW.valid) > upper(OLD.valid)) THEN
        RAISE EXCEPTION 'a published price changes in nothing but an earlier end'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER rates_guard_rate BEFORE UPDATE OR DELETE ON rates_rate
    FOR EACH ROW EXECUTE FUNCTION rates_guard_rate();
"""
BACKWARD = """
DROP TRIGGER rates_guard_rate ON rates_rate;
DROP FUNCTION rates_guard_rate();
"""


class Migration(migrations.Migration):
    """Install the guard."""

    dependencies = [("rates", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
