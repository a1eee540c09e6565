"""A closed month never changes, whoever writes (design invariant 9); the first distribution policy.

Tables with many rows carry statement-level triggers with transition tables: one look per statement, not per row. They
also take a share lock on the period, so that a freeze (which holds the row) and a writer cannot pass each other.
"""

from django.db import migrations, models
from django.db.models import F, Q

#: {column}: hour or day; {low}/{high}: the period's bounds of that type; {rows}: the transition tables.
_GUARD = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  first {type};
  last {type};
  found record;
BEGIN
  SELECT min(t.{column}), max(t.{column}) INTO first, last FROM ({rows}) t;
  IF first IS NULL THEN
    RETURN NULL;
  END IF;
  FOR found IN SELECT p.month, {low} AS low, {high} AS high, p.status FROM costs_period p
    WHERE {low} <= last AND {high} > first ORDER BY p.month FOR SHARE LOOP
    IF found.status = 'closed'
       AND EXISTS (SELECT FROM ({rows}) t WHERE t.{column} >= found.low AND t.{column} < found.high) THEN
      RAISE EXCEPTION 'the books of % are closed: % takes no change', to_char(found.month, 'YYYY-MM'), TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
    END IF;
  END LOOP;
  RETURN NULL;
END $body$;
"""
_ONE, _BOTH = "SELECT {column} FROM touched", "SELECT {column} FROM touched UNION ALL SELECT {column} FROM former"
_HOURS = {"column": "hour", "type": "timestamptz", "low": "p.start", "high": 'p."end"'}
_DAYS = {"column": "day", "type": "date", "low": "p.month", "high": "(p.month + interval '1 month')::date"}
_TABLES = {
    "metering_hourfact": "hours", "metering_capacityline": "hours", "metering_resourcefact": "hours",
    "costs_charge": "hours", "costs_daycharge": "days", "metering_dayusage": "days",
}  # fmt: skip


def _guard(name: str, values: dict[str, str], rows: str) -> str:
    return _GUARD.format(name=name, rows=rows.format(**values), **values)


def _triggers(table: str, kind: str) -> str:
    once, change = f"costs_closed_{kind}", f"costs_closed_{kind}_update"
    return f"""
CREATE TRIGGER closed_insert AFTER INSERT ON {table} REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION {once}();
CREATE TRIGGER closed_delete AFTER DELETE ON {table} REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION {once}();
CREATE TRIGGER closed_update AFTER UPDATE ON {table} REFERENCING NEW TABLE AS touched OLD TABLE AS former
  FOR EACH STATEMENT EXECUTE FUNCTION {change}();
"""


_ROWS = """
CREATE FUNCTION costs_guard_statement() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  standing text;
BEGIN
  IF TG_OP = 'DELETE' THEN
    RAISE EXCEPTION 'a statement is never removed' USING ERRCODE = 'restrict_violation';
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF (to_jsonb(NEW) - 'superseded_at') IS DISTINCT FROM (to_jsonb(OLD) - 'superseded_at')
       OR OLD.superseded_at IS NOT NULL OR NEW.superseded_at IS NULL
       OR NOT EXISTS (SELECT FROM costs_reopenrequest r WHERE r.period_id = OLD.period_id AND r.status = 'approved'
                      AND r.decided_at >= OLD.issued_at) THEN
      RAISE EXCEPTION 'a statement is frozen; opening its month again, approved by a second person, supersedes it'
        USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
  END IF;
  SELECT p.status INTO standing FROM costs_period p WHERE p.id = NEW.period_id FOR SHARE;
  IF standing IS DISTINCT FROM 'closing' THEN
    RAISE EXCEPTION 'statements are frozen while their month is closing' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER costs_guard_statement BEFORE INSERT OR UPDATE OR DELETE ON costs_statement
  FOR EACH ROW EXECUTE FUNCTION costs_guard_statement();

CREATE FUNCTION costs_guard_line() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  RAISE EXCEPTION 'a line of a statement is frozen with it' USING ERRCODE = 'restrict_violation';
END $body$;
CREATE TRIGGER costs_guard_line BEFORE UPDATE OR DELETE ON costs_statementline
  FOR EACH ROW EXECUTE FUNCTION costs_guard_line();
CREATE FUNCTION costs_guard_new_lines() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF EXISTS (SELECT FROM (SELECT DISTINCT statement_id FROM touched) t
             JOIN costs_statement s ON s.id = t.statement_id
             JOIN costs_period p ON p.id = s.period_id
             WHERE p.status <> 'closing' OR s.superseded_at IS NOT NULL) THEN
    RAISE EXCEPTION 'lines are frozen while the month of their statement is closing'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $body$;
CREATE TRIGGER costs_guard_new_lines AFTER INSERT ON costs_statementline REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION costs_guard_new_lines();

CREATE FUNCTION costs_guard_correction() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  affected bigint[];
BEGIN
  affected := CASE TG_OP WHEN 'INSERT' THEN ARRAY[NEW.period_id] WHEN 'DELETE' THEN ARRAY[OLD.period_id]
                         ELSE ARRAY[OLD.period_id, NEW.period_id] END;
  PERFORM FROM costs_period p WHERE p.id = ANY(affected) ORDER BY p.id FOR SHARE;
  IF EXISTS (SELECT FROM costs_period p WHERE p.id = ANY(affected) AND p.status = 'closed') THEN
    RAISE EXCEPTION 'a correction is billed in an open month' USING ERRCODE = 'restrict_violation';
  END IF;
  IF TG_OP = 'DELETE' THEN
    RETURN OLD;
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER costs_guard_correction BEFORE INSERT OR UPDATE OR DELETE ON costs_correction
  FOR EACH ROW EXECUTE FUNCTION costs_guard_correction();

CREATE FUNCTION costs_guard_credit() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  affected bigint[];
BEGIN
  -- What is billed (an approved credit with its month) joins, changes and leaves only months that are not closed.
  affected := ARRAY[]::bigint[];
  IF TG_OP <> 'INSERT' AND OLD.status = 'approved' AND OLD.period_id IS NOT NULL THEN
    affected := affected || OLD.period_id;
  END IF;
  IF TG_OP <> 'DELETE' AND NEW.status = 'approved' AND NEW.period_id IS NOT NULL THEN
    affected := affected || NEW.period_id;
  END IF;
  IF TG_OP = 'UPDATE' AND (to_jsonb(NEW) - ARRAY['version', 'updated_at'])
     IS NOT DISTINCT FROM (to_jsonb(OLD) - ARRAY['version', 'updated_at']) THEN
    RETURN NEW;
  END IF;
  PERFORM FROM costs_period p WHERE p.id = ANY(affected) ORDER BY p.id FOR SHARE;
  IF EXISTS (SELECT FROM costs_period p WHERE p.id = ANY(affected) AND p.status = 'closed') THEN
    RAISE EXCEPTION 'a credit is billed in an open month' USING ERRCODE = 'restrict_violation';
  END IF;
  IF TG_OP = 'DELETE' THEN
    RETURN OLD;
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER costs_guard_credit BEFORE INSERT OR UPDATE OR DELETE ON costs_credit
  FOR EACH ROW EXECUTE FUNCTION costs_guard_credit();

CREATE FUNCTION costs_guard_period() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.status <> 'open' OR OLD.reopened > 0 THEN
      RAISE EXCEPTION 'a month that was closed is never removed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
  END IF;
  IF (NEW.month, NEW.start, NEW."end", NEW.currency) IS DISTINCT FROM (OLD.month, OLD.start, OLD."end", OLD.currency)
  THEN
    RAISE EXCEPTION 'a month keeps its bounds and its currency' USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.status = 'closed' AND OLD.status = 'open' THEN
    RAISE EXCEPTION 'a month is closed from closing only' USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.status = 'closed' THEN
    IF NEW.status = 'closed' THEN
      IF (to_jsonb(NEW) - ARRAY['version', 'updated_at'])
         IS DISTINCT FROM (to_jsonb(OLD) - ARRAY['version', 'updated_at']) THEN
        RAISE EXCEPTION 'a closed month never changes' USING ERRCODE = 'restrict_violation';
      END IF;
    ELSIF NEW.reopened <= OLD.reopened OR NOT EXISTS (
        SELECT FROM costs_reopenrequest r WHERE r.period_id = OLD.id AND r.status = 'approved'
          AND r.decided_by_id IS DISTINCT FROM r.requested_by_id AND r.decided_at >= OLD.closed_at) THEN
      RAISE EXCEPTION 'a closed month is opened again only when a second person approved it'
        USING ERRCODE = 'restrict_violation';
    END IF;
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER costs_guard_period BEFORE UPDATE OR DELETE ON costs_period
  FOR EACH ROW EXECUTE FUNCTION costs_guard_period();

CREATE FUNCTION costs_guard_waiver() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  RAISE EXCEPTION 'what was waived stays written' USING ERRCODE = 'restrict_violation';
END $body$;
CREATE TRIGGER costs_guard_waiver BEFORE UPDATE OR DELETE ON costs_periodwaiver
  FOR EACH ROW EXECUTE FUNCTION costs_guard_waiver();

CREATE FUNCTION costs_guard_distribution() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF TG_OP = 'DELETE' OR OLD.status <> 'proposed'
     OR (NEW.number, NEW.name, NEW.month_from, NEW.rules, NEW.proposed_by_id)
        IS DISTINCT FROM (OLD.number, OLD.name, OLD.month_from, OLD.rules, OLD.proposed_by_id) THEN
    RAISE EXCEPTION 'a version of the distribution policy is decided once and never changes'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER costs_guard_distribution BEFORE UPDATE OR DELETE ON costs_distributionpolicy
  FOR EACH ROW EXECUTE FUNCTION costs_guard_distribution();
"""
_OF_ROWS = {
    "costs_guard_statement": "costs_statement", "costs_guard_line": "costs_statementline",
    "costs_guard_new_lines": "costs_statementline", "costs_guard_correction": "costs_correction",
    "costs_guard_credit": "costs_credit", "costs_guard_period": "costs_period",
    "costs_guard_waiver": "costs_periodwaiver", "costs_guard_distribution": "costs_distributionpolicy",
}  # fmt: skip

_FIRST_POLICY = """
INSERT INTO costs_distributionpolicy (uid, version, updated_at, number, name, month_from, rules, status, reason)
VALUES (gen_random_uuid(), 1, now(), 1, 'Reservations go to their owners, the rest stays with the platform', date '2000-01-01',
  '{"unsold": "platform", "reserved_unused": "owners", "stranded": "platform", "maintenance": "platform",
    "unattributed": "platform", "resources": "platform"}', 'approved', 'In force from the first month on')
ON CONFLICT (number) DO NOTHING;
"""
_FORWARD = (
    _guard("costs_closed_hours", _HOURS, _ONE)
    + _guard("costs_closed_hours_update", _HOURS, _BOTH)
    + _guard("costs_closed_days", _DAYS, _ONE)
    + _guard("costs_closed_days_update", _DAYS, _BOTH)
    + "".join(_triggers(table, kind) for table, kind in _TABLES.items())
    + _ROWS
)
_BACKWARD = (
    "".join(f"DROP TRIGGER closed_{what} ON {table};" for table in _TABLES for what in ("insert", "update", "delete"))
    + "".join(f"DROP TRIGGER {name} ON {table}; DROP FUNCTION {name}();" for name, table in _OF_ROWS.items())
    + "".join(
        f"DROP FUNCTION costs_closed_{kind}(); DROP FUNCTION costs_closed_{kind}_update();"
        for kind in ("hours", "days")
    )
)


class Migration(migrations.Migration):
    dependencies = [
        ("costs", "0006_credit_pairs"),
        ("core", "0003_partitions_through_parent"),
        ("metering", "0004_money_tables"),
    ]
    operations = [
        migrations.AddConstraint(
            model_name="distributionpolicy",
            constraint=models.CheckConstraint(
                condition=~Q(status="approved") | Q(proposed_by__isnull=True) | ~Q(decided_by=F("proposed_by")),
                name="distribution_second_person",
            ),
        ),
        migrations.RunSQL(_FORWARD, _BACKWARD),
        # Last: a table with rows that wait for their deferred checks cannot be altered. Going back leaves the row.
        migrations.RunSQL(_FIRST_POLICY, migrations.RunSQL.noop),
    ]
