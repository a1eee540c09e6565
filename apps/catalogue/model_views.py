"""Pages of models: the list, one with its versions and lineage, registering, editing, archiving."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.catalogue import model_actions, selectors
from apps.catalogue.access import EDIT, MANAGE, VIEW
from apps.catalogue.events import MODELS_EXPORTED
from apps.catalogue.forms import ModelForm, NewModelForm, NoteForm, ReasonForm
from apps.catalogue.models import Model, ModelVersion
from apps.catalogue.tables import ModelFilter, ModelTable, VersionTable, class_words
from apps.core.errors import Conflict
from apps.core.permissions import may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from apps.teams import scope
from apps.teams.models import Team
from portal.panels import panels_for

#: Versions of a model on its page; all of them are in the list.
SHOWN = 50


def model_url(model: Model) -> str:
    """Return a model's page."""
    return reverse("catalogue:model-detail", kwargs={"model_uid": model.uid})


def models_crumb() -> Crumb:
    """Return the way back to the list."""
    return Crumb("Models", reverse("catalogue:model-list"))


def model_crumbs(model: Model) -> list[Crumb]:
    """Return the way back to a model."""
    return [models_crumb(), Crumb(model.name, model_url(model))]


class ModelList(ListView):
    """All models in scope."""

    title = "Models"
    permission = VIEW
    intro = (
        "What teams have built or taken over, what it is for and what data it touches. Its bytes are in its versions."
    )
    table_class = ModelTable
    filterset_class = ModelFilter
    export_event = MODELS_EXPORTED
    empty_title = "No models yet"
    empty_text = "A team's lead registers a model; then its members add versions."
    empty_icon = "stack-2"

    @staticmethod
    def queryset() -> Any:
        """Models with their newest version."""
        return selectors.model_rows(Model.objects.all())

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer registering, and the list of all versions."""
        found = []
        if may(self.request.user, MANAGE, None):
            found.append(("Register a model", reverse("catalogue:model-create")))
        return [*found, ("All versions", reverse("catalogue:version-list"))]

    def get_empty_action(self) -> tuple[str, str] | None:
        """Offer registering to those who may."""
        return self.get_page_actions()[0] if may(self.request.user, MANAGE, None) else None


class ModelDetail(DetailView):
    """One model: what it is, its versions, and what other rooms know of it (where it runs, its card, evidence)."""

    queryset = Model.objects.select_related("team")
    permission = VIEW
    template_name = "catalogue/model_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [models_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add versions, rights and panels."""
        model: Model = self.object
        rows = selectors.version_rows(ModelVersion.objects.filter(model=model)).order_by("-number")
        table = VersionTable(rows, exclude=("model", "team"), order_by=())
        table.request = self.request
        table.paginate(page=1, per_page=SHOWN)
        user = self.request.user
        return super().get_context(
            versions=table,
            version_count=table.page.paginator.count,
            newest=[row.record for row in list(table.paginated_rows)[:2]],
            all_versions_url=f"{reverse('catalogue:version-list')}?search={model.slug}",
            data_classes=class_words(model.data_classes),
            may_manage=may(user, MANAGE, model),
            may_edit=may(user, EDIT, model),
            panels=panels_for("model", self.request, model),
            **extra,
        )


class ModelCreate(CreateView):
    """Register a model."""

    title = "Register a model"
    queryset = Model.objects.all()
    permission = MANAGE
    form_class = NewModelForm
    submit_label = "Register"
    intro = (
        "A model is what your team answers for: its purpose and its data. Versions, with the bytes themselves, are"
        " added to it afterwards."
    )

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [models_crumb()]

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the teams for which this person may register."""
        mine = scope.of(self.request.user).team_filter(MANAGE, field="")
        return {"teams": Team.objects.filter(mine, archived_at__isnull=True).order_by("name", "pk")}

    def perform(self, form: Any) -> str:
        """Register, and go on to its page."""
        data = dict(form.cleaned_data)
        data.pop("version", None)
        team, name = data.pop("team"), data.pop("name")
        model = model_actions.register_model(team.pk, name, actor=self.actor, **data)
        self.success_message = f"{model} is registered. Add its first version."
        return model_url(model)


class ModelAction(ActionView):
    """An action on one model."""

    queryset = Model.objects.select_related("team")
    permission = MANAGE

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the model."""
        return model_crumbs(self.object)


class ModelEdit(ModelAction):
    """Change what is said of a model."""

    title = "Edit model"
    form_class = ModelForm
    submit_label = "Save"
    intro = (
        "Sealed versions keep the classification they were sealed with; open drafts take over what is said here. The"
        " controls that apply are worked out anew."
    )

    def check_state(self) -> None:
        """Archived models are brought back first."""
        if self.object.archived_at is not None:
            raise Conflict("This model is archived. Bring it back first.", current={"archived": True})

    def get_initial(self) -> dict[str, Any]:
        """Show what is stored."""
        model = self.object
        return {name: getattr(model, name) for name in ModelForm.base_fields if name != "version"}

    def perform(self, form: Any) -> str:
        """Save."""
        data = {name: value for name, value in form.cleaned_data.items() if name != "version"}
        model_actions.edit_model(self.object.pk, actor=self.actor, expected_version=self.expected_version, **data)
        self.success_message = "Saved."
        return model_url(self.object)


class ModelArchive(ModelAction):
    """Offer a model for nothing new."""

    title = "Archive model"
    form_class = ReasonForm
    submit_label = "Archive"
    danger = True
    intro = "No version is added to it or submitted any more. What runs is not touched; everything stays readable."

    def perform(self, form: Any) -> str:
        """Archive."""
        model_actions.archive_model(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        self.success_message = f"{self.object} is archived."
        return model_url(self.object)


class ModelRestore(ModelAction):
    """Bring an archived model back."""

    title = "Bring model back"
    form_class = NoteForm
    submit_label = "Bring it back"
    intro = "Versions can be added to it and submitted again."

    def perform(self, form: Any) -> str:
        """Restore."""
        model_actions.restore_model(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        self.success_message = f"{self.object} is back."
        return model_url(self.object)
