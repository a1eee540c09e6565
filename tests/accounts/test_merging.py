"""Two accounts of one person: what moves, what stays, and that both count as one."""

from __future__ import annotations

from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from apps.accounts import actions, merging
from apps.accounts.models import ExternalIdentity, IdentityProvider, SignInSession, User
from apps.approvals import deciders
from apps.approvals.other_accounts import OTHER_ACCOUNT_RULE
from apps.audit.choices import ProposalStatus
from apps.audit.keeping_models import RetentionProposal
from apps.audit.models import AuditEvent
from apps.catalogue import exceptions
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Blocked, Conflict, Invalid, NotAllowed, NotVisible
from apps.core.models import OutboxMessage
from apps.costs import seconding
from apps.teams import reviews, scope
from apps.teams.choices import Role
from apps.teams.models import Membership, RoleGrant
from tests.approvals.conftest import Office, office, things  # noqa: F401 (fixtures)
from tests.factories import Company, client_for, grant, make_member, make_user

pytestmark = pytest.mark.django_db


def merge(company: Company, old: User, stays: User, actor: User | None = None) -> User:
    return merging.merge(old.pk, stays.pk, "One person", actor=Actor.of(actor or company.admin))


def provider(slug: str) -> IdentityProvider:
    return IdentityProvider.objects.create(
        name=slug, slug=slug, issuer=f"https://{slug}.example.com", client_id="portal"
    )


@pytest.mark.requirement("people-and-units-4.1")
def test_what_counts_moves_and_the_old_account_is_off_for_good(company: Company) -> None:
    old, stays = make_user("old@example.com"), company.lead_finance
    until = clock.now() + timedelta(days=9)
    grant(old, Role.FINANCE, unit=company.unit, expires_at=until)
    grant(old, Role.TEAM_LEAD, team=company.finance_team)
    grant(old, Role.AUDITOR, expires_at=clock.now() - timedelta(days=1))
    make_member(old, company.marketing_team)
    make_member(old, company.finance_team)
    for user, slug in ((old, "one"), (old, "two"), (stays, "two")):
        here, _ = IdentityProvider.objects.get_or_create(
            slug=slug, defaults={"name": slug, "issuer": f"https://{slug}.example.com", "client_id": "x"}
        )
        ExternalIdentity.objects.create(provider=here, subject=f"{user.pk}", user=user)
    client_for(old)
    review = reviews.start_review("Test", clock.now() + timedelta(days=9), actor=Actor.of(company.compliance))
    merge(company, old, stays)
    old.refresh_from_db()
    assert (old.merged_into, old.is_active) == (stays, False)
    assert not SignInSession.objects.open().filter(user=old).exists()
    held = RoleGrant.objects.in_force().filter(user=stays)
    assert {(one.role, one.unit_id, one.expires_at) for one in held} == {
        (Role.TEAM_LEAD, None, None), (Role.FINANCE, company.unit.pk, until),
    }  # fmt: skip
    assert scope.members(company.marketing_team.pk) >= {stays.pk}
    assert not RoleGrant.objects.filter(user=old, revoked_at__isnull=True, expires_at__gt=clock.now()).exists()
    assert Membership.objects.filter(user=old).count() == 2, "that they were stays on record"
    assert sorted(stays.identities.values_list("provider__slug", flat=True)) == ["one", "two"]
    assert old.identities.get().provider.slug == "two", "one identity a provider"
    asked = review.items.filter(user=stays, answer="open")
    assert asked.filter(role=Role.FINANCE).get().grant in set(held), "the review asks about what took its place"
    assert AuditEvent.objects.filter(action="accounts.user.merged", object_id__in=[old.uid, stays.uid]).count() == 2
    assert OutboxMessage.objects.get(event="accounts.user.merged").recipient_ids == [stays.pk]
    with pytest.raises(Conflict, match="merged into another"):
        actions.reactivate_user(old.pk, "by mistake", actor=Actor.of(company.admin))


@pytest.mark.requirement("people-and-units-4.1")
def test_a_role_that_one_gave_to_the_other_account_does_not_come_along(company: Company) -> None:
    second = make_user("second@example.com")
    grant(second, Role.PLATFORM_ADMIN)
    given = grant(second, Role.AUDITOR)
    RoleGrant.objects.filter(pk=given.pk).update(granted_by=company.finance)
    merge(company, second, company.finance)
    roles = set(RoleGrant.objects.in_force().filter(user=company.finance).values_list("role", flat=True))
    assert roles == {Role.FINANCE, Role.PLATFORM_ADMIN}


@pytest.mark.requirement("people-and-units-4.1")
def test_the_last_admins_other_account_takes_over(company: Company) -> None:
    stays, second = make_user("stays@example.com"), make_user("helper@example.com")
    merging.merge(company.admin.pk, stays.pk, "One person", actor=Actor.system("tests"))
    assert scope.holders_of_role(Role.PLATFORM_ADMIN) == [stays.pk]
    with pytest.raises(NotAllowed):
        merge(company, second, make_user("third@example.com"), actor=company.compliance)


@pytest.mark.requirement("people-and-units-4.2")
def test_nobody_decides_on_what_their_other_account_asked_or_said(office: Office, company: Company) -> None:  # noqa: F811 (the fixture)
    request = office.submit()
    other = make_user("other@example.com")
    requester = User.objects.get(pk=request.requester_id)
    assert other.pk not in deciders.barred(request)
    User.objects.filter(pk=requester.pk).update(merged_into=other)
    assert deciders.barred(request)[other.pk] == deciders.barred(request)[requester.pk]
    User.objects.filter(pk=requester.pk).update(merged_into=None)
    User.objects.filter(pk=other.pk).update(merged_into=requester)
    assert other.pk in deciders.barred(request), "an account that was merged away counts with its person"
    User.objects.filter(pk=other.pk).update(merged_into=None)
    office.publish({"stages": [{"name": "Both", "role": "unit_owner", "scope": "unit", "quorum": 2}]})
    second, both = make_user("vp2@example.com"), office.submit()
    grant(second, Role.UNIT_OWNER, unit=company.unit)
    office.decide(both, company.vp)
    merge(company, company.vp, second)
    assert deciders.barred(both)[second.pk] == OTHER_ACCOUNT_RULE
    with pytest.raises(NotAllowed, match="One person fills one seat"):
        office.decide(both, second)


@pytest.mark.requirement("people-and-units-4.2")
def test_a_second_person_is_not_ones_other_account(company: Company) -> None:
    old = make_user("old@example.com")
    seconding.second_person(company.finance, old.pk, "A credit")
    merge(company, old, company.finance)
    with pytest.raises(NotAllowed):
        seconding.second_person(company.finance, old.pk, "A credit")
    assert merging.same_person(old.pk, company.finance.pk)
    assert not merging.same_person(old.pk, company.vp.pk)
    assert not merging.same_person(None, company.vp.pk)
    assert reviews.reviewers().person(old.pk) == company.finance.pk


@pytest.mark.requirement("people-and-units-4.2")
def test_chains_of_merges_lead_to_the_last_account(company: Company) -> None:
    first, second, third = (make_user(f"{name}@example.com") for name in ("first", "second", "third"))
    merge(company, first, second)
    merge(company, second, third)
    assert merging.persons() == {first.pk: third.pk, second.pk: third.pk}
    assert merging.accounts_of(first.pk) == {first.pk, second.pk, third.pk}


@pytest.mark.requirement("people-and-units-4.3")
def test_what_cannot_be_merged_is_refused(office: Office, company: Company) -> None:  # noqa: F811 (the fixture)
    old, stays = make_user("old@example.com"), make_user("stays@example.com")
    program, off = make_user("program@example.com", kind="service"), make_user("off@example.com", is_active=False)
    for one, other in ((company.admin, stays), (old, company.admin)):
        with pytest.raises(NotAllowed) as refused:
            merge(company, one, other)
        assert refused.value.rule == "not_oneself"
    for goal in (program, off, old):
        with pytest.raises(Invalid) as wrong:
            merge(company, old, goal)
        assert "into" in wrong.value.errors
    with pytest.raises(Conflict):
        merge(company, program, stays)
    with pytest.raises(NotVisible):
        merging.merge(0, stays.pk, "x", actor=Actor.of(company.admin))
    with pytest.raises(Invalid):
        merging.merge(old.pk, stays.pk, " ", actor=Actor.of(company.admin))
    with pytest.raises(NotAllowed):
        merge(company, old, stays, actor=company.vp)
    request = office.submit()
    office.publish({"stages": [{"name": "Both", "role": "unit_owner", "scope": "unit", "quorum": 2}]})
    second, both = make_user("vp2@example.com"), office.submit()
    grant(second, Role.UNIT_OWNER, unit=company.unit)
    for vp in (company.vp, second):
        if vp is company.vp:
            office.decide(both, vp)
    with pytest.raises(Blocked, match="1 open approval request"):
        merge(company, company.vp, User.objects.get(pk=both.requester_id))
    assert request.status == "in_review"
    merge(company, old, stays)
    with pytest.raises(Conflict, match="merged already"):
        merge(company, old, second)


@pytest.mark.requirement("people-and-units-4.1", "people-and-units-7.1")
def test_page_and_api_merge(company: Company) -> None:
    old, stays, third = (make_user(f"{name}@example.com") for name in ("old", "stays", "third"))
    client: Any = client_for(company.admin)
    assert "cannot be undone" in client.get(f"/people/{old.uid}/merge/").content.decode()
    wrong = client.post(f"/people/{old.uid}/merge/", {"into": "nobody@example.com", "reason": "x"})
    assert wrong.status_code == 400
    done = client.post(f"/people/{old.uid}/merge/", {"into": "STAYS@example.com", "reason": "Married"})
    assert done.status_code == 303
    assert "Merged into" in client.get(f"/people/{old.uid}/").content.decode()
    assert client.get(f"/people/{old.uid}/merge/").status_code == 409
    body = {"into_uid": str(third.uid), "reason": "Again"}
    answer = client.post(f"/api/v1/users/{stays.uid}/merge", body, content_type="application/json")
    assert (answer.status_code, answer.json()["uid"]) == (200, str(third.uid))


@pytest.mark.requirement("people-and-units-4.2", "people-and-units-4.3")
def test_who_proposed_a_purge_is_not_merged_while_it_waits_for_a_second_person(company: Company) -> None:
    old, stays = make_user("old@example.com"), make_user("stays@example.com")
    proposal = RetentionProposal.objects.create(month=date(2019, 1, 1), events=1, proposed_by=old.uid)
    with pytest.raises(Blocked, match="purge audit data"):
        merge(company, old, stays)
    RetentionProposal.objects.filter(pk=proposal.pk).update(status=ProposalStatus.WITHDRAWN)
    assert merge(company, old, stays) == stays


@pytest.mark.requirement("people-and-units-4.2")
def test_an_exception_is_not_decided_with_the_other_account(company: Company) -> None:
    proposer = make_user("old@example.com")
    version = SimpleNamespace(model=SimpleNamespace(team_id=company.finance_team.pk), pk=0)
    row = SimpleNamespace(proposed_by_id=proposer.pk, model_version=version, scope_team_id=company.finance_team.pk)
    merge(company, proposer, company.compliance)
    assert exceptions.why_not_decide(company.compliance, row) == "You proposed it: somebody else decides."  # type: ignore[arg-type]  # what it reads of a row
