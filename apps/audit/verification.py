"""Reading the trail from the database for `chain.verify`, and what surrounds the chain: head, orphans, guards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from django.db import connections, transaction

from apps.audit import chain, watching
from apps.audit.canonical import ZERO_HASH
from apps.audit.checkpoint_format import Checkpoint
from apps.audit.merkle import Frontier
from apps.core import signing
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
       to_char(l.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM'),
       {", ".join(f"e.{name}::text" for name in _COLUMNS)}
  FROM audit.link l
  LEFT JOIN audit.event e ON e.id = l.event_id AND e.occurred_at = l.occurred_at
  LEFT JOIN audit.note n ON n.event_id = l.event_id AND n.occurred_at = l.occurred_at
 WHERE l.seq > %s
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
    checkpoints: int = 0
    checkpoint_seq: int | None = None
    #: Months whose events were purged by two persons' decision, as far as the walk met them.
    purged: list[str] = field(default_factory=list)

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


def verify_trail(
    checkpoints: Sequence[Checkpoint] = (),
    *,
    keys: Mapping[str, bytes] | None = None,
    from_checkpoint: bool = False,
    using: str = "default",
) -> Report:
    """Verify the whole trail as one state of the database, in constant memory.

    Compares every link with the one before it, every event's bytes with their sealed leaf, columns with bytes, notes
    with their commitments, the head with the last link; looks for events and notes outside the chain, and for missing
    guards. Events purged and notes erased are accepted where the trail itself says of exactly these that they were.
    By itself it cannot see a tail that was cut off together with the head, nor a chain rewritten as a whole:
    `checkpoints`, kept outside the database and signed by one of `keys` (default: those known here), show both.
    `from_checkpoint` begins behind the newest good one; `using` names another database, a restored copy.
    Raises django.db.Error where the trail cannot be read.
    """
    report = Report()
    state, frontier = chain.ChainState(), Frontier()
    with transaction.atomic(using=using):
        one_state(using)
        trusted = _trusted(report, checkpoints, keys)
        if from_checkpoint and trusted:
            last = max(trusted)
            state.seq, state.hash = last, trusted[last].hash
            _compare_stored(report, trusted[last], using)
            trusted = {}
            report.checkpoints, report.checkpoint_seq = 1, last
        compare = _Comparison(report, trusted, frontier, whole=not from_checkpoint or report.checkpoint_seq is None)
        for finding in chain.verify(compare.records(records_after(state.seq, using)), state):
            report.add(finding)
        for finding in chain.settle(state):
            report.add(finding)
        report.links, report.purged = state.links, sorted(state.purged)
        _check_head(report, state, using)
        compare.rest(state.seq)
        _check_strays(report, using)
        _check_guards(report, using)
    return report


def one_state(using: str = "default") -> None:
    """Make the caller's transaction see one state of the database from here on."""
    if not _inside_test(using):
        with connections[using].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _inside_test(using: str) -> bool:
    """Whether an outer transaction has read already: its isolation level cannot be changed any more."""
    return len(connections[using].savepoint_ids) > 0


def _trusted(
    report: Report, checkpoints: Sequence[Checkpoint], keys: Mapping[str, bytes] | None
) -> dict[int, Checkpoint]:
    """Return the checkpoints whose signature counts, by link; what is wrong with the others becomes a finding."""
    known = signing.public_keys() if keys is None else keys
    trusted: dict[int, Checkpoint] = {}
    digests = {one.digest for one in checkpoints}
    for one in checkpoints:
        if one.key_id not in known:
            report.weaknesses.append(f"checkpoint {one.seq} is signed by the key {one.key_id}, which is not known here")
        elif not one.signed_by(known):
            report.add(chain.Finding("checkpoint", one.seq, "", f"the signature of checkpoint {one.seq} is forged"))
        elif one.seq in trusted and trusted[one.seq].hash != one.hash:
            report.add(chain.Finding("checkpoint", one.seq, "", f"two checkpoints of link {one.seq} contradict"))
        else:
            trusted[one.seq] = one
    for at, one in enumerate(sorted(checkpoints, key=lambda each: each.seq)):
        if at and one.prev not in digests:
            report.weaknesses.append(f"the checkpoint before {one.seq} is not among the copies")
    return trusted


def _compare_stored(report: Report, checkpoint: Checkpoint, using: str) -> None:
    stood = link_hash_at(checkpoint.seq, using)
    if stood != checkpoint.hash:
        said = "is gone" if stood is None else "is not the one that was signed"
        report.add(chain.Finding("checkpoint", checkpoint.seq, "", f"link {checkpoint.seq} {said}"))


@dataclass(slots=True)
class _Comparison:
    """Holds what passes against the checkpoints on its way to the walk."""

    report: Report
    trusted: dict[int, Checkpoint]
    frontier: Frontier
    whole: bool

    def records(self, passing: Iterator[chain.Record]) -> Iterator[chain.Record]:
        first = True
        for one in passing:
            if self.whole and self.trusted:
                self.frontier.append(one.leaf)
            if first and self.whole and (wrong := [c for c in self.trusted.values() if c.log != one.hash.hex()]):
                self._find(wrong[0].seq, "the checkpoints are of another trail, or its first link was replaced")
            first = False
            if (expected := self.trusted.pop(one.seq, None)) is not None:
                self._compare(expected, one)
            yield one

    def _compare(self, expected: Checkpoint, one: chain.Record) -> None:
        self.report.checkpoints += 1
        self.report.checkpoint_seq = max(self.report.checkpoint_seq or 0, expected.seq)
        if one.hash != expected.hash:
            self._find(expected.seq, f"link {expected.seq} is not the one that was signed: the chain was rewritten")
        elif self.frontier.size == expected.seq and self.frontier.root() != expected.merkle_root:
            self._find(expected.seq, f"the events up to link {expected.seq} are not those that were signed")

    def rest(self, end: int) -> None:
        """Complain of checkpoints beyond the end: what they covered has been cut off."""
        for seq in sorted(self.trusted):
            self.report.checkpoints += 1
            self._find(seq, f"link {seq} was signed, but the trail ends at {end}: its end was cut off")

    def _find(self, seq: int, text: str) -> None:
        self.report.add(chain.Finding("checkpoint", seq, "", text))


def link_hash_at(seq: int, using: str = "default") -> bytes | None:
    """Return the stored hash of a link, None where there is no such link."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT hash FROM audit.link WHERE seq = %s", [seq])
        row = cursor.fetchone()
    return bytes(row[0]) if row else None


def records_after(seq: int, using: str = "default") -> Iterator[chain.Record]:
    """Yield the links after `seq` with their events and notes, in order, in constant memory."""
    with connections[using].chunked_cursor() as cursor:
        cursor.execute(_SELECT, [seq])
        while rows := cursor.fetchmany(_BATCH):
            for row in rows:
                (
                    seq,
                    event_id,
                    leaf,
                    prev,
                    link_hash,
                    sealed_at_us,
                    canonical,
                    stored_leaf,
                    salt,
                    body,
                    at,
                    month,
                    *rest,
                ) = row
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
                    month=month,
                )


def _check_head(report: Report, state: chain.ChainState, using: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT seq, hash FROM audit.head")
        rows = cursor.fetchall()
    if len(rows) != 1:
        report.add(chain.Finding("head", 0, "", f"the chain has {len(rows)} heads instead of one"))
        return
    seq, head_hash = rows[0][0], bytes(rows[0][1])
    report.head_seq, report.head_hash = seq, head_hash.hex()
    if (seq, head_hash) != (state.seq, state.hash if state.seq else ZERO_HASH):
        report.add(chain.Finding("head", seq, "", f"the head says {seq}, the chain ends at {state.seq}"))


def _check_strays(report: Report, using: str) -> None:
    queries = {
        "was never sealed": "SELECT e.id::text FROM audit.event e WHERE NOT EXISTS (SELECT FROM audit.link l"
        " WHERE l.event_id = e.id AND l.occurred_at = e.occurred_at) ORDER BY e.occurred_at, e.id",
        "has a note but does not exist": "SELECT n.event_id::text FROM audit.note n WHERE NOT EXISTS (SELECT"
        " FROM audit.event e WHERE e.id = n.event_id AND e.occurred_at = n.occurred_at) ORDER BY 1",
    }
    for text, query in queries.items():
        with connections[using].chunked_cursor() as cursor:
            cursor.execute(query)
            while rows := cursor.fetchmany(_BATCH):
                for (event_id,) in rows:
                    report.add(chain.Finding("stray", 0, event_id, f"event {event_id} {text}"))


def _unwatched(using: str) -> list[str]:
    """A restored copy holds the trail alone: nothing is watched there."""
    return watching.unwatched(using) if using == "default" else []


def _check_guards(report: Report, using: str) -> None:
    """Name every table of the trail that lacks its triggers or lets the portal's role do more than it should."""
    with connections[using].cursor() as cursor:
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
        report.weaknesses += [f"changes of {table} are not noted any more" for table in _unwatched(using)]
        report.weaknesses += [
            f"{APP_ROLE} holds {privilege} on audit.{table}" for table, privilege in cursor.fetchall()
        ]
