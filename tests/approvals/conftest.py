"""A company, a policy and a thing to approve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from apps.approvals import actions, ports
from apps.approvals.models import ApprovalRequest
from apps.core.actor import Actor
from tests.approvals.subjects import DeepSubject, Thing, ThingSubject, deep_registered
from tests.factories import Company, forget_scopes

ONE_STAGE: dict[str, Any] = {
    "stages": [{"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 72}]
}
TWO_STAGES: dict[str, Any] = {
    "automatic": [
        {
            "name": "Small change",
            "when": [["request.gpus", "le", 2], ["team.budget_remaining", "ge", "0"]],
            "counts": {"fact": "team.auto_approved_30d", "adds": "request.gpus", "limit": 4},
        }
    ],
    "stages": [
        {"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 72},
        {
            "name": "Compliance",
            "role": "compliance",
            "scope": "installation",
            "quorum": 1,
            "due_hours": 48,
            "when": [["request.environment", "eq", "production"]],
        },
    ],
    "validity_days": 365,
}


@dataclass
class Office:
    """What the tests of this room work with."""

    company: Company
    subject: ThingSubject

    def publish(self, body: dict[str, Any], slug: str = "things") -> Any:
        return actions.publish_policy(
            slug, "Things", self.subject.subject_type, body, actor=Actor.of(self.company.admin)
        )

    def submit(self, thing: Thing | None = None, *, by: Any = None, team: Any = None, **kwargs: Any) -> ApprovalRequest:
        person = by or self.company.lead_finance
        team = team or self.company.finance_team
        thing = thing or self.subject.add()
        return actions.submit(
            self.subject.subject_type, thing.uid, actor=Actor.of(person), policy_slug="things", team_id=team.pk,
            unit_id=kwargs.pop("unit_id", team.unit_id), **kwargs,
        )  # fmt: skip

    def decide(
        self,
        request: ApprovalRequest,
        by: Any,
        verdict: str = "approve",
        reason: str = "Needed for the fraud models.",
        **kw: Any,
    ) -> ApprovalRequest:
        forget_scopes(by)
        kw.setdefault("expected_digest", request.subject_digest)
        return actions.decide(request.pk, verdict, reason, actor=Actor.of(by), **kw)


@pytest.fixture
def things() -> Iterator[ThingSubject]:
    """The registered subject."""
    subject = ThingSubject()
    ports.register_subject(subject)
    yield subject
    ports.unregister_subject("tests.thing")


@pytest.fixture
def office(company: Company, things: ThingSubject) -> Office:
    """A company with a published one-stage policy."""
    made = Office(company, things)
    made.publish(ONE_STAGE)
    return made


@pytest.fixture
def deep(company: Company) -> Iterator[Office]:
    """A company with a subject that has everything a subject may have, and a one-stage policy for it."""
    with deep_registered() as subject:
        made = Office(company, subject)
        made.publish(ONE_STAGE)
        yield made


@pytest.fixture
def ended(deep: Office) -> list[Any]:
    """The grants that the deep subject's room has heard the end of."""
    assert isinstance(deep.subject, DeepSubject)
    return deep.subject.ended


@pytest.fixture
def events_of() -> Callable[..., list[tuple[str, list[int]]]]:
    """The outbox rows of a request, as (event, recipients)."""

    def read(request: Any) -> list[tuple[str, list[int]]]:
        from apps.core.models import OutboxMessage

        found = OutboxMessage.objects.filter(subject_uid=request.uid).order_by("pk")
        return [(row.event, row.recipient_ids) for row in found]

    return read
