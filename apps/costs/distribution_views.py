"""Pages of the distribution policy: versions, one of them, proposing with a preview, deciding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import django_tables2 as tables
from django import forms
from django.urls import reverse

from apps.core.errors import Invalid
from apps.core.forms import CommonsForm
from apps.core.money import Money
from apps.core.permissions import INSTALLATION, may
from apps.core.tables import CommonsTable, StatusColumn, TimeColumn, UidLinkColumn
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView, LiveView
from apps.costs import distribution_actions as actions
from apps.costs import statement_rows
from apps.costs.choices import Keeper, Verdict
from apps.costs.distribution import DEFAULT, LABELS, RULES
from apps.costs.models import DistributionPolicy, Period
from apps.costs.period_calendar import months_with_charges
from apps.costs.period_events import POLICIES_EXPORTED
from apps.costs.period_views import VIEW, sees_all
from apps.metering import billing

#: Statements named in a preview: those that change most.
SHOWN = 20


class PolicyTable(CommonsTable):
    """Versions of the policy."""

    name = UidLinkColumn("costs:distribution-detail", kwarg="policy_uid")
    number = tables.Column(verbose_name="Version", attrs={"cell": {"class": "figure"}})
    month_from = tables.DateColumn(verbose_name="From month", format="Y-m")
    status = StatusColumn(tones={"proposed": "info"})
    proposed_by = tables.Column(attrs={"cell": {"class": "d-none d-md-table-cell"}})
    decided_by = tables.Column(attrs={"cell": {"class": "d-none d-md-table-cell"}})
    decided_at = TimeColumn(attrs={"cell": {"class": "d-none d-lg-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = DistributionPolicy
        fields = ("name", "number", "month_from", "status", "proposed_by", "decided_by", "decided_at")
        order_by = ("-number",)
        caption = "Distribution policies"


class PolicyList(ListView):
    """Versions of the distribution policy."""

    title = "Distribution of common cost"
    permission = VIEW
    queryset = DistributionPolicy.objects.select_related("proposed_by", "decided_by")
    table_class = PolicyTable
    export_event = POLICIES_EXPORTED
    intro = (
        "Who bears what nobody had allocated: unsold, unused reservations, stranded GPUs, maintenance, usage without an"
        " owner. The version that counts is named on every line of a share."
    )
    empty_title = "No version yet"
    empty_text = (
        "Until one is published, common cost stays with the platform and unused reservations with their owners."
    )
    empty_icon = "scale"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer to propose the next version."""
        if may(self.request.user, actions.MANAGE, INSTALLATION):
            return [("Propose a version", reverse("costs:distribution-propose"))]
        return []


class PolicyForm(CommonsForm):
    """A version: name, first month, and who bears what."""

    name = forms.CharField(max_length=200, label="Name", help_text="Readers of statements see it beside the version.")
    month_from = forms.CharField(
        max_length=7, label="From month", widget=forms.TextInput(attrs={"type": "month"}),
        help_text="An open month; it counts until the next version begins.",
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, keepers in RULES.items():
            self.fields[f"rule_{name}"] = forms.ChoiceField(
                choices=[(str(keeper), keeper.label) for keeper in keepers], label=LABELS[name]
            )

    def clean_month_from(self) -> date:
        """Read the month."""
        try:
            return billing.parse_month(self.cleaned_data["month_from"])
        except ValueError as error:
            raise forms.ValidationError("Enter a month, such as 2026-12.") from error

    def rules(self) -> dict[str, str]:
        """Return the rules that are chosen so far."""
        data = getattr(self, "cleaned_data", {})
        return {name: data[f"rule_{name}"] for name in RULES if data.get(f"rule_{name}")}


class PolicyPropose(CreateView):
    """Propose the next version, seeing what it would have done."""

    title = "Propose a distribution policy"
    permission = actions.MANAGE
    scope_free = "a policy is the installation's; the action asks for the permission there"
    form_class = PolicyForm
    template_name = "costs/distribution_propose.html"
    submit_label = "Propose"
    intro = "A second person of finance publishes it. Statements of months that are closed never change."
    success_message = "The version waits for a second person."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the versions."""
        return [Crumb("Distribution", reverse("costs:distribution-list"))]

    def get_initial(self) -> dict[str, Any]:
        """Begin with what counts now."""
        latest = DistributionPolicy.objects.filter(status=Verdict.APPROVED).order_by("-month_from").first()
        rules = latest.rules if latest else DEFAULT
        return {f"rule_{name}": rules.get(name, DEFAULT[name]) for name in RULES}

    def perform(self, form: Any) -> str:
        """Propose it."""
        data = form.cleaned_data
        policy = actions.propose(data["name"], data["month_from"], form.rules(), actor=self.actor)
        return reverse("costs:distribution-detail", kwargs={"policy_uid": policy.uid})


class PolicyTry(LiveView):
    """What the rules in a form would have done to the last month with charges; nothing is written."""

    permission = actions.MANAGE
    scope_free = "amounts are those of the whole installation: shown to who reads all statements only"
    form_class = PolicyForm
    template_name = "costs/distribution_effect.html"

    def compute(self, form: Any) -> Mapping[str, Any]:
        """Compare."""
        if not sees_all(self.request.user):
            raise Invalid({"": "The preview shows everybody's statements; you read only some."})
        rules = {**DEFAULT, **form.rules()}
        return {"effect": effect_of(rules)}


@dataclass(frozen=True, slots=True)
class Change:
    """One statement before and after."""

    name: str
    before: Money
    after: Money

    @property
    def difference(self) -> Money:
        """After minus before."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Effect:
    """What other rules would have done to a month."""

    month: date
    changes: list[Change]
    more: int
    bill: Money


def effect_of(rules: Mapping[str, str]) -> Effect | None:
    """Compare the statements of the last whole month with charges under its own rules and under `rules`."""
    months = months_with_charges()
    if not months:
        return None
    ended = [month for month in months if month < months[-1]] or months
    period = Period.objects.filter(month=ended[-1]).first()
    if period is None:  # the sweep makes it within the hour
        return None
    old, new = statement_rows.preview(period), statement_rows.preview(period, rules=rules, number=0)
    zero = Money.zero(period.currency)
    names: dict[Any, str] = {}
    sums: list[dict[Any, Money]] = [{}, {}]
    for index, found in enumerate((old, new)):
        for sheet in (*found.of_kind("team"), *found.of_kind("platform")):
            row = sheet.statement
            key = (row.team_id, row.unit_id, row.cost_centre)
            names[key] = row.owner_name
            sums[index][key] = row.total
    changes = [Change(names[key], sums[0].get(key, zero), sums[1].get(key, zero)) for key in names]
    changes = [change for change in changes if change.difference]
    changes.sort(key=lambda change: (-abs(change.difference.amount), change.name))
    return Effect(period.month, changes[:SHOWN], max(0, len(changes) - SHOWN), new.bill)


class PolicyDetail(DetailView):
    """One version: its rules, who proposed and who decided, what it would do."""

    permission = VIEW
    queryset = DistributionPolicy.objects.select_related("proposed_by", "decided_by")
    url_kwarg = "policy_uid"
    template_name = "costs/distribution_detail.html"

    def scope_object(self) -> Any:
        """Policies are named on statements: whoever reads those may read them."""
        return None

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the versions."""
        return [Crumb("Distribution", reverse("costs:distribution-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the rules in words, the effect while it waits, and what can be done."""
        policy, user = self.object, self.request.user
        waits = policy.status == Verdict.PROPOSED
        mine = policy.proposed_by_id == user.pk
        return super().get_context(
            policy=policy,
            rules=[(LABELS[name], Keeper(policy.rules.get(name, DEFAULT[name])).label) for name in RULES],
            effect=effect_of(policy.rules) if waits and sees_all(user) else None,
            compared=waits and sees_all(user),
            may_decide=waits and not mine and may(user, actions.APPROVE, policy),
            may_withdraw=waits and mine,
            own=waits and mine,
            **extra,
        )


class _Decide(ActionView):
    """Base of what is done with a proposed version."""

    permission = actions.APPROVE
    queryset = DistributionPolicy.objects.select_related("proposed_by")
    url_kwarg = "policy_uid"

    def url(self) -> str:
        """Return the version's page."""
        return reverse("costs:distribution-detail", kwargs={"policy_uid": self.object.uid})

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return [Crumb("Distribution", reverse("costs:distribution-list")), Crumb(str(self.object), self.url())]


class PolicyApprove(_Decide):
    """Publish a version."""

    title = "Publish the version"
    submit_label = "Publish"
    intro = "It counts from its first month on and never changes. Who proposed it cannot publish it."
    success_message = "The version is published."

    def perform(self, form: Any) -> str:
        """Publish."""
        actions.approve(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return self.url()


class ReasonForm(CommonsForm):
    """Why."""

    reason = forms.CharField(max_length=500, label="Reason", widget=forms.Textarea(attrs={"rows": 3}))


class PolicyReject(_Decide):
    """Reject a version."""

    title = "Reject the version"
    form_class = ReasonForm
    submit_label = "Reject"
    danger = True
    success_message = "The version is rejected."

    def perform(self, form: Any) -> str:
        """Reject."""
        actions.reject(
            self.object.pk, reason=form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return self.url()


class PolicyWithdraw(_Decide):
    """Withdraw one's own proposal."""

    title = "Withdraw the version"
    permission = actions.MANAGE
    submit_label = "Withdraw"
    intro = "Nobody can publish it any more; its number is not used again."
    success_message = "The version is withdrawn."

    def perform(self, form: Any) -> str:
        """Withdraw."""
        actions.withdraw(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return self.url()
