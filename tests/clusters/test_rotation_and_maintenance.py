"""Rotating keys by command, and maintenance windows as actions and as others see them."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.audit.models import AuditEvent
from apps.clusters import actions, crypto, expiring, probing, selectors
from apps.clusters.models import Cluster, MaintenanceWindow
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.demo.cluster import SimulatedCluster
from apps.provisioning import running
from tests.cluster.fixtures import declare, fresh_namespace, register, workspace
from tests.factories import Company

pytestmark = pytest.mark.django_db
SYSTEM = Actor.system("tests")


def _register(slug: str = "frankfurt", token: str = "t") -> Cluster:
    return actions.register_cluster(slug, slug=slug, api_url="https://192.0.2.1", token=token, actor=SYSTEM)


def _rotate() -> str:
    out = io.StringIO()
    call_command("rotate_keys", stdout=out)
    return out.getvalue()


@pytest.mark.requirement("cluster-onboarding-4.1")
def test_rotating_goes_on_where_it_was(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the middle, the second run does the rest; afterwards the old key can go."""
    clusters = [_register(f"c-{n}", f"token-{n}") for n in range(3)]
    new = Fernet.generate_key().decode()
    settings.COMMONS_CREDENTIALS_KEYS = [new, *settings.COMMONS_CREDENTIALS_KEYS]
    real, calls = crypto.rotate, []

    def once(stored: Any) -> bytes:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(stored)

    monkeypatch.setattr(crypto, "rotate", once)
    with pytest.raises(KeyboardInterrupt):
        _rotate()
    monkeypatch.setattr(crypto, "rotate", real)
    assert "2 encrypted anew under the newest key, 1 were already; 3 clusters in all" in _rotate()
    assert "0 encrypted anew" in _rotate()
    settings.COMMONS_CREDENTIALS_KEYS = [new]
    for number, cluster in enumerate(clusters):
        cluster.refresh_from_db()
        assert crypto.decrypt(cluster.credentials) == f"token-{number}"
    event = AuditEvent.objects.filter(action="clusters.credentials.rotated").latest("occurred_at")
    assert b'"rotated":2' in bytes(event.canonical)


@pytest.mark.requirement("cluster-onboarding-4.1")
def test_a_missing_key_names_the_clusters_and_does_the_others(settings: Any) -> None:
    """And exits with an error."""
    settings.COMMONS_CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    _register("lost")
    kept = Fernet.generate_key().decode()
    settings.COMMONS_CREDENTIALS_KEYS = [kept]
    found = _register("kept", "still-there")
    new = Fernet.generate_key().decode()
    settings.COMMONS_CREDENTIALS_KEYS = [new, kept]
    with pytest.raises(CommandError, match="opens the credentials of lost") as caught:
        _rotate()
    assert caught.value.returncode == 1
    settings.COMMONS_CREDENTIALS_KEYS = [new]
    found.refresh_from_db()
    assert crypto.decrypt(found.credentials) == "still-there"


@pytest.mark.requirement("cluster-onboarding-4.1")
@pytest.mark.parametrize("keys", [["not a key"], [], [""]])
def test_malformed_keys_are_said(settings: Any, keys: list[str]) -> None:
    """By the name of the setting."""
    _register()
    settings.COMMONS_CREDENTIALS_KEYS = keys
    with pytest.raises(CommandError, match="COMMONS_CREDENTIALS_KEY"):
        _rotate()


def _plan(cluster: Cluster, start: timedelta, end: timedelta, reason: str = "Kernel update", **kwargs: Any) -> Any:
    now = clock.now()
    return actions.schedule_maintenance(cluster.pk, now + start, now + end, reason, **{"actor": SYSTEM, **kwargs})


@pytest.mark.requirement("cluster-onboarding-5.1", "cluster-onboarding-6.1")
def test_a_window_is_checked_recorded_and_told(company: Company) -> None:
    """Past, backwards, too long, too far, overlapping, without a reason."""
    cluster = _register()
    hour = timedelta(hours=1)
    for start, end, field in (
        (-hour, hour, "start"), (hour, hour, "end"), (2 * hour, hour, "end"), (hour, 800 * hour, "end"),
        (timedelta(days=400), timedelta(days=401), "start"), (-timedelta(minutes=2), -timedelta(minutes=1), "end"),
    ):  # fmt: skip
        with pytest.raises(Invalid) as caught:
            _plan(cluster, start, end)
        assert list(caught.value.errors) == [field]
    with pytest.raises(Invalid, match="Say why"):
        _plan(cluster, hour, 2 * hour, " ")
    window = _plan(cluster, hour, 3 * hour)
    with pytest.raises(Invalid, match="There is a window from"):
        _plan(cluster, 2 * hour, 4 * hour)
    _plan(cluster, 3 * hour, 4 * hour)  # begins where the other ends
    with pytest.raises(NotAllowed):
        _plan(cluster, 5 * hour, 6 * hour, actor=Actor.of(company.auditor))
    actions.cancel_maintenance(window.pk, actor=Actor.of(company.admin))
    with pytest.raises(Conflict, match="cancelled already"):
        actions.cancel_maintenance(window.pk, actor=SYSTEM)
    _plan(cluster, 2 * hour, 2.5 * hour)  # a cancelled one is in nobody's way
    for name, count in (("clusters.maintenance.scheduled", 3), ("clusters.maintenance.cancelled", 1)):
        assert AuditEvent.objects.filter(action=name, object_id=cluster.uid).count() == count
        told = OutboxMessage.objects.filter(event=name)
        assert told.count() == count
        assert told.first().recipient_ids == [company.admin.pk]  # type: ignore[union-attr]  # counted above
    over = MaintenanceWindow.objects.create(
        cluster=cluster, reason="x", valid=DateTimeTZRange(clock.now() - 2 * hour, clock.now() - hour, "[)")
    )
    with pytest.raises(Conflict, match="over"):
        actions.cancel_maintenance(over.pk, actor=SYSTEM)


@pytest.mark.requirement("cluster-onboarding-5.1")
def test_what_is_told_reads_well(company: Company) -> None:
    """Headline and text as people get them, from the stored payload."""
    from apps.core import events as core_events

    _plan(_register(), timedelta(hours=1), timedelta(hours=2))
    message = OutboxMessage.objects.get(event="clusters.maintenance.scheduled")
    event = core_events.get(message.event)
    payload = event.load(message.payload)
    assert event.headline(payload).startswith("frankfurt: maintenance from 2")
    assert "UTC" in event.headline(payload)
    assert "Kernel update" in event.body(payload)
    assert event.path(payload) == "/clusters/frankfurt/"


@pytest.mark.requirement("cluster-onboarding-5.2")
def test_nothing_is_applied_in_maintenance_but_looking_goes_on(simulated: SimulatedCluster) -> None:
    """What is approved waits, and is applied once the window ends or is cancelled."""
    cluster = register(simulated)
    window = _plan(cluster, timedelta(0), timedelta(hours=2))
    declare(cluster, workspace(fresh_namespace()))
    assert selectors.callable_now(cluster)
    allowed, why, until = selectors.may_apply_now(cluster)
    assert (allowed, until) == (False, window.valid.upper)
    assert why.startswith(f"maintenance of {cluster} until ")
    assert why.endswith("Kernel update")
    assert running.clusters_due() == []
    assert running.apply_cluster(cluster.pk) == (0, False)
    assert probing.probe_due() == 1
    assert selectors.maintenance_now(cluster) == window
    after = window.valid.upper
    assert selectors.maintenance_now(cluster, after) is None
    assert selectors.may_apply_now(cluster, after)[0]
    actions.cancel_maintenance(window.pk, actor=SYSTEM)
    assert running.clusters_due() == [cluster]
    assert running.apply_cluster(cluster.pk)[0] == 1


@pytest.mark.requirement("cluster-onboarding-5.2")
def test_pause_and_rest_stop_applying_too() -> None:
    """With their own reasons; the end is known only of a rest."""
    cluster = _register()
    later = clock.now() + timedelta(seconds=30)
    cluster.retry_at, cluster.last_error = later, "connection refused"
    assert selectors.may_apply_now(cluster)[1:] == ("frankfurt is given a rest: connection refused", later)
    cluster.paused_at, cluster.pause_reason = clock.now(), "moving"
    assert selectors.may_apply_now(cluster) == (False, "frankfurt is paused: moving", None)


@pytest.mark.requirement("cluster-onboarding-2.4")
def test_admins_are_told_in_time_and_once(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 30, 7 and 1 day and when it is over; what is renewed starts anew."""
    cluster = _register()
    start = clock.now()
    Cluster.objects.update(credentials_expire_at=start + timedelta(days=40))
    told: list[tuple[int, str]] = []
    for day in range(45):
        at = start + timedelta(days=day, hours=1)
        monkeypatch.setattr(clock, "now", lambda at=at: at)
        for _ in range(2):
            if expiring.notice_due():
                message = OutboxMessage.objects.filter(event="clusters.cluster.expiring").latest("pk")
                assert message.recipient_ids == [company.admin.pk]
                told.append((day, message.payload["left"]))
    assert told == [(10, "ends in 29 d 23 h"), (33, "ends in 6 d 23 h"), (39, "ends in 23 h"), (40, "has ended")]
    Cluster.objects.update(credentials_expire_at=start + timedelta(days=60), certificate_expires_at=at)
    assert expiring.notice_due() == 2
    cluster.refresh_from_db()
    assert set(cluster.expiry_notices) == {"credentials_expire_at", "certificate_expires_at"}


@pytest.mark.requirement("cluster-onboarding-5.2")
def test_whoever_waits_reads_until_when_and_why(simulated: SimulatedCluster) -> None:
    """In how a declaration stands, wherever that is shown."""
    from apps.provisioning import selectors as provisioning

    cluster = register(simulated)
    window = _plan(cluster, timedelta(0), timedelta(hours=2))
    declaration = declare(cluster, workspace(fresh_namespace()))
    standing = provisioning.standing(declaration)
    assert (standing.state, standing.retry_at) == ("waiting", window.valid.upper)
    assert standing.why.endswith("UTC: Kernel update")
    assert [one.why for one in provisioning.unapplied(type(declaration).objects.all())] == [standing.why]
