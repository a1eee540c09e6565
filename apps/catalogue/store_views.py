"""Pages of stores, for platform admins."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.urls import reverse

from apps.catalogue import store_actions, stores
from apps.catalogue.access import STORE_MANAGE, STORE_VIEW
from apps.catalogue.choices import Scheme
from apps.catalogue.forms import NoteForm, StoreForm
from apps.catalogue.models import ModelStore, ModelVersion
from apps.catalogue.tables import StoreFilter, StoreTable
from apps.core.errors import Conflict
from apps.core.forms import CommonsForm
from apps.core.permissions import INSTALLATION, may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView

KINDS = [choice for choice in Scheme.choices if choice[0] != Scheme.UPLOAD]


def store_url(store: ModelStore) -> str:
    """Return a store's page."""
    return reverse("catalogue:store-detail", kwargs={"store_uid": store.uid})


def _crumbs() -> list[Crumb]:
    return [Crumb("Stores", reverse("catalogue:store-list"))]


class StoreList(ListView):
    """All stores."""

    title = "Stores"
    permission = STORE_VIEW
    intro = "Where the portal reads models to hash them: object storage, registries, hubs and mounted volumes."
    table_class = StoreTable
    filterset_class = StoreFilter
    empty_title = "No stores yet"
    empty_text = "Without one, versions can only be uploaded."
    empty_icon = "database"

    @staticmethod
    def queryset() -> Any:
        """Stores with the number of versions in them."""
        counted = ModelVersion.objects.filter(store=OuterRef("pk")).order_by().values("store")
        number = Subquery(counted.annotate(n=Count("pk")).values("n"))
        return ModelStore.objects.annotate(versions_count=Coalesce(number, 0)).defer("credentials", "ca_certificate")

    def scope_object(self) -> Any:
        """Stores are the installation's."""
        return INSTALLATION

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer adding one to those who may."""
        if may(self.request.user, STORE_MANAGE, INSTALLATION):
            return [("Add a store", reverse("catalogue:store-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        return next(iter(self.get_page_actions()), None)


class StoreDetail(DetailView):
    """One store; credentials are never shown."""

    queryset = ModelStore.objects.prefetch_related("teams")
    permission = STORE_VIEW
    template_name = "catalogue/store_detail.html"

    def scope_object(self) -> Any:
        """Stores are the installation's."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return _crumbs()

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what lies there."""
        store: ModelStore = self.object
        rows = store.versions.visible_to(self.request.user).select_related("model").order_by("-pk")
        return super().get_context(
            versions=list(rows[:20]),
            version_count=rows.count(),
            has_credentials=bool(store.credentials),
            may_manage=may(self.request.user, STORE_MANAGE, INSTALLATION),
            **extra,
        )


class StoreCreate(CreateView):
    """Add a store: first what kind, then where."""

    title = "Add a store"
    queryset = ModelStore.objects.all()
    permission = STORE_MANAGE
    form_class = StoreForm
    submit_label = "Add"
    template_name = "catalogue/store_create.html"
    intro = (
        "Give the portal rights to read, and to write only where it keeps copies. Credentials are kept encrypted and"
        " are never shown again."
    )

    def scope_object(self) -> Any:
        """Stores are the installation's."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return _crumbs()

    @property
    def scheme(self) -> str:
        """What kind, from the address."""
        given = self.request.GET.get("scheme", Scheme.S3)
        return given if given in dict(KINDS) else Scheme.S3

    def get_form_kwargs(self) -> dict[str, Any]:
        """Ask for what that kind needs."""
        return {"scheme": self.scheme}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the kinds to choose from."""
        return super().get_context(schemes=KINDS, scheme=self.scheme, **extra)

    def perform(self, form: Any) -> str:
        """Add it."""
        data = form.cleaned_data
        store = store_actions.add_store(
            data["name"], self.scheme, actor=self.actor, endpoint=data["endpoint"], prefix=data["prefix"],
            region=data.get("region", ""), ca_certificate=data.get("ca_certificate", ""),
            credentials=form.credentials() or {}, team_ids=[team.pk for team in data["teams"]],
            takes_copies=data.get("takes_copies", False),
        )  # fmt: skip
        self.success_message = f"{store} is added. Test the connection."
        return store_url(store)


class StoreAction(ActionView):
    """An action on one store."""

    queryset = ModelStore.objects.all()
    permission = STORE_MANAGE
    form_class: type[CommonsForm] = NoteForm

    def scope_object(self) -> Any:
        """Stores are the installation's."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the store."""
        return [*_crumbs(), Crumb(self.object.name, store_url(self.object))]


class StoreEdit(StoreAction):
    """Change a store."""

    title = "Edit store"
    form_class = StoreForm
    submit_label = "Save"
    intro = "With another address, the credentials have to be entered anew: they are not sent elsewhere unasked."

    def get_form_kwargs(self) -> dict[str, Any]:
        """Ask for what its kind needs."""
        return {"scheme": self.object.scheme, "has_credentials": bool(self.object.credentials)}

    def get_initial(self) -> dict[str, Any]:
        """Show what is stored, but no credentials."""
        store: ModelStore = self.object
        names = store_actions.EDITABLE
        return {name: getattr(store, name) for name in names} | {"teams": [team.slug for team in store.teams.all()]}

    def perform(self, form: Any) -> str:
        """Save."""
        data = form.cleaned_data
        changes = {name: data[name] for name in store_actions.EDITABLE if name in data}
        store_actions.edit_store(
            self.object.pk, actor=self.actor, expected_version=self.expected_version, credentials=form.credentials(),
            team_ids=[team.pk for team in data["teams"]], **changes,
        )  # fmt: skip
        self.success_message = "Saved."
        return store_url(self.object)


class StoreTest(StoreAction):
    """Try a store now."""

    title = "Test connection"
    submit_label = "Test now"
    intro = "The portal calls the store once, with the stored credentials, and says what it found."

    def perform(self, form: Any) -> str:
        """Call it; nothing is written."""
        fine, text = stores.test_connection(self.object)
        (messages.success if fine else messages.error)(self.request, f"{self.object}: {text}")
        return store_url(self.object)


class StoreArchive(StoreAction):
    """Offer a store for nothing new."""

    title = "Archive store"
    submit_label = "Archive"
    danger = True
    intro = "No version is hashed from it any more. What is sealed stays as it is."

    def check_state(self) -> None:
        """Once."""
        if self.object.archived_at is not None:
            raise Conflict("This store is archived already.")

    def perform(self, form: Any) -> str:
        """Archive."""
        store_actions.archive_store(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        self.success_message = f"{self.object} is archived."
        return store_url(self.object)


class StoreRestore(StoreAction):
    """Offer an archived store again."""

    title = "Bring store back"
    submit_label = "Bring it back"
    intro = "Versions can be hashed from it again."

    def check_state(self) -> None:
        """Archived ones only."""
        if self.object.archived_at is None:
            raise Conflict("This store is not archived.")

    def perform(self, form: Any) -> str:
        """Restore."""
        store_actions.restore_store(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        self.success_message = f"{self.object} is back."
        return store_url(self.object)
