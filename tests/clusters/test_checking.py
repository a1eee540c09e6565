"""Checks as rows: queued, carried out under a lease, written step by step; what they leave behind at the cluster."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from apps.audit.models import AuditEvent
from apps.clusters import actions, capabilities, checking, crypto, preflight, probing
from apps.clusters.capabilities import Capabilities, Kueue
from apps.clusters.choices import CheckStatus, Health, KueueMode
from apps.clusters.clients.guard import TransactionOpen
from apps.clusters.models import Cluster, ClusterCheck
from apps.core import clock, leases
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.demo.cluster import SimulatedCluster
from tests.cluster.fixtures import register
from tests.clusters.tls_servers import Api, Authority
from tests.factories import Company

pytestmark = pytest.mark.django_db
SYSTEM = Actor.system("tests")
TOKEN = "the-secret-token-of-this-test"


def _known(**values: Any) -> Capabilities:
    return Capabilities(kubernetes_version="v1.36.2", checked_at=clock.now(), **values)


@pytest.fixture
def https(tmp_path: Path) -> Any:
    """A server with a certificate of an authority of ours."""
    authority = Authority()
    made = Api(authority.issue(tmp_path))
    made.authority = authority  # type: ignore[attr-defined]  # for the test to hand to the portal
    yield made
    made.close()


def _register(https: Any, **kwargs: Any) -> Cluster:
    return actions.register_cluster(
        "Frankfurt", slug="frankfurt", api_url=https.url, ca_certificate=https.authority.pem, token=TOKEN, actor=SYSTEM,
        **kwargs,
    )  # fmt: skip


@pytest.mark.requirement("cluster-onboarding-2.1", "cluster-onboarding-2.4", "cluster-onboarding-3.1")
def test_registration_is_followed_by_a_check_that_fills_in_the_cluster(https: Any) -> None:
    """Steps, certificate, abilities, health."""
    cluster = _register(https)
    assert ClusterCheck.objects.get().status == CheckStatus.PENDING
    assert checking.run_due() == 1
    check = ClusterCheck.objects.get()
    assert check.status == CheckStatus.DONE
    assert check.started_at <= check.finished_at
    assert [step["key"] for step in check.steps][:4] == ["address", "reach", "tls", "signin"]
    assert checking.verdict(check) == "warning"  # no node with a GPU, no Kueue
    cluster.refresh_from_db()
    assert cluster.health == Health.HEALTHY
    assert cluster.certificate_expires_at > clock.now() + timedelta(days=300)
    assert cluster.kubernetes_version == "v1.36.2"
    assert capabilities.of(cluster).admission_policies is True
    assert checking.run_due() == 0


@pytest.mark.requirement("cluster-onboarding-2.1")
def test_each_step_is_written_as_it_ends(https: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that asks in between sees how far it is."""
    _register(https)
    seen: list[int] = []
    real = checking._write

    def write(*args: Any) -> None:
        real(*args)
        seen.append(len(ClusterCheck.objects.get().steps))

    monkeypatch.setattr(checking, "_write", write)
    checking.run_due()
    assert len(set(seen)) > 15
    assert seen == sorted(seen)


@pytest.mark.requirement("cluster-onboarding-2.9")
def test_a_check_that_a_dead_worker_left_is_finished(https: Any) -> None:
    """Once its lease has run out; before, nobody else touches it."""
    _register(https)
    check = ClusterCheck.objects.get()
    ClusterCheck.objects.update(status=CheckStatus.RUNNING, started_at=clock.now(), steps=[{"key": "address"}])
    token = leases.claim(f"check:{check.uid}", seconds=60)
    assert token is not None
    assert checking.run_due() == 0
    leases.release(f"check:{check.uid}", token)
    assert checking.run_due() == 1
    assert ClusterCheck.objects.get().status == CheckStatus.DONE


@pytest.mark.requirement("cluster-onboarding-2.9")
def test_a_worker_whose_lease_moved_on_writes_nothing(https: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newer one's steps stand."""
    _register(https)

    def stolen(target: Any, report: Any) -> preflight.Result:
        leases.Lease.objects.all().delete()
        report(preflight.Result())
        raise AssertionError("unreachable: writing was refused")

    monkeypatch.setattr(preflight, "run", stolen)
    assert checking.run_due() == 0
    assert ClusterCheck.objects.get().status == CheckStatus.RUNNING
    assert ClusterCheck.objects.get().steps == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.requirement("cluster-onboarding-2.1")
def test_no_check_runs_inside_a_transaction() -> None:
    """Locks would be held for as long as a stranger pleases."""
    with transaction.atomic(), pytest.raises(TransactionOpen):
        checking.run_due()


@pytest.mark.requirement("cluster-onboarding-4.5")
def test_a_revoked_token_is_shown_and_heals_once_it_is_replaced(simulated: SimulatedCluster) -> None:
    """Refused, with the reason; the probe after the replacement finds it healthy, with no hand on anything else."""
    cluster = register(simulated, slug="frankfurt")
    assert probing.probe_due() == 1
    Cluster.objects.update(credentials=crypto.encrypt("revoked"), probed_at=None)
    probing.probe_due()
    cluster.refresh_from_db()
    assert cluster.shown_health == Health.REFUSED
    assert cluster.unreachable_since is not None
    ClusterCheck.objects.all().delete()
    actions.request_check(cluster.pk, actor=SYSTEM)
    checking.run_due()
    step = next(s for s in ClusterCheck.objects.get().steps if s["key"] == "signin")
    assert step["outcome"] == "failed"
    assert "401" in step["detail"]
    actions.replace_credentials(cluster.pk, actor=SYSTEM, kubeconfig=simulated.kubeconfig())
    assert checking.run_due() == 1
    assert probing.probe_due() == 1
    cluster.refresh_from_db()
    assert cluster.shown_health == Health.HEALTHY
    assert cluster.unreachable_since is None


@pytest.mark.requirement("cluster-onboarding-2.3")
def test_an_expired_certificate_makes_a_cluster_unreachable_with_the_reason(tmp_path: Path) -> None:
    """For the check and for every other call."""
    authority = Authority()
    api = Api(authority.issue(tmp_path, days=(-30, -2)))
    api.authority = authority  # type: ignore[attr-defined]  # for _register
    try:
        cluster = _register(api)
        checking.run_due()
        cluster.refresh_from_db()
        assert cluster.health == Health.UNREACHABLE
        assert "expired" in cluster.last_error
        assert cluster.certificate_expires_at < clock.now()
        Cluster.objects.update(retry_at=None)
        probing.probe_due()
        cluster.refresh_from_db()
        assert "certificate has expired" in cluster.last_error
    finally:
        api.close()


@pytest.mark.requirement("cluster-onboarding-3.2")
def test_a_change_of_abilities_is_audited_and_told(company: Company, https: Any) -> None:
    """The first finding is none; nor is one that only looked again; an older one is dropped."""
    cluster = _register(https)
    first = _known(kueue=Kueue(True, ("v1beta2",)))
    checking.remember(cluster.pk, first)
    checking.remember(cluster.pk, _known(kueue=Kueue(True, ("v1beta2",)), gpu_models=("A100",)))
    name = "clusters.cluster.capabilities_changed"
    assert not AuditEvent.objects.filter(action=name, object_id=cluster.uid).exists()
    checking.remember(cluster.pk, _known(kueue=Kueue(False)))
    told = OutboxMessage.objects.get(event=name)
    assert told.recipient_ids == [company.admin.pk]
    assert "kueue.installed: yes → no" in told.payload["changes"]
    assert AuditEvent.objects.filter(action=name, object_id=cluster.uid).count() == 1
    checking.remember(cluster.pk, first)
    cluster.refresh_from_db()
    assert capabilities.of(cluster).kueue.installed is False


@pytest.mark.requirement("cluster-onboarding-3.1")
def test_the_probe_looks_again_every_ten_minutes(https: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with every probe; and it sees a certificate that was renewed."""
    cluster = _register(https)
    ClusterCheck.objects.all().delete()
    probing.probe_due()
    cluster.refresh_from_db()
    first = capabilities.of(cluster).checked_at
    assert first is not None
    assert cluster.certificate_expires_at is not None
    https.groups["keda.sh"] = ["v1alpha1"]
    Cluster.objects.update(probed_at=None)
    probing.probe_due()
    cluster.refresh_from_db()
    assert capabilities.of(cluster).checked_at == first
    later = clock.now() + timedelta(minutes=11)
    monkeypatch.setattr(clock, "now", lambda: later)
    probing.probe_due()
    cluster.refresh_from_db()
    assert capabilities.of(cluster).keda.installed is True


@pytest.mark.requirement("cluster-onboarding-3.4", "cluster-onboarding-6.1")
def test_kueue_is_used_only_as_found(company: Company, https: Any) -> None:
    """Each refusal with its reason; where it may not be read, the admin's word counts; rooms above may object."""
    from apps.clusters import administering

    cluster = _register(https)

    def choose(mode: str, **kwargs: Any) -> Cluster:
        return actions.set_kueue_mode(cluster.pk, mode, actor=SYSTEM, **kwargs)

    with pytest.raises(Invalid, match="not checked yet"):
        choose("jobs")
    checking.remember(cluster.pk, _known(kueue=Kueue(True, ("v1beta1",))))
    with pytest.raises(Invalid, match="needs v1beta2"):
        choose("jobs")
    checking.remember(cluster.pk, _known(kueue=Kueue(True, ("v1beta2",), pod_integration=False)))
    with pytest.raises(Invalid, match="pod integration is off"):
        choose("pods")
    assert choose("jobs").kueue_mode == KueueMode.JOBS
    checking.remember(cluster.pk, _known(kueue=Kueue(True, ("v1beta2",), managed_labels={"a": "b"})))
    changed = choose("pods")
    assert changed.kueue_namespace_labels == {"a": "b"}
    assert AuditEvent.objects.filter(action="clusters.cluster.kueue_mode_set", object_id=cluster.uid).count() == 2
    version = changed.version
    assert choose("pods").version == version
    for labels in (
        {"x y": "1"},
        {"ok": "no good!"},
        {"gpu-commons/managed": "true"},
        {"kubernetes.io/metadata.name": "x"},
    ):
        with pytest.raises(Invalid) as caught:
            choose("pods", namespace_labels=labels)
        assert "namespace_labels" in caught.value.errors
    with pytest.raises(Invalid, match="Choose one"):
        choose("sometimes")
    with pytest.raises(NotAllowed):
        actions.set_kueue_mode(cluster.pk, "off", actor=Actor.of(company.auditor))

    def object_to(asked: Cluster, mode: str) -> str | None:
        return "Three quotas borrow." if mode == "off" and asked.pk == cluster.pk else None

    administering.register_kueue_objection(object_to)
    try:
        with pytest.raises(Invalid, match="Three quotas borrow"):
            choose("off")
    finally:
        administering._objections.remove(object_to)
    assert choose("off").kueue_namespace_labels == {}


@pytest.mark.requirement("cluster-onboarding-3.5")
def test_a_group_of_kubernetes_itself_is_never_given_a_role(https: Any) -> None:
    """Neither at registration nor later; a file of tokens is for simulated clusters."""
    with pytest.raises(Invalid, match="Kubernetes' own"):
        _register(https, group_prefix="system:")
    with pytest.raises(Invalid, match="simulated"):
        _register(https, identity_provider={"type": "tokens_file", "file": "/etc/passwd"})
    cluster = _register(https)
    for given in (
        {"group_prefix": "System:masters"}, {"group_prefix": "a b"}, {"name": " "}, {"region": "x" * 61},
        {"identity_provider": {"type": "oidc", "issuer_url": "http://x.example"}},
        {"identity_provider": {"type": "exec", "command": "aws; rm -rf /"}}, {"identity_provider": {"type": "?"}},
    ):  # fmt: skip
        with pytest.raises(Invalid):
            actions.update_cluster(cluster.pk, actor=SYSTEM, **given)  # type: ignore[arg-type]  # one field each
    before = AuditEvent.objects.count()
    assert actions.update_cluster(cluster.pk, actor=SYSTEM, name="Frankfurt").version == cluster.version
    assert AuditEvent.objects.count() == before
    with pytest.raises(Conflict):
        actions.update_cluster(cluster.pk, actor=SYSTEM, name="X", expected_version=99)
    with pytest.raises(Invalid, match="page of its own"):
        actions.register_cluster("Pools", api_url=https.url, token="t", actor=SYSTEM)


@pytest.mark.requirement("cluster-onboarding-4.2")
def test_the_token_appears_nowhere(
    company: Company, https: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in rows, logs, audit, outbox, task arguments, representations or errors; good and bad days alike."""
    from apps.core import sweeps

    caplog.set_level(logging.DEBUG)
    sent: list[Any] = []
    monkeypatch.setattr(sweeps, "nudge", lambda task, *args: sent.append((task.name, args)))
    monkeypatch.setattr(checking, "nudge", lambda task, *args: sent.append((task.name, args)))
    cluster = _register(https)
    checking.run_due()
    https.answers["/version"] = lambda: (401, {"kind": "Status", "message": "Unauthorized"}, {})
    actions.replace_credentials(cluster.pk, actor=SYSTEM, token=TOKEN)
    checking.run_due()
    Cluster.objects.update(retry_at=None, probed_at=None)
    probing.probe_due()
    cluster.refresh_from_db()
    assert any(TOKEN in given for given in https.tokens)  # it was used, though
    texts = [
        caplog.text, repr(cluster), str(cluster), repr(sent), cluster.last_error, bytes(cluster.credentials).decode(),
        repr(list(ClusterCheck.objects.values())), repr(list(AuditEvent.objects.values())),
        repr(list(OutboxMessage.objects.values())),
        repr(preflight.Target(https.url, "", TOKEN)),
    ]  # fmt: skip
    with pytest.raises(Invalid) as caught:
        actions.replace_credentials(cluster.pk, actor=SYSTEM, api_url="https://169.254.169.254", token=TOKEN)
    texts += [repr(caught.value), str(caught.value.errors)]
    with pytest.raises(Invalid) as caught:
        actions.replace_credentials(cluster.pk, actor=SYSTEM, kubeconfig=f"users: [{{token: {TOKEN}")
    texts += [repr(caught.value), str(caught.value.errors), repr(caught.value.__cause__)]
    for text in texts:
        assert TOKEN not in text
    assert sent
    assert all(args == () for _, args in sent)


@pytest.mark.requirement("cluster-onboarding-2.2")
def test_credentials_that_no_key_opens_are_explained(https: Any, settings: Any) -> None:
    """Which setting it is; the cluster is refused, not unreachable."""
    from cryptography.fernet import Fernet

    cluster = _register(https)
    settings.COMMONS_CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    checking.run_due()
    step = next(s for s in ClusterCheck.objects.get().steps if s["key"] == "signin")
    assert "COMMONS_CREDENTIALS_KEY" in step["detail"]
    cluster.refresh_from_db()
    assert cluster.health == Health.REFUSED
