"""Pages, panel and API: who sees what, what a stale form gets, what a refusal leaves behind."""

from __future__ import annotations

import json

import pytest

from apps.approvals import actions, selectors
from apps.approvals.models import ApprovalRequest, PolicyVersion
from apps.audit.models import AuditEvent
from apps.core.actor import Actor
from apps.core.testing import settle
from apps.teams.choices import Role
from tests.approvals.conftest import TWO_STAGES
from tests.factories import client_for, grant, make_user

pytestmark = pytest.mark.django_db


def path(request: ApprovalRequest, tail: str = "") -> str:
    return f"/approvals/requests/{request.uid}/{tail}"


def form(request: ApprovalRequest, **changes: str) -> dict[str, str]:
    request.refresh_from_db()
    return {
        "verdict": "approve", "reason": "Fits the plan of the unit.", "confirmed": "on",
        "digest": request.subject_digest, "version": str(request.version), **changes,
    }  # fmt: skip


@pytest.mark.requirement("approvals-5.3")
def test_the_request_page_tells_the_whole_story(office, company):
    office.publish(TWO_STAGES)
    request = office.submit(office.subject.add(facts={"request.environment": "production"}))
    office.decide(request, company.vp, reason="Within what the unit planned.")
    page = client_for(company.compliance).get(path(request))
    text = page.content.decode()
    assert page.status_code == 200
    for wanted in (
        "20 GPUs for the fraud models", request.subject_digest, "ResourceQuota/finance", "+1,405.25 USD",
        "Within what the unit planned.", "Unit owner (VP) of Retail Bank", "Things v2", "What the change adds",
        "Who could decide this now?", str(company.compliance), "Decide",
    ):  # fmt: skip
        assert wanted in text, wanted


@pytest.mark.requirement("approvals-5.3", "approvals-3.1")
def test_the_page_says_why_somebody_cannot_decide(office, company):
    grant(company.lead_finance, Role.COMPLIANCE)
    office.publish({"stages": [{"name": "Compliance", "role": "compliance", "scope": "installation"}]})
    request = office.submit()
    text = client_for(company.lead_finance).get(path(request)).content.decode()
    assert "You cannot decide this" in text
    assert "nobody decides on what they requested" in text
    assert path(request, "decide/") not in text


@pytest.mark.requirement("approvals-5.2")
def test_requests_are_shown_within_scope_only(office, company):
    request = office.submit(by=company.member_finance)
    for name in ("member_finance", "lead_finance", "vp", "compliance", "admin", "auditor", "finance"):
        assert client_for(company[name]).get(path(request)).status_code == 200, name
    for name in ("lead_marketing", "vp_other"):
        client = client_for(company[name])
        assert client.get(path(request)).status_code == 404, name
        assert request.title not in client.get("/approvals/requests/").content.decode()


@pytest.mark.requirement("approvals-3.7", "approvals-3.6")
def test_deciding_on_the_page(office, company):
    request = office.submit()
    client = client_for(company.vp)
    asked = client.get(path(request, "decide/"))
    assert asked.status_code == 200
    assert request.subject_digest in asked.content.decode()
    assert ApprovalRequest.objects.get().status == "in_review"
    answer = client.post(path(request, "decide/"), form(request))
    assert (answer.status_code, answer["Location"]) == (303, path(request))
    assert ApprovalRequest.objects.get().status == "approved"


@pytest.mark.requirement("approvals-3.5")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": ""}, "Give a reason"),
        ({"verdict": "reject", "reason": "too dear"}, "at least 10 characters"),
        ({"confirmed": ""}, "Confirm that you have read"),
        ({"verdict": ""}, "Choose approve or reject"),
    ],
)
def test_what_is_missing_is_said_next_to_the_field(office, company, changes, words):
    request = office.submit()
    answer = client_for(company.vp).post(path(request, "decide/"), form(request, **changes))
    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert not request.decisions.exists()


@pytest.mark.requirement("approvals-3.4")
def test_a_stale_form_gets_409_with_the_present_state(office, company):
    second = make_user()
    grant(second, Role.UNIT_OWNER, unit=company.unit)
    office.publish({"stages": [{"name": "Both", "role": "unit_owner", "scope": "unit", "quorum": 2}]})
    request = office.submit()
    stale = form(request)
    office.decide(request, second)
    client = client_for(company.vp)
    answer = client.post(path(request, "decide/"), stale)
    text = answer.content.decode()
    assert answer.status_code == 409
    assert "Fits the plan of the unit." in text
    request.refresh_from_db()
    assert f'value="{request.version}"' in text
    assert request.decisions.count() == 1
    assert client.post(path(request, "decide/"), form(request)).status_code == 303
    gone = client.post(path(request, "decide/"), form(request))
    assert gone.status_code == 409
    assert "Approved" in gone.content.decode()


@pytest.mark.requirement("approvals-3.4")
def test_edited_bytes_get_409_and_no_decision(office, company):
    request = office.submit()
    office.subject.things[request.subject_uid].text = "200 GPUs"
    answer = client_for(company.vp).post(path(request, "decide/"), form(request))
    assert answer.status_code == 409
    assert "edited" in answer.content.decode()
    assert not request.decisions.exists()


@pytest.mark.requirement("approvals-3.9", "approvals-3.1")
@pytest.mark.parametrize("superuser", [False, True])
def test_a_refused_attempt_is_in_the_audit_trail(office, company, superuser):
    chief = make_user(is_superuser=superuser)
    grant(chief, Role.PLATFORM_ADMIN)
    office.publish({"stages": [{"name": "Platform", "role": "platform_admin", "scope": "installation"}]})
    request = office.submit(by=chief)
    before = AuditEvent.objects.filter(actor_id=str(chief.uid)).count()
    client = client_for(chief)
    assert client.post(path(request, "decide/"), form(request)).status_code == 403
    assert not request.decisions.exists()
    refusals = AuditEvent.objects.filter(actor_id=str(chief.uid)).order_by("-occurred_at")
    assert refusals.count() == before + 1
    assert "refused" in refusals[0].action


@pytest.mark.requirement("approvals-3.2")
def test_who_may_see_but_holds_no_deciding_role_gets_403(office, company):
    request = office.submit()
    for name in ("lead_finance", "auditor"):
        assert client_for(company[name]).get(path(request, "decide/")).status_code == 403
        assert client_for(company[name]).post(path(request, "decide/"), form(request)).status_code == 403


@pytest.mark.requirement("approvals-4.4")
def test_withdrawing_on_the_page(office, company):
    request = office.submit(by=company.member_finance)
    client = client_for(company.member_finance)
    assert client.get(path(request, "withdraw/")).status_code == 200
    assert client.post(path(request, "withdraw/"), {"reason": ""}).status_code == 400
    assert client_for(company.auditor).get(path(request, "withdraw/")).status_code == 403
    stale = {"reason": "Not needed.", "version": str(request.version - 1)}
    assert client.post(path(request, "withdraw/"), stale).status_code == 409
    answer = client.post(path(request, "withdraw/"), {"reason": "Not needed.", "version": str(request.version)})
    assert answer.status_code == 303
    request.refresh_from_db()
    assert request.status == "withdrawn"
    assert client.get(path(request, "withdraw/")).status_code == 409


@pytest.mark.requirement("approvals-4.2")
def test_trying_again_on_the_page(office, company):
    office.subject.room = False
    request = office.decide(office.submit(), company.vp)
    client = client_for(company.admin)
    assert "The pool is full" in client.get(path(request)).content.decode()
    assert client.get(path(request, "retry/")).status_code == 200
    assert client.post(path(request, "retry/")).status_code == 303
    office.subject.room = True
    client.post(path(request, "retry/"))
    request.refresh_from_db()
    assert request.status == "approved"
    assert client.post(path(request, "retry/")).status_code == 409


@pytest.mark.requirement("approvals-2.5")
def test_nobody_to_decide_stands_on_the_page(office, company):
    office.publish({"stages": [{"name": "Four eyes", "role": "unit_owner", "scope": "unit", "quorum": 2}]})
    request = office.submit()
    assert "Too few people can decide" in client_for(company.lead_finance).get(path(request)).content.decode()


@pytest.mark.requirement("approvals-5.2")
def test_the_list_filters_and_keeps_to_twenty_queries(office, company, query_limit):
    teams = [company.finance_team, company.marketing_team, company.research_team]
    for number in range(36):
        office.submit(team=teams[number % 3])
    office.decide(ApprovalRequest.objects.first(), company.vp)
    client = client_for(company.vp)
    client.get("/approvals/requests/")
    with query_limit(20):
        page = client.get("/approvals/requests/")
    assert page.context["table"].page.paginator.count == 36
    assert "1,405.25 USD" in page.content.decode()

    def count(query: str) -> int:
        return client.get(f"/approvals/requests/?{query}").context["table"].page.paginator.count

    assert count("status=open") == 35
    assert count("status=approved") == 1
    assert count("team=research") == 12
    assert count("waiting=me") == 35
    assert count("kind=tests.thing") == 36
    assert count("search=fraud") == 36
    assert count("search=nothing+like+it") == 0
    export = b"".join(client.get("/approvals/requests/?export=csv").streaming_content).decode()
    assert export.count("20 GPUs for the fraud models") == 36
    assert "1405.25" in export


@pytest.mark.requirement("approvals-5.3", "approvals-5.2")
def test_the_request_page_keeps_to_its_queries(office, company, query_limit):
    request = office.submit()
    client = client_for(company.vp)
    client.get(path(request))
    with query_limit(22):
        client.get(path(request))


@pytest.mark.requirement("approvals-5.2")
def test_for_you_to_decide_lists_cost_and_age(office, company, rf):
    from apps.approvals.panels import for_you_to_decide

    request = office.submit()
    web = rf.get("/")
    web.user = company.vp
    panel = for_you_to_decide(web, None)
    assert [(row["request"], row["cost"]) for row in panel["rows"]] == [(request, "+1,405.25 USD")]
    web.user = company.compliance
    assert for_you_to_decide(web, None)["rows"] == []


@pytest.mark.requirement("approvals-5.1")
def test_opening_a_link_decides_nothing(office, company):
    request = office.submit()
    client = client_for(company.vp)
    for tail in ("", "decide/?verdict=approve", "withdraw/"):
        client.get(path(request, tail))
    request.refresh_from_db()
    assert (request.status, request.decisions.count()) == ("in_review", 0)


# ---------------------------------------------------------------- policies


@pytest.mark.requirement("approvals-1.3")
def test_everybody_reads_the_policies_as_sentences(office, company):
    office.publish(TWO_STAGES)
    client = client_for(company.member_finance)
    assert "Things" in client.get("/approvals/policies/").content.decode()
    text = client.get("/approvals/policies/things/").content.decode()
    assert "one person with the role Compliance of the whole installation" in text
    assert "Publish next version" not in text
    assert client.get("/approvals/policies/things/versions/1/").status_code == 200
    assert client.get("/approvals/policies/things/versions/9/").status_code == 404


@pytest.mark.requirement("approvals-1.1", "approvals-1.2")
def test_publishing_on_the_page(office, company):
    url = "/approvals/policies/things/publish/"
    assert client_for(company.vp).get(url).status_code == 403
    client = client_for(company.admin)
    page = client.get(url)
    assert page.status_code == 200
    version = str(page.context["form"]["version"].value())
    broken = client.post(url, {"name": "Things", "body": '{\n"stages": 3\n}', "version": version})
    assert broken.status_code == 400
    assert "Line 2, stages: must be a list" in broken.content.decode()
    assert PolicyVersion.objects.count() == 1
    sent = {"name": "Things", "body": json.dumps(TWO_STAGES), "version": version}
    assert client.post(url, sent).status_code == 303
    assert PolicyVersion.objects.count() == 2
    assert client.post(url, sent).status_code == 409


@pytest.mark.requirement("approvals-1.1")
def test_a_new_policy_on_the_page(office, company):
    client = client_for(company.admin)
    assert client.get("/approvals/new-policy/").status_code == 200
    sent = {"slug": "others", "name": "Others", "subject_type": "tests.thing", "body": json.dumps(TWO_STAGES)}
    assert client.post("/approvals/new-policy/", sent).status_code == 303
    assert client.post("/approvals/new-policy/", {**sent, "slug": "things"}).status_code == 400


@pytest.mark.requirement("approvals-1.3")
def test_rules_can_be_tried_with_facts(office, company):
    client = client_for(company.vp)

    def tried(**data: str) -> str:
        answer = client.post("/approvals/policy-preview/", {"body": json.dumps(TWO_STAGES), **data})
        assert answer.status_code == 200
        return answer.content.decode()

    unit = str(company.unit.uid)
    assert "Small change" in tried(facts="request.gpus = 1\nteam.budget_remaining = 0.5\nteam.auto_approved_30d = 0")
    asked = tried(facts="request.environment = production", unit=unit)
    assert str(company.vp) in asked
    assert "Compliance" in asked
    assert "Line 1: write name = value" in tried(facts="nonsense")
    assert "not valid JSON" in tried(body="{")


# ---------------------------------------------------------------- API


@pytest.mark.requirement("approvals-5.2", "approvals-3.7", "approvals-3.4")
def test_the_api_lists_and_decides(office, company, query_limit):
    for _ in range(5):
        office.submit()
    request = ApprovalRequest.objects.first()
    client = client_for(company.vp)
    with query_limit(15):
        listed = client.get("/api/v1/approval-requests?waiting_for_me=true")
    assert len(listed.json()["results"]) == 5
    url = f"/api/v1/approval-requests/{request.uid}"
    one = client.get(url).json()
    assert one["monthly_cost_change"] == {"amount": "1405.25", "currency": "USD"}
    sent = {"verdict": "approve", "reason": "Planned.", "subject_digest": "0" * 64}
    assert client.post(f"{url}/decide", sent, content_type="application/json").status_code == 409
    short = {"verdict": "reject", "reason": "no", "subject_digest": request.subject_digest}
    refused = client.post(f"{url}/decide", short, content_type="application/json")
    assert (refused.status_code, list(refused.json()["errors"])) == (400, ["reason"])
    sent["subject_digest"] = request.subject_digest
    done = client.post(f"{url}/decide", sent, content_type="application/json")
    assert (done.status_code, done.json()["status"]) == (200, "approved")
    assert client_for(company.vp_other).get(url).status_code == 404
    forbidden = client_for(company.lead_finance).post(f"{url}/decide", sent, content_type="application/json")
    assert forbidden.status_code == 403
    other = ApprovalRequest.objects.filter(status="in_review").first()
    for name in ("compliance", "admin", "auditor"):
        empty = client_for(company[name]).post(f"/api/v1/approval-requests/{other.uid}/decide", {})
        assert empty.status_code == 403, name


@pytest.mark.requirement("approvals-4.4")
def test_the_api_withdraws(office, company):
    request = office.submit()
    url = f"/api/v1/approval-requests/{request.uid}/withdraw"
    client = client_for(company.lead_finance)
    assert client.post(url, {"reason": ""}, content_type="application/json").status_code == 400
    done = client.post(url, {"reason": "Not needed."}, content_type="application/json")
    assert (done.status_code, done.json()["status"]) == (200, "withdrawn")


@pytest.mark.requirement("approvals-1.3")
def test_the_api_shows_policies(office, company):
    rows = client_for(company.member_finance).get("/api/v1/policies").json()["results"]
    assert [(row["slug"], len(row["versions"])) for row in rows] == [("things", 1)]


@pytest.mark.requirement("approvals-5.1")
def test_events_say_title_cost_and_age_in_words(office, company):
    from apps.approvals import events
    from apps.core.models import OutboxMessage

    office.submit()
    message = OutboxMessage.objects.get(event="approvals.request.submitted")
    said = events.REQUEST_SUBMITTED.load(message.payload)
    assert events.REQUEST_SUBMITTED.headline(said) == (
        "For you to decide: 20 GPUs for the fraud models (+1,405.25 USD a month)"
    )
    assert "Submitted just now." in events.REQUEST_SUBMITTED.body(said)
    assert events.REQUEST_SUBMITTED.path(said).startswith("/approvals/requests/")
    assert events.REQUEST_SUBMITTED.mail


@pytest.mark.requirement("approvals-5.1")
def test_the_mail_reaches_the_unit_owner_with_title_cost_and_link(office, company, mailoutbox):
    request = office.submit()
    settle()
    sent = [message for message in mailoutbox if company.vp.email in message.to]
    assert len(sent) == 1
    assert "20 GPUs for the fraud models (+1,405.25 USD a month)" in sent[0].subject
    assert path(request) in sent[0].body


@pytest.mark.requirement("approvals-5.3")
def test_selectors_and_actions_name_the_same_people(office, company):
    request = office.submit()
    able = {seat.user.pk for seat in selectors.explain(request) if seat.may}
    for person in (company.vp, company.compliance):
        if person.pk in able:
            actions.decide(
                request.pk, "approve", "Planned.", actor=Actor.of(person), expected_digest=request.subject_digest
            )
    assert ApprovalRequest.objects.get().status == "approved"
