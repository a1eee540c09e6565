"""Keeping identity providers: actions, pages, secrets, what ends when one is switched off."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from apps.accounts import openid, openid_checks, openid_flow, openid_metadata, openid_providers, openid_sessions
from apps.accounts.models import ExternalIdentity, IdentityProvider, SignInSession
from apps.audit.models import AuditEvent
from apps.core import clock, crypto, outgoing
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import Lease, OutboxMessage
from tests.accounts.openid_provider import BASE, CLIENT_SECRET, Double, make_provider
from tests.factories import Company, client_for


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Double:
    """A provider."""
    settings.COMMONS_BASE_URL = BASE
    openid_metadata.forget()
    found = Double(discovery={"code_challenge_methods_supported": ["S256"]})
    found.token_answer = (400, {"error": "invalid_grant"})
    monkeypatch.setattr(outgoing, "_call", found)
    return found


def _created(company: Company, **values: Any) -> IdentityProvider:
    return openid_providers.create_provider(
        **{
            "name": "Example Identity", "issuer": "https://id.example.com", "client_id": "gpu-commons",
            "client_secret": CLIENT_SECRET, "actor": Actor.of(company.admin), **values,
        }
    )  # fmt: skip


_FORM = {
    "name": "Example Identity", "issuer": "https://id.example.com", "client_id": "gpu-commons",
    "client_secret": CLIENT_SECRET, "extra_scopes": "groups offline_access", "groups_claim": "groups",
    "mail_domains": "Example.com, example.org", "just_in_time": "on", "links_by_mail": "on",
}  # fmt: skip


@pytest.mark.requirement("openid-sign-in-4.1")
@pytest.mark.requirement("openid-sign-in-4.2")
def test_the_same_through_the_api(company: Company, double: Double) -> None:
    admin, auditor = client_for(company.admin), client_for(company.auditor)
    body = {
        "name": "Example Identity", "issuer": "https://id.example.com", "client_id": "gpu-commons",
        "client_secret": CLIENT_SECRET, "mail_domains": ["example.com"],
    }  # fmt: skip

    def post(client: Client, path: str = "", **given: Any) -> Any:
        url = f"/api/v1/identity-providers{path}"
        return client.post(url, json.dumps(given), content_type="application/json")

    assert post(auditor, **body).status_code == 403
    made = post(admin, **body)
    assert made.status_code == 201, made.content
    row = IdentityProvider.objects.get()
    assert crypto.decrypt(row.client_secret) == CLIENT_SECRET
    assert (made.json()["slug"], made.json()["enabled"]) == ("example-identity", False)
    path = f"/{row.uid}"
    assert post(admin, f"{path}/enable").status_code == 409, "not tested yet"
    changed = post(admin, f"{path}/change", groups_claim="roles")
    assert (changed.json()["groups_claim"], changed.json()["mail_domains"]) == ("roles", ["example.com"])
    assert post(admin, f"{path}/change", issuer="no address").json()["errors"].keys() == {"issuer"}
    openid_checks.run(row.pk, actor=Actor.of(company.admin))
    assert post(admin, f"{path}/enable").json()["enabled"] is True
    assert post(admin, f"{path}/disable").json()["enabled"] is False
    assert post(admin, f"{path}/archive").json()["archived_at"]
    answers = [made, changed, admin.get(f"/api/v1/identity-providers{path}"), auditor.get("/api/v1/identity-providers")]
    assert all(CLIENT_SECRET not in answer.content.decode() for answer in answers)


@pytest.mark.requirement("openid-sign-in-4.1")
@pytest.mark.requirement("openid-sign-in-4.2")
@pytest.mark.requirement("openid-sign-in-4.3")
def test_from_connecting_to_enabling_by_page(company: Company, double: Double) -> None:
    admin = client_for(company.admin)
    made = admin.post("/identity-providers/new/", _FORM)
    assert made.status_code == 303
    row = IdentityProvider.objects.get()
    assert (row.slug, row.enabled, row.extra_scopes, row.mail_domains) == (
        "example-identity", False, ["groups", "offline_access"], ["example.com", "example.org"],
    )  # fmt: skip
    assert crypto.decrypt(row.client_secret) == CLIENT_SECRET
    page = admin.get(made["Location"]).content.decode()
    assert f"{BASE}/sign-in/at/example-identity/callback/" in page
    assert "Not tested yet" in page
    assert "stored, encrypted" in page
    for path in ("", "edit/"):
        assert CLIENT_SECRET not in admin.get(f"{made['Location']}{path}").content.decode()
    assert admin.get(f"{made['Location']}enable/").status_code == 409
    assert admin.post(f"{made['Location']}enable/").status_code == 409
    tested = admin.post(f"{made['Location']}test/")
    assert tested.status_code == 200
    assert "The test passed" in tested.content.decode()
    assert admin.post(f"{made['Location']}enable/", {"version": row.version}).status_code == 303
    row.refresh_from_db()
    assert row.enabled
    assert "Example Identity" in Client().get("/sign-in/").content.decode()
    listed = admin.get("/identity-providers/").content.decode()
    assert "Open for sign-in" in listed
    told = OutboxMessage.objects.filter(event__startswith="accounts.provider.")
    assert [message.event for message in told.order_by("pk")] == [
        "accounts.provider.created", "accounts.provider.enabled",
    ]  # fmt: skip
    assert all(set(message.recipient_ids) == {company.admin.pk, company.auditor.pk} for message in told)
    assert AuditEvent.objects.filter(action="accounts.provider.tested").count() == 1
    assert CLIENT_SECRET not in "".join(event.canonical_text for event in AuditEvent.objects.all())


@pytest.mark.requirement("openid-sign-in-4.1")
def test_who_may_what(company: Company, double: Double) -> None:
    row = _created(company)
    url = f"/identity-providers/{row.uid}/"
    auditor = client_for(company.auditor)
    assert auditor.get(url).status_code == 200
    assert "Edit" not in auditor.get(url).content.decode()
    assert auditor.post(f"{url}archive/").status_code == 403
    assert auditor.get("/sign-in/at/example-identity/try/").status_code == 403
    for person in (company.lead_finance, company.compliance, company.finance):
        assert client_for(person).get(url).status_code == 404
        with pytest.raises(NotAllowed):
            openid_providers.create_provider("X", "https://x.example.com", "x", "", actor=Actor.of(person))
        for action in (openid_providers.enable_provider, openid_providers.archive_provider):
            with pytest.raises(NotAllowed):
                action(row.pk, actor=Actor.of(person))
    with pytest.raises(NotAllowed):
        openid_providers.edit_provider(row.pk, actor=Actor.system("x"), name="Y")


@pytest.mark.requirement("openid-sign-in-4.1")
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": ""}, "name"),
        ({"issuer": "javascript:alert(1)"}, "issuer"),
        ({"issuer": "https://user:pass@id.example.com"}, "issuer"),
        ({"issuer": "https://id.example.com/?a=b"}, "issuer"),
        ({"issuer": "https://169.254.169.254/latest"}, "issuer"),
        ({"issuer": "https://id.example.com/.well-known/openid-configuration"}, "issuer"),
        ({"client_id": ""}, "client_id"),
        ({"client_secret": "a\nb"}, "client_secret"),
        ({"slug": "Not a slug"}, "slug"),
        ({"extra_scopes": ['a"b']}, "extra_scopes"),
        ({"mail_domains": ["*"]}, "mail_domains"),
        ({"mail_domains": ["@example.com"]}, "mail_domains"),
        ({"links_by_mail": True}, "mail_domains"),
        ({"enabled": True}, "enabled"),
    ],
)
def test_wrong_settings_are_named(company: Company, double: Double, values: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        _created(company, **values)
    assert field in refused.value.errors
    assert not IdentityProvider.objects.exists()


@pytest.mark.requirement("openid-sign-in-4.1")
def test_production_takes_https_alone(company: Company, double: Double, settings: Any) -> None:
    settings.COMMONS_ENVIRONMENT = "production"
    with pytest.raises(Invalid):
        _created(company, issuer="http://id.example.com")


@pytest.mark.requirement("openid-sign-in-4.1")
def test_one_issuer_is_connected_once(company: Company, double: Double) -> None:
    row = _created(company)
    with pytest.raises(Invalid) as refused:
        _created(company, name="Another", slug="another")
    assert "issuer" in refused.value.errors
    with pytest.raises(Invalid) as refused:
        _created(company, issuer="https://other.example.com", slug="other")
    assert "name" in refused.value.errors
    with pytest.raises(Conflict):
        openid_providers.edit_provider(row.pk, actor=Actor.of(company.admin), expected_version=9, name="X")


@pytest.mark.requirement("openid-sign-in-4.4")
def test_the_issuer_stays_once_somebody_is_connected(company: Company, double: Double) -> None:
    admin = Actor.of(company.admin)
    row = _created(company)
    IdentityProvider.objects.update(enabled=True, checked_at=clock.now())
    row = openid_providers.edit_provider(row.pk, actor=admin, issuer="https://new.example.com")
    # Another issuer has to be tested anew before anybody depends on it.
    assert (row.enabled, row.checked_at) == (False, None)
    ExternalIdentity.objects.create(provider=row, subject="s", user=company.lead_finance)
    with pytest.raises(Invalid) as refused:
        openid_providers.edit_provider(row.pk, actor=admin, issuer="https://evil.example")
    assert "issuer" in refused.value.errors


@pytest.mark.requirement("openid-sign-in-4.2")
def test_the_secret_is_kept_replaced_and_rotated(company: Company, double: Double, settings: Any) -> None:
    admin = Actor.of(company.admin)
    row = _created(company)
    row = openid_providers.edit_provider(row.pk, actor=admin, client_secret="", name="Renamed")
    assert crypto.decrypt(row.client_secret) == CLIENT_SECRET
    row = openid_providers.edit_provider(row.pk, actor=admin, client_secret="another secret")
    assert crypto.decrypt(row.client_secret) == "another secret"
    session = SignInSession.objects.create(
        user=company.lead_finance, opened_at=clock.now(), expires_at=clock.now(), id_token=crypto.encrypt("a.b.c")
    )
    old = settings.COMMONS_CREDENTIALS_KEYS
    settings.COMMONS_CREDENTIALS_KEYS = ["bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldy0="[:43] + "=", *old]
    list(crypto.rotate_columns(lambda done: None))
    row.refresh_from_db()
    session.refresh_from_db()
    assert crypto.is_newest(row.client_secret)
    assert crypto.is_newest(session.id_token)
    assert crypto.decrypt(session.id_token) == "a.b.c"


@pytest.mark.requirement("openid-sign-in-4.3")
@pytest.mark.parametrize(
    ("setting", "value", "failed"),
    [
        ("discovery", {"issuer": "https://evil.example"}, "Discovery"),
        ("discovery", {"id_token_signing_alg_values_supported": ["HS256", "none"]}, "Signatures"),
        ("keys", [], "Signing keys"),
        ("token_answer", (401, {"error": "invalid_client"}), "Client id and secret"),
        ("token_answer", (503, {}), ""),
        ("down", True, "Discovery"),
    ],
)
def test_each_step_that_fails_keeps_it_closed(
    company: Company, double: Double, setting: str, value: Any, failed: str
) -> None:
    row = _created(company)
    setattr(double, setting, value)
    admin = client_for(company.admin)
    page = admin.post(f"/identity-providers/{row.uid}/test/")
    assert page.status_code == 200
    row.refresh_from_db()
    assert row.check_error.partition(":")[0] == failed
    assert ("The test failed" in page.content.decode()) == bool(failed)
    if failed:
        with pytest.raises(Conflict):
            openid_providers.enable_provider(row.pk, actor=Actor.of(company.admin))


@pytest.mark.requirement("openid-sign-in-4.3")
def test_a_trial_shows_what_arrives_and_opens_nothing(company: Company, double: Double) -> None:
    row = _created(company)
    double.token_answer = None
    double.claims = {"groups": ["gpu-users"], "email_verified": False, "amr": ["mfa"]}
    admin = client_for(company.admin)
    sessions_before = SignInSession.objects.count()
    sent = double.sent(admin.get("/sign-in/at/example-identity/try/")["Location"])
    page = double.answer(admin, row, sent)
    text = page.content.decode()
    assert page.status_code == 200
    assert "not verified" in text
    assert "gpu-users" in text
    assert "none connected yet" in text
    assert SignInSession.objects.count() == sessions_before
    assert not ExternalIdentity.objects.exists()
    # The answer to somebody's trial opens nothing in another session.
    sent = double.sent(admin.get("/sign-in/at/example-identity/try/")["Location"])
    admin.post("/sign-out/")
    assert double.answer(admin, row, sent).status_code == 400


@pytest.mark.requirement("openid-sign-in-4.5")
@pytest.mark.parametrize("action", ["disable", "archive"])
def test_switching_off_ends_its_sessions_alone(company: Company, double: Double, action: str) -> None:
    row = make_provider(double.issuer)
    double.token_answer = None
    there, here = Client(), client_for(company.lead_finance)
    double.sign_in(there, row)
    waiting = Client()
    sent = double.begin(waiting, row)
    admin = client_for(company.admin)
    done = admin.post(f"/identity-providers/{row.uid}/{action}/")
    assert done.status_code == 303
    assert there.get("/account/").status_code == 302
    assert here.get("/account/").status_code == 200
    # Who was on the way meanwhile stays out.
    assert double.answer(waiting, row, sent).status_code == (403 if action == "disable" else 404)
    row.refresh_from_db()
    assert bool(row.client_secret) == (action == "disable")
    event = AuditEvent.objects.get(action=f"accounts.provider.{action}d")
    assert event.data["changes"]["sessions_closed"] == 1
    assert "Example Identity" not in Client().get("/sign-in/").content.decode()


@pytest.mark.requirement("openid-sign-in-3.1")
def test_what_is_over_is_forgotten(company: Company, double: Double) -> None:
    row = make_provider(double.issuer)
    double.token_answer = None
    browser = Client()
    double.sign_in(browser, row)
    assert openid_sessions.forget_tokens() == 0
    session = SignInSession.objects.get()
    assert "id_token_hint=" in openid.end_session_url(row, crypto.decrypt(session.id_token))
    double.down = True
    openid_metadata.forget()
    # Whoever wants out is out, also while the provider is down.
    assert browser.post("/sign-out/").status_code == 303
    assert openid_sessions.forget_tokens() == 1
    session.refresh_from_db()
    assert bytes(session.id_token) == b""
    assert Lease.objects.filter(name__startswith="accounts.openid:").count() == 1
    with clock.frozen(clock.now() + openid_flow.LIFETIME * 3):
        assert openid_flow.forget_used() == 1


@pytest.mark.requirement("openid-sign-in-4.6")
@pytest.mark.parametrize("provisioned", [False, True])
def test_a_person_can_be_disconnected(company: Company, double: Double, provisioned: bool) -> None:
    row = make_provider(double.issuer)
    double.token_answer = None
    browser = Client()
    double.sign_in(browser, row)
    identity = ExternalIdentity.objects.get()
    ExternalIdentity.objects.update(provisioned=provisioned)
    url = f"/people/identities/{identity.uid}/disconnect/"
    admin = client_for(company.admin)
    person = admin.get(f"/people/{identity.user.uid}/").content.decode()
    assert url in person
    assert url not in client_for(company.auditor).get(f"/people/{identity.user.uid}/").content.decode()
    assert admin.post(url, {"reason": " "}).status_code == 400
    assert client_for(company.auditor).post(url, {"reason": "x"}).status_code == 403
    assert admin.post(url, {"reason": "Wrong person"}).status_code == 303
    assert browser.get("/account/").status_code == 302
    assert ExternalIdentity.objects.filter(subject="subject-1").count() == 0
    assert ExternalIdentity.objects.exists() == provisioned
    assert AuditEvent.objects.filter(action="accounts.identity.unlinked", object_id=identity.user.uid).count() == 1
    if provisioned:
        assert admin.post(url, {"reason": "Again"}).status_code == 409


@pytest.mark.requirement("openid-sign-in-4.5")
def test_the_last_way_in_stays_open(company: Company, double: Double, settings: Any) -> None:
    settings.COMMONS_LOCAL_SIGN_IN = "off"
    row = make_provider(double.issuer)
    admin = Actor.of(company.admin)
    for action in (openid_providers.disable_provider, openid_providers.archive_provider):
        with pytest.raises(Conflict, match="only way in"):
            action(row.pk, actor=admin)
    with pytest.raises(Conflict, match="only way in"):
        openid_providers.edit_provider(row.pk, actor=admin, issuer="https://new.example.com")
    make_provider("https://other.example.com", slug="other", name="Other Identity")
    assert not openid_providers.disable_provider(row.pk, actor=admin).enabled
