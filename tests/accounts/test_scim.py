"""Provisioning over HTTP, as directories do it: accounts, groups, switching off, and what must never work."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import Client

from apps.accounts import scim_tokens
from apps.accounts.actions import create_token, deactivate_user
from apps.accounts.models import (
    ApiToken,
    DirectoryGroup,
    ExternalIdentity,
    IdentityProvider,
    ScimToken,
    SignInSession,
    User,
)
from apps.accounts.openid_claims import Person
from apps.accounts.openid_people import account_of
from apps.accounts.openid_refusals import Refused
from apps.accounts.scim_activity import dismiss_held, release_held
from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.teams import scope
from apps.teams.choices import Role
from apps.teams.models import GroupMapping, Membership, RoleGrant, Team
from tests import factories

pytestmark = [pytest.mark.django_db]

SYSTEM = Actor.system("test")
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


class Directory:
    """A directory with its token: speaks to the interface as the large ones do."""

    def __init__(self, slug: str = "staff", **extra: Any) -> None:
        self.provider = IdentityProvider.objects.create(
            name=slug.title(), slug=slug, issuer=f"https://{slug}.example.com", client_id="portal", **extra
        )
        self.token, self.secret = scim_tokens.create_token(
            self.provider.pk, "Sync", clock.now() + timedelta(days=30), actor=SYSTEM
        )
        self.client = Client()

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        sent = json.dumps(body) if body is not None and not isinstance(body, str) else body or ""
        return self.client.generic(
            method, f"/api/scim/v2/{self.provider.slug}/{path}", sent, content_type="application/scim+json",
            headers={"Authorization": f"Bearer {self.secret}", **headers},
        )  # fmt: skip

    def user(self, word: str = "ada", **extra: Any) -> dict[str, Any]:
        body = {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "userName": f"{word}@example.com",
            "externalId": f"id-{word}",
            "active": True,
            "displayName": f"{word.title()} of the example",
            "emails": [{"primary": True, "type": "work", "value": f"{word}@example.com"}],
            **extra,
        }
        answer = self("POST", "Users", body)
        assert answer.status_code == 201, answer.content
        found: dict[str, Any] = answer.json()
        return found

    def patch(self, uid: str, *steps: dict[str, Any], kind: str = "Users") -> Any:
        return self("PATCH", f"{kind}/{uid}", {"schemas": [PATCH], "Operations": list(steps)})

    def off(self, uid: str) -> Any:
        return self.patch(uid, {"op": "Replace", "path": "active", "value": "False"})

    def on(self, uid: str) -> Any:
        return self.patch(uid, {"op": "replace", "value": {"active": True}})


@pytest.fixture
def directory() -> Directory:
    factories.grant(factories.make_user("root@example.com"), Role.PLATFORM_ADMIN)
    return Directory()


def account(resource: dict[str, Any]) -> User:
    return ExternalIdentity.objects.get(uid=resource["id"]).user


def in_use(user: User) -> bool:
    return User.objects.get(pk=user.pk).is_active


def actions_about(user: User) -> list[str]:
    return list(AuditEvent.objects.filter(object_id=user.uid).order_by("occurred_at").values_list("action", flat=True))


# -- accounts


@pytest.mark.requirement("scim-1.1")
def test_a_posted_user_is_an_account_that_signs_in_at_the_provider_only(directory: Directory) -> None:
    answer = directory(
        "POST", "Users", {"userName": "Ada@Example.com", "externalId": "7", "active": True, "password": "taken over?",
                          "emails": [{"type": "work", "value": "ada@example.com"}],
                          "name": {"givenName": "First", "familyName": "Last"}},
    )  # fmt: skip
    assert answer.status_code == 201
    body = answer.json()
    assert answer["Content-Type"] == "application/scim+json"
    assert answer["Location"] == body["meta"]["location"]
    assert answer["Location"].endswith(f"/api/scim/v2/staff/Users/{body['id']}")
    assert answer["ETag"] == body["meta"]["version"] == 'W/"1"'
    assert "password" not in body
    user = account(body)
    assert (user.email, user.display_name, user.is_active) == ("ada@example.com", "First Last", True)
    assert not user.may_use_password
    assert not user.has_usable_password()
    assert directory("GET", f"Users/{body['id']}").json() == body
    assert actions_about(user) == ["accounts.provisioning.created"]


@pytest.mark.requirement("scim-1.2")
def test_what_is_taken_is_a_conflict_and_foreign_accounts_stay_as_they_were(directory: Directory) -> None:
    directory.user("ada")
    local = factories.make_user("local@example.com", display_name="Local lead")
    for body in (
        {"userName": "ADA@example.com", "emails": [{"value": "other@example.com"}]},
        {"userName": "b", "externalId": "id-ada", "emails": [{"value": "other@example.com"}]},
        {"userName": "b", "emails": [{"value": "Local@example.com"}]},
    ):
        answer = directory("POST", "Users", body)
        assert (answer.status_code, answer.json()["scimType"]) == (409, "uniqueness"), body
    other = directory.user("bea")
    answer = directory.patch(
        other["id"], {"op": "replace", "path": 'emails[type eq "work"].value', "value": local.email}
    )
    assert answer.status_code == 409
    local.refresh_from_db()
    assert (local.display_name, local.identities.count()) == ("Local lead", 0)


@pytest.mark.requirement("scim-1.2")
def test_an_account_with_the_same_address_is_taken_over_only_where_the_provider_links() -> None:
    root = factories.make_user("root@example.com", is_superuser=True)
    directory = Directory(links_by_mail=True, mail_domains=["example.com"])
    local = factories.make_user("ada@example.com", display_name="Old name")
    resource = directory.user("ada")
    assert account(resource) == local
    local.refresh_from_db()
    assert (local.display_name, local.may_use_password) == ("Ada of the example", True)
    answer = directory("POST", "Users", {"userName": "root@example.com"})
    assert (answer.status_code, root.identities.count()) == (409, 0), "break-glass is no directory's"
    answer = directory("POST", "Users", {"userName": "eve@other.example"})
    assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidValue"), "none of the provider's domains"


@pytest.mark.requirement("scim-1.2")
def test_who_signed_in_with_the_id_that_the_directory_names_is_the_same_person(directory: Directory) -> None:
    person = factories.make_user("ada@example.com")
    ExternalIdentity.objects.create(provider=directory.provider, user=person, subject="id-ada", token_groups=[])
    assert account(directory.user("ada")) == person


@pytest.mark.requirement("scim-1.3")
def test_replacing_and_patching_changes_account_and_resource(directory: Directory) -> None:
    resource = directory.user("ada", title="Analyst")
    uid = resource["id"]
    replaced = directory("PUT", f"Users/{uid}", {**resource, "displayName": "New name", "userName": "ada2@example.com"})
    assert replaced.status_code == 200
    assert replaced.json()["title"] == "Analyst"
    assert account(resource).display_name == "New name"
    answer = directory.patch(
        uid,
        {"op": "Replace", "path": 'emails[type eq "work"].value', "value": "ada3@example.com"},
        {"op": "Add", "path": "name.familyName", "value": "Newer"},
        {"op": "remove", "path": "title"},
    )
    assert answer.status_code == 200
    body = answer.json()
    assert (body["emails"][0]["value"], body["name"], body.get("title")) == (
        "ada3@example.com",
        {"familyName": "Newer"},
        None,
    )
    assert account(resource).email == "ada3@example.com"
    version = body["meta"]["version"]
    again = directory.patch(uid, {"op": "replace", "path": "name.familyName", "value": "Newer"})
    assert again.json()["meta"]["version"] == version, "saying it again is no change"


_SEARCHES: list[tuple[str, list[str]]] = [
    ('userName eq "ADA@example.com"', ["ada"]),
    ('externalId eq "id-bea"', ["bea"]),
    ('externalId eq "ID-BEA"', []),
    ('userName sw "a" or displayName co "bea OF"', ["ada", "bea"]),
    ('emails[type eq "work"].value eq "cyd@example.com"', ["cyd"]),
    ('emails.value ew "@example.com" and active eq false', ["cyd"]),
    ('not (userName sw "a") and active eq true', ["bea"]),
    ('name.familyName eq "last"', ["ada"]),
    ("title pr", ["ada"]),
    ('userName eq "no%body"', []),
    ('meta.lastModified gt "2020-01-01T00:00:00Z"', ["ada", "bea", "cyd"]),
]


@pytest.mark.requirement("scim-1.4")
def test_directories_search_their_own_users(directory: Directory) -> None:
    directory.user("ada", name={"familyName": "Last"}, title="Lead")
    directory.user("bea")
    directory.user("cyd", active=False)
    Directory("other").user("zoe")
    for text, names in _SEARCHES:
        answer = directory.client.get(
            "/api/scim/v2/staff/Users", {"filter": text}, headers={"Authorization": f"Bearer {directory.secret}"}
        )
        assert answer.status_code == 200
        body = answer.json()
        assert [one["userName"].split("@")[0] for one in body["Resources"]] == names, text
        assert body["totalResults"] == len(names)


@pytest.mark.requirement("scim-1.4")
def test_lists_come_in_pages_of_a_stable_order(directory: Directory, django_assert_max_num_queries: Any) -> None:
    names = [f"p{number}" for number in range(5)]
    for name in names:
        directory.user(name)
    found: list[str] = []
    for start in (1, 3, 5, 7):
        body = directory("GET", f"Users?startIndex={start}&count=2").json()
        assert (body["totalResults"], body["startIndex"], body["itemsPerPage"]) == (5, start, len(body["Resources"]))
        found += [one["userName"].split("@")[0] for one in body["Resources"]]
    assert found == names
    with django_assert_max_num_queries(9):
        assert len(directory("GET", "Users").json()["Resources"]) == 5
    assert directory("GET", "Users?count=0").json()["Resources"] == []
    assert directory("GET", "Users?startIndex=-3&count=-1").json()["totalResults"] == 5
    cut = directory("GET", "Users?attributes=userName&count=1").json()["Resources"][0]
    assert set(cut) == {"schemas", "id", "meta", "userName"}
    assert directory("GET", "Users?count=many").status_code == 400


_REFUSED: list[tuple[str, str, Any, int]] = [
    ("POST", "Users", "{", 400),
    ("POST", "Users", "[]", 400),
    ("POST", "Users", '{"userName": NaN}', 400),
    ("POST", "Users", "[" * 5000, 400),
    ("POST", "Users", '{"userName": "\\u0000@example.com"}', 400),
    ("POST", "Users", '{"userName": "\\ud800@example.com"}', 400),
    ("POST", "Users", {}, 400),
    ("POST", "Users", {"userName": 7}, 400),
    ("POST", "Users", {"userName": "no address"}, 400),
    ("POST", "Users", {"userName": "a@example.com", "active": "perhaps"}, 400),
    ("POST", "Users", {"userName": "a@example.com", "name": "text"}, 400),
    ("POST", "Users", {"userName": "a@example.com", "emails": "x"}, 400),
    ("POST", "Users", {"userName": "a@example.com", "title": "x" * 20000}, 413),
    ("POST", "Users", {"userName": "a@example.com", "displayName": "x" * 201}, 400),
    ("POST", "Groups", {"displayName": ""}, 400),
    ("POST", "Groups", {"displayName": "G", "members": [7]}, 400),
    ("POST", "Groups", {"displayName": "G", "members": "x"}, 400),
    ("PATCH", "Users/{uid}", {"Operations": []}, 400),
    ("PATCH", "Users/{uid}", {"Operations": [7]}, 400),
    ("PATCH", "Users/{uid}", {"Operations": [{"op": "remove", "path": "userName"}]}, 400),
    ("PUT", "Users/{uid}", {}, 400),
    ("PUT", "Users/{uid}", {"userName": "a@example.com", "urn:x": {"y": [[]]}, "emails": [{"value": 7}]}, 400),
    ("GET", "Users/nothing", None, 404),
    ("DELETE", "Groups/6f1b6f4e-0000-4000-8000-000000000000", None, 404),
    ("GET", "Users?filter=secret+eq+%22x%22", None, 400),
    ("GET", "Users?filter=userName+eq+7", None, 400),
    ("DELETE", "Users", None, 405),
    ("POST", "ServiceProviderConfig", {}, 405),
]


@pytest.mark.requirement("scim-1.5")
def test_what_cannot_be_taken_is_refused_in_the_standards_words(directory: Directory) -> None:
    resource = directory.user("kept")
    before = ExternalIdentity.objects.values().get(uid=resource["id"])
    for method, path, body, status in _REFUSED:
        answer = directory(method, path.format(uid=resource["id"]), body)
        assert answer.status_code == status, answer.content
        refusal = answer.json()
        assert refusal["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
        assert refusal["status"] == str(status)
        assert refusal["detail"]
        assert ExternalIdentity.objects.values().get() == before, "nothing changed"


@pytest.mark.requirement("scim-1.6")
def test_versions_are_honoured(directory: Directory) -> None:
    resource = directory.user("ada")
    path = f"Users/{resource['id']}"
    assert directory("GET", path, **{"If-None-Match": 'W/"1"'}).status_code == 304
    assert directory("PUT", path, {**resource, "title": "A"}, **{"If-Match": 'W/"1"'}).status_code == 200
    assert directory("PUT", path, {**resource, "title": "B"}, **{"If-Match": 'W/"1"'}).status_code == 412
    assert directory("DELETE", path, **{"If-Match": "stale"}).status_code == 412
    assert directory("GET", path, **{"If-None-Match": 'W/"1"'}).json()["title"] == "A"


@pytest.mark.requirement("scim-1.7")
def test_it_says_what_it_supports(directory: Directory) -> None:
    config = directory("GET", "ServiceProviderConfig").json()
    assert config["patch"]["supported"] is True
    assert config["bulk"]["supported"] is False
    assert {one["name"] for one in directory("GET", "ResourceTypes").json()["Resources"]} == {"User", "Group"}
    schemas = directory("GET", "Schemas").json()["Resources"]
    assert len(schemas) == 3
    for one in schemas:
        assert directory("GET", f"Schemas/{one['id']}").json() == one
        assert one["meta"]["location"].endswith(f"/api/scim/v2/staff/Schemas/{one['id']}")
    assert directory("GET", "Schemas/urn:x").status_code == 404


# -- switching off and on


@pytest.mark.requirement("scim-2.1")
def test_switching_off_ends_everything_at_once(directory: Directory) -> None:
    resource = directory.user("ada")
    user = account(resource)
    team = factories.make_team("Finance", factories.make_unit("Retail Bank"))
    GroupMapping.objects.create(provider=directory.provider, group="finance", role=Role.TEAM_LEAD, team=team)
    directory("POST", "Groups", {"displayName": "finance", "members": [{"value": resource["id"]}]})
    browser = factories.client_for(user)
    _, secret = create_token(user.pk, "CLI", clock.now() + timedelta(days=1), True, actor=Actor.of(user))
    assert browser.get("/account/").status_code == 200
    answer = directory.off(resource["id"])
    assert (answer.status_code, answer.json()["active"]) == (200, False)
    assert browser.get("/account/").status_code == 302
    assert Client().get("/api/v1/teams", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
    assert not SignInSession.objects.filter(user=user, closed_at__isnull=True).exists()
    assert not ApiToken.objects.filter(user=user, revoked_at__isnull=True).exists()
    assert not RoleGrant.objects.filter(user=user, revoked_at__isnull=True).exists()
    assert "accounts.user.deactivated" in actions_about(user)
    assert directory.on(resource["id"]).json()["active"] is True
    user.refresh_from_db()
    assert user.is_active
    assert RoleGrant.objects.in_force().filter(user=user, role=Role.TEAM_LEAD).count() == 1
    assert browser.get("/account/").status_code == 302, "sessions stay closed"


@pytest.mark.requirement("scim-2.2")
def test_a_directory_never_undoes_what_an_administrator_did(directory: Directory) -> None:
    resource = directory.user("ada")
    user, admin = account(resource), User.objects.get(email="root@example.com")
    deactivate_user(user.pk, "An incident", actor=Actor.of(admin))
    for step in (directory.on, directory.off, directory.on):
        assert step(resource["id"]).json()["active"] is False
    replaced = directory("PUT", f"Users/{resource['id']}", {**resource, "title": "x", "active": True})
    assert replaced.json()["active"] is False
    user.refresh_from_db()
    assert not user.is_active


@pytest.mark.requirement("scim-2.3")
def test_deleting_keeps_the_account_and_knows_the_person_again(directory: Directory) -> None:
    resource = directory.user("ada")
    user = account(resource)
    group = directory("POST", "Groups", {"displayName": "all", "members": [{"value": resource["id"]}]}).json()
    assert directory("DELETE", f"Users/{resource['id']}").status_code == 204
    user.refresh_from_db()
    assert not user.is_active
    assert directory("GET", f"Users/{resource['id']}").status_code == 404
    assert directory("GET", f"Groups/{group['id']}").json()["members"] == []
    stranger = directory("POST", "Users", {"userName": "ada@example.com", "externalId": "somebody else"})
    assert stranger.status_code == 409, "a new person with a used address gets no old account"
    again = directory.user("ada")
    assert account(again) == user
    user.refresh_from_db()
    assert user.is_active


@pytest.mark.requirement("scim-2.4")
def test_an_account_of_two_directories_is_off_when_neither_wants_it(directory: Directory) -> None:
    second = Directory("second", links_by_mail=True)
    here, there = directory.user("ada"), second.user("ada")
    user = account(here)
    assert account(there) == user
    assert directory.off(here["id"]).json()["active"] is False
    assert in_use(user)
    second.off(there["id"])
    assert not in_use(user)
    directory.on(here["id"])
    assert in_use(user)


@pytest.mark.requirement("scim-2.4")
def test_name_and_address_follow_the_directory_that_kept_the_account_first(directory: Directory) -> None:
    second = Directory("second", links_by_mail=True)
    here, there = directory.user("ada"), second.user("ada", displayName="Somebody else")
    second.patch(there["id"], {"op": "replace", "path": "emails", "value": [{"value": "eve@example.com"}]})
    user = account(here)
    assert (user.email, user.display_name) == ("ada@example.com", "Ada of the example")


@pytest.mark.requirement("scim-2.5")
@pytest.mark.parametrize("how", ["off", "delete", "put"])
def test_the_last_platform_admin_is_never_switched_off(how: str) -> None:
    directory = Directory()
    resource = directory.user("ada")
    user = account(resource)
    factories.grant(user, Role.PLATFORM_ADMIN)
    calls: dict[str, Callable[[], Any]] = {
        "off": lambda: directory.off(resource["id"]),
        "delete": lambda: directory("DELETE", f"Users/{resource['id']}"),
        "put": lambda: directory("PUT", f"Users/{resource['id']}", {**resource, "active": False}),
    }
    for _ in range(2):
        answer = calls[how]()
        assert (answer.status_code, answer.json()["status"]) == (403, "403")
    user.refresh_from_db()
    assert user.is_active
    assert directory("GET", f"Users/{resource['id']}").json()["active"] is True
    told = OutboxMessage.objects.filter(event="accounts.provisioning.last_admin_refused")
    assert [message.recipient_ids for message in told] == [[user.pk]], "once a day, not every try"
    assert actions_about(user).count("accounts.provisioning.last_admin_refused") == 2
    factories.grant(factories.make_user("second@example.com"), Role.PLATFORM_ADMIN)
    assert calls[how]().status_code in (200, 204)


def many(directory: Directory, count: int) -> list[dict[str, Any]]:
    return [directory.user(f"p{number}") for number in range(count)]


@pytest.mark.requirement("scim-2.6")
def test_more_than_half_within_a_day_are_held_back_until_somebody_looks(directory: Directory) -> None:
    admin = User.objects.get(email="root@example.com")
    people = many(directory, 6)
    answers = [directory.off(one["id"]) for one in people[:5]]
    assert all(answer.status_code == 200 and answer.json()["active"] is False for answer in answers)
    states = [account(one).is_active for one in people]
    assert states == [False, False, False, True, True, True], "half are carried out, those after them wait"
    told = OutboxMessage.objects.filter(event="accounts.provisioning.held")
    assert [message.recipient_ids for message in told] == [[admin.pk]]
    directory.provider.refresh_from_db()
    with pytest.raises(Invalid):
        release_held(directory.provider.pk, actor=Actor.of(admin), reason=" ")
    with pytest.raises(NotAllowed):
        release_held(directory.provider.pk, actor=Actor.of(account(people[5])), reason="mine")
    assert directory("DELETE", f"Users/{people[5]['id']}").status_code == 204
    assert account(people[5]).is_active, "deleting waits, too"
    release_held(directory.provider.pk, actor=Actor.of(admin), reason="They moved to the sister company")
    assert not any(account(one).is_active for one in people)
    with pytest.raises(Conflict):
        release_held(directory.provider.pk, actor=Actor.of(admin), reason="again")


@pytest.mark.requirement("scim-2.6")
def test_kept_accounts_are_active_again_for_the_directory(directory: Directory) -> None:
    admin = User.objects.get(email="root@example.com")
    people = many(directory, 4)
    for one in people[:3]:
        directory.off(one["id"])
    assert account(people[2]).is_active
    page = factories.client_for(admin).get(f"/identity-providers/{directory.provider.uid}/provisioning/")
    assert "Switching off is held back" in page.content.decode()
    dismiss_held(directory.provider.pk, actor=Actor.of(admin), reason="A wrong filter in the directory")
    assert directory("GET", f"Users/{people[2]['id']}").json()["active"] is True
    assert account(people[2]).is_active
    assert directory.off(people[2]["id"]).status_code == 200
    assert account(people[2]).is_active, "a directory that insists is held back again"


@pytest.mark.requirement("scim-2.6")
def test_who_is_held_back_keeps_signing_in(directory: Directory) -> None:
    people = many(directory, 4)
    for one in people[:3]:
        directory.off(one["id"])

    def sign_in(name: str) -> User:
        person = Person(f"id-{name}", f"{name}@example.com", True, name, "", None, False, None, "")
        return account_of(directory.provider, person)

    assert sign_in("p2") == account(people[2])
    with pytest.raises(Refused):
        sign_in("p0")


@pytest.mark.requirement("scim-2.6")
def test_a_directory_that_takes_it_back_needs_nobody(directory: Directory) -> None:
    people = many(directory, 4)
    for one in people[:3]:
        directory.off(one["id"])
    assert directory.on(people[2]["id"]).json()["active"] is True
    identity = ExternalIdentity.objects.get(uid=people[2]["id"])
    assert (identity.held_at, identity.user.is_active) == (None, True)


# -- tokens


@pytest.mark.requirement("scim-3.1")
def test_a_token_opens_its_own_provider_and_nothing_else(directory: Directory) -> None:
    other = Directory("other")
    resource = other.user("zoe")
    assert directory("GET", f"Users/{resource['id']}").status_code == 404
    bearer = {"Authorization": f"Bearer {directory.secret}"}
    client = Client()
    assert client.get("/api/scim/v2/other/Users", headers=bearer).status_code == 401
    assert client.get("/api/scim/v2/nobody/Users", headers=bearer).status_code == 401
    assert client.get("/api/v1/teams", headers=bearer).status_code == 401
    assert client.get("/account/", headers=bearer).status_code == 302
    admin = User.objects.get(email="root@example.com")
    _, personal = create_token(admin.pk, "CLI", clock.now() + timedelta(days=1), False, actor=Actor.of(admin))
    for secret in (personal, "gpus_" + "x" * 43, "gpus_ä", ""):
        assert client.get("/api/scim/v2/staff/Users", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
    assert factories.client_for(admin).get("/api/scim/v2/staff/Users").status_code == 401
    directory.provider.archived_at = clock.now()
    directory.provider.save()
    assert directory("GET", "Users").status_code == 401


@pytest.mark.requirement("scim-3.1")
def test_members_of_another_directory_cannot_be_put_into_a_group(directory: Directory) -> None:
    foreign = Directory("other").user("zoe")
    answer = directory("POST", "Groups", {"displayName": "G", "members": [{"value": foreign["id"]}]})
    assert answer.status_code == 400
    assert not DirectoryGroup.objects.exists()


@pytest.mark.requirement("scim-3.2")
def test_tokens_are_made_rotated_with_overlap_and_revoked(directory: Directory) -> None:
    admin = Actor.of(User.objects.get(email="root@example.com"))
    at = clock.now()
    with pytest.raises(Invalid):
        scim_tokens.create_token(directory.provider.pk, "", at + timedelta(days=400), actor=admin)
    lead = Actor.of(factories.make_user())
    with pytest.raises(NotAllowed):
        scim_tokens.create_token(directory.provider.pk, "Mine", at + timedelta(days=1), actor=lead)
    successor, secret = scim_tokens.rotate_token(directory.token.pk, at + timedelta(days=90), actor=admin)
    assert bytes(successor.digest) != secret.encode()
    assert secret not in str(ScimToken.objects.values().get(pk=successor.pk))
    old = ScimToken.objects.get(pk=directory.token.pk)
    assert at + timedelta(days=6) < old.expires_at <= at + timedelta(days=7, minutes=1)
    assert directory("GET", "Users").status_code == 200
    assert ScimToken.objects.get(pk=old.pk).last_used_at is not None
    scim_tokens.revoke_token(old.pk, actor=admin)
    assert directory("GET", "Users").status_code == 401
    with pytest.raises(Conflict):
        scim_tokens.rotate_token(old.pk, at + timedelta(days=90), actor=admin)
    assert scim_tokens.find(secret) == successor


@pytest.mark.requirement("scim-3.3")
def test_people_are_told_once_of_a_token_that_expires(directory: Directory) -> None:
    assert scim_tokens.tell_of_expiry() == 0
    ScimToken.objects.update(expires_at=clock.now() + timedelta(days=10))
    assert scim_tokens.tell_of_expiry() == 1
    assert scim_tokens.tell_of_expiry() == 0


@pytest.mark.requirement("scim-3.2")
def test_the_page_shows_a_token_once(directory: Directory) -> None:
    browser = factories.client_for(User.objects.get(email="root@example.com"))
    base = f"/identity-providers/{directory.provider.uid}/provisioning/"
    until = (clock.now() + timedelta(days=30)).strftime("%Y-%m-%dT%H:%M")
    made = browser.post(f"{base}tokens/new/", {"name": "Directory", "expires_at": until})
    token = ScimToken.objects.get(name="Directory")
    assert token.prefix in made.content.decode()
    page = browser.get(base).content.decode()
    assert "Directory" in page
    assert "In force" in page
    assert browser.post(f"{base}tokens/{token.uid}/rotate/", {"expires_at": until}).status_code == 200
    assert browser.post(f"{base}tokens/{token.uid}/revoke/").status_code == 303
    assert "Revoked" in browser.get(base).content.decode()
    assert browser.get(f"{base}tokens/{uuid4()}/revoke/").status_code == 404


@pytest.mark.requirement("scim-3.2")
def test_the_api_keeps_tokens_and_decides_what_is_held(directory: Directory) -> None:
    admin = User.objects.get(email="root@example.com")
    client = factories.client_for(admin)
    base = f"/api/v1/identity-providers/{directory.provider.uid}"

    def call(path: str, body: dict[str, Any]) -> Any:
        return client.post(f"{base}/{path}", body, content_type="application/json")

    until = (clock.now() + timedelta(days=30)).isoformat()
    made = call("make-scim-token", {"name": "Second", "expires_at": until})
    assert made.status_code == 201
    assert scim_tokens.find(made.json()["secret"]) is not None
    rotated = call("rotate-scim-token", {"token_uid": made.json()["uid"], "expires_at": until})
    assert rotated.status_code == 201
    assert call("revoke-scim-token", {"token_uid": rotated.json()["uid"]}).json()["revoked_at"]
    assert call("revoke-scim-token", {"token_uid": str(uuid4())}).status_code == 404
    listed = client.get(f"{base}/scim-tokens").json()
    assert len(listed) == 3
    assert "secret" not in listed[0]
    people = many(directory, 4)
    for one in people[:3]:
        directory.off(one["id"])
    shown = client.get(base).json()
    assert (shown["kept"], shown["held"], shown["held_since"] is None) == (4, 1, False)
    assert call("keep-held", {"reason": "A wrong filter"}).json()["held_since"] is None
    directory.off(people[2]["id"])
    assert call("release-held", {"reason": "They left"}).json()["held"] == 0
    assert not account(people[2]).is_active
    assert call("release-held", {"reason": "again"}).status_code == 409


# -- groups


@pytest.fixture
def team() -> Team:
    return factories.make_team("Finance", factories.make_unit("Retail Bank"))


def roles(user: User) -> set[str]:
    factories.forget_scopes(user)
    return scope.of(user).roles()


@pytest.mark.requirement("scim-4.1")
def test_roles_follow_groups_in_the_same_transaction(directory: Directory, team: Team) -> None:
    ada, bea = directory.user("ada"), directory.user("bea")
    GroupMapping.objects.create(provider=directory.provider, group="finance", role=Role.MEMBER, team=team)
    GroupMapping.objects.create(provider=directory.provider, group="42", role=Role.TEAM_LEAD, team=team)
    made = directory(
        "POST", "Groups", {"displayName": "finance", "externalId": "42", "members": [{"value": ada["id"]}]}
    )
    assert made.status_code == 201
    uid = made.json()["id"]
    assert roles(account(ada)) == {Role.MEMBER, Role.TEAM_LEAD}, "a mapping names a group by name or id"
    assert directory("GET", f"Users/{ada['id']}").json()["groups"][0]["display"] == "finance"
    changed = directory.patch(
        uid,
        {"op": "Remove", "path": "members", "value": [{"value": ada["id"]}]},
        {"op": "Add", "path": "members", "value": [{"$ref": None, "value": bea["id"].upper()}]},
        kind="Groups",
    )
    assert (changed.status_code, changed.content) == (204, b"")
    assert (roles(account(ada)), roles(account(bea))) == (set(), {Role.MEMBER, Role.TEAM_LEAD})
    directory.patch(uid, {"op": "replace", "value": {"id": uid, "displayName": "treasury"}}, kind="Groups")
    assert roles(account(bea)) == {Role.TEAM_LEAD}, "the id survives a new name, the old name does not"
    found = directory("GET", 'Groups?excludedAttributes=members&filter=displayName eq "TREASURY"').json()
    assert [one["id"] for one in found["Resources"]] == [uid]
    assert "members" not in found["Resources"][0]
    by_member = directory("GET", f'Groups?filter=id eq "{uid}" and members eq "{bea["id"]}"').json()
    assert by_member["totalResults"] == 1
    assert (
        directory("PUT", f"Groups/{uid}", {"displayName": "finance", "members": [{"value": ada["id"]}]}).status_code
        == 200
    )
    assert (roles(account(ada)), roles(account(bea))) == ({Role.MEMBER}, set())
    assert directory("DELETE", f"Groups/{uid}").status_code == 204
    assert roles(account(ada)) == set()
    events = AuditEvent.objects.filter(object_id=UUID(uid)).order_by("occurred_at").values_list("action", flat=True)
    assert list(events) == ["accounts.group.created", *["accounts.group.changed"] * 3, "accounts.group.removed"]


@pytest.mark.requirement("scim-4.1")
def test_what_the_directory_takes_an_older_token_does_not_give_back(directory: Directory, team: Team) -> None:
    ada = directory.user("ada")
    GroupMapping.objects.create(provider=directory.provider, group="finance", role=Role.TEAM_LEAD, team=team)
    group = directory("POST", "Groups", {"displayName": "finance", "members": [{"value": ada["id"]}]}).json()
    ExternalIdentity.objects.filter(uid=ada["id"]).update(token_groups=["finance", "other"])
    directory.patch(group["id"], {"op": "remove", "path": f'members[value eq "{ada["id"]}"]'}, kind="Groups")
    assert roles(account(ada)) == set()
    assert ExternalIdentity.objects.get(uid=ada["id"]).token_groups == ["other"]


@pytest.mark.requirement("scim-4.1")
def test_a_large_group_costs_few_queries_where_no_role_changes(
    directory: Directory, django_assert_max_num_queries: Any
) -> None:
    ids = [{"value": one["id"]} for one in many(directory, 6)]
    with django_assert_max_num_queries(32):
        assert directory("POST", "Groups", {"displayName": "all", "members": ids}).status_code == 201


@pytest.mark.requirement("scim-4.2")
def test_groups_cannot_pass_for_others(directory: Directory) -> None:
    directory.user("ada")
    assert directory("POST", "Groups", {"displayName": "admins", "externalId": "42"}).status_code == 201
    other = directory("POST", "Groups", {"displayName": "guests", "externalId": "43"}).json()
    for body in ({"displayName": "ADMINS"}, {"displayName": "42"}, {"displayName": "x", "externalId": "admins"},
                 {"displayName": "x", "externalId": "42"}):  # fmt: skip
        assert directory("POST", "Groups", body).status_code == 409, body
        assert directory("PUT", f"Groups/{other['id']}", body).status_code == 409, body
    nested = {"displayName": "x", "members": [{"value": other["id"], "type": "Group"}]}
    assert directory("POST", "Groups", nested).status_code == 400
    unknown = {"op": "add", "path": "members", "value": [{"value": str(uuid4())}]}
    assert directory.patch(other["id"], unknown, kind="Groups").status_code == 400


@pytest.mark.requirement("scim-1.5")
def test_erased_people_are_out_of_reach(directory: Directory) -> None:
    resource = directory.user("ada")
    User.objects.filter(pk=account(resource).pk).update(erased_at=clock.now())
    assert directory("PUT", f"Users/{resource['id']}", resource).status_code == 404
    assert directory("GET", "Users").json()["totalResults"] == 0


@pytest.mark.requirement("scim-5.6")
def test_no_names_or_addresses_stand_in_hashed_bytes(directory: Directory) -> None:
    resource = directory.user("quirin")
    directory("POST", "Groups", {"displayName": "secret project", "members": [{"value": resource["id"]}]})
    directory("PUT", f"Users/{resource['id']}", {**resource, "displayName": "Another name"})
    directory.off(resource["id"])
    written = b" ".join(bytes(one) for one in AuditEvent.objects.values_list("canonical", flat=True)).lower()
    for word in (b"quirin", b"secret project", b"another name"):
        assert word not in written
    assert Membership.objects.count() == 0
