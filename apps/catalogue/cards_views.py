"""Pages of model cards: read, edit with preview, history, difference, and the way in from and out to Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import django_tables2 as tables
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse

from apps.catalogue import cards, cards_hf, cards_saving, controls_checks, controls_state
from apps.catalogue.access import EDIT, VIEW
from apps.catalogue.evidence_events import CARD_EXPORTED
from apps.catalogue.evidence_forms import CardForm, CardImportForm, card_initial
from apps.catalogue.models import CardRevision, Model, ModelVersion
from apps.core.errors import Invalid, NotVisible
from apps.core.permissions import may
from apps.core.tables import CommonsTable, TimeColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView, LiveView

_MODELS = Model.objects.select_related("team__unit")


def model_crumbs(model: Model) -> list[Crumb]:
    """Return the way back to a model."""
    return [
        Crumb("Models", reverse("catalogue:model-list")),
        Crumb(model.name, reverse("catalogue:model-detail", kwargs={"model_uid": model.uid})),
    ]


def card_url(model: Model) -> str:
    """Return the page of a model's newest card."""
    return reverse("catalogue:card-detail", kwargs={"model_uid": model.uid})


def regimes_of(model: Model) -> list[tuple[str, str, list[str]]]:
    """Return the regimes that ask something of the cards of a model's next version, as for production."""
    return controls_checks.regimes_asking(controls_state.facts_of_model(model))


def shown_sections(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a card as pages draw it."""
    found = []
    for section, rows in cards.by_section(body):
        fields = [
            {"label": field.label, "kind": str(field.kind), "value": value, "text": cards.shown(field, value)}
            for field, value in rows
        ]
        found.append({"title": section, "fields": fields})
    return found


class CardDetail(DetailView):
    """A model's card: the newest revision, or the one asked for."""

    queryset = _MODELS
    permission = VIEW
    url_kwarg = "model_uid"
    template_name = "catalogue/card_detail.html"

    def get_title(self) -> str:
        """Whose card it is."""
        return f"Model card of {self.object.name}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the model."""
        return model_crumbs(self.object)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the revision, what is missing, and who uses it."""
        rows = CardRevision.objects.filter(model=self.object).select_related("author").order_by("-number")
        newest = rows.first()
        number = self.request.GET.get("revision", "")
        card = rows.filter(number=int(number)).first() if number.isdecimal() and len(number) < 9 else newest
        if number and card is None:
            raise NotVisible("There is no such revision.")
        body = card.body if card is not None else {}
        used = ModelVersion.objects.visible_to(self.request.user).filter(card=card).order_by("-number")[:20]
        return super().get_context(
            card=card,
            newest=newest,
            sections=shown_sections(body),
            missing=cards.missing(body, regimes_of(self.object)),
            used=list(used) if card is not None else [],
            may_edit=may(self.request.user, EDIT, self.object),
            revisions=list(rows[:50]),
            **extra,
        )


class CardEdit(ActionView):
    """Write the next revision."""

    title = "Edit the model card"
    intro = "Saving makes a revision of its own; earlier ones stay. A version holds the revision it was sealed with."
    queryset = _MODELS
    permission = EDIT
    url_kwarg = "model_uid"
    form_class = CardForm
    template_name = "catalogue/card_form.html"
    submit_label = "Save the revision"
    success_message = "Saved as a new revision."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the card."""
        return [*model_crumbs(self.object), Crumb("Model card", card_url(self.object))]

    def get_initial(self) -> dict[str, Any]:
        """The newest revision."""
        newest = cards_saving.newest_card(self.object.pk)
        if newest is None:
            return {"number": 0, "name": self.object.name, "overview": self.object.purpose}
        return {"number": newest.number, **card_initial(newest.body)}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add where the preview comes from."""
        url = reverse("catalogue:card-preview", kwargs={"model_uid": self.object.uid})
        return super().get_context(preview_url=url, **extra)

    def perform(self, form: Any) -> str:
        """Save it."""
        data = form.cleaned_data
        cards_saving.save_card(
            self.object.pk, form.raw(), actor=self.actor, note=data["note"], expected_number=data["number"]
        )
        return card_url(self.object)


class CardPreview(LiveView):
    """The card as it would read, and what would still be missing."""

    queryset = _MODELS
    permission = EDIT
    form_class = CardForm
    template_name = "catalogue/card_preview.html"
    object: Any = None

    def prepare(self) -> None:
        """Load the model."""
        self.object = self.get_queryset().get_visible(self.request.user, self.kwargs["model_uid"])

    def scope_object(self) -> Any:
        """Ask permissions for the model."""
        return self.object

    def compute(self, form: Any) -> Mapping[str, Any]:
        """Return the drawn card."""
        body = cards.clean(form.raw())
        return {"sections": shown_sections(body), "missing": cards.missing(body, regimes_of(self.object))}


class CardImport(ActionView):
    """Take a card from a file."""

    title = "Import a Hugging Face card"
    intro = "Its front matter and sections become a new revision; nothing else in the file is kept."
    queryset = _MODELS
    permission = EDIT
    url_kwarg = "model_uid"
    form_class = CardImportForm
    submit_label = "Import"
    success_message = "Imported as a new revision."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the card."""
        return [*model_crumbs(self.object), Crumb("Model card", card_url(self.object))]

    def perform(self, form: Any) -> str:
        """Read and save it."""
        upload = form.cleaned_data["card"]
        if upload.size > cards_hf.MAX_BYTES:
            raise Invalid({"card": f"A card file has at most {cards_hf.MAX_BYTES // 1024} KiB."})
        body = cards_hf.read(upload.read(cards_hf.MAX_BYTES + 1))
        cards_saving.save_card(
            self.object.pk, body, actor=self.actor, note=form.cleaned_data["note"] or "Imported", imported=True
        )
        return card_url(self.object)


class CardExport(DetailView):
    """The card as a Hugging Face README."""

    queryset = _MODELS
    permission = VIEW
    url_kwarg = "model_uid"

    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Give the newest revision, or the one asked for, as a file."""
        rows = CardRevision.objects.filter(model=self.object).order_by("-number")
        number = request.GET.get("revision", "")
        card = rows.filter(number=int(number)).first() if number.isdecimal() and len(number) < 9 else rows.first()
        if card is None:
            raise NotVisible("There is no such revision.")
        response = HttpResponse(cards_hf.write(card.body), content_type="text/markdown; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="{self.object.slug}-card-{card.number}.md"'
        response["X-Content-Type-Options"] = "nosniff"
        return response


class CardTable(CommonsTable):
    """Revisions of a card, newest first."""

    number = UidLinkColumn("catalogue:card-compare", kwarg="card_uid", verbose_name="Revision")
    created_at = TimeColumn(verbose_name="Saved")
    author = tables.Column(accessor="author__display_name", verbose_name="By")
    note = tables.Column(verbose_name="What changed", default="–")

    class Meta(CommonsTable.Meta):
        model = CardRevision
        fields = ("number", "created_at", "author", "note")
        order_by = ("-number",)
        caption = "Revisions of the model card"


class CardHistory(ListView):
    """All revisions of a model's card."""

    permission = VIEW
    table_class = CardTable
    export_event = CARD_EXPORTED
    empty_title = "No card yet"
    empty_text = "Whoever edits the model writes it, or imports one."
    empty_icon = "file-text"
    model: Model

    def prepare(self) -> None:
        """Load the model."""
        self.model = _MODELS.get_visible(self.request.user, self.kwargs["model_uid"])

    def scope_object(self) -> Any:
        """Ask permissions for the model."""
        return self.model

    def get_title(self) -> str:
        """Whose revisions."""
        return f"Revisions of the card of {self.model.name}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the card."""
        return [*model_crumbs(self.model), Crumb("Model card", card_url(self.model))]

    def get_base_queryset(self) -> Any:
        """The revisions of the model."""
        return CardRevision.objects.filter(model=self.model).select_related("author")


class CardCompare(DetailView):
    """What differs between a revision and an earlier one (by default the one before)."""

    queryset = CardRevision.objects.select_related("model__team__unit", "author")
    permission = VIEW
    url_kwarg = "card_uid"
    template_name = "catalogue/card_compare.html"

    def scope_object(self) -> Any:
        """Ask permissions for the model."""
        return self.object.model

    def get_title(self) -> str:
        """Which revision."""
        return f"Revision {self.object.number} of the card of {self.object.model.name}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the card."""
        return [*model_crumbs(self.object.model), Crumb("Model card", card_url(self.object.model))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the differences."""
        card: CardRevision = self.object
        earlier = CardRevision.objects.filter(model=card.model, number__lt=card.number).order_by("-number")
        asked = self.request.GET.get("with", "")
        other = earlier.filter(number=int(asked)).first() if asked.isdecimal() and len(asked) < 9 else earlier.first()
        rows = cards.differences(other.body if other is not None else {}, card.body)
        return super().get_context(
            other=other,
            rows=[{"path": one.label, "before": one.before, "after": one.after, "kind": one.kind} for one in rows],
            earlier=list(earlier[:50]),
            **extra,
        )
