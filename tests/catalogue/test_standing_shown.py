"""What lists and pages say of a version's approval, of evidence that was read, of regimes that apply besides."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from apps.approvals.choices import RequestStatus
from apps.approvals.models import ApprovalRequest
from apps.audit.models import AuditEvent
from apps.catalogue import manifest, model_actions, requests_selectors
from apps.catalogue.models import Model, ModelRequest, Regime
from apps.catalogue.regimes_loading import load_regimes
from apps.core.actor import Actor
from apps.core.errors import Invalid
from tests.catalogue.evidence_world import make_world
from tests.catalogue.test_pages import granted
from tests.catalogue.world import make_model, make_sealed
from tests.deployments.samples import oci_manifest, served_manifest
from tests.factories import client_for

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(company: Any) -> Model:
    """A model of finance."""
    return make_model(company.finance_team)


@pytest.mark.requirement("catalogue-7.2")
def test_lists_say_which_versions_an_approval_covers(company: Any, model: Model, query_limit: Any) -> None:
    approved = make_sealed(model, company.member_finance)
    make_sealed(model, company.member_finance)
    granted(approved, company.lead_finance)
    client = client_for(company.compliance)
    with query_limit(20):
        shown = client.get("/catalogue/versions/").content.decode()
    table = shown[shown.index("<tbody") :]
    assert table.count("Approved") == 1
    rows = b"".join(client.get("/catalogue/versions/?export=csv").streaming_content).decode().splitlines()
    column = rows[0].split(",").index("Approved")
    assert sorted(row.split(",")[column] for row in rows[1:]) == ["no", "yes"]


@pytest.mark.requirement("catalogue-1.1")
def test_regimes_are_added_on_the_form_and_unknown_ones_refused(company: Any, model: Model) -> None:
    load_regimes()
    url = reverse("catalogue:model-edit", kwargs={"model_uid": model.uid})
    client = client_for(company.lead_finance)
    form = client.get(url).content.decode()
    for code in Regime.objects.values_list("code", flat=True):
        assert f'value="{code}"' in form
    data = {
        "name": model.name, "purpose": model.purpose, "data_classes": model.data_classes, "version": model.version,
    }  # fmt: skip
    assert client.post(url, {**data, "extra_regimes": ["pci-dss", "gdpr"]}).status_code in (302, 303)
    model.refresh_from_db()
    assert model.extra_regimes == ["gdpr", "pci-dss"]
    assert client.post(url, {**data, "version": model.version, "extra_regimes": ["no-such"]}).status_code == 400
    with pytest.raises(Invalid, match="no regime"):
        model_actions.edit_model(model.pk, extra_regimes=["no-such"], actor=Actor.of(company.lead_finance))


@pytest.mark.requirement("evidence-2.5")
def test_reading_evidence_is_recorded_through_page_and_api(company: Any) -> None:
    world = make_world(company)
    row = world.add("evaluation")
    client = client_for(company.compliance)
    read = AuditEvent.objects.filter(action="catalogue.evidence.read", object_id=row.uid)
    assert client.get(reverse("catalogue:evidence-detail", kwargs={"evidence_uid": row.uid})).status_code == 200
    assert read.count() == 1
    assert client.get(f"/api/v1/evidence/{row.uid}").status_code == 200
    assert read.count() == 2
    assert {event.actor_id for event in read} == {str(company.compliance.uid)}
    # Who may not see it reads nothing, so nothing is recorded.
    assert client_for(company.lead_marketing).get(f"/api/v1/evidence/{row.uid}").status_code == 404
    assert read.count() == 2


@pytest.mark.requirement("evidence-4.8")
@pytest.mark.parametrize(
    ("standing", "words"),
    [(RequestStatus.IN_REVIEW, "In review"), (RequestStatus.WAITING, "Decided, not in force yet")],
)
def test_a_decided_request_that_waits_is_not_called_in_review(standing: str, words: str) -> None:
    approval = ApprovalRequest(status=standing)
    assert requests_selectors.status_words(ModelRequest(status="in_review", approval=approval)) == words


@pytest.mark.requirement("evidence-3.1")
@pytest.mark.parametrize(("scheme", "verifies", "good"), [
    ("s3", True, True), ("s3", False, False), ("pvc", True, False), ("pvc", False, False),
])  # fmt: skip
def test_bytes_count_as_verified_only_where_they_can_be(scheme: str, verifies: bool, good: bool) -> None:
    location = {"s3": "s3://models/fraud", "pvc": "pvc://models/fraud"}[scheme]
    found = served_manifest(scheme=scheme, location=location)
    assert (manifest.bound_where(found, verified=verifies) == manifest.BYTES) is good
    assert manifest.bound_where(oci_manifest(), verified=False) == manifest.BYTES
