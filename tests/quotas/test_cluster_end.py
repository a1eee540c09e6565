"""Removing and archiving a cluster, and switching Kueue off while quotas need it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.clusters import actions as clusters
from apps.clusters import removing
from apps.clusters.models import Cluster, Pool
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.metering.models import Source
from apps.quotas import actions, changes
from apps.quotas.models import Workspace
from tests.factories import Company, client_for
from tests.quotas.conftest import World
from tests.rates.factories import make_flavour

pytestmark = pytest.mark.django_db


def _page(cluster: Cluster, name: str) -> str:
    return reverse(f"clusters:cluster-{name}", kwargs={"slug": cluster.slug})


@pytest.fixture
def mistake(company: Company) -> Cluster:
    """A cluster that nobody ever used: with a pool, capacity, a planned maintenance and a check."""
    actor = Actor.of(company.admin)
    made = clusters.register_cluster(name="Mistake", api_url="https://192.0.2.9:6443", token="x-token", actor=actor)
    pool = clusters.create_pool(made.pk, "NVIDIA-A100-SXM4-80GB", actor=actor, flavour_ids=[make_flavour().pk])
    clusters.set_committable(pool.pk, 8, clock.now() + timedelta(hours=1), actor=actor)
    day = clock.now() + timedelta(days=1)
    clusters.schedule_maintenance(made.pk, day, day + timedelta(hours=1), "Cables", actor=actor)
    return made


@pytest.mark.requirement("clusters-1.6")
def test_a_cluster_registered_by_mistake_is_removed_once_its_name_is_typed(company: Company, mistake: Cluster) -> None:
    client = client_for(company.admin)
    page = client.get(_page(mistake, "remove"))
    assert page.status_code == 200
    assert "Remove Mistake" in page.content.decode()
    wrong = client.post(_page(mistake, "remove"), {"confirm": "mistake", "version": mistake.version})
    assert wrong.status_code == 400
    assert "Type the cluster&#x27;s name as it is: Mistake" in wrong.content.decode()
    assert Cluster.objects.filter(pk=mistake.pk).exists()
    done = client.post(_page(mistake, "remove"), {"confirm": "Mistake", "version": mistake.version})
    assert (done.status_code, done.headers["Location"]) == (303, reverse("clusters:cluster-list"))
    assert not Cluster.objects.filter(pk=mistake.pk).exists()
    assert not Pool.objects.filter(gpu_model="NVIDIA-A100-SXM4-80GB").exists()
    (event,) = AuditEvent.objects.filter(action="clusters.cluster.removed", object_id=mistake.uid)
    assert b"Mistake" in bytes(event.canonical)
    assert client.get(_page(mistake, "detail")).status_code == 404


@pytest.mark.requirement("clusters-1.6", "clusters-1.7")
def test_what_has_a_history_is_archived_not_removed(world: World) -> None:
    world.granted("finance", 10)
    admin, cluster = Actor.of(world.company.admin), world.cluster
    with pytest.raises(Conflict, match="archive it instead") as refused:
        removing.remove(cluster.pk, cluster.name, actor=admin)
    held = " ".join(refused.value.current["held"])
    assert all(word in held for word in ("3 workspaces", "1 declaration", "1 rate card"))
    client = client_for(world.company.admin)
    page = client.get(_page(cluster, "remove"))
    assert page.status_code == 409
    assert "Archive it instead" in page.content.decode()
    blocked = client.get(_page(cluster, "archive"))
    assert blocked.status_code == 409
    assert "3 workspaces are not archived there: finance-development" in blocked.content.decode()
    Workspace.objects.filter(cluster=cluster).update(archived_at=clock.now())
    source = Source.objects.create(
        cluster=cluster, kind="allocation", name="OpenCost", url="https://cost.example",
        valid=DateTimeTZRange(clock.now() - timedelta(days=1), None, "[)"),
    )  # fmt: skip
    with pytest.raises(Conflict, match="Usage is read from it by “OpenCost”"):
        removing.archive(cluster.pk, "Sent back to the vendor.", actor=admin)
    Source.objects.filter(pk=source.pk).update(
        valid=DateTimeTZRange(clock.now() - timedelta(days=1), clock.now() - timedelta(seconds=1), "[)")
    )
    cluster.refresh_from_db()
    sent = {"reason": "Sent back to the vendor.", "version": cluster.version}
    assert client.post(_page(cluster, "archive"), {"reason": "", "version": cluster.version}).status_code == 400
    assert client.post(_page(cluster, "archive"), sent).status_code == 303
    body = client.get(_page(cluster, "detail")).content.decode()
    assert "This cluster is archived: nothing new is offered on it" in body
    assert "Archived: Sent back to the vendor." in body
    assert "Archived" in client.get(reverse("clusters:cluster-list")).content.decode()
    cluster.refresh_from_db()
    assert cluster.paused_at is not None
    with pytest.raises(Conflict, match="bring it back first"):
        clusters.resume(cluster.pk, actor=admin)
    with pytest.raises(Invalid, match="archived"):
        actions.create_workspace(world.company.finance_team.pk, cluster.pk, "staging", ["internal"], actor=admin)
    with pytest.raises(Invalid, match="archived"):
        changes.request_change(
            "restore", cluster_id=cluster.pk, workspace_id=world.workspaces["finance"].pk, values={},
            reason="We need it back.", actor=Actor.of(world["lead_finance"]),
        )  # fmt: skip
    assert client.post(_page(cluster, "restore"), {"version": cluster.version}).status_code == 303
    cluster.refresh_from_db()
    assert (cluster.archived_at, cluster.shown_health) == (None, "paused")
    clusters.resume(cluster.pk, actor=admin)
    assert list(
        AuditEvent.objects.filter(object_id=cluster.uid, action__startswith="clusters.cluster.")
        .order_by("occurred_at")
        .values_list("action", flat=True)
    ) == ["clusters.cluster.archived", "clusters.cluster.restored", "clusters.cluster.resumed"]


@pytest.mark.requirement("clusters-1.6", "clusters-1.7")
def test_only_platform_admins_end_a_cluster(company: Company, mistake: Cluster) -> None:
    for act in (
        lambda: removing.remove(mistake.pk, "Mistake", actor=Actor.of(company.auditor)),
        lambda: removing.archive(mistake.pk, "Because.", actor=Actor.of(company.auditor)),
        lambda: removing.restore(mistake.pk, actor=Actor.of(company.auditor)),
    ):
        with pytest.raises(NotAllowed):
            act()
    assert "cluster-end" not in client_for(company.auditor).get(_page(mistake, "detail")).content.decode()
    assert "cluster-end" in client_for(company.admin).get(_page(mistake, "detail")).content.decode()


@pytest.mark.requirement("cluster-onboarding-3.4")
def test_kueue_is_not_switched_off_while_quotas_need_it(world: World) -> None:
    """Held or asked for; what has ended, and what borrows as best effort, needs no Kueue."""
    admin, cluster = Actor.of(world.company.admin), world.cluster

    def off() -> Cluster:
        return clusters.set_kueue_mode(cluster.pk, "off", actor=admin)

    # Borrowed as best effort before Kueue was there; then Kueue takes back what is lent.
    Pool.objects.filter(pk=world.pool.pk).update(best_effort=True)
    ends = clock.now().replace(microsecond=0) + timedelta(days=5)
    world.granted("finance", 10, borrow_mode="limited", borrow_limit=5, valid_until=ends)
    Pool.objects.filter(pk=world.pool.pk).update(best_effort=False)
    Cluster.objects.filter(pk=cluster.pk).update(kueue_mode="jobs")
    asked = world.ask("marketing", 10, borrow_mode="limited", borrow_limit=5)
    with pytest.raises(Invalid) as refused:
        off()
    (why,) = refused.value.errors["mode"]
    assert "held by finance-development; asked for by marketing-development" in why
    page = client_for(world.company.admin).get(_page(cluster, "kueue")).content.decode()
    assert "Not to be switched off now" in page
    assert "marketing-development" in page
    actions.withdraw_request(asked.pk, actor=Actor.of(world["lead_marketing"]))
    with pytest.raises(Invalid, match="held by finance-development"):
        off()
    with clock.frozen(ends + timedelta(seconds=1)):
        assert off().kueue_mode == "off"
    Cluster.objects.filter(pk=cluster.pk).update(kueue_mode="jobs")
    Pool.objects.filter(pk=world.pool.pk).update(best_effort=True)
    assert off().kueue_mode == "off"
