"""Keeping the trail: how long, what a legal hold keeps, what was purged or erased; and a log of changed rows.

All of it belongs to `commons_audit`, like the trail. The portal's role inserts holds and reads; months are purged, notes
erased and holds released only by functions that look for the approvals in the trail itself, where they stay visible.

Purging a month removes its events and notes and keeps its links: number, hashes, time of sealing, nothing else. So the
chain, the checkpoints and every proof of inclusion hold as before, and a purge is checked, not believed: the verifier
accepts a missing event only where the trail says that exactly these leaves were purged.
"""

from django.db import migrations

TAKE_ROLE = """
SELECT set_config('commons.came_as', current_user, true);
SELECT set_config('role', 'commons_audit', true);
"""
GIVE_ROLE_BACK = """
SELECT set_config('role', current_setting('commons.came_as'), true);
"""

TABLES = """
-- How long events are kept at least: the longest of what applies. A later row for the same regime replaces the earlier
-- one, 0 months end it. Nobody at the portal writes here: `manage.py audit_floor` does, with the login of migrations.
CREATE TABLE audit.floor (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  regime text NOT NULL CHECK (regime <> ''),
  citation text NOT NULL,
  months integer NOT NULL CHECK (months BETWEEN 0 AND 1200),
  revised date NOT NULL,
  added_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO audit.floor (regime, citation, months, revised) VALUES
  ('Company policy', 'Seven years: the usual limit of tax and commercial law for books and records', 84, '2026-11-22'),
  ('HIPAA', '45 CFR 164.316(b)(2)(i): documentation, six years', 72, '2026-11-22'),
  ('PCI DSS', 'PCI DSS v4.0.1, requirement 10.5.1: audit log history, twelve months', 12, '2026-11-22'),
  ('EU AI Act, logs', 'Regulation (EU) 2024/1689, Art. 19(1) and 26(6): logs, six months', 6, '2026-11-22'),
  ('EU AI Act, documentation', 'Regulation (EU) 2024/1689, Art. 18(1): documentation, ten years', 120, '2026-11-22');

CREATE TABLE audit.hold (
  id uuid PRIMARY KEY,
  placed_at timestamptz NOT NULL DEFAULT now(),
  matter text NOT NULL CHECK (matter <> ''),
  actor_id text NOT NULL DEFAULT '',
  object_id uuid,
  since timestamptz,
  until timestamptz,
  CHECK (since IS NULL OR until IS NULL OR since < until)
);
CREATE TABLE audit.hold_release (
  hold_id uuid PRIMARY KEY REFERENCES audit.hold,
  released_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE audit.purge (
  month date PRIMARY KEY,
  proposal uuid NOT NULL,
  events bigint NOT NULL,
  first_seq bigint NOT NULL,
  last_seq bigint NOT NULL,
  leaves bytea NOT NULL,
  end_hash bytea NOT NULL,
  purged_at timestamptz NOT NULL DEFAULT now()
);

-- Which row of a watched table was changed, by which transaction and login. Written by triggers alone.
CREATE TABLE audit.change (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  tbl text NOT NULL,
  row_id text NOT NULL,
  row_uid text NOT NULL,
  op text NOT NULL,
  xid bigint NOT NULL,
  login text NOT NULL,
  program text NOT NULL
);
CREATE INDEX change_xid ON audit.change (xid);

-- The transaction that an event was committed in: what joins it to the changes. Not hashed.
ALTER TABLE audit.link ADD COLUMN xid bigint;
"""

FUNCTIONS = """
CREATE OR REPLACE FUNCTION audit.seal() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  h audit.head%ROWTYPE;
  at timestamptz;
  new_hash bytea;
BEGIN
  -- Waits for the one writer before us, at the very end of the transaction: no fork, no gap, commit order.
  SELECT * INTO STRICT h FROM audit.head FOR UPDATE;
  at := clock_timestamp();
  new_hash := sha256('\\x02'::bytea || h.hash || int8send(h.seq + 1) || NEW.leaf
                     || int8send((extract(epoch FROM at) * 1000000)::bigint));
  INSERT INTO audit.link (seq, event_id, occurred_at, leaf, prev, hash, sealed_at, xid)
  VALUES (h.seq + 1, NEW.id, NEW.occurred_at, NEW.leaf, h.hash, new_hash, at, pg_current_xact_id()::text::bigint);
  UPDATE audit.head SET seq = h.seq + 1, hash = new_hash;
  RETURN NULL;
END $body$;

CREATE OR REPLACE FUNCTION audit.deny() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
  -- Only audit.erase_notes() sets this, and only the owner may delete at all: for the portal's role it opens nothing.
  IF TG_OP = 'DELETE' AND TG_TABLE_NAME ~ '^note(_[0-9]{4}_[0-9]{2})?$' AND current_user = 'commons_audit'
     AND current_setting('commons.erasing_notes', true) = 'on' THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'audit rows are never changed or removed (% on %)', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END $body$;

CREATE FUNCTION audit.floor_months() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
  SELECT coalesce(max(months), 0)
    FROM (SELECT DISTINCT ON (regime) months FROM audit.floor ORDER BY regime, id DESC) AS present
$body$;

CREATE FUNCTION audit.allow_release() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
  IF NOT EXISTS (SELECT FROM audit.event e WHERE e.object_id = NEW.hold_id AND e.action = 'audit.hold.released'
                    AND e.actor_type = 'person') THEN
    RAISE EXCEPTION 'no event says who released the hold %', NEW.hold_id USING ERRCODE = 'insufficient_privilege';
  END IF;
  NEW.released_at := now();
  RETURN NEW;
END $body$;

-- Why a month may not be purged, or ''. One place for the page, which asks before, and for the purge itself.
CREATE FUNCTION audit.purge_obstacle(month date, proposal uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' AS $body$
DECLARE
  starts timestamptz := date_trunc('month', month::timestamp);
  ends timestamptz := date_trunc('month', month::timestamp) + interval '1 month';
  said text := to_char(date_trunc('month', month::timestamp), 'YYYY-MM');
  last bigint;
  held text;
BEGIN
  IF to_regclass('audit.event' || to_char(starts, '_YYYY_MM')) IS NULL THEN
    RETURN 'there are no events of ' || said;
  END IF;
  IF EXISTS (SELECT FROM audit.purge p WHERE p.month = starts::date) THEN
    RETURN said || ' was purged already';
  END IF;
  IF ends + make_interval(months => audit.floor_months()) > now() THEN
    RETURN said || ' is younger than ' || audit.floor_months() || ' months';
  END IF;
  SELECT max(l.seq) INTO last FROM audit.link l WHERE l.occurred_at >= starts AND l.occurred_at < ends;
  IF last IS NULL THEN
    RETURN 'there are no events of ' || said;
  END IF;
  IF NOT EXISTS (SELECT FROM public.audit_checkpoint c WHERE c.seq >= last) THEN
    RETURN 'no checkpoint covers ' || said || ' up to its last event';
  END IF;
  SELECT h.matter INTO held FROM audit.hold h
   WHERE NOT EXISTS (SELECT FROM audit.hold_release r WHERE r.hold_id = h.id)
     AND (h.since IS NULL OR h.since < ends) AND (h.until IS NULL OR h.until > starts)
     AND EXISTS (SELECT FROM audit.event e
                  WHERE e.occurred_at >= greatest(starts, coalesce(h.since, starts))
                    AND e.occurred_at < least(ends, coalesce(h.until, ends))
                    AND (h.actor_id = '' OR h.actor_id IN (e.actor_id, e.on_behalf_of))
                    AND (h.object_id IS NULL OR h.object_id = e.object_id))
   ORDER BY h.placed_at LIMIT 1;
  IF held IS NOT NULL THEN
    RETURN said || ' is under legal hold: ' || held;
  END IF;
  IF proposal IS NOT NULL AND NOT EXISTS (
       SELECT FROM audit.event p JOIN audit.event a ON a.object_id = p.object_id
        WHERE p.object_id = proposal AND p.action = 'audit.retention.proposed' AND a.action = 'audit.retention.approved'
          AND p.actor_type = 'person' AND a.actor_type = 'person' AND a.actor_id <> p.actor_id
          AND p.on_behalf_of = '' AND a.on_behalf_of = ''
          AND convert_from(p.canonical, 'UTF8')::json -> 'changes' ->> 'month' = said
          AND convert_from(a.canonical, 'UTF8')::json -> 'changes' ->> 'month' = said) THEN
    RETURN 'two persons have not approved of purging ' || said;
  END IF;
  RETURN '';
END $body$;

CREATE FUNCTION audit.purge_month(month date, proposal uuid)
RETURNS TABLE (events bigint, first_seq bigint, last_seq bigint, leaves bytea, end_hash bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' SET lock_timeout = '10s'
AS $body$
DECLARE
  starts date := date_trunc('month', month)::date;
  ends date := (date_trunc('month', month) + interval '1 month')::date;
  suffix text := to_char(date_trunc('month', month), '_YYYY_MM');
  obstacle text;
  parent text;
BEGIN
  IF proposal IS NULL THEN
    RAISE EXCEPTION 'a purge needs its proposal' USING ERRCODE = 'insufficient_privilege';
  END IF;
  -- One purge at a time, and no hold is placed meanwhile.
  LOCK TABLE audit.hold IN SHARE MODE;
  obstacle := audit.purge_obstacle(month, proposal);
  IF obstacle <> '' THEN
    RAISE EXCEPTION '%', obstacle USING ERRCODE = 'insufficient_privilege';
  END IF;
  SELECT count(*), min(l.seq), max(l.seq), sha256(string_agg(l.leaf, ''::bytea ORDER BY l.seq))
    INTO events, first_seq, last_seq, leaves
    FROM audit.link l WHERE l.occurred_at >= starts AND l.occurred_at < ends;
  IF events <> (SELECT count(*) FROM audit.event e WHERE e.occurred_at >= starts AND e.occurred_at < ends) THEN
    RAISE EXCEPTION 'events and links of % do not agree: verify the trail first', suffix USING ERRCODE = 'data_corrupted';
  END IF;
  SELECT l.hash INTO end_hash FROM audit.link l WHERE l.seq = purge_month.last_seq;
  FOREACH parent IN ARRAY ARRAY['note', 'event'] LOOP
    EXECUTE format('DROP TABLE audit.%I', parent || suffix);
    EXECUTE format('CREATE TABLE audit.%I (LIKE audit.%I INCLUDING ALL)', parent || suffix, parent);
    EXECUTE format('ALTER TABLE audit.%I ATTACH PARTITION audit.%I FOR VALUES FROM (%L) TO (%L)',
                   parent, parent || suffix, starts::text || ' 00:00:00+00', ends::text || ' 00:00:00+00');
    EXECUTE format('CREATE TRIGGER deny_truncate BEFORE TRUNCATE ON audit.%I'
                   ' FOR EACH STATEMENT EXECUTE FUNCTION audit.deny()', parent || suffix);
  END LOOP;
  INSERT INTO audit.purge (month, proposal, events, first_seq, last_seq, leaves, end_hash)
  VALUES (starts, purge_month.proposal, purge_month.events, purge_month.first_seq, purge_month.last_seq,
          purge_month.leaves, purge_month.end_hash);
  RETURN NEXT;
END $body$;

-- Destroys notes that name a person: those of events about the person, those of what the person did to own tokens and
-- sessions, and those that hold the address or name as a whole value. Only in the transaction that records the erasure.
CREATE FUNCTION audit.erase_notes(person uuid, words text[], own uuid[]) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  held text;
BEGIN
  -- An event without a link is one of this transaction: every other one was sealed at its commit.
  IF NOT EXISTS (SELECT FROM audit.event e WHERE e.object_id = person AND e.action = 'accounts.user.erased'
                    AND e.actor_type = 'person'
                    AND NOT EXISTS (SELECT FROM audit.link l WHERE l.event_id = e.id AND l.occurred_at = e.occurred_at))
  THEN
    RAISE EXCEPTION 'no event of this transaction says who erased %', person USING ERRCODE = 'insufficient_privilege';
  END IF;
  LOCK TABLE audit.hold IN SHARE MODE;
  SELECT h.matter INTO held FROM audit.hold h
   WHERE (h.actor_id = person::text OR h.object_id = person)
     AND NOT EXISTS (SELECT FROM audit.hold_release r WHERE r.hold_id = h.id) LIMIT 1;
  IF held IS NOT NULL THEN
    RAISE EXCEPTION 'the person is under legal hold: %', held USING ERRCODE = 'insufficient_privilege';
  END IF;
  PERFORM set_config('commons.erasing_notes', 'on', true);
  RETURN QUERY
  DELETE FROM audit.note n USING audit.event e
   WHERE e.id = n.event_id AND e.occurred_at = n.occurred_at
     AND (e.object_id = person
          OR (e.object_id = ANY (own) AND e.actor_id = person::text)
          OR EXISTS (SELECT FROM unnest(words) AS w
                      WHERE length(w) > 2 AND position(lower(w) IN lower(convert_from(n.body, 'UTF8'))) > 0))
     -- The words of the erasure itself stay, and so does what another hold keeps.
     AND e.action <> 'accounts.user.erased'
     AND NOT EXISTS (SELECT FROM audit.hold h
                      WHERE NOT EXISTS (SELECT FROM audit.hold_release r WHERE r.hold_id = h.id)
                        AND (h.actor_id = '' OR h.actor_id IN (e.actor_id, e.on_behalf_of))
                        AND (h.object_id IS NULL OR h.object_id = e.object_id)
                        AND (h.since IS NULL OR h.since <= e.occurred_at) AND (h.until IS NULL OR h.until > e.occurred_at))
  RETURNING n.event_id;
  PERFORM set_config('commons.erasing_notes', '', true);
END $body$;

CREATE FUNCTION audit.note_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  changed jsonb := CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
BEGIN
  INSERT INTO audit.change (tbl, row_id, row_uid, op, xid, login, program)
  VALUES (TG_TABLE_NAME, coalesce(changed ->> 'id', ''), coalesce(changed ->> 'uid', ''), TG_OP,
          pg_current_xact_id()::text::bigint, session_user, current_setting('application_name'));
  RETURN NULL;
END $body$;
"""

TRIGGERS = "".join(
    f"""
CREATE TRIGGER deny_change BEFORE UPDATE OR DELETE ON audit.{table} FOR EACH ROW EXECUTE FUNCTION audit.deny();
CREATE TRIGGER deny_truncate BEFORE TRUNCATE ON audit.{table} FOR EACH STATEMENT EXECUTE FUNCTION audit.deny();
"""
    for table in ("floor", "hold", "hold_release", "purge", "change")
)

GRANTS = """
CREATE TRIGGER allow_release BEFORE INSERT ON audit.hold_release FOR EACH ROW EXECUTE FUNCTION audit.allow_release();
REVOKE ALL ON audit.floor, audit.hold, audit.hold_release, audit.purge, audit.change FROM PUBLIC, commons_app;
GRANT SELECT ON audit.floor, audit.hold, audit.hold_release, audit.purge, audit.change TO commons_app;
GRANT INSERT (id, matter, actor_id, object_id, since, until) ON audit.hold TO commons_app;
GRANT INSERT (hold_id) ON audit.hold_release TO commons_app;
REVOKE ALL ON FUNCTION audit.floor_months(), audit.allow_release(), audit.purge_obstacle(date, uuid),
  audit.purge_month(date, uuid), audit.erase_notes(uuid, text[], uuid[]), audit.note_change() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.floor_months(), audit.purge_obstacle(date, uuid), audit.purge_month(date, uuid),
  audit.erase_notes(uuid, text[], uuid[]) TO commons_app;
-- The rooms' migrations, which act as the owner of their tables, hang the trigger there.
GRANT USAGE ON SCHEMA audit TO commons_owner;
GRANT EXECUTE ON FUNCTION audit.note_change() TO commons_owner;
"""

#: As the owner of the portal's tables: the purge looks for a checkpoint.
READ_CHECKPOINTS = """
GRANT SELECT (seq) ON public.audit_checkpoint TO commons_audit;
"""

class Migration(migrations.Migration):
    dependencies = [("audit", "0002_checkpoints")]
    operations = [
        # Not undone: holds and purges are part of the trail.
        migrations.RunSQL(READ_CHECKPOINTS + TAKE_ROLE + TABLES + FUNCTIONS + TRIGGERS + GRANTS + GIVE_ROLE_BACK),
    ]
