"""Feasibility on the form, on the request's page and through the API; it agrees with what granting does."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.clusters.models import Node, Pool
from apps.core import clock
from apps.provisioning.models import Observation
from apps.quotas import actions, feasibility_reader
from apps.quotas.choices import RequestStatus
from apps.quotas.feasibility import LimitKind, Verdict
from apps.quotas.models import Quota, QuotaRequest
from tests.quotas.conftest import World

API = "/api/v1/quota-requests/feasibility"


def judged(world: World, team: str, guaranteed: int, **terms: Any) -> feasibility_reader.Feasibility:
    """The feasibility of a draft as a team's lead would ask for it."""
    values = {"valid_from": None, "valid_until": None, **terms}
    draft = actions.checked_draft(
        world.workspaces[team].pk, world.flavour.pk, guaranteed, "none", 0, values["valid_from"],
        values["valid_until"], user=world[f"lead_{team}"],
    )  # fmt: skip
    return feasibility_reader.of_draft(draft)


def use(world: World, team: str, used: int) -> None:
    """Let the observer have seen a team's use just now."""
    Observation.objects.update_or_create(
        cluster=world.cluster, kind="ResourceQuota", namespace=world.workspaces[team].namespace, name="gpu-quota",
        defaults={
            "status": {"hard": {"requests.nvidia.com/gpu": "40"}, "used": {"requests.nvidia.com/gpu": str(used)}},
            "observed_at": clock.now(),
        },
    )  # fmt: skip


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-1.2")
@pytest.mark.parametrize("seed", range(6))
def test_fits_now_is_what_granting_does(world: World, seed: int) -> None:
    """Random requests one after another: each is granted at once exactly when it was said to fit now.

    Among them renewals of what ends, for as many, fewer and more: whoever asks for more stands in line with it.
    """
    dice = random.Random(seed)
    now = clock.now().replace(microsecond=0)
    world.pool.capacities.update(committable_gpus=20)
    verdicts = set()
    for step in range(9):
        # A clock of its own: a second that begins between what is said and what is done is another question.
        with clock.frozen(now + timedelta(seconds=step)):
            team = dice.choice(["finance", "marketing", "research"])
            if QuotaRequest.objects.filter(workspace=world.workspaces[team], status=RequestStatus.WAITING).exists():
                continue
            rows = Quota.objects.filter(workspace=world.workspaces[team], valid__endswith__gt=clock.now()).order_by(
                "valid"
            )
            ends = [valid.upper for valid in rows.values_list("valid", flat=True)]
            begin = dice.choice([None, now + timedelta(days=dice.randint(1, 9)), *ends, *ends])
            end = dice.choice([None, (begin or now) + timedelta(days=dice.randint(1, 12))])
            units = dice.randint(1, 12)
            held = world.held(team, begin)
            if held == units:
                continue
            said = judged(world, team, units, valid_from=begin, valid_until=end)
            request = world.granted(team, units, valid_from=begin, valid_until=end)
            request.refresh_from_db()
            verdicts.add(said.verdict)
            assert (request.status != RequestStatus.WAITING) == (said.verdict == Verdict.FITS_NOW), (
                units,
                begin,
                end,
                said,
            )
    assert verdicts


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-1.3", "feasibility-1.4")
def test_it_says_the_date_the_limit_and_what_fits_instead(world: World) -> None:
    now = clock.now().replace(microsecond=0)
    ends = now + timedelta(days=10)
    world.granted("marketing", 40, valid_until=ends)
    found = judged(world, "finance", 20)
    assert (found.verdict, found.fits_from, found.most_now) == (Verdict.FITS_FROM, ends, 10)
    assert found.headline == f"Fits from {ends:%Y-%m-%d %H:%M} UTC"
    assert "40 of the 50 GPUs that" in found.limit
    assert "this workspace could hold 10, 20 are asked for" in found.limit
    assert [offer.guaranteed for offer in found.offers] == [10, 20]
    assert found.offers[1].valid_from == ends


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-1.4")
def test_what_the_nodes_do_not_carry_never_fits(world: World) -> None:
    Node.objects.create(
        cluster=world.cluster, name="gpu-1", gpu_model=world.flavour.gpu_model, physical_gpus=8,
        allocatable={"nvidia.com/gpu": "8"}, capacity={"nvidia.com/gpu": "8"}, observed_at=clock.now(),
        labels={"nvidia.com/gpu.product": world.flavour.gpu_model, "nvidia.com/gpu.count": "8"},
    )  # fmt: skip
    found = judged(world, "finance", 9)
    assert (found.verdict, found.limit_kind) == (Verdict.NEVER, LimitKind.FLAVOUR_UNITS)
    assert "carry 8 of" in found.limit
    assert judged(world, "finance", 8).verdict == Verdict.FITS_NOW
    # An elastic pool is empty at rest: what is not there yet says nothing.
    Pool.objects.filter(pk=world.pool.pk).update(kind="elastic", max_gpus=50)
    assert judged(world, "finance", 9).verdict == Verdict.FITS_NOW


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-1.5")
def test_what_idles_with_others_is_offered_where_it_is_taken_back(world: World) -> None:
    world.granted("marketing", 40)
    use(world, "marketing", 25)
    # Without Kueue nothing takes a GPU back.
    assert judged(world, "finance", 20).verdict == Verdict.NEVER
    world.cluster.kueue_mode = "jobs"
    world.cluster.save()
    found = judged(world, "finance", 20)
    assert (found.verdict, found.guaranteed_now, found.borrowed_now) == (Verdict.FITS_BY_BORROWING, 10, 10)
    assert "of the 40 GPUs that others hold in this pool, 15 idle just now" in found.warning
    assert "taken back at any time" in found.warning
    # Nothing was asked to be borrowed: it says so, and what to ask for instead.
    assert found.headline == "Fits if part of it is borrowed"
    assert "As asked for, guaranteed as a whole, it waits" in found.warning
    assert "Ask for 10 guaranteed and to borrow up to 10" in found.warning
    assert "marketing" not in found.warning.lower()
    # An old figure is no idle GPU.
    Observation.objects.update(observed_at=clock.now() - timedelta(minutes=10))
    assert judged(world, "finance", 20).verdict == Verdict.NEVER


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-1.2")
def test_recurring_windows_are_all_looked_at(world: World, client_for: Any) -> None:
    """Every night for four weeks; a campaign of others takes the GPUs for one of them."""
    now = clock.now().replace(microsecond=0)
    world.granted("marketing", 45, valid_from=now + timedelta(days=9), valid_until=now + timedelta(days=10))
    body = {
        "workspace": str(world.workspaces["finance"].uid), "flavour": world.flavour.slug, "guaranteed": 10,
        "valid_until": (now + timedelta(days=28)).isoformat(),
        "recurrence": {"days": [0, 1, 2, 3, 4, 5, 6], "start": "18:00", "minutes": 720},
    }  # fmt: skip
    client = client_for(world["lead_finance"])
    found = client.post(API, body, content_type="application/json").json()
    assert found["verdict"] == "fits_from"
    assert now + timedelta(days=9) < datetime.fromisoformat(found["fits_from"]) < now + timedelta(days=11)
    assert found["largest_now"] == 5
    fewer = client.post(API, {**body, "guaranteed": 5}, content_type="application/json").json()
    assert (fewer["verdict"], fewer["limit"], fewer["offers"]) == ("fits_now", "", [])


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-1.1", "feasibility-1.4")
def test_the_api_answers_and_writes_nothing(world: World, client_for: Any) -> None:
    world.granted("marketing", 40)
    body = {"workspace": str(world.workspaces["finance"].uid), "flavour": world.flavour.slug, "guaranteed": 20}
    before = QuotaRequest.objects.count()
    client = client_for(world["lead_finance"])
    found = client.post(API, body, content_type="application/json")
    assert found.status_code == 200
    assert (found.json()["verdict"], found.json()["limit_kind"]) == ("never", "promises")
    more = client.post(API, {**body, "guaranteed": 60}, content_type="application/json").json()
    assert (more["verdict"], more["limit_kind"]) == ("never", "capacity")
    assert "hands out 50 GPUs" in more["limit"]
    forbidden = client.post(API, {**body, "borrow_mode": "limited", "borrow_limit": 4}, content_type="application/json")
    assert (forbidden.json()["verdict"], forbidden.json()["limit_kind"]) == ("never", "borrowing")
    assert QuotaRequest.objects.count() == before
    wrong = client.post(API, {**body, "valid_until": "2020-01-01T00:00:00Z"}, content_type="application/json")
    assert wrong.status_code == 400
    foreign = client_for(world["lead_marketing"]).post(API, body, content_type="application/json")
    assert foreign.status_code == 404


@pytest.mark.django_db
@pytest.mark.requirement("feasibility-1.1")
def test_the_form_and_the_request_show_it(world: World, client_for: Any) -> None:
    now = clock.now().replace(microsecond=0)
    world.granted("marketing", 40, valid_until=now + timedelta(days=10))
    client = client_for(world["lead_finance"])
    data = {
        "workspace": world.workspaces["finance"].pk, "flavour": world.flavour.pk, "guaranteed": 20,
        "borrow_mode": "none", "reason": "Nightly fraud training.",
    }  # fmt: skip
    live = client.post(reverse("quotas:request-estimate"), data).content.decode()
    assert "Fits from" in live
    assert "10 fit now, over the whole time." in live
    request = world.ask("finance", 20)
    page = client.get(reverse("quotas:request-detail", kwargs={"request_uid": request.uid})).content.decode()
    assert "Does it fit?" in page
    assert "Fits from" in page
