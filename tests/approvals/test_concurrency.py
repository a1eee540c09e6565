"""Two people at the same moment, on two real connections."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from apps.approvals import actions, ports
from apps.approvals.models import ApprovalRequest, Decision, Grant
from apps.core.actor import Actor
from apps.core.errors import CommonsError
from apps.teams.choices import Role
from tests.approvals.conftest import TWO_STAGES, Office
from tests.approvals.subjects import ThingSubject, facts_provided
from tests.factories import grant, make_company, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def office(transactional_db: None, things: ThingSubject) -> Office:
    return Office(make_company(), things)


def together(*jobs: Callable[[], Any]) -> list[Any]:
    """Run the jobs at the same moment, each on its own connection; return results or refusals, in order."""
    gate = threading.Barrier(len(jobs))
    results: list[Any] = [None] * len(jobs)

    def run(index: int, job: Callable[[], Any]) -> None:
        try:
            gate.wait(timeout=10)
            results[index] = job()
        except CommonsError as error:
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(index, job)) for index, job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return results


def status_of(request: ApprovalRequest) -> str:
    return ApprovalRequest.objects.values_list("status", flat=True).get(pk=request.pk)


@pytest.mark.requirement("approvals-3.7")
def test_two_final_approvals_at_once_give_one_grant(office):
    second = make_user()
    grant(second, Role.UNIT_OWNER, unit=office.company.unit)
    office.publish({"stages": [{"name": "Owner", "role": "unit_owner", "scope": "unit"}]})
    for _ in range(3):
        office.subject.granted.clear()
        request = office.submit()
        results = together(
            lambda request=request: office.decide(request, office.company.vp),
            lambda request=request: office.decide(request, second),
        )
        assert sorted(type(result).__name__ for result in results) == ["ApprovalRequest", "Conflict"]
        assert Grant.objects.filter(request=request).count() == 1
        assert Decision.objects.filter(request=request).count() == 1
        assert office.subject.granted == [request.subject_uid]


@pytest.mark.requirement("approvals-3.7", "approvals-3.8", "approvals-4.4")
def test_approving_while_the_requester_withdraws_ends_in_one_of_the_two(office):
    office.publish({"stages": [{"name": "Owner", "role": "unit_owner", "scope": "unit"}]})
    for _ in range(4):
        request = office.submit()
        lead = Actor.of(office.company.lead_finance)
        approved, withdrawn = together(
            lambda request=request: office.decide(request, office.company.vp),
            lambda request=request, lead=lead: actions.withdraw(request.pk, "Not needed any more.", actor=lead),
        )
        status = status_of(request)
        assert Grant.objects.filter(request=request).exists() == (status == "approved")
        assert isinstance(approved, CommonsError) == (status == "withdrawn")
        assert isinstance(withdrawn, CommonsError) == (status == "approved")


@pytest.mark.requirement("approvals-2.3")
def test_two_small_requests_at_once_do_not_both_slip_below_the_limit(office):
    office.publish(TWO_STAGES)

    def so_far(context: ports.FactContext) -> int:
        return 3 * ApprovalRequest.objects.filter(team_id=context.team_id, automatic=True, status="approved").count()

    with facts_provided({"team.auto_approved_30d": so_far, "team.budget_remaining": lambda context: Decimal(100)}):
        small = [office.subject.add(facts={"request.gpus": 2}) for _ in range(2)]
        results = together(*(lambda thing=thing: office.submit(thing) for thing in small))
    assert sorted(result.status for result in results) == ["approved", "in_review"]


@pytest.mark.requirement("approvals-2.6")
def test_two_submissions_of_one_subject_at_once_open_one_request(office):
    office.publish({"stages": [{"name": "Owner", "role": "unit_owner", "scope": "unit"}]})
    thing = office.subject.add()
    results = together(lambda: office.submit(thing), lambda: office.submit(thing))
    assert sorted(type(result).__name__ for result in results) == ["ApprovalRequest", "Conflict"]
    assert ApprovalRequest.objects.count() == 1
