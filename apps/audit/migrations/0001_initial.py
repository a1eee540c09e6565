"""Schema `audit`: events, their chain, their side notes; insert-only, in month partitions (design §6, governance D3).

Everything here belongs to `commons_audit`, which nobody logs in as: the migration takes that role on for its statements
and returns to the role it came with. The portal's role may insert events and notes and read; nothing else.

Formats (the verifier recomputes them):
    leaf = SHA-256(0x00 ‖ canonical)                     canonical: RFC 8785 bytes of the event
    hash = SHA-256(0x02 ‖ previous hash ‖ int64 seq ‖ leaf ‖ int64 sealed_at in microseconds since 1970)
0x00 and 0x01 stay the leaf and node tags of RFC 6962. Integers are big-endian. The chain starts from 32 zero bytes.
"""

from django.db import migrations, models

TAKE_ROLE = """
SELECT set_config('commons.came_as', current_user, true);
SELECT set_config('role', 'commons_audit', true);
"""
GIVE_ROLE_BACK = """
SELECT set_config('role', current_setting('commons.came_as'), true);
"""

TABLES = """
CREATE TABLE audit.event (
  id uuid NOT NULL,
  occurred_at timestamptz NOT NULL,
  actor_type text NOT NULL CHECK (actor_type IN ('person', 'system', 'anonymous')),
  actor_id text NOT NULL,
  on_behalf_of text NOT NULL,
  channel text NOT NULL,
  action text NOT NULL,
  object_type text NOT NULL,
  object_id uuid NOT NULL,
  team_id uuid,
  request_id text NOT NULL,
  canonical bytea NOT NULL,
  leaf bytea NOT NULL GENERATED ALWAYS AS (sha256('\\x00'::bytea || canonical)) STORED,
  PRIMARY KEY (id, occurred_at),
  -- The searchable columns say what the hashed bytes say; the verifier checks it again.
  CONSTRAINT event_columns_agree CHECK (
    convert_from(canonical, 'UTF8')::json ->> 'id' = id::text
    AND convert_from(canonical, 'UTF8')::json ->> 'at'
        = to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    AND convert_from(canonical, 'UTF8')::json ->> 'action' = action
    AND convert_from(canonical, 'UTF8')::json -> 'actor' ->> 'id' = actor_id
    AND convert_from(canonical, 'UTF8')::json -> 'actor' ->> 'type' = actor_type
    AND convert_from(canonical, 'UTF8')::json -> 'actor' ->> 'on_behalf_of' = on_behalf_of
    AND convert_from(canonical, 'UTF8')::json -> 'actor' ->> 'channel' = channel
    AND convert_from(canonical, 'UTF8')::json -> 'object' ->> 'type' = object_type
    AND convert_from(canonical, 'UTF8')::json -> 'object' ->> 'id' = object_id::text
    AND convert_from(canonical, 'UTF8')::json ->> 'team' = coalesce(team_id::text, '')
    AND convert_from(canonical, 'UTF8')::json ->> 'request_id' = request_id)
) PARTITION BY RANGE (occurred_at);
CREATE INDEX event_time ON audit.event (occurred_at DESC, id DESC);
CREATE INDEX event_actor ON audit.event (actor_id, occurred_at DESC);
CREATE INDEX event_action ON audit.event (action, occurred_at DESC);
CREATE INDEX event_object ON audit.event (object_id, occurred_at DESC);
CREATE INDEX event_team ON audit.event (team_id, occurred_at DESC);

CREATE TABLE audit.note (
  event_id uuid NOT NULL,
  occurred_at timestamptz NOT NULL,
  salt bytea NOT NULL CHECK (length(salt) = 32),
  body bytea NOT NULL,
  PRIMARY KEY (event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE audit.link (
  seq bigint NOT NULL,
  event_id uuid NOT NULL,
  occurred_at timestamptz NOT NULL,
  leaf bytea NOT NULL,
  prev bytea NOT NULL,
  hash bytea NOT NULL,
  sealed_at timestamptz NOT NULL,
  PRIMARY KEY (seq, occurred_at),
  UNIQUE (event_id, occurred_at)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE audit.head (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  seq bigint NOT NULL,
  hash bytea NOT NULL
);
INSERT INTO audit.head (seq, hash) VALUES (0, decode(repeat('00', 32), 'hex'));
"""

FUNCTIONS = """
CREATE FUNCTION audit.seal() RETURNS trigger
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
  INSERT INTO audit.link (seq, event_id, occurred_at, leaf, prev, hash, sealed_at)
  VALUES (h.seq + 1, NEW.id, NEW.occurred_at, NEW.leaf, h.hash, new_hash, at);
  UPDATE audit.head SET seq = h.seq + 1, hash = new_hash;
  RETURN NULL;
END $body$;

CREATE FUNCTION audit.deny() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
  RAISE EXCEPTION 'audit rows are never changed or removed (% on %)', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END $body$;

CREATE FUNCTION audit.ensure_month(month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' AS $body$
DECLARE
  starts date := date_trunc('month', month)::date;
  ends date := (date_trunc('month', month) + interval '1 month')::date;
  suffix text := to_char(date_trunc('month', month), '_YYYY_MM');
  parent text;
BEGIN
  IF month NOT BETWEEN date '2000-01-01' AND date '2199-12-31' THEN
    RAISE EXCEPTION 'no partition for %: the year is out of range', month USING ERRCODE = 'datetime_field_overflow';
  END IF;
  IF to_regclass('audit.event' || suffix) IS NOT NULL THEN
    RETURN false;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtext('audit.ensure_month'), hashtext(suffix));
  IF to_regclass('audit.event' || suffix) IS NOT NULL THEN
    RETURN false;
  END IF;
  FOREACH parent IN ARRAY ARRAY['note', 'link', 'event'] LOOP
    EXECUTE format('CREATE TABLE audit.%I (LIKE audit.%I INCLUDING ALL)', parent || suffix, parent);
    EXECUTE format('ALTER TABLE audit.%I ATTACH PARTITION audit.%I FOR VALUES FROM (%L) TO (%L)',
                   parent, parent || suffix, starts::text || ' 00:00:00+00', ends::text || ' 00:00:00+00');
    -- Row triggers are taken over from the parent; statement triggers are not.
    EXECUTE format('CREATE TRIGGER deny_truncate BEFORE TRUNCATE ON audit.%I'
                   ' FOR EACH STATEMENT EXECUTE FUNCTION audit.deny()', parent || suffix);
  END LOOP;
  RETURN true;
END $body$;
"""

TRIGGERS = """
CREATE CONSTRAINT TRIGGER seal AFTER INSERT ON audit.event DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION audit.seal();
CREATE TRIGGER deny_change BEFORE UPDATE OR DELETE ON audit.event FOR EACH ROW EXECUTE FUNCTION audit.deny();
CREATE TRIGGER deny_change BEFORE UPDATE OR DELETE ON audit.note FOR EACH ROW EXECUTE FUNCTION audit.deny();
CREATE TRIGGER deny_change BEFORE UPDATE OR DELETE ON audit.link FOR EACH ROW EXECUTE FUNCTION audit.deny();
CREATE TRIGGER deny_truncate BEFORE TRUNCATE ON audit.event FOR EACH STATEMENT EXECUTE FUNCTION audit.deny();
CREATE TRIGGER deny_truncate BEFORE TRUNCATE ON audit.note FOR EACH STATEMENT EXECUTE FUNCTION audit.deny();
CREATE TRIGGER deny_truncate BEFORE TRUNCATE ON audit.link FOR EACH STATEMENT EXECUTE FUNCTION audit.deny();
CREATE TRIGGER deny_change BEFORE DELETE ON audit.head FOR EACH ROW EXECUTE FUNCTION audit.deny();
CREATE TRIGGER deny_truncate BEFORE TRUNCATE ON audit.head FOR EACH STATEMENT EXECUTE FUNCTION audit.deny();
"""

GRANTS = """
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA audit FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA audit FROM PUBLIC, commons_app;
GRANT SELECT ON audit.event, audit.note, audit.link, audit.head TO commons_app;
GRANT INSERT (id, occurred_at, actor_type, actor_id, on_behalf_of, channel, action, object_type, object_id, team_id,
              request_id, canonical) ON audit.event TO commons_app;
GRANT INSERT ON audit.note TO commons_app;
GRANT EXECUTE ON FUNCTION audit.ensure_month(date) TO commons_app;
"""

FIRST_MONTHS = """
SELECT audit.ensure_month((date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n))::date)
  FROM generate_series(0, 3) AS n;
"""

REMOVE = """
DO $do$ BEGIN
  IF (SELECT seq FROM audit.head) > 0 THEN
    RAISE EXCEPTION 'the audit trail holds events: it is not removed by undoing a migration';
  END IF;
END $do$;
DROP TABLE audit.event, audit.note, audit.link, audit.head;
DROP FUNCTION audit.seal(), audit.deny(), audit.ensure_month(date);
"""


class Migration(migrations.Migration):
    initial = True
    dependencies = [("core", "0002_month_partitions")]
    operations = [
        migrations.RunSQL(
            TAKE_ROLE + TABLES + FUNCTIONS + TRIGGERS + GRANTS + FIRST_MONTHS + GIVE_ROLE_BACK,
            TAKE_ROLE + REMOVE + GIVE_ROLE_BACK,
        ),
        migrations.CreateModel(
            name="AuditEvent",
            fields=[
                ("uid", models.UUIDField(db_column="id", primary_key=True, serialize=False)),
                ("occurred_at", models.DateTimeField()),
                ("actor_type", models.TextField()),
                ("actor_id", models.TextField()),
                ("on_behalf_of", models.TextField()),
                ("channel", models.TextField()),
                ("action", models.TextField()),
                ("object_type", models.TextField()),
                ("object_id", models.UUIDField()),
                ("team_uid", models.UUIDField(db_column="team_id", null=True)),
                ("request_id", models.TextField()),
                ("canonical", models.BinaryField()),
            ],
            options={"managed": False, "db_table": '"audit"."event"'},
        ),
        migrations.CreateModel(
            name="AuditNote",
            fields=[
                ("event_uid", models.UUIDField(db_column="event_id", primary_key=True, serialize=False)),
                ("occurred_at", models.DateTimeField()),
                ("salt", models.BinaryField()),
                ("body", models.BinaryField()),
            ],
            options={"managed": False, "db_table": '"audit"."note"'},
        ),
        migrations.CreateModel(
            name="AuditLink",
            fields=[
                ("seq", models.BigIntegerField(primary_key=True, serialize=False)),
                ("event_uid", models.UUIDField(db_column="event_id")),
                ("occurred_at", models.DateTimeField()),
                ("leaf", models.BinaryField()),
                ("prev", models.BinaryField()),
                ("hash", models.BinaryField()),
                ("sealed_at", models.DateTimeField()),
            ],
            options={"managed": False, "db_table": '"audit"."link"'},
        ),
        migrations.CreateModel(
            name="AuditHead",
            fields=[
                ("one", models.BooleanField(primary_key=True, serialize=False)),
                ("seq", models.BigIntegerField()),
                ("hash", models.BinaryField()),
            ],
            options={"managed": False, "db_table": '"audit"."head"'},
        ),
    ]
