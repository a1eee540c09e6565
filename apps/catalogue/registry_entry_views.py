"""Pages of what registries hold, and of what they changed after it was read."""

from __future__ import annotations

from typing import Any

from django.db.models import Case, CharField, Count, OuterRef, Subquery, Value, When
from django.db.models.functions import Coalesce
from django.urls import reverse

from apps.catalogue import registry_actions, registry_events
from apps.catalogue.models import RegistryFinding, RegistryModel, RegistryVersion
from apps.catalogue.registry_actions import REGISTRY_MANAGE
from apps.catalogue.registry_forms import AcknowledgeForm, OwnerForm
from apps.catalogue.registry_tables import EntryFilter, EntryTable, FindingFilter, FindingTable, about
from apps.core.errors import Conflict, NotAllowed
from apps.core.permissions import INSTALLATION, may
from apps.core.views import ActionView, Crumb, ListView


class EntryList(ListView):
    """Registered models, as last seen."""

    title = "Registered models"
    intro = "What the registries hold, and which model here it became. Models without an owner wait for an admin."
    permission = "catalogue.model.view"
    table_class = EntryTable
    filterset_class = EntryFilter
    export_event = registry_events.ENTRIES_EXPORTED
    empty_title = "Nothing registered"
    empty_text = "Models appear here after a registry was read."
    empty_icon = "cloud-download"

    @staticmethod
    def queryset() -> Any:
        """Entries with the number of their versions."""
        counted = RegistryVersion.objects.filter(registry_model=OuterRef("pk"), gone_at__isnull=True).order_by()
        number = Subquery(counted.values("registry_model").annotate(n=Count("pk")).values("n"))
        rows = RegistryModel.objects.select_related("registry", "model__team")
        return rows.annotate(versions_count=Coalesce(number, 0)).defer("registry__ca_certificate")

    def get_table_kwargs(self) -> dict[str, Any]:
        """Offer assigning to those who may."""
        return {"may_assign": may(self.request.user, REGISTRY_MANAGE, INSTALLATION)}


class EntryAssign(ActionView):
    """Give a registered model to a team."""

    title = "Give it an owner"
    queryset = RegistryModel.objects.select_related("registry", "model")
    permission = REGISTRY_MANAGE
    form_class = OwnerForm
    submit_label = "Import for this team"
    intro = "The model is registered for that team as confidential, until its people say otherwise; versions follow."

    def scope_object(self) -> Any:
        """Registries are the installation's."""
        return INSTALLATION

    def get_title(self) -> str:
        """Name it."""
        return f"Owner of {self.object.name}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Registered models", reverse("catalogue:registry-model-list"))]

    def check_state(self) -> None:
        """Those without an owner only."""
        if self.object.model_id is not None:
            raise Conflict("This model has an owner already.")

    def perform(self, form: Any) -> str:
        """Assign."""
        entry = registry_actions.assign_model(
            self.object.pk, form.cleaned_data["team"].pk, actor=self.actor, expected_version=self.expected_version
        )
        self.success_message = f"{entry.name} belongs to {form.cleaned_data['team']} now."
        return reverse("catalogue:registry-model-list")


class FindingList(ListView):
    """What registries changed about the models that a person sees."""

    title = "Registry findings"
    permission = "catalogue.model.view"
    intro = "What registries changed after we had read it. Nothing here followed it: somebody takes note, and acts."
    table_class = FindingTable
    filterset_class = FindingFilter
    export_event = registry_events.FINDINGS_EXPORTED
    empty_title = "Nothing was changed"
    empty_text = "Rewritten tags, moved aliases, deleted or renamed models and changed sources appear here."
    empty_icon = "shield-check"

    @staticmethod
    def queryset() -> Any:
        """Findings with what they are about."""
        return RegistryFinding.objects.select_related(
            "registry", "registry_model__model", "registry_version__model_version", "acknowledged_by"
        ).annotate(
            state=Case(
                When(acknowledged_at__isnull=True, then=Value("open")), default=Value("noted"), output_field=CharField()
            )
        )


class FindingAcknowledge(ActionView):
    """Take note of a finding."""

    title = "Take note"
    queryset = RegistryFinding.objects.select_related(
        "registry", "registry_model__model__team", "registry_version", "acknowledged_by"
    )
    form_class = AcknowledgeForm
    submit_label = "Take note"
    summary_template = "catalogue/registry_finding_summary.html"

    def check_permission(self) -> None:
        """Leads of the owning team and platform admins."""
        if not registry_actions.may_acknowledge(self.request.user, self.object):
            raise NotAllowed("This is for leads of the owning team and platform admins.")

    def get_title(self) -> str:
        """Name it."""
        return f"{self.object.get_kind_display()}: {about(self.object)}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Registry findings", reverse("catalogue:registry-finding-list"))]

    def check_state(self) -> None:
        """Once."""
        if self.object.acknowledged_at is not None:
            raise Conflict(f"{self.object.acknowledged_by} took note of this already: {self.object.note}")

    def perform(self, form: Any) -> str:
        """Note it."""
        registry_actions.acknowledge_finding(
            self.object.pk, form.cleaned_data["note"], actor=self.actor, expected_version=self.expected_version
        )
        self.success_message = "Noted."
        return reverse("catalogue:registry-finding-list")
