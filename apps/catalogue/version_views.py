"""Pages of versions: the list, one with its files and what comes next, drafts, sealing, retiring."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse

from apps.catalogue import hash_jobs, lineage, locations, selectors, version_actions
from apps.catalogue.access import EDIT, MANAGE, VIEW
from apps.catalogue.blobs import mib
from apps.catalogue.choices import UPLOADED_NOT_SERVED, JobStatus, Scheme, VersionStatus
from apps.catalogue.classification import Origin
from apps.catalogue.events import MODELS_EXPORTED
from apps.catalogue.forms import VersionForm, version_initial
from apps.catalogue.manifest import bound_by, images, model_uris
from apps.catalogue.model_views import model_crumbs, models_crumb
from apps.catalogue.models import Model, ModelVersion
from apps.catalogue.sniffing import CODE
from apps.catalogue.tables import TONES, FileTable, VersionFilter, VersionTable, class_words
from apps.core.errors import Conflict, NotVisible
from apps.core.permissions import may
from apps.core.views import CreateView, Crumb, DetailView, ListView
from portal.panels import panels_for

#: Files on a version's page; all of them are in its list.
SHOWN = 25


def version_url(version: ModelVersion) -> str:
    """Return a version's page."""
    return reverse("catalogue:version-detail", kwargs={"version_uid": version.uid})


def version_crumbs(version: ModelVersion) -> list[Crumb]:
    """Return the way back to a version."""
    return [*model_crumbs(version.model), Crumb(version.label, version_url(version))]


class VersionList(ListView):
    """All versions in scope."""

    title = "Versions"
    permission = VIEW
    intro = "A version is a draft until it is sealed; from then on its files, parameters and sources never change."
    table_class = VersionTable
    filterset_class = VersionFilter
    export_event = MODELS_EXPORTED
    empty_title = "No versions yet"
    empty_text = "Versions are added on a model's page."
    empty_icon = "stack-2"

    @staticmethod
    def queryset() -> Any:
        """Versions with model and team."""
        return selectors.version_rows(ModelVersion.objects.all())

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the models."""
        return [models_crumb()]


class VersionDetail(DetailView):
    """One version: what it is, exactly; what comes next; and what other rooms know of it."""

    queryset = ModelVersion.objects.select_related("model__team", "store", "card", "author", "last_editor")
    permission = VIEW
    template_name = "catalogue/version_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the model."""
        return model_crumbs(self.object.model)

    def get_title(self) -> str:
        """Model and label."""
        return str(self.object)

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show it; once the hashing that the page follows is over, all of it is loaded anew."""
        if request.headers.get("HX-Target") == "hash-card" and self.object.status != VersionStatus.HASHING:
            return HttpResponse(headers={"HX-Refresh": "true"})
        return super().get(request, *args, **kwargs)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add files, lineage, classification, manifest, rights, what comes next, panels."""
        version: ModelVersion = self.object
        user = self.request.user
        job = selectors.last_job(version)
        may_edit = may(user, EDIT, version)
        draft = version.status == VersionStatus.DRAFT
        files = FileTable(
            version.files.select_related("blob"), may_edit=may_edit and draft,
            exclude=() if version.scheme == Scheme.UPLOAD else ("content_type", "scan", "actions"), orderable=False,
        )  # fmt: skip
        files.request = self.request
        files.paginate(page=1, per_page=SHOWN)
        steps, more = lineage.steps(version)
        shown = selectors.shown_classification(version)
        sealed = locations.manifest_of(version) if version.manifest else None
        derived = ModelVersion.objects.visible_to(user).filter(sources__source_version=version).distinct()
        return super().get_context(
            files=files,
            file_count=files.page.paginator.count,
            size=mib(version.total_bytes),
            contains_code=version.files.filter(blob__content_type__in=CODE).exists(),
            classification=shown,
            origins=[{"label": class_words([one.data_class]), "words": origin_words(one)} for one in shown.origins],
            class_words=class_words(shown.classes),
            version_tone=TONES.get(version.status, ""),
            lineage=self._visible(steps),
            lineage_more=more,
            derived=list(derived.select_related("model").order_by("-pk")[:20]),
            job=job,
            hashing=version.status == VersionStatus.HASHING,
            job_open=job is not None and job.status in hash_jobs.OPEN,
            job_failed=job is not None and draft and (job.status == JobStatus.FAILED),
            progress=progress(job),
            next=selectors.next_step(version, job),
            may_edit=may_edit,
            may_manage=may(user, MANAGE, version),
            draft=draft,
            not_served=UPLOADED_NOT_SERVED
            if version.scheme == Scheme.UPLOAD and not (sealed and sealed.stored)
            else "",
            uris=model_uris(sealed) if sealed else [],
            images=images(sealed) if sealed else [],
            bound=bound_by(sealed) if sealed else "",
            parameters=json.dumps(version.parameters, indent=2, ensure_ascii=False) if version.parameters else "",
            others=self._others(version),
            panels=panels_for("model_version", self.request, version),
            **extra,
        )

    def _visible(self, steps: list[lineage.Step]) -> list[dict[str, Any]]:
        """Name foreign versions as their users know them, without leading to what they may not see."""
        parents = [step.source.source_version_id for step in steps if step.source.source_version_id]
        seen = set(
            ModelVersion.objects.visible_to(self.request.user).filter(pk__in=parents).values_list("pk", flat=True)
        )
        found: list[dict[str, Any]] = []
        hidden: set[int] = set()
        for step in steps:
            if step.child.pk in hidden:
                # What a version out of sight was made from is out of sight, too.
                if step.source.source_version_id:
                    hidden.add(step.source.source_version_id)
                continue
            linked = step.source.source_version_id in seen
            if step.source.source_version_id and not linked:
                hidden.add(step.source.source_version_id)
            found.append({"step": step, "linked": linked, "own": step.depth == 1})
        return found

    def _others(self, version: ModelVersion) -> list[ModelVersion]:
        rows = ModelVersion.objects.filter(model_id=version.model_id).exclude(pk=version.pk)
        return list(rows.only("uid", "label", "number", "status", "model_id").order_by("-number")[:20])


def progress(job: Any) -> dict[str, Any] | None:
    """Return how far a hashing job is, as the page shows it."""
    if job is None or not job.bytes_total:
        return None
    return {
        "value": min(job.bytes_done, job.bytes_total),
        "maximum": job.bytes_total,
        "text": f"{mib(min(job.bytes_done, job.bytes_total))} of {mib(job.bytes_total)},"
        f" {job.files_done:,} of {job.files_total or 0:,} files",
    }


_ORIGINS = {"model": "the model", "version": "this version itself", "source": "in {}", "inherited": "inherited from {}"}


def origin_words(origin: Origin) -> str:
    """Say in words where a data class comes from."""
    if origin.origin == "lowered":
        return f"from {origin.detail}; not in force, by an approved exception"
    words = _ORIGINS.get(origin.origin, origin.origin).format(origin.detail)
    return f"{words}, {origin.detail}" if origin.origin == "version" and origin.detail else words


class _OfModel(CreateView):
    """Something new for a model that the address names."""

    queryset = ModelVersion.objects.all()
    permission = EDIT
    model: Model

    def prepare(self) -> None:
        """Load the model."""
        rows = Model.objects.visible_to(self.request.user).select_related("team")
        found = rows.filter(uid=self.kwargs["model_uid"]).first()
        if found is None:
            raise NotVisible
        self.model = found

    def scope_object(self) -> Any:
        """Ask for the model's team."""
        return self.model

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the model."""
        return model_crumbs(self.model)


class VersionCreate(_OfModel):
    """Begin a version: first where its files are, then what it is."""

    title = "Add a version"
    form_class = VersionForm
    submit_label = "Save draft"
    template_name = "catalogue/version_create.html"
    intro = "It starts as a draft. Add files and sources, then seal it: only sealed versions can be submitted."

    @property
    def scheme(self) -> str:
        """Where the files are, from the address."""
        given = self.request.GET.get("scheme", Scheme.UPLOAD)
        return given if given in Scheme.values else Scheme.UPLOAD

    def check_state(self) -> None:
        """Nothing is added to archived models."""
        if self.model.archived_at is not None:
            raise Conflict("This model is archived: nothing new is added to it.", current={"archived": True})

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the stores of that kind."""
        return {"model": self.model, "scheme": self.scheme}

    def get_initial(self) -> dict[str, Any]:
        """Take over from the newest version what rarely changes."""
        last = self.model.versions.select_related("store", "card").order_by("-number").first()
        card = self.model.cards.order_by("-number").first()
        if last is None:
            return {"card": card.number if card else None}
        kept = ("model_format", "runtime", "image", "arguments", "environment", "data_classes")
        found = version_initial(last)
        initial = {name: found[name] for name in kept}
        if last.scheme == self.scheme:
            initial["store"] = found["store"]
        return {**initial, "card": card.number if card else None}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the places to choose from."""
        not_served = UPLOADED_NOT_SERVED if self.scheme == Scheme.UPLOAD else ""
        return super().get_context(schemes=Scheme.choices, scheme=self.scheme, not_served=not_served, **extra)

    def perform(self, form: Any) -> str:
        """Create the draft."""
        data = form.values()
        version = version_actions.create_version(
            self.model.pk, data.pop("label"), self.scheme, actor=self.actor, **data
        )
        self.success_message = f"{version} is a draft now."
        return version_url(version)


class VersionManifest(DetailView):
    """The manifest's exact bytes: whoever hashes them gets the digest."""

    queryset = ModelVersion.objects.select_related("model__team")
    permission = VIEW
    url_kwarg = "version_uid"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Give the bytes. Raises Conflict for a draft."""
        version: ModelVersion = self.object
        if not version.manifest:
            raise Conflict("A draft has no manifest: it is made when the version is sealed.")
        name = f"{version.model.slug}-{version.label}-{version.digest[:12]}.json"
        response = HttpResponse(bytes(version.manifest), content_type="application/json")
        response["Content-Disposition"] = f'attachment; filename="{name}"'
        response["X-Content-SHA256"] = version.digest
        return response
