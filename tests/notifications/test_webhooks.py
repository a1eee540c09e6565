"""Webhooks against a real receiver: signed, tried again, never lost, never sent where it must not go."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import connection, transaction

from apps.audit.models import AuditEvent
from apps.clusters import outgoing as guard
from apps.core import clock, crypto, events, outgoing
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.core.outbox import publish
from apps.notifications import delivery, webhook_delivery, webhook_events, webhooks
from apps.notifications.choices import WEBHOOK_ATTEMPTS, WEBHOOK_TRANSITIONS, WebhookStatus
from apps.notifications.models import Notification, Webhook, WebhookDelivery
from tests.clusters.tls_servers import Authority
from tests.factories import Company, client_for
from tests.notifications.receivers import Receiver

pytestmark = pytest.mark.django_db


@dataclass(frozen=True, slots=True)
class Decided:
    """A payload with a person's words in it, at the top and within."""

    flavour: str
    reason: str
    parts: list[dict[str, Any]]


@pytest.fixture
def event(monkeypatch: pytest.MonkeyPatch) -> events.EventType:
    """An event that somebody is told, declared for this test only."""
    monkeypatch.setattr(events, "_registry", dict(events._registry))
    return events.declare("quotas.sample.decided", Decided, audience="the requester", headline=lambda p: "Decided")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything."""
    one = Receiver()
    yield one
    one.close()


@pytest.fixture
def admin(company: Company) -> Actor:
    """A platform admin."""
    return Actor.of(company.admin)


def say(event: events.EventType, *people: Any) -> OutboxMessage:
    """Publish one message."""
    payload = Decided("A100", "Because Maria asked", [{"gpus": 4, "comment": "hers"}])
    with transaction.atomic():
        return publish(event, payload, recipients=[one.pk for one in people], subject_uid=uuid.UUID(int=7))


def make(receiver: Receiver, admin: Actor, **extra: Any) -> tuple[Webhook, str]:
    """Make a webhook for the group of the event."""
    made = webhooks.create_webhook("Tickets", receiver.url, ["quotas"], actor=admin, **extra)
    return made.webhook, made.secret


def run() -> int:
    """Do what the two sweeps do."""
    return delivery.spread_due() + webhook_delivery.send_due()


@pytest.mark.requirement("webhooks-1.1", "webhooks-1.2", "webhooks-1.3")
def test_an_event_arrives_as_a_signed_cloudevent(event: events.EventType, receiver: Receiver, admin: Actor) -> None:
    webhook, secret = make(receiver, admin)
    message = say(event)
    assert run() == 2
    [got] = receiver.got
    assert got.path == "/hook?key=k"
    body = json.loads(got.body)
    assert body == {
        "specversion": "1.0", "id": str(message.uid), "source": "http://localhost:8000",
        "type": "quotas.sample.decided", "time": message.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "subject": str(uuid.UUID(int=7)), "datacontenttype": "application/json",
        "data": {"flavour": "A100", "parts": [{"gpus": 4}]},
    } | {"source": body["source"]}  # fmt: skip
    assert got.headers["Content-Type"].startswith("application/cloudevents+json")
    row = WebhookDelivery.objects.get()
    assert got.headers["X-Commons-Delivery"] == str(row.uid)
    stamp = got.headers["X-Commons-Timestamp"]
    assert abs(int(stamp) - clock.now().timestamp()) < 60
    # As a receiver would, from the documentation alone.
    expected = hmac.new(secret.encode(), b"%s.%s.%s" % (str(row.uid).encode(), stamp.encode(), got.body), "sha256")
    assert got.headers["X-Commons-Signature"] == "v1=" + expected.hexdigest()
    assert bytes(row.body) == got.body
    assert (row.status, row.attempts, row.answer_status) == (WebhookStatus.DELIVERED, 1, 200)
    assert row.delivered_at is not None
    assert row.headers["X-Commons-Signature"] == got.headers["X-Commons-Signature"]
    webhook.refresh_from_db()
    assert webhook.last_delivered_at is not None
    assert secret.encode() not in bytes(webhook.secret)


@pytest.mark.requirement("webhooks-1.2")
def test_what_people_wrote_is_sent_only_where_it_was_asked_for(
    event: events.EventType, receiver: Receiver, admin: Actor
) -> None:
    make(receiver, admin, include_texts=True)
    say(event)
    run()
    data = json.loads(receiver.got[0].body)["data"]
    assert data == {"flavour": "A100", "reason": "Because Maria asked", "parts": [{"gpus": 4, "comment": "hers"}]}


@pytest.mark.requirement("webhooks-1.1")
def test_only_chosen_events_go_and_each_once(event: events.EventType, receiver: Receiver, admin: Actor) -> None:
    make(receiver, admin)
    webhooks.create_webhook("By name", receiver.url, ["quotas.sample.decided"], actor=admin)
    webhooks.create_webhook("Others", receiver.url, ["approvals"], actor=admin)
    webhooks.create_webhook("Disabled", receiver.url, ["quotas"], actor=admin, enabled=False)
    message = say(event)
    delivery.spread_due()
    # As if the worker had died before its commit reached the disk.
    OutboxMessage.objects.filter(pk=message.pk).update(delivered_at=None)
    run()
    names = sorted(WebhookDelivery.objects.values_list("webhook__name", flat=True))
    assert names == ["By name", "Tickets"]
    assert len(receiver.got) == 2
    assert run() == 0


@pytest.mark.requirement("webhooks-2.1")
def test_a_failing_receiver_is_tried_again_with_growing_pauses(
    event: events.EventType, receiver: Receiver, admin: Actor, frozen_clock: Any
) -> None:
    receiver.status, receiver.words = 500, b"out of order\x00"
    webhook, _ = make(receiver, admin)
    say(event)
    delivery.spread_due()
    pauses = []
    for _ in range(WEBHOOK_ATTEMPTS - 1):
        assert webhook_delivery.send_due() == 1
        row = WebhookDelivery.objects.get()
        assert row.status == WebhookStatus.RETRYING
        assert row.retry_at is not None
        pauses.append(int((row.retry_at - clock.now()).total_seconds() / 60))
        clock.advance(row.retry_at - clock.now() - timedelta(seconds=1))
        assert webhook_delivery.send_due() == 0
        clock.advance(timedelta(seconds=1))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    assert webhook_delivery.send_due() == 1
    row.refresh_from_db()
    assert (row.status, row.attempts, row.answer_status) == (WebhookStatus.FAILED, WEBHOOK_ATTEMPTS, 500)
    assert "out of order" in row.error
    assert len({got.body for got in receiver.got}) == 1
    assert {got.headers["X-Commons-Delivery"] for got in receiver.got} == {str(row.uid)}
    assert len({got.headers["X-Commons-Signature"] for got in receiver.got}) == WEBHOOK_ATTEMPTS
    webhook.refresh_from_db()
    assert webhook.state == "degraded"
    clock.advance(timedelta(days=1))
    assert webhook_delivery.send_due() == 0


@pytest.mark.requirement("webhooks-2.2")
def test_a_silent_receiver_holds_up_nobody_else(
    event: events.EventType, receiver: Receiver, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "TIMEOUT", (1.0, 0.2))
    silent = Receiver()
    silent.hold = True
    try:
        webhooks.create_webhook("A silent one", silent.url, ["quotas"], actor=admin)
        make(receiver, admin)
        say(event)
        say(event)
        run()
        assert len(silent.got) == 1
        assert len(receiver.got) == 2
        tried = WebhookDelivery.objects.filter(webhook__name="A silent one").order_by("pk")
        assert [(row.status, row.attempts) for row in tried] == [("retrying", 1), ("queued", 0)]
        assert tried[0].error == "No answer: ReadTimeout."
    finally:
        silent.close()


@pytest.mark.requirement("webhooks-3.1")
def test_a_redirect_is_not_followed(event: events.EventType, receiver: Receiver, admin: Actor) -> None:
    aim = Receiver()
    try:
        receiver.status, receiver.headers = 307, {"Location": aim.url}
        make(receiver, admin)
        say(event)
        run()
        assert len(receiver.got) == 1
        assert aim.got == []
        row = WebhookDelivery.objects.get()
        assert (row.status, row.answer_status) == (WebhookStatus.RETRYING, 307)
        assert "redirect" in row.error
    finally:
        aim.close()


@pytest.mark.requirement("webhooks-3.2")
def test_a_certificate_that_nobody_trusts_gets_nothing(event: events.EventType, admin: Actor, tmp_path: Path) -> None:
    receiver = Receiver(Authority().issue(tmp_path))
    try:
        make(receiver, admin)
        say(event)
        run()
        assert receiver.got == []
        row = WebhookDelivery.objects.get()
        assert (row.status, row.error) == (WebhookStatus.RETRYING, "No answer: SSLError.")
    finally:
        receiver.close()


@pytest.mark.requirement("webhooks-3.1")
def test_addresses_that_the_portal_does_not_call(
    event: events.EventType, receiver: Receiver, admin: Actor, settings: Any
) -> None:
    for url in (
        "http://169.254.169.254/latest", "http://[fd00:ec2::254]/", "ftp://hooks.example.com", "https://",
        "https://user:pw@hooks.example.com/", "https://hooks.example.com/#part", "https://hooks.example.com/a b",
    ):  # fmt: skip
        with pytest.raises(Invalid) as refused:
            webhooks.create_webhook("Tickets", url, ["quotas"], actor=admin)
        assert set(refused.value.errors) == {"url"}
    settings.COMMONS_ENVIRONMENT = "production"
    with pytest.raises(Invalid, match="https"):
        webhooks.create_webhook("Tickets", "http://192.0.2.1/", ["quotas"], actor=admin)
    settings.COMMONS_ENVIRONMENT = "development"
    make(receiver, admin)
    say(event)
    # Harmless when it was entered, denied when it is called.
    settings.COMMONS_CLUSTER_DENIED_NETWORKS = ["127.0.0.0/8"]
    run()
    assert receiver.got == []
    assert "this installation denies" in WebhookDelivery.objects.get().error


@pytest.mark.requirement("webhooks-3.1")
def test_without_the_guard_nothing_is_called(
    event: events.EventType, receiver: Receiver, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(receiver, admin)
    say(event)
    monkeypatch.setattr(outgoing, "_post", None)
    monkeypatch.setattr(outgoing, "_check", None)
    run()
    assert receiver.got == []
    assert WebhookDelivery.objects.get().status == WebhookStatus.RETRYING
    with pytest.raises(Invalid):
        webhooks.create_webhook("Other", receiver.url, ["quotas"], actor=admin)


@pytest.mark.requirement("webhooks-2.4")
def test_a_receiver_that_is_gone_is_disabled_and_the_admins_are_told(
    event: events.EventType, receiver: Receiver, admin: Actor, company: Company
) -> None:
    receiver.status = 410
    webhook, _ = make(receiver, admin)
    say(event)
    say(event)
    run()
    webhook.refresh_from_db()
    assert not webhook.enabled
    assert "410 Gone" in webhook.ended_reason
    assert sorted(WebhookDelivery.objects.values_list("status", flat=True)) == ["failed", "queued"]
    assert len(receiver.got) == 1
    assert AuditEvent.objects.filter(action="notifications.webhook.gone", object_id=webhook.uid).count() == 1
    delivery.spread_due()
    news = Notification.objects.get(user=company.admin, event="notifications.webhook.gone")
    assert "Tickets was disabled" in news.title
    assert client_for(company.admin).get(news.path).status_code == 200
    receiver.status = 200
    webhooks.enable_webhook(webhook.pk, actor=admin)
    assert webhook_delivery.send_due() == 1


def news(event: str) -> int:
    """How often something was told to anybody."""
    return OutboxMessage.objects.filter(event=event).count()


@pytest.mark.requirement("webhooks-2.6")
def test_admins_are_told_once_that_a_receiver_is_not_reached_and_again_after_it_was(
    event: events.EventType, receiver: Receiver, admin: Actor, company: Company, frozen_clock: Any
) -> None:
    receiver.status = 500
    webhook, _ = make(receiver, admin)
    failed = webhook_events.DELIVERY_FAILED.name

    def fail_one() -> None:
        say(event)
        delivery.spread_due()
        WebhookDelivery.objects.filter(status="queued").update(attempts=WEBHOOK_ATTEMPTS - 1)
        webhook_delivery.send_due()

    fail_one()
    fail_one()
    assert set(WebhookDelivery.objects.values_list("status", flat=True)) == {"failed"}
    assert news(failed) == 1
    assert AuditEvent.objects.filter(action=failed, object_id=webhook.uid).count() == 1
    delivery.spread_due()
    told = Notification.objects.get(user=company.admin, event=failed)
    assert "Tickets does not reach" in told.title
    assert client_for(company.admin).get(told.path).status_code == 200
    receiver.status = 200
    say(event)
    run()
    clock.advance(timedelta(minutes=1))
    receiver.status = 500
    fail_one()
    assert news(failed) == 2


@pytest.mark.requirement("webhooks-2.6")
def test_a_worker_that_dies_every_time_is_told_as_well(
    event: events.EventType, receiver: Receiver, admin: Actor
) -> None:
    make(receiver, admin)
    say(event)
    delivery.spread_due()
    with clock.frozen(clock.now()):
        for _ in range(WEBHOOK_ATTEMPTS):
            webhook_delivery.claim()
            clock.advance(timedelta(minutes=3))
            webhook_delivery.take_back_lost()
    assert news(webhook_events.DELIVERY_FAILED.name) == 1


@pytest.mark.requirement("webhooks-2.6")
def test_ended_deliveries_are_removed_after_90_days_and_waiting_ones_never(
    event: events.EventType, receiver: Receiver, admin: Actor, frozen_clock: Any
) -> None:
    make(receiver, admin)
    say(event)
    run()
    receiver.status = 500
    say(event)
    run()
    # Rows are dated by the database, whose clock no test stops.
    WebhookDelivery.objects.update(created_at=clock.now())
    assert sorted(WebhookDelivery.objects.values_list("status", flat=True)) == ["delivered", "retrying"]
    clock.advance(timedelta(days=90))
    assert webhook_delivery.forget() == 0
    clock.advance(timedelta(seconds=1))
    assert webhook_delivery.forget() == 1
    assert list(WebhookDelivery.objects.values_list("status", flat=True)) == ["retrying"]


@pytest.mark.requirement("webhooks-2.3")
@pytest.mark.django_db(transaction=True)
def test_a_killed_worker_s_delivery_is_sent_by_another(event: events.EventType, receiver: Receiver) -> None:
    from tests.factories import make_company

    actor = Actor.of(make_company().admin)
    with clock.frozen(clock.now()):
        make(receiver, actor)
        say(event)
        delivery.spread_due()
        dead = webhook_delivery.claim()
        assert dead is not None
        assert not connection.in_atomic_block
        assert webhook_delivery.send_due() == 0
        clock.advance(timedelta(minutes=3))
        # Taken back and sent in the same run.
        assert webhook_delivery.send_due() == 2
        row = WebhookDelivery.objects.get()
        assert (row.status, row.attempts) == (WebhookStatus.DELIVERED, 2)
        # The dead one comes to after all: what it says no longer counts.
        webhook_delivery.record(dead, webhook_delivery.Outcome(500, "late", {}))
        row.refresh_from_db()
        assert (row.status, row.error) == (WebhookStatus.DELIVERED, "")


@pytest.mark.requirement("webhooks-2.3")
def test_a_worker_that_dies_every_time_ends_too(event: events.EventType, receiver: Receiver, admin: Actor) -> None:
    make(receiver, admin)
    say(event)
    delivery.spread_due()
    with clock.frozen(clock.now()):
        for _ in range(WEBHOOK_ATTEMPTS):
            assert webhook_delivery.claim() is not None
            clock.advance(timedelta(minutes=3))
            assert webhook_delivery.take_back_lost() == 1
        assert webhook_delivery.claim() is None
    assert WebhookDelivery.objects.get().status == WebhookStatus.FAILED


@pytest.mark.requirement("webhooks-2.5")
def test_a_replay_sends_the_same_bytes_under_the_same_id(
    event: events.EventType, receiver: Receiver, admin: Actor, company: Company
) -> None:
    make(receiver, admin)
    say(event)
    run()
    row = WebhookDelivery.objects.get()
    client = client_for(company.admin)
    asked = client.get(f"/notifications/webhook-deliveries/{row.uid}/replay/")
    assert "same delivery id" in asked.content.decode()
    assert len(receiver.got) == 1
    assert client.post(f"/notifications/webhook-deliveries/{row.uid}/replay/").status_code == 303
    assert client.post(f"/api/v1/webhook-deliveries/{row.uid}/replay").status_code == 409
    assert webhook_delivery.send_due() == 1
    first, second = receiver.got
    assert first.body == second.body
    assert first.headers["X-Commons-Delivery"] == second.headers["X-Commons-Delivery"]
    again = client.post(f"/api/v1/webhook-deliveries/{row.uid}/replay")
    assert (again.status_code, again.json()["status"]) == (202, "queued")
    assert AuditEvent.objects.filter(action="notifications.delivery.replayed", object_id=row.uid).count() == 2
    with pytest.raises(NotAllowed):
        webhooks.replay(row.pk, actor=Actor.of(company.auditor))


@pytest.mark.requirement("webhooks-4.2")
def test_a_new_secret_signs_from_now_on_and_a_test_goes_out_while_disabled(receiver: Receiver, admin: Actor) -> None:
    webhook, old = make(receiver, admin, enabled=False)
    made = webhooks.rotate_secret(webhook.pk, actor=admin)
    assert made.secret != old
    webhooks.send_test(webhook.pk, actor=admin)
    assert webhook_delivery.send_due() == 1
    [got] = receiver.got
    signed = f"{got.headers['X-Commons-Delivery']}.{got.headers['X-Commons-Timestamp']}.".encode() + got.body
    digest = hmac.new(made.secret.encode(), signed, hashlib.sha256).hexdigest()
    assert got.headers["X-Commons-Signature"] == f"v1={digest}"
    assert json.loads(got.body)["type"] == "notifications.webhook.tested"


@pytest.mark.requirement("webhooks-4.3")
def test_keys_are_rotated_and_a_missing_one_is_an_outcome(receiver: Receiver, admin: Actor, settings: Any) -> None:
    webhook, secret = make(receiver, admin)
    new = Fernet.generate_key().decode()
    old = list(settings.COMMONS_CREDENTIALS_KEYS)
    settings.COMMONS_CREDENTIALS_KEYS = [new, *old]
    noted: list[crypto.Rotated] = []
    done = {one.column.model: one for one in crypto.rotate_columns(noted.append)}
    assert (done["notifications.Webhook"].rotated, done["notifications.Webhook"].total) == (1, 1)
    assert [one.column.model for one in noted] == ["notifications.Webhook"]
    assert {"metering.Source", "costs.CheckSetting", "catalogue.ModelStore", "catalogue.Registry"} <= set(done)
    assert all(one.rotated == 0 for one in crypto.rotate_columns(noted.append))
    settings.COMMONS_CREDENTIALS_KEYS = [new]
    webhook.refresh_from_db()
    assert crypto.decrypt(webhook.secret) == secret
    settings.COMMONS_CREDENTIALS_KEYS = old
    webhooks.send_test(webhook.pk, actor=admin)
    webhook_delivery.send_due()
    assert "cannot be opened" in WebhookDelivery.objects.get().error
    missing = {one.column.model: one.missing for one in crypto.rotate_columns(noted.append)}
    assert missing["notifications.Webhook"] == ("Tickets",)


@pytest.mark.requirement("webhooks-4.1")
def test_input_is_checked_and_every_change_is_audited(receiver: Receiver, admin: Actor, company: Company) -> None:
    webhook, _ = make(receiver, admin)
    for name, url, chosen, field in (
        ("", receiver.url, ["quotas"], "name"),
        ("Other", receiver.url, [], "events"),
        ("Other", receiver.url, ["nothing.of.ours"], "events"),
        ("Tickets", receiver.url, ["quotas"], "name"),
    ):
        with pytest.raises(Invalid) as refused:
            webhooks.create_webhook(name, url, chosen, actor=admin)
        assert list(refused.value.errors) == [field]
    with pytest.raises(NotAllowed):
        webhooks.create_webhook("Other", receiver.url, ["quotas"], actor=Actor.of(company.auditor))
    webhooks.edit_webhook(webhook.pk, actor=admin, name="Ticket system", expected_version=1)
    with pytest.raises(Conflict):
        webhooks.edit_webhook(webhook.pk, actor=admin, name="Late", expected_version=1)
    webhooks.disable_webhook(webhook.pk, actor=admin)
    with pytest.raises(Conflict):
        webhooks.disable_webhook(webhook.pk, actor=admin)
    webhooks.enable_webhook(webhook.pk, actor=admin)
    webhooks.rotate_secret(webhook.pk, actor=admin)
    webhooks.send_test(webhook.pk, actor=admin)
    verbs = AuditEvent.objects.filter(object_id=webhook.uid).values_list("action", flat=True)
    assert sorted(verb.rpartition(".")[2] for verb in verbs) == [
        "created", "disabled", "edited", "enabled", "secret_rotated", "tested",
    ]  # fmt: skip


@pytest.mark.requirement("webhooks-4.1", "webhooks-4.4")
def test_the_pages(receiver: Receiver, company: Company, event: events.EventType, query_limit: Any) -> None:
    client = client_for(company.admin)
    assert "No webhooks yet" in client.get("/notifications/webhooks/").content.decode()
    refused = client.post("/notifications/webhooks/new/", {"name": "Tickets", "url": "http://169.254.1.1/"})
    assert refused.status_code == 400
    assert "metadata" in refused.content.decode()
    form = {"name": "Tickets", "url": receiver.url, "groups": ["quotas"], "include_texts": ""}
    shown = client.post("/notifications/webhooks/new/", form).content.decode()
    webhook = Webhook.objects.get()
    secret = crypto.decrypt(webhook.secret)
    assert secret in shown
    say(event)
    run()
    row = WebhookDelivery.objects.get()
    page = client.get(f"/notifications/webhooks/{webhook.uid}/").content.decode()
    assert secret not in page
    assert "/hook?key=k" in page
    auditor = client_for(company.auditor)
    told = auditor.get(f"/notifications/webhooks/{webhook.uid}/").content.decode()
    assert "key=k" not in told
    with query_limit(20):
        delivered = auditor.get("/notifications/webhook-deliveries/?status=delivered").content.decode()
    assert f"/notifications/webhook-deliveries/{row.uid}/" in delivered
    assert "Nothing matches" in client.get("/notifications/webhook-deliveries/?status=failed").content.decode()
    filtered = client.get(f"/notifications/webhook-deliveries/?webhook={webhook.uid}").content.decode()
    assert "quotas.sample.decided" in filtered
    one = auditor.get(f"/notifications/webhook-deliveries/{row.uid}/").content.decode()
    assert "X-Commons-Signature" in one
    assert "A100" in one
    assert "/replay/" not in one
    edited = {**form, "name": "Ticket system", "events": ["quotas.sample.decided"], "version": webhook.version}
    assert client.post(f"/notifications/webhooks/{webhook.uid}/edit/", edited).status_code == 303
    webhook.refresh_from_db()
    assert (webhook.name, webhook.events) == ("Ticket system", ["quotas", "quotas.sample.decided"])
    assert "Nothing is sent there" in client.get(f"/notifications/webhooks/{webhook.uid}/disable/").content.decode()
    for verb in ("disable", "enable", "test"):
        assert client.post(f"/notifications/webhooks/{webhook.uid}/{verb}/").status_code == 303
    new = client.post(f"/notifications/webhooks/{webhook.uid}/secret/").content.decode()
    webhook.refresh_from_db()
    assert crypto.decrypt(webhook.secret) in new


@pytest.mark.requirement("webhooks-4.4")
def test_the_api(receiver: Receiver, company: Company, event: events.EventType, query_limit: Any) -> None:
    client = client_for(company.admin)

    def send(path: str, body: dict[str, Any] | None = None, method: str = "POST", **headers: str) -> Any:
        return client.generic(
            method, f"/api/v1/{path}", json.dumps(body or {}), content_type="application/json", headers=headers
        )

    made = send("webhooks", {"name": "Tickets", "url": receiver.url, "events": ["quotas"]})
    assert made.status_code == 201
    uid, secret = made.json()["uid"], made.json()["secret"]
    assert crypto.decrypt(Webhook.objects.get().secret) == secret
    assert "secret" not in client.get(f"/api/v1/webhooks/{uid}").json()
    assert send("webhooks", {"name": "X", "url": receiver.url, "events": ["no"]}).status_code == 400
    edited = send(f"webhooks/{uid}", {"name": "Other"}, "PATCH", **{"If-Match": made["ETag"]})
    assert (edited.status_code, edited.json()["name"]) == (200, "Other")
    assert send(f"webhooks/{uid}", {"name": "Late"}, "PATCH", **{"If-Match": made["ETag"]}).status_code == 412
    assert send(f"webhooks/{uid}/rotate-secret").json()["secret"] != secret
    assert send(f"webhooks/{uid}/disable").json()["enabled"] is False
    assert send(f"webhooks/{uid}/enable").json()["enabled"] is True
    assert send(f"webhooks/{uid}/test").status_code == 202
    say(event)
    run()
    with query_limit(15):
        rows = client.get(f"/api/v1/webhook-deliveries?webhook={uid}").json()["results"]
    assert {row["status"] for row in rows} == {"delivered"}
    assert "body" not in rows[0]
    one = client.get(f"/api/v1/webhook-deliveries/{rows[0]['uid']}").json()
    assert json.loads(one["body"])["type"] == rows[0]["event"]
    auditor = client_for(company.auditor)
    assert auditor.get(f"/api/v1/webhooks/{uid}").json()["url"].endswith("/…")
    assert client_for(company.lead_finance).get(f"/api/v1/webhooks/{uid}").status_code == 404


@pytest.mark.requirement("webhooks-2.1")
def test_the_transition_table() -> None:
    assert set(WEBHOOK_TRANSITIONS.statuses) == set(WebhookStatus.values)
    for status in (WebhookStatus.QUEUED, WebhookStatus.SENDING, WebhookStatus.RETRYING):
        with pytest.raises(Conflict):
            WEBHOOK_TRANSITIONS.next(status, "replay")
