"""Pages of a version's files: the list, uploading, taking one away, taking a copy."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

from apps.catalogue import blobs, file_actions, scanner
from apps.catalogue.access import EDIT, VIEW
from apps.catalogue.choices import UPLOADED_NOT_SERVED, Scheme, VersionStatus
from apps.catalogue.events import MODELS_EXPORTED
from apps.catalogue.file_reading import record_taken
from apps.catalogue.forms import NoteForm, UploadForm
from apps.catalogue.models import ModelVersion, VersionFile
from apps.catalogue.tables import FileTable
from apps.catalogue.version_action_views import VersionAction
from apps.catalogue.version_views import version_crumbs, version_url
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.middleware import after_read
from apps.core.permissions import may
from apps.core.views import Crumb, DetailView, ListView


class FileList(ListView):
    """Every file of a version."""

    title = "Files"
    permission = VIEW
    table_class = FileTable
    export_event = MODELS_EXPORTED
    empty_title = "No files yet"
    empty_text = "Upload them, or have them hashed where they are."
    empty_icon = "file-text"
    version: ModelVersion

    def prepare(self) -> None:
        """Load the version."""
        rows = ModelVersion.objects.visible_to(self.request.user).select_related("model__team")
        found = rows.filter(uid=self.kwargs["version_uid"]).first()
        if found is None:
            raise NotVisible
        self.version = found

    def scope_object(self) -> Any:
        """Ask for the version."""
        return self.version

    def get_base_queryset(self) -> Any:
        """Return its files."""
        return VersionFile.objects.filter(model_version=self.version).select_related("blob")

    def get_title(self) -> str:
        """Name the version."""
        return f"Files of {self.version}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return version_crumbs(self.version)

    def get_table_kwargs(self) -> dict[str, Any]:
        """Leave out what only uploaded files have."""
        uploaded = self.version.scheme == Scheme.UPLOAD
        draft = self.version.status == VersionStatus.DRAFT
        return {
            "exclude": () if uploaded else ("content_type", "scan", "actions"),
            "may_edit": draft and may(self.request.user, EDIT, self.version),
        }


class Upload(VersionAction):
    """Give a draft files."""

    title = "Upload files"
    form_class = UploadForm
    submit_label = "Upload"
    template_name = "catalogue/upload.html"

    def check_state(self) -> None:
        """Drafts that keep their files here."""
        self.must_be_draft()
        if self.object.scheme != Scheme.UPLOAD:
            raise Conflict(f"This version's files are elsewhere ({self.object.get_scheme_display()}): hash them there.")

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say what is done with them, and where pieces go."""
        looked = "and the virus scanner looks at it" if scanner.configured() else "no virus scanner is configured"
        limit = blobs.mib(settings.COMMONS_UPLOAD_MAX_BYTES)
        intro = (
            f"Each file is hashed as it arrives, {looked}; at most {limit} a file. Larger models belong into a store."
        )
        return super().get_context(
            **{
                "intro": intro,
                "begin_url": reverse("api:model-version-uploads", kwargs={"uid": self.object.uid}),
                "piece_bytes": file_actions.MAX_PIECE // 2,
                "done_url": version_url(self.object),
                "not_served": UPLOADED_NOT_SERVED,
                **extra,
            }
        )

    def perform(self, form: Any) -> str:
        """Take every file, one after the other: what was taken before one is refused stays."""
        folder = form.cleaned_data["folder"].strip("/ ")
        taken: list[str] = []
        for file in form.cleaned_data["files"]:
            path = f"{folder}/{file.name}" if folder else file.name
            try:
                blob = blobs.put(file.chunks(blobs.PIECE), actor=self.actor, field="files")
                file_actions.add_file(self.object.pk, path, blob.pk, actor=self.actor)
            except Invalid as invalid:
                before = f" Taken before it: {', '.join(taken)}." if taken else ""
                texts = [text for found in invalid.errors.values() for text in found]
                raise Invalid({"files": [f"{file.name}: {' '.join(texts)}{before}"]}) from invalid
            taken.append(path)
        self.success_message = f"{len(taken)} file{'s' if len(taken) != 1 else ''} taken and hashed."
        return version_url(self.object)


class FileRemove(VersionAction):
    """Take a file away from a draft."""

    title = "Remove file"
    form_class = NoteForm
    submit_label = "Remove"
    danger = True
    file: VersionFile

    def prepare(self) -> None:
        """Load file and version."""
        self.file = _file(self)
        self.object = self.file.model_version

    def check_state(self) -> None:
        """Drafts only."""
        self.must_be_draft()

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say which one."""
        return super().get_context(**{"intro": f"{self.file.path} is taken away from this draft.", **extra})

    def perform(self, form: Any) -> str:
        """Remove."""
        file_actions.remove_file(self.object.pk, self.file.pk, actor=self.actor, expected_version=self.expected_version)
        self.success_message = f"{self.file.path} is removed."
        return version_url(self.object)


class FileTake(DetailView):
    """A copy of an uploaded file, as an attachment; who took it is recorded."""

    queryset = VersionFile.objects.select_related("model_version__model__team", "blob")
    permission = VIEW
    url_kwarg = "file_uid"

    def scope_object(self) -> Any:
        """Ask for the version."""
        return self.object.model_version

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Give the bytes. Raises Conflict where they are not kept here."""
        file: VersionFile = self.object
        if file.blob is None:
            raise Conflict("The portal keeps no copy of this file: it knows its digest.")
        response = blobs.download(file.blob, file.path.rpartition("/")[2])
        actor, pk = self.actor, file.pk
        after_read(request, lambda: record_taken(pk, actor=actor))
        return response


def _file(view: Any) -> VersionFile:
    rows = VersionFile.objects.visible_to(view.request.user).select_related("model_version__model__team", "blob")
    found: VersionFile | None = rows.filter(uid=view.kwargs["file_uid"]).first()
    if found is None:
        raise NotVisible
    return found
