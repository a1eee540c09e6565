"""Events of cards, evidence, controls, exceptions, producers and requests for a version's approval."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from apps.core.events import declare, private
from apps.core.exports import Exported


@dataclass(frozen=True, slots=True)
class CardRevised:
    """A new revision of a model's card."""

    model_uid: uuid.UUID
    card_uid: uuid.UUID
    number: int
    digest: str
    fields: list[str]
    imported: bool = False
    note: str = private(default="")


@dataclass(frozen=True, slots=True)
class EvidenceEvent:
    """A piece of evidence was added or withdrawn; `subject_digest` is the manifest it is about."""

    evidence_uid: uuid.UUID
    version_uid: uuid.UUID
    kind: str
    verdict: str
    subject_digest: str
    digest: str
    producer_uid: uuid.UUID | None = None
    delivery_id: str = ""
    title: str = private(default="")
    reason: str = private(default="")


@dataclass(frozen=True, slots=True)
class ControlAnswered:
    """An addressable control was answered for a version."""

    version_uid: uuid.UUID
    control: str
    answer: str
    subject_digest: str
    reason: str = private(default="")


@dataclass(frozen=True, slots=True)
class ControlPublished:
    """Compliance published another revision of a control; the earlier one stays."""

    control_uid: uuid.UUID
    code: str
    regime: str
    revision: int
    changed: list[str]
    reason: str = private(default="")


@dataclass(frozen=True, slots=True)
class CitationsConfirmed:
    """Somebody read the official text behind these controls: which revisions, when, what had been open."""

    control_uid: uuid.UUID
    regime: str
    codes: list[str]
    revisions: list[int]
    read_on: str
    unconfirmed: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class ExceptionEvent:
    """An exception was proposed or decided."""

    exception_uid: uuid.UUID
    version_uid: uuid.UUID
    kind: str
    control: str
    data_classes: list[str]
    expires_at: str
    approved: bool | None = None
    what: str = ""
    reason: str = private(default="")


@dataclass(frozen=True, slots=True)
class ProducerEvent:
    """A CI system that posts evidence was let in, changed or shut out; never its token."""

    producer_uid: uuid.UUID
    kinds: list[str]
    teams: list[uuid.UUID] = field(default_factory=list)
    name: str = private(default="")
    reason: str = private(default="")


@dataclass(frozen=True, slots=True)
class DeliveryRefused:
    """A producer's delivery was not taken."""

    producer_uid: uuid.UUID
    why: str
    delivery_id: str = private(default="")


@dataclass(frozen=True, slots=True)
class ModelRequestEvent:
    """Something happened to a request that a version be approved. `what` names model and version."""

    request_uid: uuid.UUID
    version_uid: uuid.UUID
    manifest_digest: str
    environments: list[str]
    clusters: list[str]
    workspaces: list[str]
    max_traffic: int
    what: str = private(default="")
    detail: str = private(default="")
    reason: str = private(default="")


@dataclass(frozen=True, slots=True)
class RecertificationEvent:
    """Something happened to the draft that is opened before an approval ends. `what` names model and version."""

    recertification_uid: uuid.UUID
    version_uid: uuid.UUID
    manifest_digest: str
    grant_uid: uuid.UUID
    status: str
    due_at: str
    renewal_uid: uuid.UUID | None = None
    what: str = private(default="")
    reason: str = private(default="")


def _recertification(payload: RecertificationEvent) -> str:
    return f"/catalogue/recertifications/{payload.recertification_uid}/"


def _request(payload: ModelRequestEvent) -> str:
    return f"/catalogue/requests/{payload.request_uid}/"


def _exception(payload: ExceptionEvent) -> str:
    return f"/catalogue/exceptions/{payload.exception_uid}/"


CARD_REVISED = declare("catalogue.card.revised", CardRevised, audience="auditors")
CARD_EXPORTED = declare("catalogue.card.exported", Exported, audience="auditors")
EVIDENCE_ADDED = declare("catalogue.evidence.added", EvidenceEvent, audience="auditors")
EVIDENCE_WITHDRAWN = declare("catalogue.evidence.withdrawn", EvidenceEvent, audience="auditors")
EVIDENCE_READ = declare("catalogue.evidence.read", EvidenceEvent, audience="auditors")
EVIDENCE_TAKEN = declare("catalogue.evidence.taken", EvidenceEvent, audience="auditors")
EVIDENCE_EXPORTED = declare("catalogue.evidence.exported", Exported, audience="auditors")
DELIVERY_REFUSED = declare("catalogue.delivery.refused", DeliveryRefused, audience="auditors")
CONTROL_ANSWERED = declare("catalogue.control.answered", ControlAnswered, audience="auditors")
CONTROL_PUBLISHED = declare("catalogue.control.published", ControlPublished, audience="auditors")
CITATIONS_CONFIRMED = declare("catalogue.citations.confirmed", CitationsConfirmed, audience="auditors")
CONTROLS_EXPORTED = declare("catalogue.controls.exported", Exported, audience="auditors")
EXCEPTION_PROPOSED = declare(
    "catalogue.exception.proposed", ExceptionEvent, audience="who may decide exceptions", mail=True, path=_exception,
    headline=lambda p: f"An exception waits for a decision: {p.what}", body=lambda p: p.reason,
)  # fmt: skip
EXCEPTION_DECIDED = declare(
    "catalogue.exception.decided", ExceptionEvent, audience="whoever proposed it", mail=True, path=_exception,
    headline=lambda p: f"Exception {'approved' if p.approved else 'refused'}: {p.what}", body=lambda p: p.reason,
)  # fmt: skip
EXCEPTIONS_EXPORTED = declare("catalogue.exceptions.exported", Exported, audience="auditors")
PRODUCER_ADDED = declare("catalogue.producer.added", ProducerEvent, audience="auditors")
PRODUCER_EDITED = declare("catalogue.producer.edited", ProducerEvent, audience="auditors")
PRODUCER_ROTATED = declare("catalogue.producer.rotated", ProducerEvent, audience="auditors")
PRODUCER_REVOKED = declare("catalogue.producer.revoked", ProducerEvent, audience="auditors")
REQUEST_SUBMITTED = declare("catalogue.request.submitted", ModelRequestEvent, audience="auditors", path=_request)
REQUEST_GRANTED = declare(
    "catalogue.request.granted", ModelRequestEvent, audience="the team's other leads", mail=True, path=_request,
    headline=lambda p: f"Approved for use: {p.what}", body=lambda p: p.detail,
)  # fmt: skip
REQUEST_ENDED = declare("catalogue.request.ended", ModelRequestEvent, audience="auditors", path=_request)
GRANT_ENDED = declare("catalogue.grant.ended", ModelRequestEvent, audience="auditors", path=_request)
RECERTIFICATION_DUE = declare(
    "catalogue.recertification.opened", ModelRequestEvent, audience="the leads of the owning team", mail=True,
    path=_request, headline=lambda p: f"To be looked at again: {p.what}", body=lambda p: p.reason,
)  # fmt: skip
RECERTIFICATION_DRAFTED = declare(
    "catalogue.recertification.drafted", RecertificationEvent, audience="auditors", path=_recertification
)
RECERTIFICATION_CONFIRMED = declare(
    "catalogue.recertification.confirmed", RecertificationEvent, audience="auditors", path=_recertification
)
RECERTIFICATION_REOPENED = declare(
    "catalogue.recertification.reopened", RecertificationEvent, audience="auditors", path=_recertification
)
RECERTIFICATION_ESCALATED = declare(
    "catalogue.recertification.escalated", RecertificationEvent, audience="auditors", path=_recertification
)
RECERTIFICATION_CLOSED = declare(
    "catalogue.recertification.closed", RecertificationEvent, audience="auditors", path=_recertification
)
RECERTIFICATIONS_EXPORTED = declare("catalogue.recertifications.exported", Exported, audience="auditors")
REQUESTS_EXPORTED = declare("catalogue.requests.exported", Exported, audience="auditors")
