"""Pages of controls: where each stands for a version, the regimes with their dated rules, publishing a revision."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django.urls import reverse

from apps.catalogue import answers, controls_state, regimes_confirming, regimes_publishing
from apps.catalogue.access import VIEW
from apps.catalogue.choices import Answer, ControlKind, ControlStatus, EvidenceKind
from apps.catalogue.controls import ControlState, words
from apps.catalogue.evidence_events import CONTROLS_EXPORTED
from apps.catalogue.evidence_forms import AnswerForm, ConfirmCitationForm, ControlForm
from apps.catalogue.evidence_views import version_crumbs
from apps.catalogue.models import CitationConfirmation, Control, ControlAnswer, Evidence, ModelVersion, Regime
from apps.core.errors import Conflict, NotVisible
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.permissions import INSTALLATION, may
from apps.core.tables import CommonsTable, StatusColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView

_VERSIONS = ModelVersion.objects.select_related("model__team__unit", "card")
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
TONES = {
    "satisfied": "positive", "missing": "critical", "expired": "critical", "stale": "caution", "failed": "critical",
    "waived": "caution", "not_applicable": "neutral",
}  # fmt: skip


def state_rows(states: list[ControlState], user: Any, version: ModelVersion) -> list[dict[str, Any]]:
    """Return control states by regime, as pages show them: open ones first, with what to do and the evidence."""
    uids = {uid for one in states for uid in one.evidence}
    titles = {
        str(uid): title
        for uid, title in Evidence.objects.visible_to(user).filter(uid__in=uids).values_list("uid", "title")
    }
    names = dict(Regime.objects.values_list("code", "name"))
    may_add = may(user, "catalogue.evidence.add", version)
    kinds: dict[str, list[str]] = dict(
        Control.objects.filter(superseded_at__isnull=True).values_list("code", "evidence_kinds")
    )
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in states:
        row = {
            "state": one, "tone": TONES[one.status], "label": str(ControlStatus(one.status).label),
            "kind": str(ControlKind(one.kind).label), "blocks": one.blocks,
            "evidence": [
                {"title": titles[uid], "url": reverse("catalogue:evidence-detail", kwargs={"evidence_uid": uid})}
                for uid in one.evidence if uid in titles
            ],
            "todo_url": _todo_url(one, version, kinds.get(one.code, [])) if may_add and version.digest else "",
        }  # fmt: skip
        groups.setdefault(one.regime, []).append(row)
    return [
        {
            "code": code, "name": names.get(code, code), "rows": rows,
            "open": sum(1 for row in rows if row["blocks"]), "total": len(rows),
        }
        for code, rows in groups.items()
    ]  # fmt: skip


def _todo_url(state: ControlState, version: ModelVersion, kinds: list[str]) -> str:
    if state.status in ("satisfied", "waived", "not_applicable"):
        return ""
    asks_answer = state.kind == ControlKind.ADDRESSABLE and not state.evidence
    if asks_answer:
        return reverse("catalogue:control-answer", kwargs={"version_uid": version.uid, "code": state.code})
    if kinds:
        url = reverse("catalogue:evidence-add", kwargs={"version_uid": version.uid, "kind": kinds[0]})
        return f"{url}?control={state.code}"
    return ""


class VersionControls(DetailView):
    """Where every control stands for a version, as for production."""

    queryset = _VERSIONS
    permission = VIEW
    url_kwarg = "version_uid"
    template_name = "catalogue/version_controls.html"

    def get_title(self) -> str:
        """Which version."""
        return f"Controls of {self.object}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the version."""
        return version_crumbs(self.object)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the states by regime."""
        version: ModelVersion = self.object
        standing = controls_state.standing(version)
        everything = self.request.GET.get("all") == "1"
        shown = standing.states if everything else standing.applying
        return super().get_context(
            groups=state_rows(shown, self.request.user, version),
            open_count=len(standing.open),
            applying=len(standing.applying),
            hidden=len(standing.states) - len(standing.applying),
            everything=everything,
            may_propose=may(self.request.user, "catalogue.exception.propose", version),
            **extra,
        )


class ControlAnswerView(ActionView):
    """Answer an addressable control for a version."""

    queryset = _VERSIONS
    permission = "catalogue.evidence.add"
    url_kwarg = "version_uid"
    form_class = AnswerForm
    template_name = "catalogue/control_answer.html"
    submit_label = "Document the answer"
    success_message = "Documented."
    control: Control

    def prepare(self) -> None:
        """Load version and control."""
        super().prepare()
        found = Control.objects.filter(
            code=self.kwargs["code"], superseded_at__isnull=True, kind=ControlKind.ADDRESSABLE
        ).first()
        if found is None:
            raise NotVisible
        self.control = found

    def get_title(self) -> str:
        """Which control."""
        return f"Answer: {self.control.title}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the controls."""
        url = reverse("catalogue:version-controls", kwargs={"version_uid": self.object.uid})
        return [*version_crumbs(self.object), Crumb("Controls", url)]

    def check_state(self) -> None:
        """Only a sealed version has bytes."""
        if not self.object.digest:
            raise Conflict("Seal the version first: the answer is about its bytes.")

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the control and what was answered before."""
        rows = ControlAnswer.objects.filter(model_version__model=self.object.model, control_code=self.control.code)
        before = [
            {"row": row, "label": str(Answer(row.answer).label), "mine": row.subject_digest == self.object.digest}
            for row in rows.select_related("author", "model_version").order_by("-pk")[:10]
        ]
        return super().get_context(control=self.control, before=before, **extra)

    def perform(self, form: Any) -> str:
        """Answer it."""
        data = form.cleaned_data
        answers.answer_control(self.object.pk, self.control.code, data["answer"], data["rationale"], actor=self.actor)
        return reverse("catalogue:version-controls", kwargs={"version_uid": self.object.uid})


class RegimeTable(CommonsTable):
    """Regimes."""

    name = UidLinkColumn("catalogue:regime-detail", kwarg="regime_uid", verbose_name="Regime")
    source = tables.Column(verbose_name="Source", attrs=_WIDE)
    as_of = tables.DateColumn(verbose_name="State of the law", format="Y-m-d", default="–")

    class Meta(CommonsTable.Meta):
        model = Regime
        fields = ("name", "source", "as_of")
        order_by = ("name",)
        caption = "Regimes"


class RegimeList(ListView):
    """The regulations and frameworks that controls come from."""

    title = "Regimes"
    intro = "Dated data with citations, not legal advice. What applies follows from data classes, tier, role, place."
    queryset = Regime.objects.all()
    table_class = RegimeTable
    export_event = CONTROLS_EXPORTED
    empty_title = "No regimes loaded"
    empty_text = "A platform admin runs the command load_regimes."
    empty_icon = "scale"


class RegimeDetail(DetailView):
    """One regime with its controls in force."""

    queryset = Regime.objects.all()
    url_kwarg = "regime_uid"
    template_name = "catalogue/regime_detail.html"

    def scope_object(self) -> Any:
        """Everybody reads the rules."""
        return None

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Regimes", reverse("catalogue:regime-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add controls and conditions in words."""
        from apps.catalogue.cards import BY_KEY

        rows = list(
            Control.objects.filter(regime=self.object, superseded_at__isnull=True)
            .select_related("confirmation__confirmed_by")
            .order_by("code")
        )
        open_ones = [row for row in rows if not row.confirmed and not hasattr(row, "confirmation")]
        return super().get_context(
            conditions=[words(one) for one in self.object.when],
            card_fields=[BY_KEY[key].label for key in self.object.card_fields if key in BY_KEY],
            controls=[
                {
                    "row": row,
                    "conditions": [words(one) for one in row.when],
                    "read": getattr(row, "confirmation", None),
                    "open": row in open_ones,
                }
                for row in rows
            ],
            doubts=regimes_confirming.doubts(open_ones),
            may_publish=may(self.request.user, regimes_publishing.PUBLISH, INSTALLATION),
            **extra,
        )


class ControlTable(CommonsTable):
    """Controls in force."""

    title = UidLinkColumn("catalogue:control-detail", kwarg="control_uid", verbose_name="Control")
    citation = tables.Column(verbose_name="Citation")
    regime = tables.Column(accessor="regime__name", verbose_name="Regime", attrs=_WIDE)
    kind = StatusColumn(verbose_name="Kind", tones=dict.fromkeys(ControlKind.values, "neutral"))
    applies_from = tables.DateColumn(verbose_name="Applies from", format="Y-m-d", default="–", attrs=_WIDE)
    revision = tables.Column(verbose_name="Revision", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = Control
        fields = ("title", "citation", "regime", "kind", "applies_from", "revision")
        order_by = ("citation",)
        caption = "Controls in force"


class ControlFilter(CommonsFilterSet):
    """Regime, kind, words."""

    search = SearchFilter(columns=["title", "citation", "text", "code"])
    regime = django_filters.ModelChoiceFilter(queryset=Regime.objects.order_by("name"), empty_label="All")
    kind = django_filters.ChoiceFilter(choices=ControlKind.choices, empty_label="All")
    confirmed = django_filters.BooleanFilter(label="Confirmed against the official text")

    class Meta:
        model = Control
        fields: list[str] = []


class ControlList(ListView):
    """Every control in force."""

    title = "Controls"
    intro = "What versions have to show. Each status is computed from evidence, answers and checks; nobody ticks it."
    queryset = Control.objects.filter(superseded_at__isnull=True).select_related("regime")
    table_class = ControlTable
    filterset_class = ControlFilter
    export_event = CONTROLS_EXPORTED
    empty_title = "No controls"
    empty_text = "A platform admin runs the command load_regimes."
    empty_icon = "list-check"


class ControlDetail(DetailView):
    """One revision of a control, with the others."""

    queryset = Control.objects.select_related("regime", "published_by")
    url_kwarg = "control_uid"
    template_name = "catalogue/control_detail.html"

    def scope_object(self) -> Any:
        """Everybody reads the rules."""
        return None

    def get_title(self) -> str:
        """The control's title."""
        return str(self.object.title)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [Crumb("Controls", reverse("catalogue:control-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add conditions in words and the revisions."""
        row: Control = self.object
        others = Control.objects.filter(code=row.code).exclude(pk=row.pk).order_by("-revision")
        return super().get_context(
            conditions=[*(words(one) for one in row.regime.when), *(words(one) for one in row.when)],
            kinds=[str(EvidenceKind(kind).label) for kind in row.evidence_kinds],
            others=list(others),
            read=CitationConfirmation.objects.filter(control=row).select_related("confirmed_by").first(),
            may_confirm=may(self.request.user, regimes_publishing.PUBLISH, INSTALLATION)
            and regimes_confirming.doubt_of(row) is not None,
            may_publish=row.superseded_at is None and may(self.request.user, regimes_publishing.PUBLISH, INSTALLATION),
            **extra,
        )


class ControlConfirm(ActionView):
    """Confirm a citation against the official text, with all controls that rest on the same provision."""

    title = "Confirm the citation"
    intro = "You state that you have read the official text. It is kept with your name, the day and what you read."
    queryset = Control.objects.select_related("regime")
    permission = regimes_publishing.PUBLISH
    url_kwarg = "control_uid"
    form_class = ConfirmCitationForm
    template_name = "catalogue/control_confirm.html"
    submit_label = "I have read it"
    success_message = "Confirmed."

    def scope_object(self) -> Any:
        """Rules belong to the installation."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the regime."""
        return [Crumb("Regimes", reverse("catalogue:regime-list")), Crumb(self.object.regime.name, self._regime())]

    def _regime(self) -> str:
        return reverse("catalogue:regime-detail", kwargs={"regime_uid": self.object.regime.uid})

    def check_state(self) -> None:
        """Only what nobody has confirmed."""
        if regimes_confirming.doubt_of(self.object) is None:
            raise Conflict("It is confirmed already, or another revision is in force.")

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what exactly is open, and which controls rest on it."""
        return super().get_context(doubt=regimes_confirming.doubt_of(self.object), **extra)

    def perform(self, form: Any) -> str:
        """Confirm it."""
        data = form.cleaned_data
        regimes_confirming.confirm(self.object.pk, data["source"], data["read_on"], actor=self.actor)
        return self._regime()


class ControlPublish(ActionView):
    """Publish another revision of a control."""

    title = "Publish another revision"
    intro = "It counts at once, for open requests as well. The revision in force until now stays readable."
    queryset = Control.objects.select_related("regime")
    permission = regimes_publishing.PUBLISH
    url_kwarg = "control_uid"
    form_class = ControlForm
    submit_label = "Publish"
    success_message = "Published."

    def scope_object(self) -> Any:
        """Rules belong to the installation."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the control."""
        url = reverse("catalogue:control-detail", kwargs={"control_uid": self.object.uid})
        return [Crumb("Controls", reverse("catalogue:control-list")), Crumb(self.object.title, url)]

    def check_state(self) -> None:
        """Only the revision in force has a successor."""
        if self.object.superseded_at is not None:
            raise Conflict("Another revision is in force already: change that one.")

    def get_initial(self) -> dict[str, Any]:
        """The revision in force."""
        names = [name for name in ControlForm.base_fields if name not in ("version", "reason")]
        return {name: getattr(self.object, name) for name in names}

    def perform(self, form: Any) -> str:
        """Publish it."""
        data = {name: value for name, value in form.cleaned_data.items() if name not in ("version", "reason")}
        row = regimes_publishing.publish_control(self.object.pk, data, form.cleaned_data["reason"], actor=self.actor)
        return reverse("catalogue:control-detail", kwargs={"control_uid": row.uid})
