"""Rows for tests, written directly: quick, and independent of the actions that have tests of their own."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.test import Client
from django.utils.text import slugify

from apps.accounts import sessions
from apps.accounts.models import User
from apps.core import clock
from apps.teams.choices import Role
from apps.teams.models import Membership, RoleGrant, Team, Unit

#: A sign-in that works in every test; hashed once, since the hash is slow on purpose.
PASSWORD = "correct horse battery staple"
_hash: list[str] = []
_numbers = itertools.count(1)


def make_user(email: str | None = None, *, display_name: str = "", password: str | None = None, **extra: Any) -> User:
    """Make a person. With `password=PASSWORD` they can sign in with it; by default only `client_for` signs them in."""
    user = new_user(email, display_name=display_name, password=password, **extra)
    user.save()
    return user


def new_user(email: str | None = None, *, display_name: str = "", password: str | None = None, **extra: Any) -> User:
    """Return a person as `make_user` makes one, not yet saved."""
    from django.contrib.auth.hashers import make_password

    email = email or f"person-{next(_numbers)}@example.com"
    user = User(email=email, display_name=display_name or email.split("@")[0].replace("-", " ").capitalize(), **extra)
    if password == PASSWORD:
        if not _hash:
            _hash.append(make_password(PASSWORD))
        user.password = _hash[0]
    else:
        user.set_password(password)
    return user


def make_unit(name: str, parent: Unit | None = None, **extra: Any) -> Unit:
    """Make a unit below `parent`, with its path."""
    unit = Unit.objects.create(name=name, slug=extra.pop("slug", slugify(name)), parent=parent, **extra)
    unit.path = [*(parent.path if parent else []), unit.pk]
    unit.save(update_fields=["path"])
    return unit


def make_team(name: str, unit: Unit, **extra: Any) -> Team:
    """Make a team in `unit`; the slug follows the name."""
    slug = extra.pop("slug", slugify(name))
    extra.setdefault("cost_centre", f"CC-{slug[:20]}")
    return Team.objects.create(name=name, slug=slug, unit=unit, **extra)


def grant(
    user: User,
    role: str,
    unit: Unit | None = None,
    team: Team | None = None,
    *,
    expires_at: datetime | None = None,
    revoked_at: datetime | None = None,
) -> RoleGrant:
    """Give a role for a team, for a unit and below, or (neither) for the installation."""
    forget_scopes(user)
    return RoleGrant.objects.create(
        user=user, role=role, unit=unit, team=team, expires_at=expires_at, revoked_at=revoked_at
    )


def make_member(user: User, team: Team, *, since: datetime | None = None, until: datetime | None = None) -> Membership:
    """Make the person a member of the team, from a month ago unless `since` is given."""
    forget_scopes(user)
    since = since or clock.now() - timedelta(days=30)
    return Membership.objects.create(user=user, team=team, valid=DateTimeTZRange(since, until, "[)"))


def forget_scopes(user: User) -> None:
    """Drop the rights cached on this user object (a request's user object lives as long as the request)."""
    user.__dict__.pop("_commons_scopes", None)


def client_for(user: User) -> Client:
    """Return a test client with an open session of the person, as if they had just signed in."""
    client = Client()
    store = import_module(settings.SESSION_ENGINE).SessionStore()
    sessions.open_session(user, store, device="Test client")
    store.save()
    client.cookies[settings.SESSION_COOKIE_NAME] = store.session_key
    return client


@dataclass
class Company:
    """Example Group: unit Retail Bank with the teams finance, marketing and research; and one person per role."""

    root: Unit
    unit: Unit
    other_unit: Unit
    finance_team: Team
    marketing_team: Team
    research_team: Team
    lead_finance: User
    lead_marketing: User
    lead_research: User
    member_finance: User
    vp: User
    vp_other: User
    compliance: User
    admin: User
    finance: User
    auditor: User

    @property
    def teams(self) -> dict[str, Team]:
        """The teams by slug."""
        return {team.slug: team for team in (self.finance_team, self.marketing_team, self.research_team)}

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


def make_company() -> Company:
    """Make the sample company of the tests: direct rows, no passwords, a statement for each kind of row.

    Most tests start with it, so it is the one fixture whose speed counts.
    """
    root = Unit(name="Example Group", slug="example-group")
    bank = Unit(name="Retail Bank", slug="retail-bank", parent=root, cost_centre="CC-RETAIL")
    other = Unit(name="Other Unit", slug="other-unit", parent=root)
    with connection.cursor() as cursor:
        # A unit's path holds its own key.
        cursor.execute("SELECT nextval(pg_get_serial_sequence('teams_unit', 'id')) FROM generate_series(1, 3)")
        for unit, (key,) in zip((root, bank, other), cursor.fetchall(), strict=True):
            unit.pk = key
            unit.parent_id = None if unit is root else root.pk
            unit.path = [key] if unit is root else [root.pk, key]
    Unit.objects.bulk_create([root, bank, other])
    slugs = ("finance", "marketing", "research")
    made = [
        Team(name=slug.capitalize(), slug=slug, unit=bank, cost_centre=f"CC-{slug}", colour=number)
        for number, slug in enumerate(slugs)
    ]
    teams = dict(zip(slugs, Team.objects.bulk_create(made), strict=True))
    names = (
        "lead_finance", "lead_marketing", "lead_research", "member_finance", "vp", "vp_other", "compliance", "admin",
        "finance", "auditor",
    )  # fmt: skip
    people = {name: new_user(f"{name.replace('_', '-')}@example.com") for name in names}
    User.objects.bulk_create(people.values())
    since = clock.now() - timedelta(days=30)
    belongs = [(people[f"lead_{slug}"], team) for slug, team in teams.items()]
    belongs.append((people["member_finance"], teams["finance"]))
    Membership.objects.bulk_create(
        Membership(user=user, team=team, valid=DateTimeTZRange(since, None, "[)")) for user, team in belongs
    )
    RoleGrant.objects.bulk_create(
        [
            *(RoleGrant(user=people[f"lead_{slug}"], role=Role.TEAM_LEAD, team=team) for slug, team in teams.items()),
            RoleGrant(user=people["vp"], role=Role.UNIT_OWNER, unit=bank),
            RoleGrant(user=people["vp_other"], role=Role.UNIT_OWNER, unit=other),
            RoleGrant(user=people["compliance"], role=Role.COMPLIANCE),
            RoleGrant(user=people["admin"], role=Role.PLATFORM_ADMIN),
            RoleGrant(user=people["finance"], role=Role.FINANCE),
            RoleGrant(user=people["auditor"], role=Role.AUDITOR),
        ]
    )
    return Company(
        root=root, unit=bank, other_unit=other,
        finance_team=teams["finance"], marketing_team=teams["marketing"], research_team=teams["research"],
        **people,
    )  # fmt: skip


def unknown_uid() -> uuid.UUID:
    """Return a uid that no row has."""
    return uuid.uuid4()
