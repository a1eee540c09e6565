"""Pages for adopting a namespace that is there already: choose it, watch it being read, read the proposal, ask."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.http import HttpRequest
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.errors import Conflict
from apps.core.forms import CommonsForm, WholeNumberField
from apps.core.permissions import may
from apps.core.views import ActionView, Crumb, DetailView
from apps.provisioning.models import Plan
from apps.quotas import adopting, adopting_proposal, changes
from apps.quotas.adopting_reader import STEPS
from apps.quotas.assess import MAX_UNITS, MIN_REASON
from apps.quotas.choices import DataClass, Environment, ReadingStatus
from apps.quotas.limits import LIMITS
from apps.quotas.models import NamespaceReading
from apps.quotas.selectors import PlanRow, created_yaml, plan_rows
from apps.teams.models import Team
from portal.panels import panel


class AdoptForm(CommonsForm):
    """Which namespace, and whose workspace it is to be."""

    namespace = forms.CharField(
        label="Namespace", max_length=63, help_text="As it is called on the cluster. It keeps its name."
    )
    team = forms.ModelChoiceField(queryset=Team.objects.none(), empty_label="Choose …")
    environment = forms.ChoiceField(choices=[("", "Choose …"), *Environment.choices])
    data_classes = forms.MultipleChoiceField(
        label="Data allowed there", choices=DataClass.choices, required=False, widget=forms.CheckboxSelectMultiple
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        teams = Team.objects.filter(archived_at__isnull=True).order_by("name", "pk")
        self.fields["team"].queryset = teams  # type: ignore[attr-defined]  # a ModelChoiceField


class RequestForm(CommonsForm):
    """How many units of each flavour, and why."""

    reason = forms.CharField(
        label="Reason",
        widget=forms.Textarea(attrs={"rows": 3}),
        min_length=MIN_REASON,
        max_length=changes.MAX_REASON,
        help_text="Whoever decides reads it: who works there, and why the portal takes it over now.",
    )

    def __init__(self, *args: Any, gpus: list[adopting_proposal.GpuRow], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        made: dict[str, forms.Field] = {
            row.field: WholeNumberField(
                label=f"{row.flavour}, guaranteed", unit="GPUs", min_value=0, max_value=MAX_UNITS, help_text=row.source
            )
            for row in gpus
        }
        self.gpus = gpus
        self.fields = {**made, **self.fields}

    def units(self) -> dict[str, int]:
        """Return units by flavour slug."""
        return {row.flavour.slug: self.cleaned_data[row.field] for row in self.gpus}


def cluster_crumbs(cluster: Cluster) -> list[Crumb]:
    """Return the way back to a cluster."""
    url = reverse("clusters:cluster-detail", kwargs={"slug": cluster.slug})
    return [Crumb("Clusters", reverse("clusters:cluster-list")), Crumb(cluster.name, url)]


def url_of(reading: NamespaceReading) -> str:
    """Return the page of a reading."""
    return reverse("quotas:adoption", kwargs={"reading_uid": reading.uid})


class AdoptNamespace(ActionView):
    """Choose a namespace and whose it is to be; a worker reads it."""

    title = "Adopt a namespace"
    intro = (
        "The portal reads what lives there and shows what it would add. Nothing changes on the cluster before the "
        "request is approved, and nothing of theirs is changed or removed then, either."
    )
    queryset = Cluster.objects.all()
    permission = "quotas.change.create"
    url_kwarg = "cluster_uid"
    form_class = AdoptForm
    submit_label = "Read the namespace"
    object: Cluster

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the cluster."""
        return cluster_crumbs(self.object)

    def perform(self, form: Any) -> str:
        """Have it read."""
        data = form.cleaned_data
        reading = adopting.request_reading(
            self.object.pk, data["namespace"], data["team"].pk, data["environment"], data["data_classes"],
            actor=self.actor,
        )  # fmt: skip
        return url_of(reading)


def _readings() -> Any:
    return NamespaceReading.objects.select_related("cluster", "team__unit", "requested_by", "change")


class AdoptionDetail(DetailView):
    """One reading: its progress, what went wrong, and what the portal would add."""

    queryset = staticmethod(_readings)
    permission = "quotas.change.create"
    url_kwarg = "reading_uid"
    template_name = "quotas/adopt_detail.html"
    object: NamespaceReading

    def scope_object(self) -> Any:
        """Ask the permission for the cluster."""
        return self.object.cluster

    def get_title(self) -> str:
        """Which namespace."""
        return f"Adopt {self.object.namespace}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the cluster."""
        return cluster_crumbs(self.object.cluster)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the steps and, once it is read, the proposal."""
        reading = self.object
        shown = proposal_context(reading) if reading.status == ReadingStatus.DONE and reading.change is None else {}
        return super().get_context(
            reading=reading,
            steps=[(label, key in reading.steps) for key, label in STEPS],
            steps_done=len(reading.steps),
            steps_total=len(STEPS),
            **shown,
            **extra,
        )


def proposal_context(reading: NamespaceReading) -> dict[str, Any]:
    """Return what the proposal's template needs."""
    found = adopting_proposal.proposal_of(reading, clock.now())
    asked = [entry for entry in reading.plan if not entry.get("error")]
    plan = Plan(entries=asked, manifest=json.dumps(found.manifests).encode())  # not stored: shown as a plan is
    return {
        "proposal": found,
        "limits": [(one.label, found.limits[one.name], one.unit) for one in LIMITS],
        "clash_rows": [
            PlanRow(
                f"{one['object']} {one['field']}" + _said(one),
                one["live"] or None, one["wanted"] or None, "changed",
            )
            for one in found.clashes
        ],
        "plan_rows": plan_rows(plan),
        "plan_created": created_yaml(plan),
        "may_request": not found.clashes and not found.blockers and not _old(reading),
        "old": _old(reading),
    }  # fmt: skip


def _said(one: dict[str, str]) -> str:
    """Return who holds a clashing field, or why the server refuses the object."""
    why = one["why"] or (f"held by {one['manager']}" if one["manager"] else "")
    return f" ({why})" if why else ""


def _old(reading: NamespaceReading) -> bool:
    hours = adopting_proposal.GOOD_FOR_HOURS
    return reading.read_at is None or (clock.now() - reading.read_at).total_seconds() > hours * 3600


class AdoptionRequest(ActionView):
    """Ask for the adoption of what was read."""

    queryset = staticmethod(_readings)
    permission = "quotas.change.create"
    url_kwarg = "reading_uid"
    form_class = RequestForm
    submit_label = "Submit the request"
    success_message = "Submitted. Follow it here."
    intro = (
        "The quota begins with the grant and counts in the pool from then on. Members of the receiving team and you "
        "yourself cannot decide on it."
    )
    object: NamespaceReading

    def scope_object(self) -> Any:
        """Ask the permission for the cluster."""
        return self.object.cluster

    def get_title(self) -> str:
        """Which namespace."""
        return f"Request the adoption of {self.object.namespace}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the proposal."""
        return [*cluster_crumbs(self.object.cluster), Crumb(f"Adopt {self.object.namespace}", url_of(self.object))]

    def check_state(self) -> None:
        """Only what was read lately, and clashes with nothing, can be asked for."""
        reading = self.object
        state = {"version": reading.version, "status": str(reading.status)}
        if reading.change is not None:
            raise Conflict("It is requested already.", current=state)
        if reading.status != ReadingStatus.DONE:
            raise Conflict("The namespace has not been read yet.", current=state)
        if _old(reading):
            raise Conflict("It was read more than a day ago: read it again first.", current=state)
        if adopting_proposal.proposal_of(reading, clock.now()).clashes:
            raise Conflict("Something clashes on the cluster: resolve it there, then read it again.", current=state)

    def _rows(self) -> list[adopting_proposal.GpuRow]:
        reading = self.object
        return adopting_proposal.gpu_rows(reading, clock.now())[0] if reading.found else []

    def get_form_kwargs(self) -> dict[str, Any]:
        """Give the form the flavours."""
        return {"gpus": self._rows()}

    def get_initial(self) -> dict[str, Any]:
        """Begin with what is proposed."""
        return {row.field: row.proposed for row in self._rows()}

    def perform(self, form: Any) -> str:
        """Submit it."""
        change = adopting.request_adoption(
            self.object.pk, form.units(), form.cleaned_data["reason"], actor=self.actor,
            expected_version=self.expected_version,
        )  # fmt: skip
        return reverse("quotas:change-detail", kwargs={"change_uid": change.uid})


class AdoptionAgain(ActionView):
    """Read a namespace once more."""

    title = "Read it again"
    intro = "The proposal is made anew from what lives there now."
    queryset = staticmethod(_readings)
    permission = "quotas.change.create"
    url_kwarg = "reading_uid"
    submit_label = "Read it again"
    object: NamespaceReading

    def scope_object(self) -> Any:
        """Ask the permission for the cluster."""
        return self.object.cluster

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the proposal."""
        return [*cluster_crumbs(self.object.cluster), Crumb(f"Adopt {self.object.namespace}", url_of(self.object))]

    def check_state(self) -> None:
        """Not while it is being read, nor once it is requested."""
        if self.object.change is not None or self.object.is_moving:
            raise Conflict("It is being read, or requested already.", current={"version": self.object.version})

    def perform(self, form: Any) -> str:
        """Have it read."""
        adopting.read_again(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return url_of(self.object)


@panel(page="cluster", order=60, permission="quotas.change.create")
def cluster_adoptions(request: HttpRequest, cluster: Cluster) -> dict[str, Any] | None:
    """Where namespaces that are there already are adopted, with the latest of them; for platform admins."""
    if not may(request.user, adopting.MANAGE):
        return None
    rows = NamespaceReading.objects.visible_to(request.user).filter(cluster=cluster)
    return {
        "template": "quotas/adopt_panel.html",
        "cluster": cluster,
        "readings": list(rows.select_related("team", "change").order_by("-pk")[:5]),
        "adopt_url": reverse("quotas:adopt-namespace", kwargs={"cluster_uid": cluster.uid}),
    }
