"""Nobody approves a release on evidence of their own, and nobody is locked out without being told who could."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.accounts.models import User
from apps.approvals import actions as approvals
from apps.approvals.deciders import PRODUCER_RULE
from apps.approvals.models import Grant
from apps.approvals.selectors import explain, sight, waiting_for
from apps.audit.models import AuditEvent
from apps.catalogue.models import ControlAnswer, Evidence, EvidenceProducer
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import NotAllowed
from apps.deployments.models import Release
from apps.deployments.subject import ReleaseSubject
from apps.teams.choices import Role
from tests.deployments.test_pages import form
from tests.deployments.world import World, make_world
from tests.factories import Company, client_for, grant, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(company: Company) -> World:
    return make_world(company)


def prove(world: World, by: User | None, **values: Any) -> Evidence:
    """Evidence about the world's version, as the catalogue would write it."""
    return Evidence.objects.create(
        model=world.model, model_version=world.version, subject_digest=world.version.digest, kind="evaluation",
        title="The evaluation", produced_by=by, produced_at=clock.now(), digest="0" * 64, **values,
    )  # fmt: skip


def refused(release: Release, person: User) -> str:
    release.refresh_from_db()
    assert release.approval is not None
    with pytest.raises(NotAllowed) as found:
        approvals.decide(
            release.approval.pk, "approve", "Looked at the change and the plan.", actor=Actor.of(person),
            expected_digest=release.approval.subject_digest,
        )  # fmt: skip
    return str(found.value.rule or found.value)


@pytest.mark.requirement("release-review-3.1")
@pytest.mark.parametrize("how", ["added it", "keeps the system", "answered a control", "withdrew it since"])
def test_who_produced_evidence_about_the_bytes_approves_no_release_of_them(world: World, how: str) -> None:
    vp = world["vp"]
    second = make_user("second-owner@example.com")
    grant(second, Role.UNIT_OWNER, unit=world.company.unit)
    if how == "keeps the system":
        keeper = EvidenceProducer.objects.create(
            name="CI", created_by=world["admin"], keepers=[vp.pk], public_key="A" * 43 + "=",
            token_digest=b"0" * 32, token_prefix="ev_0", expires_at=clock.now() + timedelta(days=30),
        )  # fmt: skip
        prove(world, None, producer=keeper)
    elif how == "answered a control":
        ControlAnswer.objects.create(
            model_version=world.version, control_code="hipaa.164.312.a.2.iii", answer="implemented",
            rationale="It logs off after ten minutes.", author=vp, subject_digest=world.version.digest,
        )  # fmt: skip
    else:
        gone = {"withdrawn_at": clock.now(), "withdrawn_by": vp} if how == "withdrew it since" else {}
        prove(world, vp, **gone)
    release = world.ask("production", ladder=())
    assert PRODUCER_RULE in refused(release, vp)
    assert release.approval is not None
    # The inbox, the explanation and the decision agree, and the explanation names who could.
    assert not waiting_for(vp).filter(pk=release.approval_id).exists()
    assert waiting_for(second).filter(pk=release.approval_id).exists()
    seats = {seat.user: (seat.may, seat.rule) for seat in explain(release.approval, sight(release.approval))}
    assert seats == {vp: (False, PRODUCER_RULE), second: (True, "")}
    assert release.uid in set(ReleaseSubject().proved_by([vp.pk]))
    assert release.uid not in set(ReleaseSubject().proved_by([second.pk]))
    world.approve(release, by=second)
    assert Grant.objects.filter(request=release.approval_id).exists()


@pytest.mark.requirement("release-review-3.1")
def test_evidence_about_other_bytes_keeps_nobody_out(world: World) -> None:
    other = world.next_version()
    prove(world, world["vp"])
    release = world.ask("production", version=other, ladder=())
    assert waiting_for(world["vp"]).filter(pk=release.approval_id).exists()
    world.approve(release)
    assert release.status == "starting"


@pytest.mark.requirement("release-review-3.2")
def test_a_company_in_which_nobody_is_left_is_told_so_before_and_after(world: World) -> None:
    prove(world, world["vp"])
    client = client_for(world["lead_finance"])
    page = client.post(reverse("deployments:release-estimate"), form(world, "production"))
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.content.decode()))
    assert "nobody is left : a platform admin has to appoint somebody else" in shown
    assert f"{world['vp']}: {PRODUCER_RULE}".replace("'", "&#x27;") in shown
    release = world.ask("production", ladder=())
    assert release.status == "in_review"
    told = AuditEvent.objects.filter(action="approvals.request.undecidable", object_id=release.approval.uid)
    assert told.exists()
    page = client_for(world["admin"]).get(
        reverse("approvals:request-detail", kwargs={"request_uid": release.approval.uid})
    )
    shown = page.content.decode()
    assert "Too few people can decide" in shown
    assert PRODUCER_RULE in shown
    # An appointment heals it.
    second = make_user("second-owner@example.com")
    grant(second, Role.UNIT_OWNER, unit=world.company.unit)
    assert waiting_for(second).filter(pk=release.approval_id).exists()
