"""Pages: the table of resources, namespaces without an owner and their claims, capacity lines."""

from __future__ import annotations

import uuid
from datetime import date, timedelta
from typing import Any

import django_tables2
from django.db.models import QuerySet
from django.urls import reverse

from apps.core import clock
from apps.core.errors import Invalid, NotAllowed
from apps.core.permissions import may
from apps.core.views import ActionView, CreateView, Crumb, ListView
from apps.metering import billing, capacity_report, claims, rules, unowned
from apps.metering.fact_forms import ClaimEndForm, ClaimForm, ClaimWithdrawForm, RuleEndForm, RuleForm
from apps.metering.fact_tables import (
    CapacityFilter,
    CapacityTable,
    ClaimFilter,
    ClaimTable,
    RuleFilter,
    RuleTable,
    UnownedTable,
)
from apps.metering.models import CapacityLine, NamespaceOwner, ResourceRule
from apps.teams import scope
from apps.teams.models import Team

#: Days that the capacity page shows by default, and at most: by day, by hour of one cluster, by hour of all.
DAYS, MOST_DAYS, HOURS_OF_ONE, HOURS_OF_ALL = 7, 400, 31, 3


# ---------------------------------------------------------------- rules


class RuleList(ListView):
    """The table of resources."""

    title = "Resources and shares"
    queryset = ResourceRule.objects.filter(valid__isempty=False).select_related("set_by")
    table_class = RuleTable
    filterset_class = RuleFilter
    intro = (
        "What one unit of an extended resource is of a GPU. The flavour of a pool goes first, then this table (a rule"
        " for the model before one for every model), then what the resource's name says."
    )
    empty_title = "No rule"
    empty_text = "Resources count by the flavours of the pools, else by their names."
    empty_icon = "list-check"

    def get_table_kwargs(self) -> dict[str, Any]:
        """Leave the buttons to those who may use them."""
        return _without_actions(self.request.user, rules.PERMISSION)

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer setting a rule to those who may."""
        if may(self.request.user, rules.PERMISSION):
            return [("Set a rule", reverse("metering:rule-create"))]
        return []


def _without_actions(user: Any, permission: str) -> dict[str, Any]:
    """Return the table's arguments: no buttons for those who may not use them."""
    return {} if may(user, permission) else {"exclude": ("actions",)}


def _rules() -> Crumb:
    return Crumb("Resources and shares", reverse("metering:rule-list"))


class RuleCreate(CreateView):
    """Set a rule."""

    title = "Set a rule"
    permission = rules.PERMISSION
    queryset = ResourceRule.objects.all()
    form_class = RuleForm
    submit_label = "Set the rule"
    intro = (
        "From its hour on, a unit of the resource counts as this share of a GPU wherever no flavour describes it. The"
        " rule in force ends there; what was metered before stays."
    )
    success_message = "The rule is set; it counts from its hour on."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the table."""
        return [_rules()]

    def get_initial(self) -> dict[str, Any]:
        """Begin this hour; take over what a row's button names."""
        found: dict[str, Any] = {"valid_from": clock.hour_floor(clock.now())}
        try:
            like = uuid.UUID(self.request.GET.get("like", ""))
        except ValueError:
            return found
        columns = ("resource", "gpu_model", "numerator", "denominator", "note")
        return found | (ResourceRule.objects.filter(uid=like).values(*columns).first() or {})

    def perform(self, form: Any) -> str:
        """Set it."""
        data = form.cleaned_data
        rules.set_rule(
            data["resource"],
            data["numerator"],
            data["denominator"],
            actor=self.actor,
            gpu_model=data["gpu_model"],
            valid_from=data["valid_from"],
            note=data["note"],
        )
        return reverse("metering:rule-list")


class RuleEnd(ActionView):
    """End a rule."""

    title = "End this rule"
    permission = rules.PERMISSION
    queryset = ResourceRule.objects.filter(valid__isempty=False)
    form_class = RuleEndForm
    submit_label = "End the rule"
    danger = True
    intro = "From then on the resource counts by what its name says, where no flavour describes it."
    success_message = "The rule ends then."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the table."""
        return [_rules()]

    def scope_object(self) -> Any:
        """The table is the installation's."""
        return None

    def get_initial(self) -> dict[str, Any]:
        """End it this hour."""
        return {"valid_from": clock.hour_floor(clock.now())}

    def perform(self, form: Any) -> str:
        """End it."""
        rules.end_rule(
            self.object.pk, at=form.cleaned_data["valid_from"], actor=self.actor, expected_version=self.expected_version
        )
        return reverse("metering:rule-list")


# ---------------------------------------------------------------- namespaces


def _namespaces() -> Crumb:
    return Crumb("Namespaces without an owner", reverse("metering:namespace-list"))


def _claimable(user: Any) -> QuerySet[Team]:
    """Return the teams that a person may claim for."""
    allowed = scope.of(user).team_filter(claims.PERMISSION, field="")
    return Team.objects.filter(allowed).select_related("unit").order_by("name", "pk")


def _claims() -> Crumb:
    return Crumb("Claimed namespaces", reverse("metering:claim-list"))


class NamespaceList(ListView):
    """Namespaces without an owner."""

    title = "Namespaces without an owner"
    scope_free = "rows of nobody: shown to those who may claim them or see how clusters are metered"
    table_class = UnownedTable
    template_name = "metering/namespaces.html"
    intro = (
        "Namespaces that held GPUs in the open months and belong to no workspace and no claim. Nobody pays for them"
        " until a team claims them. Cost is at the rates in force in each hour."
    )
    empty_title = "Every namespace has an owner"
    empty_text = "Nothing held GPUs in the open months that no team pays for."
    empty_icon = "circle-check"

    def check_permission(self) -> None:
        """Let in who may claim, and who sees ingest."""
        if not (may(self.request.user, claims.PERMISSION) or may(self.request.user, "metering.run.view")):
            raise NotAllowed(rule=claims.PERMISSION)

    def build(self) -> tuple[django_tables2.Table, None]:
        """Return the table; the rows come grouped from the facts."""
        rows = unowned.unowned()
        if may(self.request.user, claims.PERMISSION):
            rows = unowned.with_claimants(rows, _claimable(self.request.user))
        table = UnownedTable(rows, **_without_actions(self.request.user, claims.PERMISSION))
        table.request = self.request
        if sort := self.request.GET.getlist(table.prefixed_order_by_field):
            table.order_by = sort
        return table, None

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Lead to the claims."""
        return [("Claimed namespaces", reverse("metering:claim-list"))]


class ClaimList(ListView):
    """Claims of the teams in scope."""

    title = "Claimed namespaces"
    permission = "metering.fact.view"
    queryset = NamespaceOwner.objects.filter(valid__isempty=False).select_related("cluster", "team", "claimed_by")
    table_class = ClaimTable
    filterset_class = ClaimFilter
    intro = "Namespaces that are no workspace's, and the team that pays for them."
    empty_title = "No namespace is claimed"
    empty_text = "Namespaces without an owner are listed on their own page."
    empty_icon = "tag"

    def get_table_kwargs(self) -> dict[str, Any]:
        """Leave the buttons to those who may use them."""
        return _without_actions(self.request.user, claims.PERMISSION)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the namespaces."""
        return [_namespaces()] if may(self.request.user, claims.PERMISSION) else []


class ClaimCreate(CreateView):
    """Claim a namespace."""

    title = "Claim a namespace"
    permission = claims.PERMISSION
    queryset = NamespaceOwner.objects.all()
    form_class = ClaimForm
    submit_label = "Claim it"
    intro = (
        "The team pays for the namespace from then on. Its hours in open months move to the team with everything that"
        " hangs on them; this takes a moment. It can be ended or taken back."
    )
    success_message = "The namespace is claimed; its past hours are being moved. It can be taken back below."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the namespaces."""
        return [_namespaces()]

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the teams that the person may claim for."""
        return {"teams": _claimable(self.request.user)}

    def get_initial(self) -> dict[str, Any]:
        """Take over what the row's button names; begin with the open months."""
        asked = self.request.GET
        teams = self.get_form_kwargs()["teams"][:2]
        found: dict[str, Any] = {"cluster": asked.get("cluster", ""), "namespace": asked.get("namespace", "")[:120]}
        found["valid_from"] = billing.month_bounds(billing.month_of(clock.now()))[0]
        if len(teams) == 1:
            found["team"] = teams[0].slug
        return found

    def perform(self, form: Any) -> str:
        """Claim it."""
        data = form.cleaned_data
        claims.claim_namespace(
            data["cluster"].pk,
            data["namespace"],
            data["team"].pk,
            data["valid_from"],
            actor=self.actor,
            reason=data["reason"],
            environment=data["environment"],
        )
        return reverse("metering:claim-list")


class ClaimEnd(ActionView):
    """End a claim."""

    title = "End this claim"
    permission = claims.PERMISSION
    queryset = NamespaceOwner.objects.filter(valid__isempty=False).select_related("cluster", "team")
    form_class = ClaimEndForm
    submit_label = "End the claim"
    danger = True
    intro = "From then on nobody pays for the namespace; hours of open months after it are given back."
    success_message = "The claim ends then; later hours are being given back."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the claims."""
        return [_claims()]

    def get_initial(self) -> dict[str, Any]:
        """End it this hour."""
        return {"at": clock.hour_floor(clock.now())}

    def perform(self, form: Any) -> str:
        """End it."""
        data = form.cleaned_data
        claims.end_claim(
            self.object.pk,
            data["at"],
            actor=self.actor,
            reason=data["reason"],
            expected_version=self.expected_version,
        )
        return reverse("metering:claim-list")


class ClaimWithdraw(ActionView):
    """Take a claim back."""

    title = "Take this claim back"
    permission = claims.PERMISSION
    queryset = NamespaceOwner.objects.filter(valid__isempty=False).select_related("cluster", "team")
    form_class = ClaimWithdrawForm
    submit_label = "Take it back"
    danger = True
    intro = "As if it had never been made: all its hours are nobody's again. Not possible once one of them is closed."
    success_message = "The claim is taken back; its hours are being given back."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the claims."""
        return [_claims()]

    def perform(self, form: Any) -> str:
        """Take it back."""
        claims.withdraw_claim(
            self.object.pk,
            actor=self.actor,
            reason=form.cleaned_data["reason"],
            expected_version=self.expected_version,
        )
        return reverse("metering:claim-list")


# ---------------------------------------------------------------- capacity


class CapacityList(ListView):
    """Capacity lines, and the proof that they are all there is."""

    title = "Capacity lines"
    permission = "metering.run.view"
    queryset = CapacityLine.objects.all()
    table_class = CapacityTable
    proof: capacity_report.Proof
    filterset_class = CapacityFilter
    template_name = "metering/capacity.html"
    intro = "Every GPU-millisecond of every GPU stands on exactly one line, per cluster, GPU model and hour or day."
    empty_title = "No hour is metered in this time"
    empty_text = "Choose another time, or look at the sources of usage."
    empty_icon = "scale"

    def build(self) -> tuple[django_tables2.Table, Any]:
        """Return the grouped lines and the filters. Raises Invalid for a window that is too long."""
        filterset = self.get_filterset(self.get_queryset())
        table = CapacityTable(self._rows(filterset))
        table.request = self.request
        if sort := self.request.GET.getlist(table.prefixed_order_by_field):
            table.order_by = sort
        return table, filterset

    def _rows(self, filterset: Any) -> list[capacity_report.CapacityRow]:
        form = filterset.form
        if form.is_bound and not form.is_valid():
            self.proof = capacity_report.proof_of([])
            return []
        data = form.cleaned_data if form.is_bound else {}
        by_hour = data.get("grain") == "hour"
        cluster = data.get("cluster")
        until: date = data.get("until") or billing.day_of(clock.now())
        since: date = data.get("since") or until - timedelta(days=(0 if by_hour else DAYS - 1))
        most = (HOURS_OF_ONE if cluster else HOURS_OF_ALL) if by_hour else MOST_DAYS
        if until < since:
            raise Invalid({"until": "The end must lie after the beginning."})
        if (until - since).days >= most:
            hint = "" if cluster or not by_hour else " Choose a cluster to see more."
            raise Invalid({"since": f"At most {most} days at once.{hint}"})
        rows = capacity_report.capacity_rows(
            billing.day_bounds(since)[0],
            billing.day_bounds(until)[1],
            by_hour=by_hour,
            cluster_id=cluster.pk if cluster else None,
            gpu_model=data.get("gpu_model") or "",
        )
        self.proof = capacity_report.proof_of(rows)
        return rows

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the sentence that the lines prove."""
        return super().get_context(proof=self.proof, zone=billing.zone_name(), **extra)
