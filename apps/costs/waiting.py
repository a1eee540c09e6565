"""What of the books waits for a person of finance: second approvals, a month that is closing, open disputes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from django.urls import reverse

from apps.core.money import Money
from apps.core.permissions import INSTALLATION, may
from apps.costs import closing, credits, distribution_actions, reopening
from apps.costs.choices import DisputeStatus, PeriodStatus, Verdict
from apps.costs.models import Credit, Dispute, DistributionPolicy, Period, ReopenRequest

#: So many of each sort are named; their lists have all.
NAMED = 10


class Waiting(NamedTuple):
    """One thing to do: what it is, in a word and in full, who asked, since when, and where it is done."""

    sort: str
    text: str
    who: str
    since: datetime
    url: str


def waiting_for(user: Any) -> list[Waiting]:
    """Return what this person can decide or carry on with, oldest first; never what they proposed themselves."""
    found: list[Waiting] = []
    if may(user, credits.APPROVE, INSTALLATION):
        # Of a transfer between teams the row that gives stands for both: they are decided as one.
        proposed = Credit.objects.visible_to(user).filter(status=Verdict.PROPOSED, amount__gt=0)
        for credit in proposed.exclude(proposed_by=user).select_related("team", "proposed_by").order_by("pk")[:NAMED]:
            words = f"{Money(credit.amount, credit.currency)} for {credit.team.name}"
            url = reverse("costs:credit-detail", kwargs={"credit_uid": credit.uid})
            found.append(Waiting("Credit", words, str(credit.proposed_by), credit.created_at, url))
    if may(user, distribution_actions.APPROVE, INSTALLATION):
        policies = DistributionPolicy.objects.filter(status=Verdict.PROPOSED).exclude(proposed_by=user)
        for policy in policies.select_related("proposed_by").order_by("pk")[:NAMED]:
            url = reverse("costs:distribution-detail", kwargs={"policy_uid": policy.uid})
            words = f"{policy}, from {policy.month_from:%B %Y}"
            found.append(Waiting("Distribution", words, str(policy.proposed_by or ""), policy.created_at, url))
    if may(user, reopening.APPROVE, INSTALLATION):
        requests = ReopenRequest.objects.filter(status=Verdict.PROPOSED).exclude(requested_by=user)
        for asked in requests.select_related("period", "requested_by").order_by("pk")[:NAMED]:
            url = reverse("costs:reopen-detail", kwargs={"reopen_uid": asked.uid})
            words = f"Open {asked.period.month:%B %Y} again"
            found.append(Waiting("Month", words, str(asked.requested_by), asked.created_at, url))
    if may(user, closing.MANAGE, INSTALLATION):
        for period in Period.objects.filter(status=PeriodStatus.CLOSING).select_related("closing_by")[:NAMED]:
            url = reverse("costs:period-detail", kwargs={"month": f"{period.month:%Y-%m}"})
            words, since = f"{period.month:%B %Y} is closing", period.closing_at or period.created_at
            found.append(Waiting("Month", words, str(period.closing_by or ""), since, url))
        disputes = Dispute.objects.visible_to(user).filter(status=DisputeStatus.OPEN)
        for dispute in disputes.select_related("statement", "opened_by").order_by("pk")[:NAMED]:
            url = reverse("costs:dispute-detail", kwargs={"dispute_uid": dispute.uid})
            words = f"Statement {dispute.statement.number}"
            found.append(Waiting("Dispute", words, str(dispute.opened_by), dispute.created_at, url))
    return sorted(found, key=lambda one: one.since)


__all__ = ["Waiting", "waiting_for"]
