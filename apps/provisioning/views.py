"""Pages of declarations, apply runs, plans and drift."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from django.http import HttpResponseBase
from django.urls import reverse

from apps.core.errors import Conflict
from apps.core.permissions import may
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.provisioning import actions, drift_actions, planning, ports, selectors
from apps.provisioning.choices import DeclarationStatus, Removal, RunOutcome
from apps.provisioning.forms import RetryForm
from apps.provisioning.models import ApplyRun, Declaration, Plan
from apps.provisioning.tables import (
    OUTCOME_TONES,
    DeclarationFilter,
    DeclarationTable,
    RunFilter,
    RunTable,
)

VIEW = "provisioning.declaration.view"
VIEW_RUN = "provisioning.run.view"


def _declarations_crumb() -> Crumb:
    return Crumb("Declarations", reverse("provisioning:declaration-list"))


def _url(declaration: Declaration) -> str:
    return reverse("provisioning:declaration-detail", kwargs={"declaration_uid": declaration.uid})


def as_yaml(body: bytes) -> str:
    """Return stored JSON bytes as YAML for reading; the bytes themselves are what is applied."""
    text: str = yaml.safe_dump(json.loads(body), sort_keys=False, allow_unicode=True, width=100)
    return text


class DeclarationList(ListView):
    """What is declared where."""

    title = "Declarations"
    permission = VIEW
    intro = "The objects that approved changes want on the clusters, and whether they live there."
    table_class = DeclarationTable
    filterset_class = DeclarationFilter
    queryset = Declaration.objects.select_related("cluster", "team").annotate(**selectors.drift_flags())
    empty_title = "Nothing is declared yet"
    empty_text = "Approved quota and the workspaces themselves appear here."
    empty_icon = "file-text"


class DeclarationDetail(DetailView):
    """One declaration: how it stands, its objects, its attempts, its drift."""

    queryset = Declaration.objects.select_related("cluster", "team").annotate(**selectors.drift_flags())
    permission = VIEW
    template_name = "provisioning/declaration_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_declarations_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add objects as YAML with what was last seen of each, attempts and drift."""
        declaration: Declaration = self.object
        seen = {(o.kind, o.namespace, o.name): o for o in declaration.observations.all()}
        objects = [
            {"row": row, "yaml": as_yaml(bytes(row.body)), "seen": seen.get((row.kind, row.namespace, row.name))}
            for row in declaration.declared_objects.filter(removal=Removal.NONE)
        ]
        runs = list(selectors.runs_for(declaration)[:10])
        running = next((run for run in runs if run.outcome == RunOutcome.RUNNING), None)
        drift = list(declaration.drifts.filter(resolved_at__isnull=True).order_by("kind", "namespace", "name", "field"))
        may_decide = may(self.request.user, drift_actions.DECIDE, declaration)
        if may_decide:
            for row in drift:
                row.declaration = declaration
            refused = ports.adoption_refusals(drift)
            for row in drift:
                row.not_adoptable = refused.get(row.pk, "")
        return super().get_context(
            standing=selectors.standing(declaration, running),
            objects=objects,
            leaving=list(declaration.declared_objects.exclude(removal=Removal.NONE)),
            runs=[{"run": run, "tone": OUTCOME_TONES[RunOutcome(run.outcome)]} for run in runs],
            drift=drift,
            may_decide=may_decide,
            may_retry=may(self.request.user, actions.RETRY, declaration),
            may_see_runs=may(self.request.user, VIEW_RUN, declaration),
            **extra,
        )


class DeclarationRetry(ActionView):
    """Apply a stopped, failing or drifted declaration again."""

    title = "Apply again"
    queryset = Declaration.objects.select_related("cluster", "team")
    permission = actions.RETRY
    form_class = RetryForm
    submit_label = "Apply again now"
    danger = True
    intro = "Exactly what was approved is applied once more; nothing else is changed or deleted."
    summary_template = "provisioning/retry_summary.html"
    success_message = "It is applied again now."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the declaration."""
        return [_declarations_crumb(), Crumb(self.object.title, _url(self.object))]

    def check_state(self) -> None:
        """Refuse where nothing is wrong."""
        drifted = self.object.drifts.filter(resolved_at__isnull=True).exists()
        if self.object.status == DeclarationStatus.APPLIED and not drifted:
            raise Conflict("It is applied and lives as declared: there is nothing to apply again.")

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add why it is not as it should be."""
        drift = list(self.object.drifts.filter(resolved_at__isnull=True)) if self.object is not None else []
        standing = selectors.standing(self.object) if self.object is not None else None
        return super().get_context(standing=standing, drift=drift, **extra)

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Do it."""
        actions.retry(
            self.object.pk,
            actor=self.actor,
            take_over=form.cleaned_data["take_over"],
            reason=form.cleaned_data["reason"],
            expected_version=self.expected_version,
        )
        return _url(self.object)


class RunList(ListView):
    """All attempts."""

    title = "Apply runs"
    permission = VIEW_RUN
    intro = "Every attempt to bring a declaration onto its cluster, with every request it made."
    table_class = RunTable
    filterset_class = RunFilter
    empty_title = "Nothing was applied yet"
    empty_text = "The first approved change makes the first run."
    empty_icon = "history"

    @staticmethod
    def queryset() -> Any:
        """Runs without their long records."""
        return ApplyRun.objects.select_related("declaration", "declaration__cluster").defer("results")


class RunDetail(DetailView):
    """One attempt: its requests with statuses, warnings and durations."""

    queryset = ApplyRun.objects.select_related("declaration", "declaration__cluster", "declaration__team")
    permission = VIEW_RUN
    template_name = "provisioning/run_detail.html"

    def get_title(self) -> str:
        """Name what was applied."""
        return f"{self.object.declaration.title}, generation {self.object.generation}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list and the declaration."""
        return [
            Crumb("Apply runs", reverse("provisioning:run-list")),
            Crumb(self.object.declaration.title, _url(self.object.declaration)),
        ]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the outcome's tone and sums."""
        results: list[Mapping[str, Any]] = self.object.results
        return super().get_context(
            tone=OUTCOME_TONES[RunOutcome(self.object.outcome)],
            writes=sum(row["verb"] in ("apply", "delete") for row in results),
            warnings=sum(len(row.get("warnings") or []) for row in results),
            request_ms=sum(int(row.get("ms") or 0) for row in results),
            **extra,
        )


class PlanDetail(DetailView):
    """One plan: what the server says a change would do."""

    queryset = Plan.objects.select_related("cluster", "team")
    permission = VIEW
    template_name = "provisioning/plan_detail.html"
    title = "Plan"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the entries as rows of the diff component."""
        return super().get_context(
            entries=plan_entries(self.object),
            **selectors.drift_context([self.object]),
            may_remake=planning.may_be_remade(self.object) and may(self.request.user, actions.RETRY, self.object),
            **extra,
        )


class PlanRemake(ActionView):
    """Make a plan again that failed or shows a conflict."""

    title = "Make the plan again"
    queryset = Plan.objects.select_related("cluster", "team")
    permission = actions.RETRY
    intro = "The cluster is asked once more what the change would do."
    submit_label = "Make it again"
    success_message = "The plan is being made."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the plan."""
        return [Crumb("Plan", reverse("provisioning:plan-detail", kwargs={"plan_uid": self.object.uid}))]

    def check_state(self) -> None:
        """Refuse one that did neither."""
        if not planning.may_be_remade(self.object):
            raise Conflict("This plan neither failed nor shows a conflict.", current={"status": self.object.status})

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Put it back in line."""
        planning.remake_failed(self.object.pk, actor=self.actor)
        return reverse("provisioning:plan-detail", kwargs={"plan_uid": self.object.uid})


def plan_links(plans: Sequence[Plan], user: Any) -> list[tuple[str, str]]:
    """Return labels and addresses of the plan's page and of making it again, of the first plan that needs that.

    For pages of what the plans are for; only to those who may open them.
    """
    chosen = next((plan for plan in plans if planning.may_be_remade(plan)), plans[0] if len(plans) == 1 else None)
    if chosen is None or not may(user, VIEW, chosen):
        return []
    found = [("The plan", reverse("provisioning:plan-detail", kwargs={"plan_uid": chosen.uid}))]
    if planning.may_be_remade(chosen) and may(user, actions.RETRY, chosen):
        found.append(("Make it again", reverse("provisioning:plan-remake", kwargs={"plan_uid": chosen.uid})))
    return found


def plan_entries(plan: Plan) -> list[dict[str, Any]]:
    """Return a plan's entries with rows for `components/diff.html` (also for other rooms' pages)."""
    return [
        {
            **entry,
            "rows": [
                {
                    **change,
                    "kind": "added"
                    if change["before"] is None
                    else "removed"
                    if change["after"] is None
                    else "changed",
                }
                for change in entry["changes"]
            ],
        }
        for entry in plan.entries
    ]
