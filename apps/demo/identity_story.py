"""Who may see and do what in the sample company: a directory, roles with dates, a program, a review, a legal hold.

All of it is made up, and says so where people read it. Nobody of it signs in: the provider stays off, the directory's
people have no password, and what is secret is forgotten as soon as it is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import pyotp

from apps.accounts import actions as accounts
from apps.accounts import factor_actions, factors, openid_providers, scim_groups, scim_tokens, scim_users
from apps.accounts.models import ApiToken, DirectoryGroup, ExternalIdentity, IdentityProvider, SecondFactor, User
from apps.audit import keeping
from apps.audit.keeping_models import Hold
from apps.core import clock
from apps.core.actor import Actor, Channel
from apps.demo import company
from apps.demo.seed import SEEDER, Context, Step
from apps.demo.story import _actor, _person
from apps.metering import billing
from apps.teams import actions as teams
from apps.teams import changes, mapping_actions, reviewing, reviews, service_actions
from apps.teams.choices import ReviewAnswer, ReviewStatus, Role
from apps.teams.models import (
    AccessReview,
    GroupMapping,
    PlannedChange,
    ReviewItem,
    RoleGrant,
    ServiceAccount,
    Team,
    Unit,
)

PROVIDER = "example-identity"
GROUP = "gpu-finance-leads"
SUPPORT = f"support-engineer@{company.MAIL_DOMAIN}"
PROGRAM = "Nightly retraining (sample program)"
SCHEDULER = "Sample scheduler"
REVIEW = "Before the audit (sample)"
MATTER = "Sample matter 1: questions about a statement"
MOVED_UNIT = "sample-lab"
_SAMPLE = "Sample company"
STANDS_IN = f"{_SAMPLE}: stands in for the lead"
READS_ALONG = f"{_SAMPLE}: reads along until the move is done"
#: Only what a scheduler reads before it starts a run.
PROGRAM_MAY = ("quotas.quota.view", "quotas.workspace.view", "teams.team.view")


@dataclass(frozen=True)
class Kept:
    """Somebody whose account the sample directory keeps, named by role; `external_id` is its own name for them."""

    external_id: str
    user_name: str
    display_name: str
    active: bool = True
    in_group: bool = False

    @property
    def email(self) -> str:
        """The address in the directory."""
        return f"{self.user_name}@{company.MAIL_DOMAIN}"


DIRECTORY: tuple[Kept, ...] = (
    Kept("sample-0001", "finance-deputy-lead", "Finance deputy lead (directory)", in_group=True),
    Kept("sample-0002", "finance-planner", "Finance planner (directory)", in_group=True),
    Kept("sample-0003", "finance-analyst", "Finance analyst (directory)"),
    Kept("sample-0004", "marketing-analyst", "Marketing analyst (directory)"),
    Kept("sample-0005", "research-fellow", "Research fellow (directory)"),
    Kept("sample-0006", "former-contractor", "Former contractor (directory)", active=False),
)


def directory(context: Context) -> str:
    """Connect a provider that stays off, let its directory provision people and a group, give the group a role."""
    admin = _actor(context, "admin")
    provider = IdentityProvider.objects.filter(slug=PROVIDER).first()
    if provider is None:
        provider = openid_providers.create_provider(
            "Example Identity", "https://id.example.com", "gpu-commons", factors.new_secret(), slug=PROVIDER,
            mail_domains=[company.MAIL_DOMAIN], actor=admin,
        )  # fmt: skip
    # The mapping comes last: where it was made, everything was, whatever people have done with it since.
    if provider.archived_at is not None or GroupMapping.objects.filter(provider=provider).exists():
        return "as before"
    if not provider.scim_tokens.exists():
        until = clock.now() + timedelta(days=180)
        scim_tokens.create_token(provider.pk, "Directory of the sample company", until, actor=SEEDER)
    scim = Actor.system(f"scim.{provider.slug}", Channel.API)
    made = 0
    for one in DIRECTORY:
        if User.objects.filter(email__iexact=one.email).exists():
            continue
        scim_users.create_user(
            provider.pk,
            {
                "userName": one.user_name, "externalId": one.external_id, "displayName": one.display_name,
                "active": one.active, "emails": [{"value": one.email, "type": "work", "primary": True}],
            },
            actor=scim,
        )  # fmt: skip
        made += 1
    if not DirectoryGroup.objects.filter(provider=provider).exists():
        names = [one.external_id for one in DIRECTORY if one.in_group]
        found = ExternalIdentity.objects.filter(provider=provider, provisioned=True, external_id__in=names)
        members = [{"value": str(uid)} for uid in found.order_by("pk").values_list("uid", flat=True)]
        scim_groups.create_group(provider.pk, {"displayName": GROUP, "members": members}, actor=scim)
    draft = mapping_actions.Draft(provider.pk, GROUP, Role.TEAM_LEAD, team_id=Team.objects.get(slug="finance").pk)
    mapping_actions.create_mapping(draft, actor=SEEDER, reason=f"{_SAMPLE}: the directory says who leads")
    return f"{made} people provisioned; sign-in there stays off"


def program(context: Context) -> str:
    """Make an account of a program, with a token that may read little."""
    lead = _actor(context, "finance-lead")
    account = ServiceAccount.objects.filter(user__display_name=PROGRAM).first()
    if account is None:
        account = service_actions.create_service_account(
            PROGRAM, f"{_SAMPLE}: asks every night what the team holds, before it starts training.", Role.MEMBER,
            team_id=Team.objects.get(slug="finance").pk, actor=lead,
        )  # fmt: skip
    if ApiToken.objects.filter(user=account.user).exists() or account.ended_at is not None:
        return "as before"
    until = clock.now() + timedelta(days=90)
    service_actions.create_service_token(account.pk, SCHEDULER, until, True, permissions=PROGRAM_MAY, actor=lead)
    return "one, with a token that nobody kept"


def dated_roles(context: Context) -> str:
    """Give one role that begins next month, and one that ends soon to somebody with a second factor."""
    # Looked for by the reasons of the grants: what has run out, or whose account was erased, is not made again.
    admin, at, said = _actor(context, "admin"), clock.now(), []
    if not RoleGrant.objects.filter(reason=STANDS_IN).exists():
        start = next_month(at)
        teams.grant_role(
            _person(context, "finance-engineer").pk, Role.TEAM_LEAD, team_id=Team.objects.get(slug="finance").pk,
            starts_at=start, expires_at=start + timedelta(days=31), actor=admin, reason=STANDS_IN,
        )  # fmt: skip
        said.append(f"one begins on {start:%Y-%m-%d}")
    if RoleGrant.objects.filter(reason=READS_ALONG).exists():
        return ", ".join(said) or "as before"
    support = User.objects.filter(email__iexact=SUPPORT).first()
    if support is None:
        support, _ = accounts.create_user(SUPPORT, "Support engineer (sample)", actor=admin)
    if not SecondFactor.objects.filter(user=support).exists():
        secret = factors.new_secret()
        factor_actions.add_app(
            support.pk, secret, pyotp.TOTP(secret).at(at), "Work phone", actor=Actor.of(support, Channel.COMMAND),
            proved_at=at, session_id=0,
        )  # fmt: skip
    until = at + timedelta(days=5)
    teams.grant_role(support.pk, Role.AUDITOR, expires_at=until, actor=admin, reason=READS_ALONG)
    return ", ".join([*said, "one ends in five days"])


def next_month(at: datetime) -> datetime:
    """Return the first moment of the billing month after `at`."""
    return billing.day_start(billing.following(billing.month_of(at)))


def unit_move(context: Context) -> str:
    """Plan the move of a unit without teams for the first of next month."""
    unit = Unit.objects.filter(slug=MOVED_UNIT).first()
    if unit is None:
        below = Unit.objects.get(slug=company.TEAM_UNIT)
        unit = teams.create_unit("Sample Lab", MOVED_UNIT, below.pk, "CC-1190", actor=SEEDER)
    if PlannedChange.objects.filter(unit=unit).exists() or unit.archived_at is not None:
        return "as before"
    start = next_month(clock.now())
    changes.change_unit(
        unit.pk, changes.Wish(unit_id=Unit.objects.get(slug="example-group").pk),
        f"{_SAMPLE}: it reports to the group from then on.", actor=_actor(context, "admin"), effective_at=start,
    )  # fmt: skip
    return f"on {start:%Y-%m-%d}"


def hold(context: Context) -> str:
    """Place a legal hold on what one person did."""
    if Hold.objects.filter(matter=MATTER).exists():
        return "as before"
    keeping.place_hold(
        MATTER, person_uid=_person(context, "finance-engineer").uid, actor=_actor(context, "compliance"),
        reason=f"{_SAMPLE}: shows what a hold keeps",
    )  # fmt: skip
    return "one person's events are kept"


def review(context: Context) -> str:
    """Begin an access review; the roles of those who sign in are kept, those of the directory wait for answers.

    What nobody confirms lapses at its end: nobody may lose a role that the sample company needs.
    """
    found = AccessReview.objects.filter(name=REVIEW).first()
    if found is None:
        if AccessReview.objects.filter(status=ReviewStatus.OPEN).exists():
            return "another one is open"
        until = clock.now() + timedelta(days=reviewing.MAX_DAYS)
        found = reviews.start_review(REVIEW, until, actor=_actor(context, "compliance"))
    signing_in = [person.email for person in company.PEOPLE]
    open_items = ReviewItem.objects.filter(review=found, answer=ReviewAnswer.OPEN, user__email__in=signing_in)
    items = list(open_items.select_related("user", "team__unit", "unit").order_by("pk"))
    if found.status != ReviewStatus.OPEN or not items:
        return "as before"
    who = reviews.reviewers()
    keys = {_person(context, person.key).pk: person.key for person in company.PEOPLE}
    asked: dict[str, list[ReviewItem]] = {}
    for item in items:
        able = sorted(keys[one] for one in who.asked(item.user_id, reviews.place_of(item)) if one in keys)
        if able:
            asked.setdefault(able[0], []).append(item)
    for key, mine in asked.items():
        reviews.answer_items(
            found.pk, [item.uid for item in mine], ReviewAnswer.KEEP, actor=_actor(context, key),
            reason=f"{_SAMPLE}: still their work",
        )  # fmt: skip
    return f"{sum(map(len, asked.values()))} answered, {found.items.filter(answer=ReviewAnswer.OPEN).count()} open"


STEPS: tuple[Step, ...] = (
    Step("A directory whose sign-in stays off", directory),
    Step("An account of a program", program),
    Step("Roles with dates, a second factor", dated_roles),
    Step("A unit's move next month", unit_move),
    Step("A legal hold", hold),
    Step("An access review", review),
)
