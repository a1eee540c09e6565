"""The end of the chain is found by an index: a scan read every version of the row that a long transaction still keeps.

While a month is closed or a copy is taken, nothing that was overwritten since can be cleared away, and each commit read
all of it (after 2,000 commits: more than one millisecond each, under the lock). The newest version stands last in an
index over `seq`; a key over `one` would have to look at all of them, so that another row is now refused by a trigger.
"""

from django.db import migrations

TAKE_ROLE = """
SELECT set_config('commons.came_as', current_user, true);
SELECT set_config('role', 'commons_audit', true);
"""
GIVE_ROLE_BACK = """
SELECT set_config('role', current_setting('commons.came_as'), true);
"""
#: Written anew with the key, so that no version from before keeps the index from being used at once.
TABLE = """
ALTER TABLE audit.head DROP CONSTRAINT head_pkey, ALTER COLUMN seq TYPE bigint USING seq + 0, ADD PRIMARY KEY (seq);
CREATE TRIGGER deny_insert BEFORE INSERT ON audit.head FOR EACH ROW EXECUTE FUNCTION audit.deny();
"""
FUNCTIONS = """
CREATE OR REPLACE FUNCTION audit.seal() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $body$
DECLARE
  h audit.head%ROWTYPE;
  at timestamptz;
  new_hash bytea;
BEGIN
  -- Waits for the one writer before us, at the very end of the transaction: no fork, no gap, commit order.
  SELECT * INTO STRICT h FROM audit.head ORDER BY seq DESC LIMIT 1 FOR UPDATE;
  at := clock_timestamp();
  new_hash := sha256('\\x02'::bytea || h.hash || int8send(h.seq + 1) || NEW.leaf
                     || int8send((extract(epoch FROM at) * 1000000)::bigint));
  INSERT INTO audit.link (seq, event_id, occurred_at, leaf, prev, hash, sealed_at, xid)
  VALUES (h.seq + 1, NEW.id, NEW.occurred_at, NEW.leaf, h.hash, new_hash, at, pg_current_xact_id()::text::bigint);
  UPDATE audit.head SET seq = h.seq + 1, hash = new_hash WHERE seq = h.seq;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the end of the audit trail moved while it was locked' USING ERRCODE = 'serialization_failure';
  END IF;
  RETURN NULL;
END $body$;
"""


class Migration(migrations.Migration):
    dependencies = [("audit", "0009_purge_changes")]
    operations = [migrations.RunSQL(TAKE_ROLE + TABLE + FUNCTIONS + GIVE_ROLE_BACK)]
