"""Idempotency-Key: done once, answered as often as asked."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections

from apps.accounts.models import ApiToken
from apps.core import clock, idempotency
from apps.core.models import IdempotentCall
from apps.teams.models import Membership, RoleGrant, Team
from tests.factories import Company, client_for, forget_scopes, make_company

pytestmark = pytest.mark.requirement("api-once-1.1", "api-once-1.2")
KEY = "6f1c6f2e-0001"


def _make(client: Any, company: Company, name: str = "vision", key: str | None = KEY) -> Any:
    body = {"name": name.capitalize(), "slug": name, "unit_uid": str(company.unit.uid), "cost_centre": f"CC-{name}"}
    headers = {"HTTP_IDEMPOTENCY_KEY": key} if key else {}
    return client.post("/api/v1/teams", json.dumps(body), content_type="application/json", **headers)


def test_the_same_call_is_done_once_and_answered_again(company: Company) -> None:
    client = client_for(company.admin)
    first, again = _make(client, company), _make(client, company)
    assert first.status_code == 201, first.content
    assert (again.status_code, again.json()) == (201, first.json())
    assert again["Idempotency-Replayed"] == "true"
    assert not first.has_header("Idempotency-Replayed")
    assert again.get("ETag") == first.get("ETag")
    assert Team.objects.filter(slug="vision").count() == 1


def test_a_key_belongs_to_one_call_of_one_person(company: Company) -> None:
    client = client_for(company.admin)
    assert _make(client, company).status_code == 201
    other = _make(client, company, "speech")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    stranger = _make(client_for(company.lead_finance), company)
    assert stranger.status_code == 403, "somebody else's key says nothing about this one"
    bad = _make(client, company, "speech", key="short")
    assert bad.status_code == 400


def test_a_refused_call_keeps_nothing(company: Company) -> None:
    client = client_for(company.admin)
    body = json.dumps({"name": "", "slug": "vision"})
    bad = client.post("/api/v1/teams", body, content_type="application/json", HTTP_IDEMPOTENCY_KEY=KEY)
    assert bad.status_code == 400
    assert IdempotentCall.objects.count() == 0
    assert _make(client, company).status_code == 201


def test_a_secret_is_shown_once_and_never_stored(company: Company) -> None:
    client = client_for(company.admin)
    body = json.dumps(
        {"name": "ci", "read_only": True, "expires_at": f"{clock.now() + timedelta(days=30):%Y-%m-%dT%H:%M:%SZ}"}
    )

    def post() -> Any:
        return client.post("/api/v1/api-tokens", body, content_type="application/json", HTTP_IDEMPOTENCY_KEY=KEY)

    first = post()
    assert first.status_code == 201, first.content
    again = post()
    assert again.status_code == 409
    assert ApiToken.objects.filter(user=company.admin).count() == 1
    assert IdempotentCall.objects.get().body == ""


def test_a_crash_behind_the_action_undoes_it(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_for(company.admin)

    def crash(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(idempotency.Claim, "keep", crash)
        client.raise_request_exception = False
        assert _make(client, company).status_code == 500
    assert not Team.objects.filter(slug="vision").exists()
    assert _make(client, company).status_code == 201


def test_an_answer_about_a_row_is_given_again_only_while_one_sees_it(company: Company) -> None:
    member, lead = company.member_finance, company.lead_finance
    url = f"/api/v1/teams/{company.finance_team.uid}/remove-member"
    body = json.dumps({"user_uid": str(member.uid), "reason": "Moved on."})

    def post() -> Any:
        return client_for(lead).post(url, body, content_type="application/json", HTTP_IDEMPOTENCY_KEY=KEY)

    first = post()
    assert first.status_code == 204, first.content
    assert post()["Idempotency-Replayed"] == "true"
    RoleGrant.objects.filter(user=lead).update(revoked_at=clock.now())
    Membership.objects.filter(user=lead).delete()
    forget_scopes(lead)
    assert post().status_code == 404


def test_keys_are_forgotten_after_a_day(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _make(client_for(company.admin), company).status_code == 201
    assert idempotency.forget() == 0
    later = clock.now() + idempotency.KEPT + timedelta(minutes=1)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert idempotency.forget() == 1


@pytest.mark.django_db(transaction=True)
def test_two_at_once_do_it_once() -> None:
    company = make_company()
    clients = [client_for(company.admin) for _ in range(4)]
    answers: list[Any] = []
    ready = threading.Barrier(len(clients))

    def call(client: Any) -> None:
        try:
            ready.wait(timeout=60)
            answers.append(_make(client, company))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=call, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len({answer.json()["uid"] for answer in answers}) == 1
    assert sum(answer.has_header("Idempotency-Replayed") for answer in answers) == 3
