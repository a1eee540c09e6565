"""Whose account a subject of a provider is: accounts made, connected, refused, followed, merged, switched off."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from apps.accounts import openid_claims, openid_metadata, openid_people, ports
from apps.accounts.choices import FactorKind, UserKind
from apps.accounts.models import ExternalIdentity, IdentityProvider, SecondFactor, SignInSession, User
from apps.accounts.openid_refusals import PAGES, Refused
from apps.audit.models import AuditEvent
from apps.core import clock, outgoing
from apps.core.models import OutboxMessage
from apps.teams.choices import Role
from apps.teams.models import GroupMapping, RoleGrant
from tests.accounts.openid_provider import BASE, Double, make_provider
from tests.factories import Company, make_user


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Double:
    """A provider that says what the test wants."""
    settings.COMMONS_BASE_URL = BASE
    openid_metadata.forget()
    found = Double()
    monkeypatch.setattr(outgoing, "_call", found)
    return found


@pytest.fixture
def provider(db: None, double: Double) -> IdentityProvider:
    """The portal's row for it, which connects by address."""
    return make_provider(double.issuer, links_by_mail=True, mail_domains=["example.com"])


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Whose roles were to follow their groups."""
    found: list[int] = []
    monkeypatch.setattr(ports, "_groups_changed", lambda user_id, *, actor: found.append(user_id))
    return found


def _refused(answer: Any, cause: str) -> None:
    page = PAGES[cause]
    assert answer.status_code == page.status, answer.content.decode()
    assert page.title.format(provider="Example Identity") in answer.content.decode().replace("&#x27;", "'")
    assert not SignInSession.objects.exists()


@pytest.mark.requirement("openid-sign-in-2.2")
def test_a_newcomer_with_a_verified_address_gets_an_account_without_password(
    double: Double, provider: IdentityProvider, followed: list[int]
) -> None:
    double.claims = {"groups": ["gpu-users"]}
    assert double.sign_in(Client(), provider).status_code == 302
    user = User.objects.get(email="newcomer@example.com")
    assert (user.display_name, user.has_usable_password(), user.may_use_password) == ("Newcomer", False, False)
    assert followed == [user.pk]
    made = AuditEvent.objects.get(action="accounts.user.created", object_id=user.uid)
    assert "newcomer" not in made.canonical_text.lower()
    linked = AuditEvent.objects.get(action="accounts.identity.linked", object_id=user.uid)
    assert linked.data["changes"]["how"] == "first_sign_in"


@pytest.mark.requirement("openid-sign-in-2.2")
@pytest.mark.parametrize(
    ("claims", "settings_", "cause"),
    [
        ({"email_verified": False}, {}, "unverified"),
        ({"email_verified": None}, {}, "unverified"),
        ({"email_verified": "yes"}, {}, "unverified"),
        ({"email": None}, {}, "unverified"),
        ({"email": "a b@example.com"}, {}, "unverified"),
        ({"email": "newcomer@ex\u0430mple.com"}, {}, "unverified"),
        ({"email": ["newcomer@example.com"]}, {}, "unverified"),
        ({"email": "x@sub.example.com"}, {}, "domain"),
        ({"email": "x@example.com.evil.example"}, {}, "domain"),
        ({}, {"just_in_time": False}, "no_account"),
        ({}, {"just_in_time": False, "links_by_mail": False}, "no_account"),
    ],
)
def test_no_account_is_made_on_less(
    double: Double, provider: IdentityProvider, claims: dict[str, Any], settings_: dict[str, Any], cause: str
) -> None:
    IdentityProvider.objects.update(**settings_)
    double.claims = claims
    _refused(double.sign_in(Client(), provider), cause)
    assert not User.objects.exists()


@pytest.mark.requirement("openid-sign-in-2.2")
def test_address_and_its_verification_come_from_one_place(double: Double, provider: IdentityProvider) -> None:
    # The ID token vouches for no address; userinfo names one without vouching: together they are still nothing.
    double.claims = {"email": None, "email_verified": True, "name": None}
    double.userinfo = {"sub": "subject-1", "email": "chief@example.com", "name": "Chief"}
    _refused(double.sign_in(Client(), provider), "unverified")
    double.userinfo = {"sub": "somebody-else", "email": "chief@example.com", "email_verified": True}
    assert double.sign_in(Client(), provider).status_code == 502
    double.userinfo = {"sub": "subject-1", "email": "chief@example.com", "email_verified": True, "name": "Chief"}
    assert double.sign_in(Client(), provider).status_code == 302
    assert User.objects.get().display_name == "Chief"


@pytest.mark.requirement("openid-sign-in-2.3")
def test_an_account_is_connected_by_verified_address_and_its_person_told(
    double: Double, provider: IdentityProvider
) -> None:
    user = make_user("Newcomer@example.com", password="known to an administrator", must_change_password=True)
    assert double.sign_in(Client(), provider).status_code == 302
    user.refresh_from_db()
    assert ExternalIdentity.objects.get().user_id == user.pk
    # The initial password that somebody else knows opens nothing any more.
    assert (user.has_usable_password(), user.must_change_password) == (False, False)
    message = OutboxMessage.objects.get(event="accounts.identity.linked")
    assert message.recipient_ids == [user.pk]


@pytest.mark.requirement("openid-sign-in-2.3")
@pytest.mark.parametrize(
    ("account", "settings_", "claims", "cause"),
    [
        ({}, {"links_by_mail": False}, {}, "taken"),
        ({}, {}, {"email_verified": False}, "unverified"),
        ({}, {"mail_domains": ["other.example"]}, {}, "domain"),
        ({"is_superuser": True}, {}, {}, "taken"),
        ({"factor": True}, {}, {}, "taken"),
        ({"kind": UserKind.SERVICE}, {}, {}, "taken"),
        ({"is_active": False}, {}, {}, "switched_off"),
        ({"erased_at": clock.now()}, {}, {}, "switched_off"),
    ],
)
def test_an_account_is_not_handed_over_otherwise(
    double: Double, provider: IdentityProvider, account: Any, settings_: Any, claims: Any, cause: str
) -> None:
    factor = account.pop("factor", False) if (account := dict(account)) else False
    user = make_user("newcomer@example.com", **account)
    if factor:
        # Whoever protects an account by a key here does not lose it to whoever keeps mail addresses there.
        SecondFactor.objects.create(user=user, kind=FactorKind.TOTP, confirmed_at=clock.now())
    IdentityProvider.objects.update(**settings_)
    double.claims = claims
    _refused(double.sign_in(Client(), provider), cause)
    assert not ExternalIdentity.objects.exists()


@pytest.mark.requirement("openid-sign-in-2.3")
def test_a_second_provider_or_a_second_subject_takes_no_account_over(
    double: Double, provider: IdentityProvider
) -> None:
    user = make_user("newcomer@example.com")
    other = make_provider("https://other.example.com", slug="other", name="Other Identity")
    ExternalIdentity.objects.create(provider=other, subject="theirs", user=user)
    _refused(double.sign_in(Client(), provider), "taken")
    IdentityProvider.objects.filter(pk=other.pk).update(archived_at=clock.now())
    assert double.sign_in(Client(), provider).status_code == 302
    SignInSession.objects.all().delete()
    # The address was given to somebody new at the provider: another subject, so another person.
    double.claims = {"sub": "subject-2"}
    _refused(double.sign_in(Client(), provider), "taken")


@pytest.mark.requirement("openid-sign-in-2.1")
def test_a_person_is_known_by_issuer_and_subject_alone(double: Double, provider: IdentityProvider) -> None:
    assert double.sign_in(Client(), provider).status_code == 302
    user = User.objects.get()
    victim = make_user("victim@example.com")
    # Claiming somebody else's address later neither signs in as them nor takes their address.
    double.claims = {"email": "victim@example.com", "preferred_username": "victim@example.com"}
    assert double.sign_in(Client(), provider).status_code == 302
    assert SignInSession.objects.latest("pk").user_id == user.pk
    user.refresh_from_db()
    assert user.email == "newcomer@example.com"
    assert not SignInSession.objects.filter(user=victim).exists()
    # The same subject at another issuer is somebody else.
    elsewhere = Double(issuer="https://other.example.com")
    other = make_provider(elsewhere.issuer, slug="other", name="Other Identity")
    outgoing._call = elsewhere
    try:
        elsewhere.claims = {"email": "third@example.com"}
        assert elsewhere.sign_in(Client(), other).status_code == 302
    finally:
        outgoing._call = double
    assert SignInSession.objects.latest("pk").user.email == "third@example.com"


def _provisioned(provider: IdentityProvider, **values: Any) -> ExternalIdentity:
    user = make_user("provisioned@example.com", may_use_password=False)
    return ExternalIdentity.objects.create(provider=provider, user=user, provisioned=True, **values)


@pytest.mark.requirement("openid-sign-in-2.4")
@pytest.mark.parametrize(
    ("waiting", "claims", "found"),
    [
        ({"external_id": "subject-1", "user_name": "p"}, {"email_verified": False}, True),
        ({"external_id": "object-9", "user_name": "p"}, {"oid": "object-9", "email": None}, True),
        ({"user_name": "Newcomer@example.com"}, {}, True),
        ({"user_name": "newcomer@example.com"}, {"email_verified": False}, False),
        ({"user_name": "chosen"}, {"preferred_username": "chosen", "email_verified": False}, False),
        ({"external_id": "object-9", "user_name": "p"}, {"oid": "object-8", "email_verified": False}, False),
    ],
)
def test_an_account_of_the_directory_is_connected_by_what_nobody_chooses(
    double: Double, provider: IdentityProvider, waiting: Any, claims: Any, found: bool
) -> None:
    identity = _provisioned(provider, **waiting)
    IdentityProvider.objects.update(just_in_time=False)
    double.claims = claims
    answer = double.sign_in(Client(), provider)
    identity.refresh_from_db()
    assert (answer.status_code == 302) == found
    assert identity.subject == ("subject-1" if found else "")
    if found:
        assert SignInSession.objects.get().user_id == identity.user_id


@pytest.mark.requirement("openid-sign-in-2.5")
def test_an_account_that_is_off_stays_out(double: Double, provider: IdentityProvider) -> None:
    double.sign_in(Client(), provider)
    SignInSession.objects.all().delete()
    ExternalIdentity.objects.update(active=False)
    _refused(double.sign_in(Client(), provider), "switched_off")
    ExternalIdentity.objects.update(active=True)
    User.objects.update(is_active=False)
    _refused(double.sign_in(Client(), provider), "switched_off")
    User.objects.update(is_active=True)
    survivor = make_user("survivor@example.com")
    User.objects.exclude(pk=survivor.pk).update(merged_into=survivor, is_active=False)
    assert double.sign_in(Client(), provider).status_code == 302
    assert SignInSession.objects.get().user_id == survivor.pk


@pytest.mark.requirement("openid-sign-in-2.6")
@pytest.mark.parametrize(
    ("claims", "userinfo", "kept"),
    [
        ({"groups": ["b", "a", "a", "", 7]}, None, ["a", "b"]),
        ({"groups": "one"}, None, ["one"]),
        ({"groups": []}, None, []),
        ({}, None, None),
        ({"groups": {"a": 1}}, None, None),
        ({"_claim_names": {"groups": "src1"}}, None, None),
        ({"hasgroups": True}, None, None),
        ({}, {"sub": "subject-1", "groups": ["from-userinfo"]}, ["from-userinfo"]),
        ({"_claim_names": {"groups": "src1"}}, {"sub": "subject-1", "groups": ["all"]}, ["all"]),
    ],
)
def test_groups_are_kept_and_unknown_is_not_none(
    double: Double, provider: IdentityProvider, followed: list[int], caplog: Any, claims: Any, userinfo: Any, kept: Any
) -> None:
    double.claims, double.userinfo = claims, userinfo
    assert double.sign_in(Client(), provider).status_code == 302
    assert ExternalIdentity.objects.get().token_groups == kept
    assert len(followed) == 1
    left_out = kept is None and bool(claims.keys() & {"_claim_names", "hasgroups"})
    assert ("left the groups out" in caplog.text) is left_out, "an administrator can find out why roles stand still"


@pytest.mark.requirement("openid-sign-in-1.9")
def test_a_session_of_the_provider_ends_after_its_own_time(
    double: Double, provider: IdentityProvider, settings: Any
) -> None:
    settings.COMMONS_OPENID_SESSION_SECONDS = 1800
    assert double.sign_in(Client(), provider).status_code == 302
    session = SignInSession.objects.get()
    assert session.expires_at - session.opened_at == timedelta(minutes=30)
    settings.COMMONS_OPENID_SESSION_SECONDS = settings.SESSION_COOKIE_AGE + 1
    assert double.sign_in(Client(), provider).status_code == 302
    session = SignInSession.objects.latest("pk")
    assert (session.expires_at - session.opened_at).total_seconds() == settings.SESSION_COOKIE_AGE


@pytest.mark.requirement("openid-sign-in-2.6")
def test_groups_are_found_inside_objects() -> None:
    claims = {"realm_access": {"roles": ["x"]}, "https://example.com/groups": ["y"]}
    assert openid_claims.groups(claims, "realm_access.roles") == ("x",)
    assert openid_claims.groups(claims, "https://example.com/groups") == ("y",)
    assert openid_claims.groups(claims, "") is None
    assert openid_claims.groups({"realm_access": ["x"]}, "realm_access.roles") is None


@pytest.mark.requirement("openid-sign-in-2.1")
def test_name_and_address_of_an_account_follow_only_the_provider_that_made_it(
    double: Double, provider: IdentityProvider
) -> None:
    double.sign_in(Client(), provider)
    double.claims = {"name": "New\u0000 Name\n", "email": "changed@example.com"}
    double.sign_in(Client(), provider)
    user = User.objects.get()
    assert (user.display_name, user.email) == ("New Name", "changed@example.com")
    double.claims = {"email": "outside@elsewhere.example"}
    double.sign_in(Client(), provider)
    user.refresh_from_db()
    assert user.email == "changed@example.com"
    User.objects.update(may_use_password=True)
    double.claims = {"email": "again@example.com"}
    double.sign_in(Client(), provider)
    user.refresh_from_db()
    assert user.email == "changed@example.com"


@pytest.mark.requirement("openid-sign-in-1.2")
def test_the_browsers_former_session_ends(double: Double, provider: IdentityProvider) -> None:
    browser = Client()
    sent = double.begin(browser, provider)
    double.sign_in(browser, provider)
    first = SignInSession.objects.get()
    double.claims = {"sub": "subject-2", "email": "other@example.com"}
    double.nonce = sent["nonce"]
    assert double.answer(browser, provider, sent).status_code == 302
    first.refresh_from_db()
    assert first.closed_at is not None
    assert SignInSession.objects.open().get().user.email == "other@example.com"


@pytest.mark.requirement("openid-sign-in-1.6")
def test_every_cause_has_a_page_and_hides_who_it_was(double: Double, provider: IdentityProvider) -> None:
    for cause, page in PAGES.items():
        assert page.title.format(provider="X")
        assert page.text.format(provider="X").endswith(".")
        openid_people.refuse(provider, Refused(cause, "newcomer@example.com"), address="192.0.2.1", begun=True)
    events = AuditEvent.objects.filter(action="accounts.openid.refused")
    assert events.count() == len(PAGES)
    assert not any("newcomer" in event.canonical_text for event in events)


@pytest.mark.requirement("openid-sign-in-1.1")
@pytest.mark.parametrize(("local", "form"), [("all", True), ("admins", True), ("off", False)])
def test_the_sign_in_page_shows_passwords_only_where_they_count(
    provider: IdentityProvider, settings: Any, local: str, form: bool
) -> None:
    settings.COMMONS_LOCAL_SIGN_IN = local
    page = Client().get("/sign-in/").content.decode()
    assert "Sign in at Example Identity" in page
    assert ('name="password"' in page) == form
    assert ("as an administrator" in page) == (local == "admins")


@pytest.mark.requirement("openid-sign-in-2.6")
def test_roles_follow_the_groups_of_the_token(company: Company, double: Double, provider: IdentityProvider) -> None:
    GroupMapping.objects.create(
        provider=provider, group="finance-leads", role=Role.TEAM_LEAD, team=company.finance_team
    )  # fmt: skip
    double.claims = {"groups": ["finance-leads"]}
    browser = Client()
    double.sign_in(browser, provider)
    user = User.objects.get(email="newcomer@example.com")
    grant = RoleGrant.objects.get(user=user)
    assert (grant.role, grant.team_id, grant.revoked_at) == (Role.TEAM_LEAD, company.finance_team.pk, None)
    assert browser.get(f"/teams/{company.finance_team.slug}/").status_code == 200
    # No claim says nothing; an empty one says "in no group", and the role ends with this sign-in.
    double.claims = {}
    double.sign_in(Client(), provider)
    grant.refresh_from_db()
    assert grant.revoked_at is None
    double.claims = {"groups": []}
    double.sign_in(Client(), provider)
    grant.refresh_from_db()
    assert grant.revoked_at is not None
    assert browser.get(f"/teams/{company.finance_team.slug}/").status_code == 404
