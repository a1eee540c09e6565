"""The money half of the sample company: chargeback, closed months, what waits for a second person, a dispute.

Through the actions that finance and the team leads use. The latest completed month is left closing, so that whoever
tries the portal can close it; its figures are those of the sample company's first report.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal

from apps.accounts.models import User
from apps.core import clock
from apps.core.actor import Actor, Channel
from apps.costs import (
    billing_modes,
    budget_actions,
    closing,
    credits,
    disputes,
    distribution_actions,
    freezing,
    periods,
)
from apps.costs.choices import BillingMode, CheckState, Keeper, OwnerKind, PeriodStatus
from apps.costs.models import (
    Budget,
    Credit,
    CrossCheck,
    Dispute,
    DistributionPolicy,
    JournalAccount,
    Period,
    Statement,
    UnitBilling,
)
from apps.demo import company
from apps.demo.seed import Context, history_start
from apps.demo.sharing import wait_for
from apps.insights import findings, workloads
from apps.metering import billing, selftest_run
from apps.metering.models import Source, SourceCheck
from apps.rates import capex_actions, proposals
from apps.rates.choices import Resource, ServiceClass
from apps.rates.models import CapexSchedule, RateProposal
from apps.rates.publishing import PriceLine
from apps.teams.models import Team, Unit

Progress = Callable[[str], None]


def _actor(context: Context, key: str) -> Actor:
    person = context.users.get(key) or User.objects.get(email=f"{key}@{company.MAIL_DOMAIN}")
    return Actor.of(person, Channel.COMMAND)


def chargeback(context: Context) -> str:
    """Finance charges Business Lines back from the first month on, and names the accounts of the journal."""
    unit = Unit.objects.get(slug=company.TEAM_UNIT)
    finance = _actor(context, "controller")
    first = billing.month_of(history_start(clock.now()))
    if not UnitBilling.objects.filter(unit=unit).exists():
        billing_modes.set_mode(unit.pk, first, BillingMode.CHARGEBACK, account="640100", actor=finance)
    for purpose, account in (("recovery", "790100"), ("correction", "790200"), ("credit", "790300")):
        if not JournalAccount.objects.filter(purpose=purpose).exists():
            billing_modes.set_account(purpose, account, "CC-1000", actor=finance)
    if not Budget.objects.filter(unit=unit).exists():
        budget_actions.set_limits(
            unit_id=unit.pk,
            amount=Decimal(80000),
            gpu_hours=20000,
            month_from=billing.month_of(clock.now()),
            actions={"80": ["notify"], "100": ["notify", "require_approval"], "forecast": ["notify"]},
            actor=finance,
        )
    return "Business Lines is charged back; a budget for the unit"


def fit(context: Context) -> str:
    """Have the source of usage tested, as the sweep does every six hours: months are closed on tested sources only."""
    source = Source.objects.get(cluster=context.cluster, valid__contains=clock.now())
    if not SourceCheck.objects.filter(source=source).exists():
        selftest_run.check_source(source.pk, actor=_actor(context, "admin"))
    newest = SourceCheck.objects.filter(source=source).order_by("-checked_at").first()
    return newest.get_verdict_display().lower() if newest else "not tested"


def close_months(context: Context, progress: Progress) -> str:
    """Finance closes every past month but the latest, which is left closing."""
    finance = _actor(context, "controller")
    now = clock.now()
    last = billing.previous(billing.month_of(now))
    month, closed = billing.month_of(history_start(now)), 0
    while month < last:
        if _close(month, finance):
            progress(f"{month:%B %Y}: {_bill(month)}")
            closed += 1
        month = billing.following(month)
    latest = periods.ensure_period(last)
    if latest.status == PeriodStatus.OPEN and now >= latest.end + closing.SETTLES_AFTER:
        periods.start_closing(latest.pk, actor=finance)
    return f"{closed} months closed, {last:%B} is closing" if closed else "as before"


def _close(month: date, finance: Actor) -> bool:
    period = periods.ensure_period(month)
    if period.status == PeriodStatus.CLOSED:
        return False
    if period.status == PeriodStatus.OPEN:
        period = periods.start_closing(period.pk, actor=finance)
    periods.close(period.pk, actor=finance)

    def closed() -> bool:
        period.refresh_from_db()
        return bool(period.status == PeriodStatus.CLOSED)

    # The installation's own worker was told, too: where it is at it already, this one only waits.
    return wait_for(closed, lambda: freezing.freeze(period.pk))


def _bill(month: date) -> str:
    period = Period.objects.get(month=month)
    return f"{period.bill:,} {period.currency}" if period.bill is not None else "not closed"


def waiting(context: Context) -> str:
    """What waits for a second person of finance: new prices, a credit, another way to share what nobody used."""
    finance, made = _actor(context, "controller"), []
    if not CapexSchedule.objects.exists():
        capex_actions.enter_schedule(
            "A100 nodes, bought 2024",
            context.cluster.pk,
            context.flavour.pk,
            gpus=company.POOL_GPUS,
            in_service_from=date(2024, 10, 1),
            life_months=48,
            purchase=Decimal("1250000.00"),
            residual=Decimal("120000.00"),
            power_watts=900,
            pue_permille=1350,
            per_kwh=Decimal("0.185"),
            operations_monthly=Decimal("14500.00"),
            sellable_permille=600,
            actor=finance,
        )
        made.append("a capex schedule")
    if not RateProposal.objects.exists():
        begins = billing.month_bounds(billing.following(billing.month_of(clock.now())))[0]
        factors = {ServiceClass.COMPLIANCE: Decimal("1.12"), ServiceClass.HIGH_AVAILABILITY: Decimal("1.25")}
        lines = [
            PriceLine(context.flavour.pk, "", "", Decimal("3.70"), {str(k): v for k, v in factors.items()}),
            PriceLine(None, Resource.CPU, "", Decimal("0.021")),
            PriceLine(None, Resource.MEMORY, "", Decimal("0.0028")),
            PriceLine(None, Resource.STORAGE, "", Decimal("0.00011")),
            PriceLine(None, Resource.EGRESS, "", Decimal("0.01")),
        ]
        proposals.propose_card(
            "On-premises A100, next year",
            context.cluster.pk,
            lines,
            company.CURRENCY,
            begins,
            note="Fourth year of the nodes; CPU, memory, storage and network are charged from then on",
            actor=finance,
        )
        made.append("a proposed rate card")
    if DistributionPolicy.objects.count() < 2:
        rules = dict(DistributionPolicy.objects.order_by("number")[0].rules) | {"unsold": str(Keeper.SHARED)}
        distribution_actions.propose(
            "Unsold capacity shared by use", billing.month_of(clock.now()), rules, actor=finance
        )
        made.append("a proposed distribution")
    return ", ".join(made) or "as before"


def objections(context: Context) -> str:
    """Research objects to a statement; Marketing is to get a credit; both wait for finance."""
    newest = Period.objects.filter(status=PeriodStatus.CLOSED).order_by("-month").first()
    if newest is None:
        return "no month is closed"
    statements = Statement.objects.filter(period=newest, owner_kind=OwnerKind.TEAM, superseded_at__isnull=True)
    made = []
    research = statements.filter(team=Team.objects.get(slug="research")).first()
    if research is not None and not Dispute.objects.exists():
        disputes.open_dispute(
            research.pk,
            "Two of our nodes were drained for a firmware upgrade on the 12th; are these hours ours?",
            actor=_actor(context, "research-lead"),
        )
        made.append("a dispute")
    marketing = statements.filter(team=Team.objects.get(slug="marketing")).first()
    if marketing is not None and not Credit.objects.exists():
        credits.propose_credit(
            marketing.pk,
            Decimal("150.00"),
            "Goodwill for the queue that stood still on the evening of the 20th.",
            actor=_actor(context, "controller"),
        )
        made.append("a credit")
    return ", ".join(made) or "as before"


def lookouts(context: Context) -> str:
    """Do once what sweeps do once a day, now that there is a history to look at: workloads, findings."""
    month = billing.month_of(clock.now())
    # The latest two months here; the sweep keeps the others, in its own time.
    kept = sum(workloads.remember_month(context.cluster.pk, one) for one in (billing.previous(month), month))
    return f"{kept} workloads of two months, {findings.find_all()} findings"


def compared(context: Context) -> str:
    """Say how the portal's dollars compare with the allocation API's own."""
    rows = CrossCheck.objects.filter(cluster=context.cluster)
    return f"{rows.count()} days compared, {rows.filter(state=CheckState.OPEN).count()} open"
