"""What an open browser that its person left must not be enough for; and passwords that are not taken again."""

from __future__ import annotations

import itertools
import json
from datetime import datetime, timedelta

import pytest
from django.urls import get_resolver

from apps.accounts import actions, passwords
from apps.accounts.erasing import erase_user
from apps.accounts.models import EarlierPassword, User
from apps.accounts.step_up import FreshActions, StepUpMixin
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid
from apps.teams.api import GrantViewSet
from apps.teams.mapping_api import GroupMappingViewSet
from apps.teams.models import RoleGrant
from apps.teams.service_api import ServiceAccountViewSet
from tests.factories import PASSWORD, Company, client_for, make_user

PROVED = {
    "accounts": (
        "impersonation-start", "user-merge", "user-erase", "user-password-reset", "user-password-use",
        "user-factors-reset", "factor-reset-confirm", "provider-create", "provider-edit", "provider-enable",
        "provider-disable", "provider-archive", "identity-disconnect", "scim-token-create", "scim-token-rotate",
    ),
    "teams": (
        "grant-create", "grant-revoke", "grant-extend", "mapping-create", "mapping-end", "mapping-restore",
        "service-create", "service-role", "service-token-create", "service-token-rotate", "import",
    ),
}  # fmt: skip


@pytest.mark.requirement("second-factors-3.7")
def test_pages_that_hand_out_rights_ask_for_a_fresh_proof() -> None:
    for room, names in PROVED.items():
        patterns = get_resolver().namespace_dict[room][1].url_patterns
        views = {one.name: one.callback.view_class for one in patterns if hasattr(one.callback, "view_class")}
        bare = [name for name in names if not issubclass(views[name], StepUpMixin)]
        assert not bare, bare
    for viewset in (GrantViewSet, GroupMappingViewSet, ServiceAccountViewSet):
        assert issubclass(viewset, FreshActions)
        assert all(callable(getattr(viewset, name)) for name in viewset.fresh_actions)
        assert "create" in viewset.fresh_actions


@pytest.mark.django_db
@pytest.mark.requirement("second-factors-3.7")
def test_a_browser_left_open_gives_no_role(company: Company, frozen_clock: datetime) -> None:
    company.admin.set_password(PASSWORD)
    company.admin.save(update_fields=["password"])
    client = client_for(company.admin)
    clock.advance(timedelta(minutes=16))
    before = RoleGrant.objects.count()
    path = f"/people/{company.vp.uid}/see-as/"
    for one in ("/roles/new/", path):
        for answer in (client.get(one), client.post(one, {"reason": "x"})):
            assert answer.status_code == 303, one
            assert answer["Location"].startswith("/account/confirm/"), one
    body = {"user_uid": str(company.vp.uid), "role": "auditor", "reason": "For the audit"}
    answer = client.post("/api/v1/role-grants", json.dumps(body), content_type="application/json")
    assert (answer.status_code, answer.json()["rule"]) == (403, "fresh_proof")
    assert RoleGrant.objects.count() == before
    assert client.post("/account/confirm/?next=/roles/new/", {"password": PASSWORD})["Location"] == "/roles/new/"
    assert client.get("/roles/new/").status_code == 200
    again = client.post("/api/v1/role-grants", json.dumps(body), content_type="application/json")
    assert again.status_code == 201, again.content


@pytest.mark.django_db
@pytest.mark.requirement("second-factors-4.3")
def test_the_last_five_passwords_are_not_taken_again(company: Company, frozen_clock: datetime) -> None:
    person = make_user("reuse@example.com", display_name="Reuse", password=PASSWORD)
    used = [PASSWORD, *(f"long enough pass phrase {number}" for number in range(passwords.KEPT))]

    def change(new: str, current: str) -> User:
        return actions.change_password(person.pk, current, new, actor=Actor.of(person))

    for current, new in itertools.pairwise(used[:-1]):
        change(new, current)
    for old in used[:-2]:
        with pytest.raises(Invalid, match="before"):
            change(old, used[-2])
    with pytest.raises(Invalid, match="differs from the present"):
        change(used[-2], used[-2])
    change(used[-1], used[-2])
    change(used[0], used[-1])
    assert EarlierPassword.objects.filter(user=person).count() == passwords.KEPT - 1
    assert not EarlierPassword.objects.filter(password__contains="phrase").exists(), "hashes, not passwords"
    erase_user(person.pk, person.email, "asked for it", actor=Actor.of(company.admin))
    assert not EarlierPassword.objects.filter(user=person).exists()
