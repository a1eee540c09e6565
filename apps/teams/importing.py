"""Import of people, units, teams, memberships and roles: a dry run first, then exactly what it showed, or nothing.

Every row goes through the same action as the change by hand: same permissions, same refusals, same audit and messages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.accounts import actions as accounts
from apps.accounts.models import User
from apps.audit.actions import INSTALLATION
from apps.core import clock
from apps.core.actor import Actor
from apps.core.canonical import canonical_bytes
from apps.core.errors import CommonsError, Conflict, Invalid
from apps.teams import actions, changes, people_events
from apps.teams.changes import Wish
from apps.teams.choices import Role
from apps.teams.gates import person, require
from apps.teams.import_reader import COLUMNS, Line, Unreadable, read
from apps.teams.models import Membership, RoleGrant, Team, Unit

PERMISSIONS: Final = {
    "people": "accounts.user.manage",
    "units": "teams.unit.manage",
    "teams": "teams.unit.manage",
    "memberships": "teams.member.manage",
    "roles": "teams.grant.manage",
}
MADE, CHANGED, SAME, REFUSED = "made", "changed", "unchanged", "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one row does: `status` made, changed, unchanged or refused; `text` says what, or why not."""

    number: int
    status: str
    text: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What a file does; `digest` stands for the file and for exactly these outcomes."""

    kind: str
    outcomes: tuple[Outcome, ...]
    digest: str

    def count(self, status: str) -> int:
        """Return how many rows have this outcome."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def moves(self) -> int:
        """How many rows make or change something."""
        return self.count(MADE) + self.count(CHANGED)

    @property
    def refused(self) -> int:
        """How many rows cannot be taken."""
        return self.count(REFUSED)


def preview(kind: str, text: str, *, actor: Actor) -> Preview:
    """Return what a file would do, changing nothing. Raises NotAllowed, Invalid for an unreadable file."""
    text = _one_line_ending(text)
    with transaction.atomic():
        found = _run(kind, text, actor)
        transaction.set_rollback(True)
    return found


@transaction.atomic
def import_file(kind: str, text: str, digest: str, *, actor: Actor) -> Preview:
    """Do what the preview with this digest showed. Raises NotAllowed, Invalid, Conflict where it would do else.

    All rows or none: a refused row refuses the file.
    """
    text = _one_line_ending(text)
    found = _run(kind, text, actor)
    if found.refused:
        raise Invalid({"": f"{found.refused} rows cannot be taken: correct them, then nothing is half done."})
    if found.digest != digest:
        raise Conflict("Something has changed since the preview. Look at it again.", current={"digest": found.digest})
    payload = people_events.Imported(
        kind=kind, rows=len(found.outcomes), made=found.moves, digest=hashlib.sha256(text.encode()).hexdigest()
    )
    audit.record(people_events.IMPORTED, payload, actor=actor, subject_type="teams.import", subject_uid=INSTALLATION)
    return found


def _one_line_ending(text: str) -> str:
    """Return the text with `\\n` alone: a browser sends a form's line ends as `\\r\\n`, whatever the file has."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _run(kind: str, text: str, actor: Actor) -> Preview:
    if kind not in COLUMNS:
        raise Invalid({"kind": f"Choose one of {', '.join(COLUMNS)}."})
    require(person(actor), actor, PERMISSIONS[kind], None)
    try:
        lines = read(kind, text)
    except Unreadable as problem:
        raise Invalid({"file": str(problem)}) from problem
    outcomes = tuple(_outcome(_DOERS[kind], line, actor) for line in lines)
    seen = [[one.number, one.status, one.text] for one in outcomes]
    digest = hashlib.sha256(canonical_bytes({"kind": kind, "text": text, "outcomes": seen})).hexdigest()
    return Preview(kind, outcomes, digest)


def _outcome(do: Callable[[Line, Actor], tuple[str, str]], line: Line, actor: Actor) -> Outcome:
    if line.errors:
        return Outcome(line.number, REFUSED, " ".join(line.errors))
    try:
        # A savepoint: what a refused row wrote goes, and the rows after it can be looked at all the same.
        with transaction.atomic():
            status, text = do(line, actor)
    except Invalid as refusal:
        words = [f"{name}: {' '.join(texts)}" if name else " ".join(texts) for name, texts in refusal.errors.items()]
        return Outcome(line.number, REFUSED, " ".join(words))
    except CommonsError as refusal:
        return Outcome(line.number, REFUSED, refusal.message)
    return Outcome(line.number, status, text)


def _people(line: Line, actor: Actor) -> tuple[str, str]:
    email, name = line.cells["email"], " ".join(line.cells["display_name"].split())
    there = User.objects.filter(email__iexact=email).first()
    if there is not None:
        if there.display_name != name:
            raise Invalid({"display_name": f"The account with this address is called {there.display_name}."})
        return SAME, f"{name} has an account."
    # Nobody would see the initial passwords of a file, and hashing a thousand takes minutes.
    accounts.create_user(email, name, actor=actor, without_password=True)
    return MADE, f"A new account for {name}. It has no password yet."


def _units(line: Line, actor: Actor) -> tuple[str, str]:
    cells = line.cells
    parent = _unit(cells["parent"], "parent") if cells.get("parent") else None
    there = Unit.objects.filter(slug=cells["slug"]).first()
    if there is None:
        actions.create_unit(
            cells["name"], cells["slug"], parent.pk if parent else None, cells.get("cost_centre", ""), actor=actor
        )
        return MADE, f"A new unit {cells['name']}."
    wish = Wish(
        cells["name"],
        cells.get("cost_centre"),
        parent.pk if parent else None,
        "parent" in cells and parent is None,
    )
    return _changed(there, wish, actor)


def _teams(line: Line, actor: Actor) -> tuple[str, str]:
    cells = line.cells
    unit = _unit(cells["unit"], "unit")
    there = Team.objects.filter(slug=cells["slug"]).select_related("unit").first()
    if there is None:
        actions.create_team(cells["name"], cells["slug"], unit.pk, cells["cost_centre"], actor=actor)
        return MADE, f"A new team {cells['name']} in {unit.name}."
    return _changed(there, Wish(cells["name"], cells["cost_centre"], unit.pk), actor)


def _changed(there: Unit | Team, wish: Wish, actor: Actor) -> tuple[str, str]:
    name = there.name
    try:
        ask = changes.change_team if isinstance(there, Team) else changes.change_unit
        ask(there.pk, wish, "Imported from a file", actor=actor)
    except Invalid as refusal:
        if list(refusal.errors) == [""]:
            return SAME, f"{name} is so already."
        raise
    return CHANGED, f"{name} changes."


def _memberships(line: Line, actor: Actor) -> tuple[str, str]:
    user, team = _user(line), _team(line.cells["team"])
    since, until = line.time("since"), line.time("until")
    at = clock.now()
    span = DateTimeTZRange(max(since, at) if since else at, until, "[)") if not until or until > at else None
    covering = Membership.objects.filter(user=user, team=team, valid__contains=span) if span is not None else None
    there = covering.first() if covering is not None else None
    if there is not None and there.valid.upper == until:
        return SAME, f"{user.display_name} is in {team.name}."
    actions.add_member(team.pk, user.pk, since=since, until=until, actor=actor)
    return MADE, f"{user.display_name} joins {team.name}."


def _roles(line: Line, actor: Actor) -> tuple[str, str]:
    cells, user = line.cells, _user(line)
    unit = _unit(cells["unit"], "unit") if cells.get("unit") else None
    team = _team(cells["team"]) if cells.get("team") else None
    start, end = line.time("starts_at"), line.time("expires_at")
    same = RoleGrant.objects.filter(
        user=user, role=cells["role"], unit=unit, team=team, mapping__isnull=True, revoked_at__isnull=True,
        expires_at=end,
    ).first()  # fmt: skip
    if same is not None and (end is None or end > clock.now()) and (start is None or same.starts_at in (None, start)):
        return SAME, f"{user.display_name} has this role."
    actions.grant_role(
        user.pk, cells["role"], unit_id=unit.pk if unit else None, team_id=team.pk if team else None,
        starts_at=start, expires_at=end, reason=cells["reason"], actor=actor,
    )  # fmt: skip
    place = team.name if team else f"{unit.name} and below" if unit else "whole installation"
    return MADE, f"{user.display_name}: {Role(cells['role']).label}, {place}."


def _user(line: Line) -> User:
    found = User.objects.filter(email__iexact=line.cells["email"]).first()
    if found is None:
        raise Invalid({"email": "There is no account with this address: import the people first."})
    return found


def _unit(slug: str, column: str) -> Unit:
    found = Unit.objects.filter(slug=slug, archived_at__isnull=True).first()
    if found is None:
        raise Invalid({column: f"There is no unit {slug[:63]} in use."})
    return found


def _team(slug: str) -> Team:
    found = Team.objects.filter(slug=slug, archived_at__isnull=True).first()
    if found is None:
        raise Invalid({"team": f"There is no team {slug[:63]} in use."})
    return found


_DOERS: Final[dict[str, Callable[[Line, Actor], tuple[str, str]]]] = {
    "people": _people,
    "units": _units,
    "teams": _teams,
    "memberships": _memberships,
    "roles": _roles,
}
__all__ = ["Outcome", "Preview", "import_file", "preview"]
