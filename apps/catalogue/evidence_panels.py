"""Entries in the navigation, and panels on the pages of models and versions: card, controls, evidence, requests."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.catalogue import cards, cards_saving, controls_state, evidence, recertifying
from apps.catalogue import requests as asks
from apps.catalogue.access import EDIT, VIEW
from apps.catalogue.cards_views import regimes_of
from apps.catalogue.choices import AskStatus, VersionStatus
from apps.catalogue.models import Evidence, Model, ModelRequest, ModelVersion, Recertification
from apps.catalogue.requests_selectors import status_words, submitted_scope
from apps.core.permissions import may
from apps.teams import scope as teams_scope
from portal.panels import nav, panel

nav("Requests", "catalogue:request-list", icon="clipboard-check", order=20, permission=VIEW, group="Models")
nav("Evidence", "catalogue:evidence-list", icon="file-text", order=25, permission=VIEW, group="Models")
#: Who judges models has the rules at hand; everybody else meets them on the version's own page.
_JUDGES = "approvals.policy.view"
nav("Exceptions", "catalogue:exception-list", icon="alert-triangle", order=30, permission=_JUDGES, group="Models")
nav("Controls", "catalogue:control-list", icon="list-check", order=35, permission=_JUDGES, group="Models")
nav("Regimes", "catalogue:regime-list", icon="scale", order=36, permission=_JUDGES, group="Models")
nav(
    "Evidence producers", "catalogue:producer-list", icon="key", order=65, permission="catalogue.producer.view",
    group="Models",
)  # fmt: skip

nav(
    "Signing keys", "catalogue:signing-key-list", icon="key", order=66, permission="catalogue.signing_key.view",
    group="Models",
)  # fmt: skip


@panel(page="model_version", order=10, permission=VIEW)
def approval_of_version(request: HttpRequest, version: ModelVersion) -> dict[str, Any] | None:
    """Where its controls stand, what evidence there is, and who asked for its approval."""
    standing = controls_state.standing(version)
    asked = (
        ModelRequest.objects.filter(model_version=version).select_related("requester", "approval").order_by("-pk")[:5]
    )
    pieces = Evidence.objects.filter(model_version=version, withdrawn_at__isnull=True)
    sealed = version.status == VersionStatus.SEALED
    return {
        "template": "catalogue/panels/version_approval.html",
        "model_version": version,
        "open_count": len(standing.open),
        "applying": len(standing.applying),
        "first_open": standing.open[:5],
        "evidence_count": pieces.count(),
        "ending": list(
            Recertification.objects.filter(model_version=version, status__in=recertifying.UNFINISHED).order_by("due_at")
        ),
        "asked": [{"row": one, "where": submitted_scope(one), "words": status_words(one)} for one in asked],
        "may_add": bool(version.digest) and may(request.user, evidence.ADD, version),
        "may_ask": sealed
        and may(request.user, asks.SUBMIT, version)
        and not any(one.status == AskStatus.IN_REVIEW for one in asked),
    }


def _ending(request: HttpRequest) -> Any:
    """The drafts that wait for the person to confirm them."""
    if not may(request.user, asks.SUBMIT):
        return None
    mine = teams_scope.of(request.user).team_filter(asks.SUBMIT, field="model_version__model__team")
    return Recertification.objects.open().filter(mine)


nav(
    "Recertifications", "catalogue:recertification-list", icon="refresh", order=22, permission=VIEW, group="Models",
    badge=_ending,
)  # fmt: skip


def _panel_of(rows: list[Recertification], place: str, subtitle: str) -> dict[str, Any] | None:
    shown = {"template": "catalogue/panels/recertifications.html", "rows": rows, "place": place, "subtitle": subtitle}
    return shown if rows else None


@panel(page="home", order=12)
def approvals_that_end(request: HttpRequest, obj: Any) -> dict[str, Any] | None:
    """Approvals of one's own models that end, to be confirmed."""
    rows = _ending(request)
    if rows is None:
        return None
    found = list(rows.select_related("model_version__model").order_by("due_at", "pk")[:10])
    return _panel_of(found, "home", "Confirm them, or say that they shall end; what ends first on top.")


@panel(page="inbox", order=10, permission=VIEW)
def approvals_that_end_unattended(request: HttpRequest, obj: Any) -> dict[str, Any] | None:
    """For who decides: approvals in sight that end, and that nobody has confirmed yet."""
    found = Recertification.objects.visible_to(request.user).open().select_related("model_version__model")
    return _panel_of(list(found.order_by("due_at", "pk")[:10]), "inbox", "Nobody has confirmed these yet.")


@panel(page="grant", order=10, permission=None)
def recertification_of_grant(request: HttpRequest, held: Any) -> dict[str, Any] | None:
    """Where the approval of a version that ends is prepared to be asked for again."""
    found = Recertification.objects.visible_to(request.user).filter(grant=held).select_related("model_version__model")
    return _panel_of(list(found), "grant", "Opened by the portal before this approval ends.")


@panel(page="model", order=10, permission=VIEW)
def card_of_model(request: HttpRequest, model: Model) -> dict[str, Any] | None:
    """Its card, and what of it is missing."""
    card = cards_saving.newest_card(model.pk)
    body = card.body if card is not None else {}
    return {
        "template": "catalogue/panels/model_card.html",
        "model": model,
        "card": card,
        "overview": body.get("overview", ""),
        "missing": cards.missing(body, regimes_of(model)),
        "may_edit": may(request.user, EDIT, model),
    }


@panel(page="model_compare", order=10, permission=VIEW)
def card_and_evidence_compared(request: HttpRequest, pair: Any) -> dict[str, Any] | None:
    """What differs between two versions' cards, and what was shown about each."""
    before, after = pair.before, pair.after
    rows = cards.differences(_body(before), _body(after))
    pieces: dict[tuple[str, str], dict[str, Any]] = {}
    for side, version in (("before", before), ("after", after)):
        found = Evidence.objects.visible_to(request.user).filter(model_version=version, withdrawn_at__isnull=True)
        for one in found.order_by("produced_at"):
            key = (str(one.get_kind_display()), one.title)
            pieces.setdefault(key, {"kind": key[0], "title": one.title})[side] = one
    return {
        "template": "catalogue/panels/compare_evidence.html",
        "card_rows": [{"path": one.label, "before": one.before, "after": one.after, "kind": one.kind} for one in rows],
        "pieces": [pieces[key] for key in sorted(pieces)],
        "before": before,
        "after": after,
    }


def _body(version: ModelVersion) -> dict[str, Any]:
    return dict(version.card.body) if version.card is not None else {}
