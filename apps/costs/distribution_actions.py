"""Versions of the distribution policy: one person proposes, a second one publishes; never changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from django.db import IntegrityError, connection, transaction
from django.db.models import Max

from apps import audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.costs import period_events as events
from apps.costs.choices import PeriodStatus, Verdict
from apps.costs.distribution import LABELS, RULES
from apps.costs.models import DistributionPolicy, Period
from apps.costs.seconding import checked_text, person, second_person
from apps.metering import billing
from apps.teams import scope

MANAGE, APPROVE = "costs.policy.manage", "costs.policy.approve"
_WHO = "Distribution policies are for finance of the whole installation."


def check_rules(rules: Mapping[str, str]) -> dict[str, str]:
    """Return complete rules. Raises Invalid next to each rule (field `rule_<name>`) that is missing or impossible."""
    errors = {
        f"rule_{name}": f"Choose who bears this: {LABELS[name].lower()}."
        for name, keepers in RULES.items()
        if rules.get(name) not in [str(keeper) for keeper in keepers]
    }
    if unknown := set(rules) - set(RULES):
        errors[""] = f"There is no rule for {', '.join(sorted(unknown))}."
    if errors:
        raise Invalid(errors)
    return {name: str(rules[name]) for name in RULES}


def check_month(month: date) -> date:
    """Return the first day of a month that a policy may begin in. Raises Invalid where it is no longer open."""
    first = month.replace(day=1)
    status = Period.objects.filter(month=first).values_list("status", flat=True).first()
    if status is None and first < billing.month_of(clock.now()):
        raise Invalid({"month_from": "This month is over and has no charges: choose an open month."})
    if status not in (None, PeriodStatus.OPEN):
        word = PeriodStatus(status).label.lower()
        raise Invalid({"month_from": f"{first:%Y-%m} is {word}: a policy counts from an open month."})
    if Period.objects.filter(month__gt=first).exclude(status=PeriodStatus.OPEN).exists():
        raise Invalid({"month_from": "A later month is closing or closed already: choose one after it."})
    if DistributionPolicy.objects.filter(month_from=first, status=Verdict.APPROVED).exists():
        raise Invalid({"month_from": f"A version counts from {first:%Y-%m} already. Choose another month."})
    return first


@transaction.atomic
def propose(name: str, month_from: date, rules: Mapping[str, str], *, actor: Actor) -> DistributionPolicy:
    """Propose the next version of the policy. Raises NotAllowed, Invalid per field."""
    user = person(actor, MANAGE, None, _WHO)
    _require_everywhere(user)
    title = name.strip()
    if not title or len(title) > 200:
        raise Invalid({"name": "Give the version a name of at most 200 characters: statements' readers see it."})
    first, checked = check_month(month_from), check_rules(rules)
    with connection.cursor() as cursor:
        # Versions are numbered without a gap: proposing takes turns.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('costs.distribution'))")
    number = (DistributionPolicy.objects.aggregate(Max("number"))["number__max"] or 0) + 1
    policy = DistributionPolicy.objects.create(
        number=number, name=title, month_from=first, rules=checked, proposed_by=user
    )
    approvers = [pk for pk in scope.holders(APPROVE) if pk != user.pk]
    _record(events.POLICY_PROPOSED, policy, actor, approvers)
    return policy


@transaction.atomic
def approve(
    policy_id: int, *, actor: Actor, reason: str = "", expected_version: int | None = None
) -> DistributionPolicy:
    """Publish a proposed version. Raises NotVisible, NotAllowed (its proposer, too), Conflict, Invalid (month)."""
    policy = _decided(policy_id, Verdict.APPROVED, actor, reason, expected_version)
    check_month(policy.month_from)
    try:
        with transaction.atomic():
            policy.bump("status", "decided_by", "decided_at", "reason")
    except IntegrityError as error:
        raise Conflict("Another version that counts from the same month was published meanwhile.") from error
    _record(events.POLICY_APPROVED, policy, actor, [policy.proposed_by_id])
    return policy


@transaction.atomic
def reject(policy_id: int, *, reason: str, actor: Actor, expected_version: int | None = None) -> DistributionPolicy:
    """Reject a proposed version, saying why. Raises as `approve`, and Invalid without a reason."""
    policy = _decided(policy_id, Verdict.REJECTED, actor, checked_text(reason), expected_version)
    policy.bump("status", "decided_by", "decided_at", "reason")
    _record(events.POLICY_REJECTED, policy, actor, [policy.proposed_by_id])
    return policy


@transaction.atomic
def withdraw(policy_id: int, *, actor: Actor, expected_version: int | None = None) -> DistributionPolicy:
    """Withdraw one's own proposal. Raises NotVisible, NotAllowed (not one's own), Conflict."""
    policy = _proposed(policy_id, expected_version)
    user = person(actor, MANAGE, None, _WHO)
    if policy.proposed_by_id != user.pk:
        raise NotAllowed("Only who proposed a version withdraws it.", rule=MANAGE)
    policy.status, policy.decided_at = Verdict.WITHDRAWN, clock.now()
    policy.bump("status", "decided_at")
    _record(events.POLICY_WITHDRAWN, policy, actor, [])
    return policy


def _require_everywhere(user: object) -> None:
    """Raise NotAllowed for finance of a single unit: a policy is the whole installation's."""
    if not scope.of(user).everywhere(MANAGE):
        raise NotAllowed(_WHO, rule=MANAGE)


def _proposed(policy_id: int, expected_version: int | None) -> DistributionPolicy:
    policy = DistributionPolicy.objects.select_for_update(of=("self",)).filter(pk=policy_id).first()
    if policy is None:
        raise NotVisible
    if expected_version is not None and policy.version != expected_version:
        raise Conflict("Somebody decided on this version meanwhile.", current={"status": policy.status})
    if policy.status != Verdict.PROPOSED:
        raise Conflict("This version is decided.", current={"status": policy.status})
    return policy


def _decided(
    policy_id: int, verdict: str, actor: Actor, reason: str, expected_version: int | None
) -> DistributionPolicy:
    policy = _proposed(policy_id, expected_version)
    user = person(actor, APPROVE, policy, _WHO)
    second_person(user, policy.proposed_by_id, "A distribution policy")
    policy.status, policy.decided_by, policy.decided_at = verdict, user, clock.now()
    policy.reason = reason.strip()[:500]
    return policy


def _record(event: EventType, policy: DistributionPolicy, actor: Actor, recipients: Sequence[int | None]) -> None:
    payload = events.PolicyEvent(
        policy.uid, policy.number, policy.name, f"{policy.month_from:%Y-%m}", dict(policy.rules), policy.reason
    )
    audit.record(event, payload, actor=actor, subject_type="costs.distribution", subject_uid=policy.uid)
    people = [pk for pk in recipients if pk is not None]
    if people:
        outbox.publish(event, payload, recipients=people, subject_uid=policy.uid)


__all__ = ["APPROVE", "MANAGE", "approve", "check_month", "check_rules", "propose", "reject", "withdraw"]
