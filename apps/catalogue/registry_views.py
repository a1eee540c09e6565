"""Pages of registries: for platform admins; owners see what was found about their models."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models import Case, CharField, Count, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce
from django.urls import reverse

from apps.catalogue import registry_actions, registry_sync
from apps.catalogue.forms import NoteForm
from apps.catalogue.models import Registry, RegistryFinding, RegistryModel, RegistryVersion
from apps.catalogue.registry_actions import REGISTRY_MANAGE, VIEW
from apps.catalogue.registry_forms import NewRegistryForm, RegistryForm
from apps.catalogue.registry_tables import (
    RegistryFilter,
    RegistryTable,
    about,
)
from apps.core.errors import Conflict
from apps.core.forms import CommonsForm
from apps.core.permissions import INSTALLATION, may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView

_SHOWN = 20


def registry_url(registry: Registry) -> str:
    """Return a registry's page."""
    return reverse("catalogue:registry-detail", kwargs={"registry_uid": registry.uid})


def _crumbs() -> list[Crumb]:
    return [Crumb("Registries", reverse("catalogue:registry-list"))]


def _count(rows: Any, **by: Any) -> Any:
    counted = rows.filter(registry=OuterRef("pk"), **by).order_by().values("registry").annotate(n=Count("pk"))
    return Coalesce(Subquery(counted.values("n")), 0)


class RegistryList(ListView):
    """All registries."""

    title = "Registries"
    permission = VIEW
    intro = (
        "Model registries that the portal reads. What they say is imported as drafts and never believed: nothing here"
        " changes because a registry was changed."
    )
    table_class = RegistryTable
    filterset_class = RegistryFilter
    empty_title = "No registries yet"
    empty_text = "Add an MLflow or Kubeflow model registry, and its models appear in the catalogue as drafts."
    empty_icon = "cloud-download"

    @staticmethod
    def queryset() -> Any:
        """Registries with figures."""
        return Registry.objects.defer("credentials", "webhook_secret", "ca_certificate").annotate(
            state=Case(
                When(enabled=False, then=Value("off")),
                When(failing_since__isnull=False, then=Value("failing")),
                When(polled_at__isnull=True, then=Value("waiting")),
                default=Value("reading"), output_field=CharField(),
            ),
            models_count=_count(RegistryModel.objects, gone_at__isnull=True),
            unowned_count=_count(RegistryModel.objects, gone_at__isnull=True, model__isnull=True),
            findings_count=_count(RegistryFinding.objects, acknowledged_at__isnull=True),
        )  # fmt: skip

    def scope_object(self) -> Any:
        """Registries are the installation's."""
        return INSTALLATION

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer adding one to those who may."""
        if may(self.request.user, REGISTRY_MANAGE, INSTALLATION):
            return [("Add a registry", reverse("catalogue:registry-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        return next(iter(self.get_page_actions()), None)


class RegistryDetail(DetailView):
    """One registry: how reading goes, what it holds, what it changed."""

    queryset = Registry.objects.select_related("default_team", "keeper")
    permission = VIEW
    template_name = "catalogue/registry_detail.html"

    def scope_object(self) -> Any:
        """Registries are the installation's."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return _crumbs()

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add figures, findings, deliveries."""
        registry: Registry = self.object
        figures = registry.models.aggregate(
            models=Count("pk", filter=Q(gone_at__isnull=True)),
            unowned=Count("pk", filter=Q(gone_at__isnull=True, model__isnull=True)),
            gone=Count("pk", filter=Q(gone_at__isnull=False)),
        )
        versions = RegistryVersion.objects.filter(registry_model__registry=registry).aggregate(
            total=Count("pk", filter=Q(gone_at__isnull=True)),
            imported=Count("pk", filter=Q(model_version__isnull=False)),
            problems=Count("pk", filter=~Q(problem="") & Q(gone_at__isnull=True)),
        )
        findings = registry.findings.filter(acknowledged_at__isnull=True).select_related(
            "registry", "registry_model", "registry_version"
        )
        shown = list(findings.order_by("-found_at", "-pk")[:_SHOWN])
        problems = RegistryVersion.objects.filter(registry_model__registry=registry).exclude(problem="")
        path = reverse("api:registry-events", kwargs={"slug": registry.slug})
        return super().get_context(
            figures=figures,
            versions=versions,
            findings=[(row, about(row)) for row in shown],
            more_findings=len(shown) == _SHOWN,
            problems=list(problems.select_related("registry_model").order_by("-last_seen_at", "-pk")[:_SHOWN]),
            deliveries=list(registry.deliveries.order_by("-sent_at", "-pk")[:10]),
            has_credentials=bool(registry.credentials),
            has_secret=bool(registry.webhook_secret),
            events_url=self.request.build_absolute_uri(path),
            overdue=registry_actions.overdue(registry),
            may_manage=may(self.request.user, REGISTRY_MANAGE, INSTALLATION),
            **extra,
        )


class RegistryCreate(CreateView):
    """Add a registry."""

    title = "Add a registry"
    queryset = Registry.objects.all()
    permission = REGISTRY_MANAGE
    form_class = NewRegistryForm
    submit_label = "Add"
    intro = "Give the portal rights to read and nothing more. Credentials are kept encrypted and are never shown again."

    def scope_object(self) -> Any:
        """Registries are the installation's."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return _crumbs()

    def get_initial(self) -> dict[str, Any]:
        """Begin with the usual."""
        return {"team_tag": "team", "poll_minutes": 15}

    def perform(self, form: Any) -> str:
        """Add it."""
        values = form.values()
        registry = registry_actions.add_registry(
            values.pop("name"), form.cleaned_data["kind"], actor=self.actor, slug=form.cleaned_data["slug"],
            credentials=form.credentials(), webhook_secret=form.secret() or "", **values,
        )  # fmt: skip
        self.success_message = f"{registry} is added and will be read within a minute."
        return registry_url(registry)


class RegistryAction(ActionView):
    """An action on one registry."""

    queryset = Registry.objects.all()
    permission = REGISTRY_MANAGE
    form_class: type[CommonsForm] = NoteForm

    def scope_object(self) -> Any:
        """Registries are the installation's."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the registry."""
        return [*_crumbs(), Crumb(self.object.name, registry_url(self.object))]


class RegistryEdit(RegistryAction):
    """Change a registry."""

    title = "Edit registry"
    form_class = RegistryForm
    submit_label = "Save"
    intro = "With another address, the credentials have to be entered anew: they are not sent elsewhere unasked."

    def get_form_kwargs(self) -> dict[str, Any]:
        """Say what is stored."""
        stored = [name for name in ("credentials", "webhook_secret") if getattr(self.object, name)]
        return {"stored": frozenset(stored)}

    def get_initial(self) -> dict[str, Any]:
        """Show what is stored, but no secret."""
        row: Registry = self.object
        names = ("name", "base_url", "ca_certificate", "team_tag", "poll_minutes")
        team = row.default_team.slug if row.default_team else None
        return {name: getattr(row, name) for name in names} | {"default_team": team}

    def perform(self, form: Any) -> str:
        """Save."""
        registry_actions.edit_registry(
            self.object.pk, actor=self.actor, expected_version=self.expected_version, credentials=form.credentials(),
            webhook_secret=form.secret(), **form.values(),
        )  # fmt: skip
        self.success_message = "Saved."
        return registry_url(self.object)


class RegistryTest(RegistryAction):
    """Try a registry now."""

    title = "Test connection"
    submit_label = "Test now"
    intro = "The portal calls the registry once, with the stored credentials, and says what it found."

    def perform(self, form: Any) -> str:
        """Call it; nothing is written."""
        fine, text = registry_sync.test_connection(self.object)
        (messages.success if fine else messages.error)(self.request, f"{self.object}: {text}")
        return registry_url(self.object)


class RegistryPoll(RegistryAction):
    """Have it read at once."""

    title = "Read now"
    submit_label = "Read now"
    intro = "It is read within half a minute; what is new or was changed appears here."

    def check_state(self) -> None:
        """Enabled ones only."""
        if not self.object.enabled:
            raise Conflict("This registry is switched off: enable it first.")

    def perform(self, form: Any) -> str:
        """Ask for it."""
        registry_actions.poll_now(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        self.success_message = f"{self.object} is read in a moment."
        return registry_url(self.object)


class RegistryEnable(RegistryAction):
    """Read it again."""

    title = "Enable registry"
    submit_label = "Enable"
    intro = "It is read from now on, and its events are taken."

    def check_state(self) -> None:
        """Once."""
        if self.object.enabled:
            raise Conflict("This registry is read already.")

    def perform(self, form: Any) -> str:
        """Enable."""
        registry_actions.enable_registry(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        self.success_message = f"{self.object} is read again."
        return registry_url(self.object)


class RegistryDisable(RegistryAction):
    """Stop reading it."""

    title = "Switch registry off"
    submit_label = "Switch off"
    danger = True
    intro = "It is not read any more and its events are refused. Imported models and versions stay as they are."

    def check_state(self) -> None:
        """Once."""
        if not self.object.enabled:
            raise Conflict("This registry is switched off already.")

    def perform(self, form: Any) -> str:
        """Disable."""
        registry_actions.disable_registry(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        self.success_message = f"{self.object} is switched off."
        return registry_url(self.object)
