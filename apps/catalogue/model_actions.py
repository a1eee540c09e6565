"""What people do with models: register, edit, archive, bring back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from apps import audit
from apps.catalogue import checking, events
from apps.catalogue.access import MANAGE, locked_model, require
from apps.catalogue.choices import AskStatus, ExceptionKind
from apps.catalogue.models import Model, ModelRequest, ModelVersion, Regime, VersionException
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.events import EventType
from apps.quotas.choices import DataClass
from apps.teams.models import Team

EDITABLE = (
    "name", "purpose", "data_classes", "risk_tier", "act_annex", "act_role", "solely_automated", "extra_regimes",
)  # fmt: skip
#: What policies and controls read of a model: who decides and what has to be shown follow from it.
JUDGED = frozenset(("data_classes", "risk_tier", "act_annex", "act_role", "solely_automated", "extra_regimes"))


@transaction.atomic
def register_model(
    team_id: int,
    name: str,
    *,
    actor: Actor,
    purpose: str,
    data_classes: Sequence[str],
    slug: str = "",
    risk_tier: str = "",
    act_annex: str = "",
    act_role: str = "",
    solely_automated: bool = False,
    extra_regimes: Sequence[str] = (),
) -> Model:
    """Register a model that a team owns. Raises NotVisible, NotAllowed, Invalid."""
    team = Team.objects.filter(pk=team_id, archived_at__isnull=True).first()
    if team is None:
        raise NotVisible
    require(actor, MANAGE, Model(team=team))
    values = checking.model_fields(
        {
            "name": name,
            "slug": slug or slugify(name)[:60].strip("-"),
            "purpose": purpose,
            "data_classes": list(data_classes),
            "risk_tier": risk_tier,
            "act_annex": act_annex,
            "act_role": act_role,
        }
    )
    added = _regimes(extra_regimes)
    try:
        with transaction.atomic():
            model = Model.objects.create(team=team, solely_automated=solely_automated, extra_regimes=added, **values)
    except IntegrityError as error:
        raise Invalid({"slug": f"“{values['slug']}” is taken by another model. Choose another short name."}) from error
    _record(events.MODEL_REGISTERED, model, actor)
    return model


@transaction.atomic
def edit_model(model_id: int, *, actor: Actor, expected_version: int | None = None, **changes: Any) -> Model:
    """Change what is said of a model (`EDITABLE`); its versions keep what they were sealed with.

    A data class that one of them was sealed with is taken away only once an exception, approved by a second person,
    leaves it out.

    Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    model = locked_model(model_id, MANAGE, actor=actor, expected_version=expected_version)
    checking.known(changes, EDITABLE)
    if model.archived_at is not None:
        raise Conflict("This model is archived. Bring it back first.", current={"archived": True})
    values = checking.model_fields(changes)
    if "extra_regimes" in values:
        values["extra_regimes"] = _regimes(values["extra_regimes"])
    names = checking.changed(model, values)
    if not names:
        return model
    if JUDGED & set(names):
        _refuse_in_review(model)
    if "data_classes" in names:
        _refuse_lowering(model, values["data_classes"])
    for name in names:
        setattr(model, name, values[name])
    model.bump(*names)
    _record(events.MODEL_EDITED, model, actor, changed=names)
    return model


def _regimes(codes: Sequence[str]) -> list[str]:
    """Return codes of regimes, sorted, each once. Raises Invalid for one that is not there: nothing would follow."""
    wanted = sorted({str(code) for code in codes})
    known = set(Regime.objects.filter(code__in=wanted).values_list("code", flat=True))
    if missing := [code for code in wanted if code not in known]:
        raise Invalid({"extra_regimes": f"There is no regime “{missing[0][:40]}”. Choose from the list."})
    return wanted


def _refuse_lowering(model: Model, wanted: Sequence[str]) -> None:
    """Raise Invalid where a sealed version's class would vanish from the model without an approved exception."""
    sealed = ModelVersion.objects.filter(model=model, sealed_at__isnull=False).values_list("classification", flat=True)
    held = (set(model.data_classes) - set(wanted)) & {one for classes in sealed for one in classes}
    excepted = VersionException.objects.filter(
        model_version__model=model, kind=ExceptionKind.CLASSIFICATION, approved=True, expires_at__gt=clock.now()
    ).values_list("data_classes", flat=True)
    for lowered in excepted:
        held &= set(lowered)
    if held:
        names = ", ".join(str(DataClass(one).label) for one in sorted(held))
        raise Invalid(
            {
                "data_classes": f"A sealed version is classified as {names}. Propose an exception on a version first;"
                " once it is approved, the model may follow."
            }
        )


def _refuse_in_review(model: Model) -> None:
    open_one = (
        ModelRequest.objects.filter(model_version__model=model, status=AskStatus.IN_REVIEW)
        .select_related("model_version")
        .first()
    )
    if open_one is not None:
        raise Conflict(
            f"Version {open_one.model_version.label} is in review: who is asked, and which controls apply, follow from "
            "this. Withdraw that request first.",
            current={"request": str(open_one.uid)},
        )


@transaction.atomic
def archive_model(model_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> Model:
    """Offer a model for nothing new: no version is added, none is submitted. What runs is not touched.

    Raises NotVisible, NotAllowed, Conflict, Invalid.
    """
    model = locked_model(model_id, MANAGE, actor=actor, expected_version=expected_version)
    if model.archived_at is not None:
        raise Conflict("This model is archived already.", current={"archived": True})
    why = checking.reason(reason)
    model.archived_at = clock.now()
    model.bump("archived_at")
    _record(events.MODEL_ARCHIVED, model, actor, reason=why)
    return model


@transaction.atomic
def restore_model(model_id: int, *, actor: Actor, expected_version: int | None = None) -> Model:
    """Bring an archived model back. Raises NotVisible, NotAllowed, Conflict."""
    model = locked_model(model_id, MANAGE, actor=actor, expected_version=expected_version)
    if model.archived_at is None:
        raise Conflict("This model is not archived.", current={"archived": False})
    model.archived_at = None
    model.bump("archived_at")
    _record(events.MODEL_RESTORED, model, actor)
    return model


def _record(event: EventType, model: Model, actor: Actor, *, changed: Sequence[str] = (), reason: str = "") -> None:
    audit.record(
        event,
        events.ModelEvent(
            model.uid, model.slug, list(model.data_classes), model.risk_tier, model.act_annex, model.act_role,
            list(changed), name=model.name, purpose=model.purpose,
        ),
        actor=actor, subject_type="catalogue.model", subject_uid=model.uid, team_uid=model.team.uid, reason=reason,
    )  # fmt: skip
