"""Two people at the same moment, on two real connections."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from apps.approvals import actions, delegating, ports, recertifying
from apps.approvals.models import ApprovalRequest, Decision, Grant
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import CommonsError
from apps.teams.choices import Role
from tests.approvals.conftest import ONE_STAGE, TWO_STAGES, Office
from tests.approvals.subjects import ThingSubject, deep_registered, facts_provided
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


@pytest.mark.requirement("approval-engine-6.4", "approvals-3.7")
def test_the_last_words_of_two_parallel_stages_at_once_give_one_grant(office):
    company = office.company
    office.publish(
        {
            "stages": [
                {"name": "Owner", "role": "unit_owner", "scope": "unit", "group": 1},
                {"name": "Compliance", "role": "compliance", "scope": "installation", "group": 1},
            ]
        }
    )
    request = office.submit()
    results = together(lambda: office.decide(request, company.vp), lambda: office.decide(request, company.compliance))
    assert not [result for result in results if isinstance(result, CommonsError)]
    assert (status_of(request), Grant.objects.filter(request=request).count()) == ("approved", 1)
    assert Decision.objects.filter(request=request).count() == 2


@pytest.mark.requirement("approval-engine-6.4", "approval-engine-3.3")
def test_giver_and_delegate_at_once_take_one_seat(office):
    company, deputy, second = office.company, make_user(), make_user()
    grant(second, Role.UNIT_OWNER, unit=company.unit)
    office.publish({"stages": [{"name": "Owner", "role": "unit_owner", "scope": "unit", "quorum": 2}]})
    delegating.create(
        company.vp.pk, deputy.pk, "unit_owner", actor=Actor.of(company.vp), reason="On leave.",
        end=clock.now() + timedelta(days=1),
    )  # fmt: skip
    request = office.submit()
    results = together(
        lambda: office.decide(request, company.vp),
        lambda: office.decide(request, deputy, on_behalf_of=company.vp.pk),
    )
    assert sorted(isinstance(result, CommonsError) for result in results) == [False, True]
    assert (status_of(request), Decision.objects.count()) == ("in_review", 1)


@pytest.mark.requirement("approval-engine-6.4", "approval-engine-6.3")
def test_two_sweeps_at_once_tell_the_room_once(transactional_db):
    company = make_company()
    with deep_registered() as subject:
        office = Office(company, subject)
        office.publish({**ONE_STAGE, "validity_days": 1})
        request = office.decide(office.submit(), company.vp)
        ended = Grant.objects.filter(request=request)
        ended.update(expires_at=clock.now() - timedelta(days=1))
        pk = ended.get().pk
        results = together(*(lambda: recertifying.attend(pk, actor=Actor.system("test")) for _ in range(2)))
        assert (sorted(results), subject.ended) == ([False, True], [ended.get().uid])
