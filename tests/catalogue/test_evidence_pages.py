"""Pages and API of cards, evidence, controls, exceptions, producers and requests, as their people use them."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from apps.catalogue.models import (
    CardRevision,
    Control,
    ControlAnswer,
    Evidence,
    EvidenceProducer,
    ModelRequest,
    VersionException,
)
from apps.core import clock
from apps.core.canonical import canonical_bytes
from apps.core.testing import assert_queries
from tests.catalogue.evidence_world import CARD, REASON, World, make_world
from tests.catalogue.world import make_card
from tests.factories import Company, client_for

pytestmark = pytest.mark.django_db
TABLE = """metric\tvalue\tlow\tcomparison\tthreshold\tslice
auroc\t0.95\t0.92\tat least\t0.9\t
auroc\t0.93\t0.91\tge\t0.9\tage ≥ 65"""
SLICES = TABLE.replace("0.9\t\nauroc", "0.9\tunder 65\nauroc")


@pytest.fixture
def world(company: Company) -> World:
    """An internal model of finance."""
    return make_world(company)


@pytest.fixture
def member(world: World) -> Client:
    """A member of the owning team."""
    return client_for(world["member_finance"])


@pytest.fixture
def lead(world: World) -> Client:
    """The lead of the owning team."""
    return client_for(world["lead_finance"])


@pytest.fixture
def compliance(world: World) -> Client:
    """Compliance."""
    return client_for(world["compliance"])


def _url(name: str, **kwargs: Any) -> str:
    return reverse(f"catalogue:{name}", kwargs=kwargs)


def _html(response: Any, status: int = 200) -> str:
    assert response.status_code == status, response.content.decode()[:2000]
    text: str = response.content.decode()
    return text


@pytest.mark.requirement("evidence-1.1", "evidence-1.4")
def test_a_card_is_edited_with_preview_and_compared(world: World, member: Client) -> None:
    uid = world.model.uid
    form = _html(member.get(_url("card-edit", model_uid=uid)))
    assert "Scores payments." in form
    typed = {
        "name": "Fraud",
        "overview": "Scores refunds.",
        "results": "auroc, 0.9",
        "datasets": "claims | r1",
        "number": 1,
    }
    preview = _html(member.post(_url("card-preview", model_uid=uid), typed))
    assert "Scores refunds." in preview
    assert "Intended use" in preview
    assert CardRevision.objects.count() == 1
    bad = member.post(_url("card-edit", model_uid=uid), typed | {"results": "auroc, much"})
    assert "is a number" in _html(bad, 400)
    saved = member.post(_url("card-edit", model_uid=uid), typed)
    assert saved.status_code == 303
    card = CardRevision.objects.get(number=2)
    assert card.body["results"] == [{"metric": "auroc", "value": "0.9"}]
    _html(member.post(_url("card-edit", model_uid=uid), typed | {"overview": "Other"}), 409)
    compared = _html(member.get(_url("card-compare", card_uid=card.uid)))
    assert "Scores payments." in compared
    assert "Scores refunds." in compared
    assert "Revision 1 of 2" in _html(member.get(_url("card-detail", model_uid=uid) + "?revision=1"))
    _html(member.get(_url("card-detail", model_uid=uid) + "?revision=9"), 404)
    assert "2 fields" not in _html(member.get(_url("card-history", model_uid=uid)))


@pytest.mark.requirement("evidence-1.3")
def test_a_card_goes_out_and_comes_in_as_a_file(world: World, member: Client) -> None:
    uid = world.model.uid
    out = member.get(_url("card-export", model_uid=uid))
    assert out["Content-Disposition"].startswith("attachment")
    text = out.content.decode()
    changed = text.replace("Scores payments.", "Scores refunds.").encode()
    done = member.post(_url("card-import", model_uid=uid), {"card": SimpleUploadedFile("README.md", changed)})
    assert done.status_code == 303
    card = CardRevision.objects.get(number=2)
    assert card.body == CardRevision.objects.get(number=1).body | {"overview": "Scores refunds."}
    bad = SimpleUploadedFile("README.md", b"---\na: &x 1\nb: *x\n---\n")
    assert "aliases" in _html(member.post(_url("card-import", model_uid=uid), {"card": bad}), 400)


@pytest.mark.requirement("evidence-2.1", "evidence-2.2", "evidence-2.3")
def test_evidence_is_added_with_its_verdict_shown_while_typing(
    world: World, member: Client, settings: Any, tmp_path: Any
) -> None:
    settings.COMMONS_BLOB_DIR, settings.COMMONS_SCANNER = str(tmp_path), ""
    version = {"version_uid": world.version.uid}
    assert "Evaluation results" in _html(member.get(_url("evidence-choose", **version)))
    add = _url("evidence-add", kind="evaluation", **version)
    assert "house-evaluation" in _html(member.get(add + "?control=house-evaluation"))
    preview = _url("evidence-preview", kind="evaluation", **version)
    assert "Every threshold is met" in _html(member.post(preview, {"results": TABLE}))
    assert "It says no" in _html(member.post(preview, {"results": TABLE.replace("0.91", "0.85")}))
    assert "Row 1" in _html(member.post(preview, {"results": "auroc, high"}))
    assert "Row 1" in _html(member.post(add, {"title": "E", "results": "auroc, high"}), 400)
    file = SimpleUploadedFile("report.pdf", b"%PDF-1.7 report")
    done = member.post(add, {"title": "Nightly", "results": TABLE, "file": file, "summary": "All well."})
    assert done.status_code == 303
    row = Evidence.objects.get()
    assert (row.verdict, row.file_name, row.results.count()) == ("pass", "report.pdf", 2)
    page = _html(member.get(_url("evidence-detail", evidence_uid=row.uid)))
    assert "age ≥ 65" in page
    assert row.subject_digest in page
    taken = member.get(_url("evidence-file", evidence_uid=row.uid))
    assert taken["X-Content-Type-Options"] == "nosniff"
    assert b"".join(taken.streaming_content) == b"%PDF-1.7 report"
    program = SimpleUploadedFile("report.pdf", b"MZ\x90\x00 program")
    refused = member.post(add, {"title": "Other", "results": TABLE, "file": program})
    assert "The file&#x27;s bytes are" in _html(refused, 400)
    withdraw = _url("evidence-withdraw", evidence_uid=row.uid)
    assert (
        member.post(withdraw, {"reason": "Measured on the wrong dataset.", "version": row.version}).status_code == 303
    )
    assert "Withdrawn: it counts no more" in _html(member.get(_url("evidence-detail", evidence_uid=row.uid)))
    _html(member.get(withdraw), 409)


@pytest.mark.requirement("evidence-2.2")
@pytest.mark.parametrize(
    ("kind", "data", "verdict"),
    [
        ("bias", {"results": SLICES, "attributes": "age", "gaps": "auroc 0.05"}, "pass"),
        ("bias", {"results": SLICES, "attributes": "age", "gaps": "auroc: 0.01"}, "fail"),
        ("image_scan", {"tool": "scanner 2", "critical": "0", "high": "1"}, "fail"),
        ("model_scan", {"tool": "scanner 2", "findings": "0"}, "pass"),
        ("dpia", {"summary": "Assessed in October, risk accepted.", "conclusion": "acceptable"}, "pass"),
        ("transfer_basis", {"summary": "Standard contractual clauses signed.", "basis": "safeguards"}, "info"),
    ],
)  # fmt: skip
def test_each_kind_has_a_form_of_its_own(
    world: World, member: Client, kind: str, data: dict[str, str], verdict: str
) -> None:
    add = _url("evidence-add", version_uid=world.version.uid, kind=kind)
    _html(member.get(add))
    sent = {"title": f"The {kind}", **data}
    if kind == "image_scan":
        sent["image"] = world.version.image
    assert member.post(add, sent).status_code == 303
    row = Evidence.objects.get()
    assert (row.kind, row.verdict) == (kind, verdict)
    _html(member.get(_url("evidence-detail", evidence_uid=row.uid)))


@pytest.mark.requirement("evidence-3.1", "evidence-3.3")
def test_the_checklist_says_what_is_open_and_what_to_do(company: Company) -> None:
    world = make_world(company, data_classes=("health",))
    member = client_for(company.member_finance)
    version = {"version_uid": world.version.uid}
    page = _html(member.get(_url("version-controls", **version)))
    answer = _url("control-answer", code="hipaa-164.312-a-2-iii", **version)
    assert answer in page
    assert "45 CFR 164.312(a)(2)(iii)" in page
    assert "Annex III" not in page
    assert "Annex III" in _html(member.get(_url("version-controls", **version) + "?all=1"))
    _html(member.post(answer, {"answer": "implemented", "rationale": "short"}), 400)
    text = "Sessions of the serving console end after ten minutes."
    assert member.post(answer, {"answer": "equivalent", "rationale": text}).status_code == 303
    assert ControlAnswer.objects.get().answer == "equivalent"
    assert text in _html(member.get(answer))
    _html(member.get(_url("control-answer", code="hipaa-164.312-d", **version)), 404)
    with assert_queries(30):
        _html(member.get(_url("version-controls", **version)))


@pytest.mark.requirement("evidence-3.4")
def test_compliance_publishes_a_revision_on_its_page(world: World, compliance: Client, member: Client) -> None:
    row = Control.objects.get(code="house-evaluation")
    page = _html(compliance.get(_url("control-publish", control_uid=row.uid)))
    assert "Evaluated against thresholds" in page
    data = {
        "citation": row.citation, "title": row.title, "text": row.text, "kind": row.kind,
        "evidence_kinds": ["evaluation"], "max_age_days": "90", "confirmed": "on", "reason": "Quarterly from now on.",
    }  # fmt: skip
    done = compliance.post(_url("control-publish", control_uid=row.uid), data)
    assert done.status_code == 303
    assert "Revision 1" in _html(member.get(done["Location"]))
    assert "superseded" in _html(member.get(_url("control-detail", control_uid=row.uid)))
    _html(compliance.get(_url("control-publish", control_uid=row.uid)), 409)
    assert "Art. 22 GDPR" in _html(member.get(_url("control-list") + "?search=22 GDPR"))
    assert "HIPAA" in _html(member.get(_url("regime-list")))


@pytest.mark.requirement("evidence-3.5")
def test_an_exception_is_proposed_and_decided_on_pages(world: World, lead: Client, compliance: Client) -> None:
    propose = _url("exception-propose", version_uid=world.version.uid)
    _html(lead.get(propose + "?control=house-evaluation"))
    ends = (clock.now() + timedelta(days=20)).strftime("%Y-%m-%dT%H:%M")
    data = {"kind": "control", "control_code": "house-evaluation", "expires_at": ends, "reason": "no"}
    _html(lead.post(propose, data), 400)
    assert lead.post(propose, data | {"reason": "The test set arrives soon."}).status_code == 303
    row = VersionException.objects.get()
    assert "Exceptions are decided by compliance." in _html(lead.get(_url("exception-detail", exception_uid=row.uid)))
    decide = _url("exception-decide", exception_uid=row.uid)
    assert "The test set arrives soon." in _html(compliance.get(decide))
    sent = {"verdict": "approve", "reason": "Until the data are there.", "version": row.version}
    assert compliance.post(decide, sent).status_code == 303
    assert "In force" in _html(lead.get(_url("exception-list")))


@pytest.mark.requirement("evidence-4.1", "evidence-4.2", "evidence-4.7", "evidence-4.8")
def test_a_request_from_the_page_to_the_approval(
    world: World, lead: Client, member: Client, compliance: Client
) -> None:
    version = {"version_uid": world.version.uid}
    create = _url("request-create", **version)
    assert "finance-production on Onprem (production)" in _html(lead.get(create))
    data = {"workspaces": [world.production.pk], "max_traffic": "50", "valid_days": "90", "reason": REASON}
    assert "Evaluated against thresholds" in _html(lead.post(_url("request-preview", **version), data))
    _html(lead.post(create, data | {"reason": ""}), 400)
    done = lead.post(create, data)
    assert done.status_code == 303
    row = ModelRequest.objects.get()
    page = _html(member.get(done["Location"]))
    assert "It cannot be approved now" in page
    assert "up to 50 %" not in page
    assert "50 %" in page
    assert row.approval is not None
    approval = reverse("approvals:request-detail", kwargs={"request_uid": row.approval.uid})
    assert "What changes" in _html(compliance.get(approval))
    world.add("evaluation")
    assert "It cannot be approved now" not in _html(member.get(done["Location"]))
    correct = _url("request-correct", request_uid=row.uid)
    _html(lead.get(correct))
    sent = data | {"workspaces": [world.staging.pk], "version": row.version}
    _html(lead.post(correct, sent | {"version": row.version + 5}), 409)
    corrected = lead.post(correct, sent)
    assert corrected.status_code == 303
    newer = ModelRequest.objects.get(supersedes=row)
    world.decide(newer)
    assert "Usable from" in _html(member.get(corrected["Location"]))
    renew = _url("request-renew", request_uid=newer.uid)
    assert lead.post(renew, {"valid_days": "30", "reason": "Another month, please."}).status_code == 303
    third = ModelRequest.objects.get(renews=newer)
    withdraw = _url("request-withdraw", request_uid=third.uid)
    assert member.get(withdraw).status_code == 403
    assert lead.post(withdraw, {"reason": "Not needed any more.", "version": third.version}).status_code == 303
    assert "Withdrawn" in _html(member.get(_url("request-list")))
    assert "Approval" in _html(member.get(_url("version-detail", **version)))
    assert "Model card" in _html(member.get(_url("model-detail", model_uid=world.model.uid)))


@pytest.mark.requirement("evidence-4.8")
def test_lists_ask_few_questions_whatever_their_length(world: World, member: Client) -> None:
    for _ in range(3):
        version = world.seal()
        world.add("evaluation", version=version)
        world.ask(version=version)
    for name in ("evidence-list", "request-list", "exception-list", "control-list"):
        with assert_queries(20):
            _html(member.get(_url(name)))
        exported = member.get(_url(name) + "?export=csv")
        assert exported.status_code == 200
        assert exported.getvalue()  # to the end: what it was written into closes then
    for name in ("evidence", "model-requests", "controls", "version-exceptions"):
        with assert_queries(15):
            assert member.get(f"/api/v1/{name}").status_code == 200


@pytest.mark.requirement("evidence-2.4")
def test_a_ci_system_is_let_in_and_posts_signed_evidence(world: World) -> None:
    admin = client_for(world["admin"])
    key = Ed25519PrivateKey.generate()
    data = {
        "name": "Fraud CI", "public_key": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
        "kinds": ["evaluation"], "teams": [world.company.finance_team.pk],
        "expires_at": (clock.now() + timedelta(days=20)).strftime("%Y-%m-%dT%H:%M"),
    }  # fmt: skip
    _html(admin.post(_url("producer-create"), data | {"public_key": "nothing"}), 400)
    page = _html(admin.post(_url("producer-create"), data))
    producer = EvidenceProducer.objects.get()
    token = page.partition('aria-label="Token">')[2].partition("<")[0]
    assert token.startswith("gpuce_")
    assert token not in _html(admin.get(_url("producer-detail", producer_uid=producer.uid)))
    body = {
        "delivery_id": "run-0001", "timestamp": clock.now().isoformat(), "digest": world.version.digest,
        "kind": "evaluation", "title": "Nightly evaluation",
        "results": [{"metric": "auroc", "value": "0.93", "comparison": "ge", "threshold": "0.9"}],
    }  # fmt: skip

    def post(sent: dict[str, Any], signed: dict[str, Any], bearer: str = token) -> Any:
        signature = base64.b64encode(key.sign(canonical_bytes(signed))).decode()
        headers = {"Authorization": f"Bearer {bearer}", "X-Commons-Signature": signature}
        return Client(headers=headers).post("/api/v1/evidence", json.dumps(sent), content_type="application/json")

    assert post(body | {"title": "Changed"}, body).status_code == 403
    assert post(body, body, "gpuce_unknown").status_code == 401
    made = post(body, body)
    assert made.status_code == 201, made.content
    assert made.json()["producer"] == str(producer.uid)
    again = post(body, body)
    assert again.status_code == 409
    assert again.json()["current"] == {"evidence": made.json()["uid"]}
    headers = {"Authorization": f"Bearer {token}"}
    uid = made.json()["uid"]
    for path in ("/api/v1/evidence", f"/api/v1/evidence/{uid}", "/api/v1/model-requests"):
        assert Client(headers=headers).get(path).status_code == 401
    assert Client(headers=headers).post(f"/api/v1/evidence/{uid}/withdraw").status_code in (401, 403, 404)
    assert "Nightly evaluation" in _html(admin.get(_url("producer-detail", producer_uid=producer.uid)))
    rotated = _html(
        admin.post(_url("producer-rotate", producer_uid=producer.uid), data | {"version": producer.version})
    )
    assert "gpuce_" in rotated
    producer.refresh_from_db()
    revoke = _url("producer-revoke", producer_uid=producer.uid)
    assert admin.post(revoke, {"reason": "The pipeline was retired.", "version": producer.version}).status_code == 303


@pytest.mark.requirement("evidence-4.8")
def test_the_api_does_what_the_pages_do(world: World, lead: Client, compliance: Client, member: Client) -> None:
    def post(client: Client, path: str, data: dict[str, Any], **headers: str) -> Any:
        return client.post(
            f"/api/v1/{path}", json.dumps(data, default=str), content_type="application/json", headers=headers
        )

    results = [{"metric": "auroc", "value": "0.93", "comparison": "ge", "threshold": "0.9"}]
    made = post(
        member, "evidence",
        {"digest": world.version.digest, "kind": "evaluation", "title": "By API", "results": results},
    )  # fmt: skip
    assert made.status_code == 201, made.content
    assert made.json()["results"][0]["passed"] is True
    assert post(member, "evidence", {"digest": "0" * 64, "kind": "evaluation", "title": "x"}).status_code == 400
    states = member.get(f"/api/v1/checklists/{world.version.uid}").json()
    assert {one["code"]: one["status"] for one in states}["house-evaluation"] == "satisfied"
    asked = {
        "model_version": world.version.uid,
        "workspaces": [world.production.uid],
        "reason": REASON,
        "valid_days": 30,
    }
    foreign = post(lead, "model-requests", asked | {"workspaces": ["00000000-0000-4000-8000-000000000000"]})
    assert "workspaces" in foreign.json()["errors"]
    request = post(lead, "model-requests", asked)
    assert request.status_code == 201, request.content
    uid, etag = request.json()["uid"], request["ETag"]
    assert request.json()["scope"]["clusters"] == ["onprem"]
    assert post(lead, f"model-requests/{uid}/withdraw", {"reason": "x"}).status_code == 428
    corrected = post(lead, f"model-requests/{uid}/correct", asked | {"max_traffic": 5}, **{"If-Match": etag})
    assert corrected.status_code == 201, corrected.content
    newer = corrected.json()["uid"]
    gone = post(lead, f"model-requests/{newer}/withdraw", {"reason": "Not needed."}, **{"If-Match": corrected["ETag"]})
    assert gone.json()["status"] == "withdrawn"
    proposed = post(
        lead, "version-exceptions",
        {"model_version": world.version.uid, "kind": "control", "control_code": "house-card",
         "reason": "Written next week.",
         "expires_at": clock.now() + timedelta(days=9)},
    )  # fmt: skip
    assert proposed.status_code == 201, proposed.content
    decided = post(
        compliance,
        f"version-exceptions/{proposed.json()['uid']}/decide",
        {"approve": True, "reason": "For nine days only."},
    )
    assert decided.json()["approved"] is True
    assert post(member, f"evidence/{made.json()['uid']}/withdraw", {"reason": "Measured wrongly."}).status_code == 200


@pytest.mark.requirement("evidence-1.4")
def test_two_versions_are_compared_by_card_and_evidence(world: World, member: Client) -> None:
    card = make_card(world.model, world["member_finance"], CARD | {"overview": "Scores payments and refunds."})
    newer = world.seal(card=card)
    world.add("evaluation")
    world.add("model_scan", version=newer)
    page = _html(member.get(_url("compare") + f"?a={world.version.uid}&b={newer.uid}"))
    for text in ("Scores payments.", "Scores payments and refunds.", "The evaluation", "The model_scan"):
        assert text in page
