"""Routes of cards, evidence, controls, exceptions, producers, requests: finance's own; the rules are everybody's."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from apps.approvals.models import ApprovalRequest, Grant, Policy, PolicyVersion, Stage
from apps.catalogue.models import (
    CardRevision,
    Control,
    Evidence,
    EvidenceProducer,
    ModelRequest,
    Recertification,
    Regime,
    SigningKey,
    VersionException,
)
from apps.catalogue.regimes_loading import load_regimes
from apps.core import clock
from apps.core.canonical import digest_of
from tests.catalogue.world import make_blob
from tests.sweep.routes.catalogue_core import _EDIT, _LISTS, _SEE
from tests.sweep.types import EVERYBODY, Route

_ADD, _SUBMIT, _PROPOSE = _EDIT | {"compliance"}, {"lead_finance"}, {"lead_finance", "compliance"}
_PRODUCERS, _ADMIN = {"compliance", "admin", "auditor"}, {"admin"}
_MATCH = frozenset({200, 201, 202, 204, 302, 303, 400, 409, 428})
_CARD = {"name": "Sweep fraud", "overview": "Okapi overview"}
_SCOPE = {"environments": ["production"], "clusters": ["atlas"], "workspaces": [], "max_traffic": 50}


def _asked(world: SimpleNamespace, version: Any, requester: Any, slug: str, status: str = "in_review") -> ModelRequest:
    policy = Policy.objects.create(slug=slug, name="Versions", subject_type="catalogue.version")
    body = {"stages": [{"name": "Compliance", "role": "compliance", "scope": "unit", "quorum": 1}]}
    rules = PolicyVersion.objects.create(
        policy=policy, number=1, body=body, digest=digest_of(body), published_at=clock.now()
    )
    row = ModelRequest.objects.create(
        model_version=version, scope=_SCOPE, reason=f"For {slug}, this quarter.", requester=requester, digest="5" * 64,
        status=status,
    )  # fmt: skip
    team = version.model.team
    row.approval = ApprovalRequest.objects.create(
        subject_type="catalogue.version", subject_uid=row.uid, subject_digest="5" * 64, title=f"Approve {slug}",
        policy_version=rules, requester=requester, team=team, unit=team.unit, submitted_at=clock.now(), status=status,
    )  # fmt: skip
    Stage.objects.create(
        request=row.approval, ordinal=0, name="Compliance", role="compliance", rule="Always.", opened_at=clock.now()
    )
    row.save(update_fields=["approval"])
    return row


def build(world: SimpleNamespace) -> None:
    """A card, a piece of evidence, an exception and a request of finance's sealed version; one producer."""
    load_regimes()
    author = world.member_finance
    world.card = CardRevision.objects.create(
        model=world.model, number=1, body={"schema": 1, **_CARD}, digest="6" * 64, author=author
    )
    make = Evidence.objects.create
    about = {"model": world.model, "model_version": world.sealed, "subject_digest": world.sealed.digest}
    world.evidence = make(
        kind="security_review", title="Okapi review", produced_at=clock.now(), produced_by=author, digest="7" * 64,
        blob=make_blob(b"okapi"), file_name="okapi.pdf", verdict="pass", **about,
    )  # fmt: skip
    world.exception = VersionException.objects.create(
        model_version=world.sealed, kind="control", control_code="house-evaluation", reason="Okapi reason",
        proposed_by=world.lead_finance, expires_at=clock.now() + timedelta(days=5), subject_digest=world.sealed.digest,
    )  # fmt: skip
    world.producer = EvidenceProducer.objects.create(
        name="Sweep CI", kinds=["evaluation"], public_key=base64.b64encode(b"k" * 32).decode(), token_digest=b"t" * 32,
        token_prefix="gpuce_sweep", expires_at=clock.now() + timedelta(days=5), created_by=world.admin,
    )  # fmt: skip
    world.signing_key = SigningKey.objects.create(
        name="Sweep release key", holder="The sweep's pipeline", public_key="PEM", algorithm="ed25519",
        fingerprint="8" * 64, valid_from=clock.now(), expires_at=clock.now() + timedelta(days=5),
        registered_by=world.compliance,
    )  # fmt: skip
    ending = _asked(world, world.sealed, world.lead_finance, "okapi-ending", "approved")
    held = Grant.objects.create(
        request=ending.approval, subject_digest="5" * 64, scope=_SCOPE, not_before=clock.now(),
        expires_at=clock.now() + timedelta(days=20), noticed_days=30,
    )  # fmt: skip
    world.recertification = Recertification.objects.create(
        grant=held, model_version=world.sealed, request=ending, due_at=held.expires_at
    )
    world.model_request = _asked(world, world.sealed, world.lead_finance, "okapi-asked")
    world.keep_secret("Okapi overview", "Okapi review", "Okapi reason", sees={"member_finance", "lead_finance", "vp"})
    world.keep_secret("Sweep CI", "Sweep release key")


def _of(name: str, kwarg: str) -> Any:
    return lambda world: {kwarg: getattr(world, name).uid}


def _kind(world: Any) -> Mapping[str, Any]:
    return {"version_uid": world.sealed.uid, "kind": "evaluation"}


def _code(world: Any) -> Mapping[str, Any]:
    return {"version_uid": world.sealed.uid, "code": "hipaa-164.312-a-2-iii"}


def _regime(world: Any) -> Mapping[str, Any]:
    return {"regime_uid": Regime.objects.get(code="gdpr").uid}


def _control(world: Any) -> Mapping[str, Any]:
    return {"control_uid": Control.objects.get(code="house-card", superseded_at__isnull=True).uid}


def _doubtful(world: Any) -> Mapping[str, Any]:
    return {"control_uid": Control.objects.get(code="ai-act-49-2", superseded_at__isnull=True).uid}


def _control_api(world: Any) -> Mapping[str, Any]:
    return {"uid": _control(world)["control_uid"]}


def _both(name: str, allowed: set[str], kwargs: Any) -> dict[str, Route]:
    """The page that asks, and what it posts."""
    return {
        name: Route(allowed=allowed, kwargs=kwargs),
        f"{name}#POST": Route(allowed=allowed, kwargs=kwargs, method="POST"),
    }


_MODEL, _SEALED = _of("model", "model_uid"), _of("sealed", "version_uid")
_EVIDENCE, _ASKED = _of("evidence", "evidence_uid"), _of("model_request", "request_uid")
_EXCEPTION, _PRODUCER = _of("exception", "exception_uid"), _of("producer", "producer_uid")
_KEY, _ENDING = _of("signing_key", "key_uid"), _of("recertification", "recertification_uid")
_WITHDRAW = {"lead_finance", "vp"}
ROUTES: dict[str, Route] = {
    "catalogue:card-detail": Route(allowed=_SEE, kwargs=_MODEL),
    **_both("catalogue:card-edit", _EDIT, _MODEL),
    "catalogue:card-preview": Route(allowed=_EDIT, kwargs=_MODEL, method="POST"),
    **_both("catalogue:card-import", _EDIT, _MODEL),
    "catalogue:card-export": Route(allowed=_SEE, kwargs=_MODEL),
    "catalogue:card-history": Route(allowed=_SEE, kwargs=_MODEL),
    "catalogue:card-compare": Route(allowed=_SEE, kwargs=_of("card", "card_uid")),
    "catalogue:evidence-list": Route(allowed=_LISTS),
    "catalogue:version-evidence": Route(allowed=_SEE, kwargs=_SEALED),
    "catalogue:evidence-detail": Route(allowed=_SEE, kwargs=_EVIDENCE),
    "catalogue:evidence-file": Route(allowed=_SEE, kwargs=_EVIDENCE),
    **_both("catalogue:evidence-withdraw", _ADD, _EVIDENCE),
    "catalogue:evidence-choose": Route(allowed=_ADD, kwargs=_SEALED),
    **_both("catalogue:evidence-add", _ADD, _kind),
    "catalogue:evidence-preview": Route(allowed=_ADD, kwargs=_kind, method="POST"),
    "catalogue:version-controls": Route(allowed=_SEE, kwargs=_SEALED),
    **_both("catalogue:control-answer", _ADD, _code),
    "catalogue:regime-list": Route(allowed=EVERYBODY),
    "catalogue:regime-detail": Route(allowed=EVERYBODY, kwargs=_regime),
    "catalogue:control-list": Route(allowed=EVERYBODY),
    "catalogue:control-detail": Route(allowed=EVERYBODY, kwargs=_control),
    **_both("catalogue:control-publish", {"compliance"}, _control),
    **_both("catalogue:control-confirm", {"compliance"}, _doubtful),
    "catalogue:exception-list": Route(allowed=_LISTS),
    "catalogue:exception-detail": Route(allowed=_SEE, kwargs=_EXCEPTION),
    **_both("catalogue:exception-decide", {"compliance"}, _EXCEPTION),
    **_both("catalogue:exception-propose", _PROPOSE, _SEALED),
    "catalogue:producer-list": Route(allowed=_PRODUCERS),
    **_both("catalogue:producer-create", _ADMIN, lambda world: {}),
    "catalogue:producer-detail": Route(allowed=_PRODUCERS, kwargs=_PRODUCER),
    **_both("catalogue:producer-rotate", _ADMIN, _PRODUCER),
    **_both("catalogue:producer-revoke", _ADMIN, _PRODUCER),
    "catalogue:signing-key-list": Route(allowed=_PRODUCERS),
    **_both("catalogue:signing-key-create", {"compliance"}, lambda world: {}),
    "catalogue:signing-key-detail": Route(allowed=_PRODUCERS, kwargs=_KEY),
    **_both("catalogue:signing-key-revoke", {"compliance"}, _KEY),
    "catalogue:recertification-list": Route(allowed=_LISTS),
    "catalogue:recertification-detail": Route(allowed=_SEE, kwargs=_ENDING),
    **_both("catalogue:recertification-confirm", _SUBMIT, _ENDING),
    **_both("catalogue:recertification-decline", _SUBMIT, _ENDING),
    "catalogue:request-list": Route(allowed=_LISTS),
    "catalogue:request-detail": Route(allowed=_SEE, kwargs=_ASKED),
    **_both("catalogue:request-withdraw", _WITHDRAW, _ASKED),
    **_both("catalogue:request-correct", _SUBMIT, _ASKED),
    **_both("catalogue:request-renew", _SUBMIT, _ASKED),
    **_both("catalogue:request-create", _SUBMIT, _SEALED),
    "catalogue:request-preview": Route(allowed=_SUBMIT, kwargs=_SEALED, method="POST"),
    "api:evidence-list": Route(allowed=_LISTS),
    "api:evidence-list#POST": Route(allowed=_EDIT | {"lead_marketing", "compliance"}, method="POST"),
    "api:evidence-detail": Route(allowed=_SEE, kwargs=_of("evidence", "uid")),
    "api:evidence-withdraw": Route(allowed=_ADD, kwargs=_of("evidence", "uid"), method="POST"),
    "api:control-list": Route(allowed=EVERYBODY),
    "api:control-detail": Route(allowed=EVERYBODY, kwargs=_control_api),
    "api:checklist-detail": Route(allowed=_SEE, kwargs=_of("sealed", "uid")),
    "api:checklist-answer": Route(allowed=_ADD, kwargs=_of("sealed", "uid"), method="POST"),
    "api:version-exception-list": Route(allowed=_LISTS),
    "api:version-exception-list#POST": Route(allowed=_PROPOSE | {"lead_marketing"}, method="POST"),
    "api:version-exception-detail": Route(allowed=_SEE, kwargs=_of("exception", "uid")),
    "api:version-exception-decide": Route(allowed={"compliance"}, kwargs=_of("exception", "uid"), method="POST"),
    "api:model-request-list": Route(allowed=_LISTS),
    "api:model-request-list#POST": Route(allowed={"lead_finance", "lead_marketing"}, method="POST"),
    "api:model-request-detail": Route(allowed=_SEE, kwargs=_of("model_request", "uid")),
    "api:model-request-correct": Route(allowed=_SUBMIT, kwargs=_of("model_request", "uid"), method="POST", ok=_MATCH),
    "api:model-request-renew": Route(allowed=_SUBMIT, kwargs=_of("model_request", "uid"), method="POST"),
    "api:model-request-withdraw": Route(
        allowed=_WITHDRAW, kwargs=_of("model_request", "uid"), method="POST", ok=_MATCH
    ),
}
