"""Pages of evidence: list, one piece, add by kind with the verdict while typing, withdraw, take the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import django_filters
import django_tables2 as tables
from django.http.response import HttpResponseBase
from django.urls import reverse

from apps.catalogue import blobs, cards_views, controls_state, evidence, evidence_kinds, evidence_results, signatures
from apps.catalogue import manifest as manifests
from apps.catalogue.access import VIEW
from apps.catalogue.choices import EvidenceKind
from apps.catalogue.evidence_events import EVIDENCE_EXPORTED
from apps.catalogue.evidence_forms import EvidenceForm, ReasonForm
from apps.catalogue.file_reading import record_evidence
from apps.catalogue.models import Control, Evidence, ModelVersion
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.filters import CommonsFilterSet, DateFromFilter, DateUntilFilter, SearchFilter
from apps.core.middleware import after_read
from apps.core.permissions import INSTALLATION, may
from apps.core.tables import CommonsTable, StatusColumn, TimeColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView, LiveView, PageView

_VERSIONS = ModelVersion.objects.select_related("model__team__unit", "card")
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
VERDICT_TONES = {"pass": "positive", "fail": "critical", "info": "neutral"}


#: Of a payload: what has a place of its own on the page.
_APART = frozenset(
    ("summary", "reasons", "gaps", "attributes", "format", "signature", "signed_payload", "payload_type", "key",
     "fingerprint", "algorithm", "verified_at")
)  # fmt: skip


def version_crumbs(version: ModelVersion) -> list[Crumb]:
    """Return the way back to a version."""
    url = reverse("catalogue:version-detail", kwargs={"version_uid": version.uid})
    return [*cards_views.model_crumbs(version.model), Crumb(version.label, url)]


def images_of(version: ModelVersion) -> list[str]:
    """Return the images a version is served with."""
    return manifests.images(manifests.parse(version.manifest)) if version.digest else []


def result_rows(results: list[evidence_results.Result]) -> list[dict[str, Any]]:
    """Return results as pages show them."""
    return [
        {
            "metric": one.metric, "slice": one.slice or "all data", "value": f"{one.value:f}",
            "bounds": f"{one.low if one.low is not None else '–'} … {one.high if one.high is not None else '–'}"
            if one.low is not None or one.high is not None else "–",
            "threshold": f"{evidence_results.COMPARISONS[one.comparison]} {one.threshold:f}"
            if one.comparison and one.threshold is not None else "–",
            "samples": one.samples, "dataset": " ".join(filter(None, [one.dataset, one.dataset_revision])) or "–",
            "word": {True: "pass", False: "fail", None: "info"}[one.passed], "why": one.why,
        }
        for one in results
    ]  # fmt: skip


class EvidenceTable(CommonsTable):
    """Evidence, newest first."""

    title = UidLinkColumn("catalogue:evidence-detail", kwarg="evidence_uid", verbose_name="Evidence")
    kind = tables.Column(verbose_name="Kind", attrs=_WIDE)
    verdict = StatusColumn(verbose_name="Verdict", tones=VERDICT_TONES)
    version_label = UidLinkColumn(
        "catalogue:version-detail", kwarg="version_uid", target="model_version", accessor="model_version",
        verbose_name="Version", order_by=("model__name", "model_version__number"),
    )  # fmt: skip
    produced_at = TimeColumn(verbose_name="Produced", attrs=_WIDE)
    valid_until = TimeColumn(verbose_name="Valid until", default="–", attrs=_WIDE)
    withdrawn_at = TimeColumn(verbose_name="Withdrawn", default="–", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = Evidence
        fields = ("title", "kind", "verdict", "version_label", "produced_at", "valid_until", "withdrawn_at")
        order_by = ("-produced_at",)
        caption = "Evidence"


class EvidenceFilter(CommonsFilterSet):
    """Kind, verdict, day, words."""

    search = SearchFilter(columns=["title", "model__name", "subject_digest"])
    kind = django_filters.ChoiceFilter(choices=EvidenceKind.choices, empty_label="All")
    verdict = django_filters.ChoiceFilter(
        choices=[("pass", "Pass"), ("fail", "Fail"), ("info", "No verdict")], empty_label="All"
    )
    withdrawn = django_filters.BooleanFilter(field_name="withdrawn_at", lookup_expr="isnull", exclude=True)
    produced_from = DateFromFilter(field_name="produced_at", label="Produced from")
    produced_until = DateUntilFilter(field_name="produced_at", label="Produced until")

    class Meta:
        model = Evidence
        fields: list[str] = []


class EvidenceList(ListView):
    """All evidence in scope; of one version with its uid in the address."""

    permission = VIEW
    table_class = EvidenceTable
    filterset_class = EvidenceFilter
    export_event = EVIDENCE_EXPORTED
    intro = "What was shown about versions, each about exactly the bytes it names. It is withdrawn, never deleted."
    empty_title = "No evidence yet"
    empty_text = "Members of the owning team and CI systems add it to a sealed version."
    empty_icon = "file-text"
    version: ModelVersion | None = None

    def prepare(self) -> None:
        """Load the version where one is named."""
        if "version_uid" in self.kwargs:
            self.version = _VERSIONS.get_visible(self.request.user, self.kwargs["version_uid"])

    def scope_object(self) -> Any:
        """Ask permissions for the version."""
        return self.version

    def get_title(self) -> str:
        """Whose evidence."""
        return f"Evidence about {self.version}" if self.version is not None else "Evidence"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return version_crumbs(self.version) if self.version is not None else []

    def get_base_queryset(self) -> Any:
        """All, or one version's."""
        rows = Evidence.objects.select_related("model__team", "model_version__model")
        return rows.filter(model_version=self.version) if self.version is not None else rows

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Adding, to those who may."""
        if self.version is None or not self.version.digest or not may(self.request.user, evidence.ADD, self.version):
            return []
        return [("Add evidence", reverse("catalogue:evidence-choose", kwargs={"version_uid": self.version.uid}))]


class _OfVersion(PageView):
    """A page about a version of the address."""

    object: Any = None

    def prepare(self) -> None:
        """Load the version."""
        self.object = _VERSIONS.get_visible(self.request.user, self.kwargs["version_uid"])

    def scope_object(self) -> Any:
        """Ask permissions for it."""
        return self.object

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return version_crumbs(self.object)


class EvidenceChoose(_OfVersion):
    """Which kind of evidence is to be added."""

    title = "Add evidence"
    permission = evidence.ADD
    queryset = _VERSIONS
    template_name = "catalogue/evidence_choose.html"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the kinds with the controls that ask for each."""
        rows = Control.objects.filter(superseded_at__isnull=True, computed="").values_list("evidence_kinds", flat=True)
        asking = [kind for kinds in rows for kind in kinds]
        kinds = [
            {
                "label": str(kind.label), "controls": asking.count(kind.value),
                "url": reverse(
                    "catalogue:evidence-add", kwargs={"version_uid": self.object.uid, "kind": kind.value}
                ),
            }
            for kind in EvidenceKind
        ]  # fmt: skip
        return super().get_context(object=self.object, kinds=kinds, **extra)


class EvidenceAdd(ActionView):
    """Add a piece of evidence of one kind."""

    queryset = _VERSIONS
    permission = evidence.ADD
    url_kwarg = "version_uid"
    form_class = EvidenceForm
    template_name = "catalogue/evidence_form.html"
    intro = "It counts for exactly the bytes of this version, until it expires or is withdrawn. It cannot be edited."
    submit_label = "Add it"
    success_message = "Added."

    def prepare(self) -> None:
        """Load the version; an unknown kind has no page."""
        super().prepare()
        if self.kwargs["kind"] not in EvidenceKind.values:
            raise NotVisible

    def get_title(self) -> str:
        """Which kind."""
        return f"Add evidence: {str(EvidenceKind(self.kwargs['kind']).label).lower()}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version's evidence."""
        url = reverse("catalogue:version-evidence", kwargs={"version_uid": self.object.uid})
        return [*version_crumbs(self.object), Crumb("Evidence", url)]

    def check_state(self) -> None:
        """Only a sealed version has bytes."""
        if not self.object.digest:
            raise Conflict("Seal the version first: evidence is about its bytes, and a draft has none.")

    def get_initial(self) -> dict[str, Any]:
        """A title to begin with; the control that led here."""
        label = EvidenceKind(self.kwargs["kind"]).label
        found: dict[str, Any] = {"title": f"{label}, {self.object.model.name} {self.object.label}"}
        if code := self.request.GET.get("control"):
            found["controls"] = [code[:80]]
        return found

    def get_form_kwargs(self) -> dict[str, Any]:
        """The kind decides the fields."""
        return {"kind": self.kwargs["kind"], "version": self.object, "images": images_of(self.object)}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add where the verdict comes from while typing."""
        kind = self.kwargs["kind"]
        url = ""
        if kind in evidence_kinds.MEASURED:
            url = reverse("catalogue:evidence-preview", kwargs={"version_uid": self.object.uid, "kind": kind})
        return super().get_context(preview_url=url, **extra)

    def perform(self, form: Any) -> str:
        """Keep the file, then add the evidence."""
        draft = draft_of(form)
        upload, blob = form.cleaned_data["file"], None
        if upload is not None:
            evidence.check_early(self.object.pk, draft, has_file=True)
            blob = evidence.attach(upload.chunks(), actor=self.actor)
        row = evidence.add_evidence(self.object.pk, draft, actor=self.actor, blob=blob)
        return reverse("catalogue:evidence-detail", kwargs={"evidence_uid": row.uid})


def draft_of(form: Any) -> evidence.Draft:
    """Return what was typed. Raises Invalid beside the results."""
    data = form.cleaned_data
    upload = data.get("file")
    return evidence.Draft(
        kind=form.kind, title=data["title"], rows=form.rows(), payload=form.payload(), controls=data["controls"],
        produced_at=data["produced_at"], valid_until=data["valid_until"], file_name=upload.name if upload else "",
    )  # fmt: skip


class EvidencePreview(_OfVersion, LiveView):
    """The verdict of results while they are typed."""

    queryset = _VERSIONS
    permission = evidence.ADD
    form_class = EvidenceForm
    template_name = "catalogue/evidence_preview.html"

    def get_form_kwargs(self) -> dict[str, Any]:
        """The kind decides the fields."""
        if self.kwargs["kind"] not in evidence_kinds.MEASURED:
            raise NotVisible
        return {"kind": self.kwargs["kind"], "version": self.object}

    def compute(self, form: Any) -> Mapping[str, Any]:
        """Return results with their judgement, or what is wrong so far."""
        try:
            rows = form.rows()
            results = evidence_results.read_results(rows)
            if not results:
                return {"empty": True}
            judged = evidence_kinds.judge(form.kind, form.payload(), results, has_file=False)
        except Invalid as invalid:
            return {"problems": [text for texts in invalid.errors.values() for text in texts]}
        return {"rows": result_rows(results), "word": judged.verdict, "reasons": judged.reasons}


class EvidenceDetail(DetailView):
    """One piece of evidence."""

    queryset = Evidence.objects.select_related(
        "model__team__unit", "model_version__model", "blob", "produced_by", "producer", "withdrawn_by", "signing_key"
    )
    permission = VIEW
    url_kwarg = "evidence_uid"
    template_name = "catalogue/evidence_detail.html"

    def get_title(self) -> str:
        """Its title."""
        return str(self.object.title)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return version_crumbs(self.object.model_version)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add results, what it counts for, and what the person may do; that it was read is recorded."""
        row: Evidence = self.object
        actor, pk = self.actor, row.pk
        after_read(self.request, lambda: record_evidence(pk, actor=actor))
        fitting = Control.objects.filter(
            superseded_at__isnull=True, computed="", evidence_kinds__contains=[row.kind]
        ).select_related("regime")
        if row.controls:
            fitting = fitting.filter(code__in=row.controls)
        payload = {
            name.replace("_", " ").capitalize(): value
            for name, value in row.payload.items()
            if name not in _APART and value not in ("", None)
        }
        return super().get_context(
            rows=result_rows(evidence.stored_results(row)),
            payload=sorted(payload.items()),
            reasons=row.payload.get("reasons", []),
            summary=row.payload.get("summary", ""),
            attributes=", ".join(row.payload.get("attributes", [])),
            gaps=row.payload.get("gaps", []),
            signature_form=signatures.FORMATS.get(str(row.payload.get("format", "")), ""),
            void=controls_state.why_void(row),
            may_see_key=may(self.request.user, "catalogue.signing_key.view", INSTALLATION),
            controls=list(fitting.order_by("regime__code", "code")),
            verdict_tone=VERDICT_TONES[row.verdict],
            may_withdraw=evidence.may_withdraw(self.request.user, row),
            **extra,
        )


class EvidenceWithdraw(ActionView):
    """Take a piece back."""

    title = "Withdraw the evidence"
    intro = "It counts no more from now on, for open requests as well. It stays readable with your reason."
    queryset = Evidence.objects.select_related("model__team__unit", "model_version__model")
    permission = evidence.ADD
    url_kwarg = "evidence_uid"
    form_class = ReasonForm
    submit_label = "Withdraw it"
    danger = True
    success_message = "Withdrawn."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the evidence."""
        url = reverse("catalogue:evidence-detail", kwargs={"evidence_uid": self.object.uid})
        return [*version_crumbs(self.object.model_version), Crumb(self.object.title, url)]

    def check_state(self) -> None:
        """Once."""
        if self.object.withdrawn_at is not None:
            raise Conflict("It is withdrawn already.")

    def perform(self, form: Any) -> str:
        """Withdraw it."""
        evidence.withdraw_evidence(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return reverse("catalogue:evidence-detail", kwargs={"evidence_uid": self.object.uid})


class EvidenceFile(DetailView):
    """The attached document, as an attachment that no browser opens."""

    queryset = Evidence.objects.select_related("model__team__unit", "blob")
    permission = VIEW
    url_kwarg = "evidence_uid"

    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Give the bytes; who took them is recorded."""
        row: Evidence = self.object
        if row.blob is None:
            raise NotVisible("This evidence has no file.")
        response = blobs.download(row.blob, row.file_name)
        actor, pk = self.actor, row.pk
        after_read(request, lambda: record_evidence(pk, actor=actor, taken=True))
        return response
