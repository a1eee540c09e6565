"""Reading the trail from the database for `chain.verify`, and what surrounds the chain: head, orphans, guards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from django.db import connection, transaction

from apps.audit import chain
from apps.audit.canonical import ZERO_HASH
from apps.core.bootstrap import APP_ROLE

_BATCH = 2000
#: Findings kept in full; the rest are counted, and the report says so.
KEPT_FINDINGS = 200

_COLUMNS = (
    "id", "actor_type", "actor_id", "on_behalf_of", "channel", "action", "object_type", "object_id", "team_id",
    "request_id",
)  # fmt: skip
_SELECT = f"""
SELECT l.seq, l.event_id::text, l.leaf, l.prev, l.hash, (extract(epoch FROM l.sealed_at) * 1000000)::bigint,
       e.canonical, e.leaf, n.salt, n.body,
       to_char(e.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       {", ".join(f"e.{name}::text" for name in _COLUMNS)}
  FROM audit.link l
  LEFT JOIN audit.event e ON e.id = l.event_id AND e.occurred_at = l.occurred_at
  LEFT JOIN audit.note n ON n.event_id = l.event_id AND n.occurred_at = l.occurred_at
 ORDER BY l.seq
"""  # noqa: S608 (the column names are constants of this module)


class Outcome(IntEnum):
    """The outcome, and the exit code of `audit_verify`."""

    INTACT = 0
    TAMPERED = 1
    INCOMPLETE = 2
    ERROR = 3


@dataclass(slots=True)
class Report:
    """What a verification found. `weaknesses` are missing guards: the chain may be intact, but is not protected."""

    links: int = 0
    head_seq: int = 0
    head_hash: str = ""
    findings: list[chain.Finding] = field(default_factory=list)
    findings_total: int = 0
    weaknesses: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """Tampered before incomplete before intact."""
        if self.findings_total:
            return Outcome.TAMPERED
        return Outcome.INCOMPLETE if self.weaknesses else Outcome.INTACT

    def add(self, finding: chain.Finding) -> None:
        """Count a finding and keep the first ones."""
        self.findings_total += 1
        if len(self.findings) < KEPT_FINDINGS:
            self.findings.append(finding)


def verify_trail() -> Report:
    """Verify the whole trail as one state of the database, in constant memory.

    Compares every link with the one before it, every event's bytes with their sealed leaf, columns with bytes, notes
    with their commitments, the head with the last link; looks for events and notes outside the chain, and for missing
    guards. It cannot see a tail that was cut off together with the head, nor a chain rewritten as a whole: for that,
    checkpoints have to be kept outside the database. Raises django.db.Error where the trail cannot be read.
    """
    report = Report()
    state = chain.ChainState()
    with transaction.atomic():
        if not _inside_test():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for finding in chain.verify(_records(), state):
            report.add(finding)
        report.links = state.links
        _check_head(report, state)
        _check_strays(report)
        _check_guards(report)
    return report


def _inside_test() -> bool:
    """Whether an outer transaction has read already: its isolation level cannot be changed any more."""
    return len(connection.savepoint_ids) > 0


def _records() -> Iterator[chain.Record]:
    with connection.chunked_cursor() as cursor:
        cursor.execute(_SELECT)
        while rows := cursor.fetchmany(_BATCH):
            for row in rows:
                seq, event_id, leaf, prev, link_hash, sealed_at_us, canonical, stored_leaf, salt, body, at, *rest = row
                columns = {name: value or "" for name, value in zip(_COLUMNS, rest, strict=True)}
                yield chain.Record(
                    seq=seq,
                    event_id=event_id,
                    leaf=bytes(leaf),
                    prev=bytes(prev),
                    hash=bytes(link_hash),
                    sealed_at_us=sealed_at_us,
                    canonical=None if canonical is None else bytes(canonical),
                    stored_leaf=None if stored_leaf is None else bytes(stored_leaf),
                    columns={**columns, "occurred_at": at or ""},
                    note=None if salt is None else (bytes(salt), bytes(body)),
                )


def _check_head(report: Report, state: chain.ChainState) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT seq, hash FROM audit.head")
        rows = cursor.fetchall()
    if len(rows) != 1:
        report.add(chain.Finding("head", 0, "", f"the chain has {len(rows)} heads instead of one"))
        return
    seq, head_hash = rows[0][0], bytes(rows[0][1])
    report.head_seq, report.head_hash = seq, head_hash.hex()
    if (seq, head_hash) != (state.seq, state.hash if state.links else ZERO_HASH):
        report.add(chain.Finding("head", seq, "", f"the head says {seq}, the chain ends at {state.seq}"))


def _check_strays(report: Report) -> None:
    queries = {
        "was never sealed": "SELECT e.id::text FROM audit.event e WHERE NOT EXISTS (SELECT FROM audit.link l"
        " WHERE l.event_id = e.id AND l.occurred_at = e.occurred_at) ORDER BY e.occurred_at, e.id",
        "has a note but does not exist": "SELECT n.event_id::text FROM audit.note n WHERE NOT EXISTS (SELECT"
        " FROM audit.event e WHERE e.id = n.event_id AND e.occurred_at = n.occurred_at) ORDER BY 1",
    }
    for text, query in queries.items():
        with connection.chunked_cursor() as cursor:
            cursor.execute(query)
            while rows := cursor.fetchmany(_BATCH):
                for (event_id,) in rows:
                    report.add(chain.Finding("stray", 0, event_id, f"event {event_id} {text}"))


def _check_guards(report: Report) -> None:
    """Name every table of the trail that lacks its triggers or lets the portal's role do more than it should."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname, coalesce(array_agg(t.tgname::text) FILTER (WHERE t.tgenabled IN ('O', 'A')), '{}')"
            "  FROM pg_class c LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal"
            " WHERE c.relnamespace = 'audit'::regnamespace AND c.relkind IN ('r', 'p') GROUP BY c.relname ORDER BY 1"
        )
        for table, triggers in cursor.fetchall():
            needed = {"deny_change", "deny_truncate"} | ({"seal"} if table.startswith("event") else set())
            if missing := sorted(needed - set(triggers)):
                report.weaknesses.append(f"audit.{table} has lost its trigger {', '.join(missing)}")
        cursor.execute(
            "SELECT c.relname, p FROM pg_class c, unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) AS p"
            " WHERE c.relnamespace = 'audit'::regnamespace AND c.relkind IN ('r', 'p')"
            "   AND has_table_privilege(%s, c.oid, p) ORDER BY 1, 2",
            [APP_ROLE],
        )
        report.weaknesses += [
            f"{APP_ROLE} holds {privilege} on audit.{table}" for table, privilege in cursor.fetchall()
        ]
