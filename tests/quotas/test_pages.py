"""Pages of the quotas room as people use them."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
import yaml
from django.test import Client, RequestFactory
from django.urls import reverse

from apps.core import clock
from apps.quotas import panels
from apps.quotas.models import QuotaRequest
from tests.factories import client_for, unknown_uid
from tests.quotas.conftest import REASON, World, make_world
from tests.quotas.test_granting import applied

pytestmark = pytest.mark.django_db


@pytest.fixture
def lead(world: World) -> Client:
    return client_for(world["lead_finance"])


def form(world: World, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "workspace": world.workspaces["finance"].pk,
        "flavour": world.flavour.pk,
        "guaranteed": 8,
        "borrow_mode": "none",
        "borrow_limit": "",
        "valid_from": "",
        "valid_until": "",
        "reason": REASON,
    }
    return values | changes


def text(response: Any) -> str:
    return str(response.content.decode())


@pytest.mark.requirement("quotas-6.1")
def test_a_lead_submits_a_request_and_follows_it(world: World, lead: Client) -> None:
    assert "Guaranteed" in text(lead.get(reverse("quotas:request-create")))
    response = lead.post(reverse("quotas:request-create"), form(world))
    request = QuotaRequest.objects.get()
    assert response.status_code == 303
    assert response.headers["Location"] == reverse("quotas:request-detail", kwargs={"request_uid": request.uid})
    page = text(lead.get(response.headers["Location"]))
    for said in ("In review", "22,484.00 USD", REASON, "Decision: Unit owner", "Withdraw", "730 h"):
        assert said in page
    world.approve(request)
    page = text(lead.get(response.headers["Location"]))
    assert "Approved: Unit owner" in page
    assert "Since" in page
    assert "waits for its turn on the cluster" in page
    applied(world.workspaces["finance"])
    assert "Applied on the cluster" in text(lead.get(response.headers["Location"]))


@pytest.mark.requirement("quotas-1.2", "quotas-6.1")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"guaranteed": "-1"}, "greater than or equal to 0"),
        ({"guaranteed": "1.5"}, "Enter a whole number"),
        ({"guaranteed": "51"}, "more than the pool has"),
        ({"valid_from": "2031-01-02T00:00", "valid_until": "2031-01-01T00:00"}, "The end must lie after the start"),
        ({"valid_until": "tomorrow"}, "Enter a date and a time"),
        ({"reason": "no"}, "at least 10 characters"),
        ({"workspace": "999999"}, "not one of the available choices"),
        ({"borrow_mode": "limited", "borrow_limit": "4"}, "best-effort"),
    ],
)
def test_wrong_input_comes_back_with_what_was_typed(
    world: World, lead: Client, changes: dict[str, Any], says: str
) -> None:
    response = lead.post(reverse("quotas:request-create"), form(world, **changes))
    assert response.status_code == 400
    assert says in text(response)
    assert REASON in text(response) or "reason" in changes
    assert not QuotaRequest.objects.exists()


@pytest.mark.requirement("quotas-6.1")
def test_the_estimate_shows_cost_room_budget_and_approvers_while_typing(world: World, lead: Client) -> None:
    url = reverse("quotas:request-estimate")
    page = text(lead.post(url, form(world)))
    for said in ("22,484.00 USD", "+8 × 730 h (a month) × 3.85 USD", "Fits now", "no budget is set", "Unit owner"):
        assert said in page
    assert str(world["vp"]) in page
    assert "Nobody: the policy" in text(lead.post(url, form(world, guaranteed=2)))
    assert "more than the pool has" in text(lead.post(url, form(world, guaranteed=99)))
    assert "Choose workspace" in text(lead.post(url, form(world, guaranteed="")))
    world.granted("marketing", 45)
    page = text(lead.post(url, form(world)))
    assert "The pool is full" in page
    assert "this workspace could hold 5" in page
    assert not QuotaRequest.objects.filter(workspace=world.workspaces["finance"]).exists()


@pytest.mark.requirement("quotas-6.1")
def test_the_estimate_says_what_is_held_what_would_be_and_what_is_typed_wrong(world: World, lead: Client) -> None:
    """A request sets all numbers: who leaves out borrowing gives it up, and hears so before submitting."""
    url = reverse("quotas:request-estimate")
    assert "Nothing is held at that time" in text(lead.post(url, form(world)))
    world.pool.best_effort = True
    world.pool.save()
    world.granted("finance", 4, borrow_mode="limited", borrow_limit=3)
    page = text(lead.post(url, form(world)))
    assert "now: 4, may borrow 3. Then: 8, no borrowing." in " ".join(page.split())
    assert "is given up with this" in page
    assert "is given up" not in text(lead.post(url, form(world, borrow_mode="limited", borrow_limit=3)))
    wrong = text(lead.post(url, form(world, guaranteed="-3")))
    assert "Share (best effort): Ensure this value is greater than or equal to 0." in wrong
    assert "Choose workspace" not in wrong
    assert "Begins at" in text(lead.post(url, form(world, recurrence="custom")))


@pytest.mark.requirement("quotas-6.1")
def test_a_second_open_request_is_led_to_the_first(world: World, lead: Client) -> None:
    first = world.ask("finance", 8)
    link = reverse("quotas:request-detail", kwargs={"request_uid": first.uid})
    assert link in lead.post(reverse("quotas:request-estimate"), form(world)).content.decode()
    refused = lead.post(reverse("quotas:request-create"), form(world))
    assert refused.status_code == 409
    assert link in refused.content.decode()
    assert "already an open request" in text(refused)
    assert "Sending it again" not in text(refused)
    correcting = reverse("quotas:request-correct-estimate", kwargs={"request_uid": first.uid})
    assert "already an open request" not in text(lead.post(correcting, form(world)))


@pytest.mark.requirement("quotas-1.8")
def test_withdrawing_asks_first_and_a_stale_form_meets_the_newer_state(world: World, lead: Client) -> None:
    request = world.ask()
    url = reverse("quotas:request-withdraw", kwargs={"request_uid": request.uid})
    assert "Nothing that is in force changes" in text(lead.get(url))
    stale = lead.post(url, {"version": request.version + 7})
    assert stale.status_code == 409
    request.refresh_from_db()
    assert request.status == "in_review"
    done = lead.post(url, {"version": request.version, "reason": "Not needed any more."})
    assert done.status_code == 303
    request.refresh_from_db()
    assert request.status == "withdrawn"
    assert lead.get(url).status_code == 409
    assert lead.post(url, {"version": request.version}).status_code == 409


@pytest.mark.requirement("quotas-1.8")
def test_correcting_starts_from_the_request_and_makes_a_new_one(world: World, lead: Client) -> None:
    request = world.ask()
    url = reverse("quotas:request-correct", kwargs={"request_uid": request.uid})
    assert REASON in text(lead.get(url))
    estimate = reverse("quotas:request-correct-estimate", kwargs={"request_uid": request.uid})
    values = form(world, guaranteed=12, version=request.version)
    assert "33,726.00 USD" in text(lead.post(estimate, values))
    assert lead.post(url, values | {"version": request.version + 1}).status_code == 409
    done = lead.post(url, values)
    assert done.status_code == 303
    new = QuotaRequest.objects.get(supersedes=request)
    assert str(new.uid) in done.headers["Location"]
    assert "a later request" in text(lead.get(reverse("quotas:request-detail", kwargs={"request_uid": request.uid})))


@pytest.mark.requirement("quotas-6.5")
def test_other_teams_find_nothing(world: World) -> None:
    request = world.granted(guaranteed=8)
    foreign = client_for(world["lead_marketing"])
    workspace = {"workspace_uid": world.workspaces["finance"].uid}
    use = workspace | {"flavour_slug": world.flavour.slug}
    for name, kwargs in (
        ("quotas:request-detail", {"request_uid": request.uid}),
        ("quotas:request-withdraw", {"request_uid": request.uid}),
        ("quotas:request-correct", {"request_uid": request.uid}),
        ("quotas:workspace-detail", workspace),
        ("quotas:use", use),
        ("quotas:use-kubeconfig", use),
        ("quotas:request-detail", {"request_uid": unknown_uid()}),
    ):
        assert foreign.get(reverse(name, kwargs=kwargs)).status_code == 404, name
    assert foreign.post(reverse("quotas:workspace-pending", kwargs=workspace)).status_code == 404
    assert "finance-development" not in text(foreign.get(reverse("quotas:request-list")))
    assert "finance-development" not in text(foreign.get(reverse("quotas:workspace-list")))
    assert foreign.get(reverse("quotas:request-list") + "?team=999999").status_code == 200
    exported = foreign.get(reverse("quotas:request-list") + "?export=csv")
    assert b"finance" not in b"".join(exported.streaming_content if exported.streaming else [exported.content])


@pytest.mark.requirement("quotas-5.2")
def test_pool_aggregates_are_for_those_with_quota_or_a_request_there_and_name_nobody(world: World) -> None:
    world.granted("finance", 20)
    url = reverse("quotas:pool-detail", kwargs={"pool_uid": world.pool.uid})
    marketing = client_for(world["lead_marketing"])
    assert marketing.get(url).status_code == 404
    assert "No pools to see yet" in text(marketing.get(reverse("quotas:pool-list")))
    figures = "/api/v1/pool-figures"
    assert marketing.get(figures).json() == []
    world.ask("marketing", 10)
    page = text(marketing.get(url))
    assert ">20<" in page.replace(" ", "").replace("\n", "")
    assert "finance" not in page.lower().replace("finance lead", "")
    assert "A100" in text(marketing.get(reverse("quotas:pool-list")))
    # The one declared exception from the walls holds sums and the pool's own name, nothing of whose they are.
    (told,) = marketing.get(figures).json()
    assert set(told) == {
        "uid", "cluster", "gpu_model", "unit", "committable", "observed", "observed_at", "guaranteed", "borrowable",
        "borrowed", "used", "used_at", "unpromised", "free", "workspaces",
    }  # fmt: skip
    assert told["guaranteed"] == "20"
    assert "finance" not in str(told).lower()
    assert client_for(world["vp_other"]).get(figures).json() == []
    assert client_for(world["admin"]).get(url).status_code == 200
    assert client_for(world["vp_other"]).get(url).status_code == 404


@pytest.mark.requirement("quotas-5.1")
def test_in_a_best_effort_pool_no_page_says_guaranteed(company: Any) -> None:
    world = make_world(company, best_effort=True)
    request = world.granted(guaranteed=20, borrow_mode="limited", borrow_limit=10)
    lead = client_for(company.lead_finance)
    pages = [
        reverse("quotas:request-create"),
        reverse("quotas:request-list"),
        reverse("quotas:request-detail", kwargs={"request_uid": request.uid}),
        reverse("quotas:workspace-detail", kwargs={"workspace_uid": world.workspaces["finance"].uid}),
        reverse("quotas:pool-list"),
        reverse("quotas:pool-detail", kwargs={"pool_uid": world.pool.uid}),
    ]
    for url in pages:
        response = lead.get(url)
        assert response.status_code == 200
        body = text(response).split("<main", 1)[1].split("</main>", 1)[0]
        # The word "quota" is explained with "guaranteed" in a tooltip of the shell's vocabulary, which is no claim.
        shown = "".join(part.split(">", 1)[-1] for part in body.split("<"))
        assert "guaranteed" not in shown.lower(), url
    request_page = text(lead.get(pages[2]))
    assert "Share (best effort)" in request_page
    assert "may borrow 10" in request_page


@pytest.mark.requirement("quotas-6.6")
def test_lists_take_few_queries_however_long_they_are(world: World, query_limit: Any) -> None:
    from apps.rates.models import Rate

    assert Rate.objects.exists()
    for index in range(12):
        world.granted(guaranteed=3 + index)
    world.granted("marketing", 12)
    for person in ("lead_finance", "vp", "admin", "auditor"):
        client = client_for(world[person])
        for name in ("quotas:request-list", "quotas:workspace-list", "quotas:pool-list", "rates:card-list"):
            with query_limit(20):
                assert client.get(reverse(name)).status_code == 200
        detail = reverse("quotas:workspace-detail", kwargs={"workspace_uid": world.workspaces["finance"].uid})
        with query_limit(25):
            assert client.get(detail).status_code == 200


@pytest.mark.requirement("quotas-6.6")
def test_the_list_of_requests_is_filtered_and_exported(world: World, lead: Client) -> None:
    granted = world.granted(guaranteed=8)
    asked = world.ask(guaranteed=19)
    url = reverse("quotas:request-list")
    assert str(granted.uid) in text(lead.get(url))
    filtered = text(lead.get(url, {"status": "in_review"}))
    assert str(asked.uid) in filtered
    assert str(granted.uid) not in filtered
    response = lead.get(url, {"export": "csv", "status": "in_review"})
    data = b"".join(response.streaming_content if response.streaming else [response.content]).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(data)))
    assert [row["GPUs"] for row in rows] == ["19"]
    assert rows[0]["Status"] == "In review"


@pytest.mark.requirement("quotas-6.1")
def test_the_team_panel_shows_quota_use_and_open_requests(world: World) -> None:
    world.granted(guaranteed=8)
    request = RequestFactory().get("/")
    request.user = world["lead_finance"]
    shown = panels.team_quotas(request, world.company.finance_team)
    assert [(row.guaranteed, row.maximum, row.used) for row in shown["rows"]] == [(8, 8, None)]
    assert [one.status for one in shown["requests"]] == ["applying"]
    assert shown["may_ask"]
    request.user = world["auditor"]
    assert not panels.team_quotas(request, world.company.finance_team)["may_ask"]
    assert panels.pool_ledger(request, world.pool)["shown"]["guaranteed"] == "8"
    assert panels.cluster_pools(request, world.cluster) is not None


@pytest.mark.requirement("quotas-7.1")
def test_what_a_person_needs_to_run_something(world: World) -> None:
    world.cluster.ca_certificate = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"
    world.cluster.credentials = b"the portal's own"
    world.cluster.identity_provider = {"type": "oidc", "issuer_url": "https://id.example.com", "client_id": "kube"}
    world.cluster.save()
    member = client_for(world["member_finance"])
    kwargs = {"workspace_uid": world.workspaces["finance"].uid, "flavour_slug": world.flavour.slug}
    assert member.get(reverse("quotas:use", kwargs=kwargs)).status_code == 404
    world.granted(guaranteed=8)
    page = text(member.get(reverse("quotas:use", kwargs=kwargs)))
    assert "nvidia.com/gpu.product: NVIDIA-A100-SXM4-80GB" in page
    config = yaml.safe_load(member.get(reverse("quotas:use-kubeconfig", kwargs=kwargs)).content)
    user = config["users"][0]
    assert user["name"] == world["member_finance"].email
    assert "--oidc-issuer-url=https://id.example.com" in user["user"]["exec"]["args"]
    assert config["contexts"][0]["context"]["namespace"] == "finance-development"
    assert "portal" not in str(config)
    job = yaml.safe_load(member.get(reverse("quotas:use-manifest", kwargs=kwargs | {"shape": "job"})).content)
    resources = job["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["requests"]["nvidia.com/gpu"] == "1"
    assert member.get(reverse("quotas:use-manifest", kwargs=kwargs | {"shape": "bomb"})).status_code == 404
    assert client_for(world["auditor"]).get(reverse("quotas:use", kwargs=kwargs)).status_code == 403


@pytest.mark.requirement("quotas-7.2")
def test_a_cluster_that_does_not_answer_is_named_as_such(world: World, lead: Client) -> None:
    world.granted(guaranteed=8)
    world.cluster.api_url = "https://127.0.0.1:1"
    world.cluster.save()
    kwargs = {"workspace_uid": world.workspaces["finance"].uid}
    world.cluster.paused_at = clock.now() - timedelta(hours=1)
    world.cluster.save()
    assert "could not be asked" in text(lead.post(reverse("quotas:workspace-pending", kwargs=kwargs)))
    check = reverse("quotas:use-check", kwargs=kwargs | {"flavour_slug": world.flavour.slug, "shape": "job"})
    assert "could not be asked" in text(lead.post(check))
    assert lead.get(check).status_code == 405
    assert lead.get(reverse("quotas:workspace-pending", kwargs=kwargs)).status_code == 405


@pytest.mark.requirement("quotas-1.1")
def test_an_admin_makes_a_workspace_on_a_page(world: World) -> None:
    url = reverse("quotas:workspace-create")
    for person, status in (("lead_finance", 403), ("auditor", 403), ("admin", 200)):
        assert client_for(world[person]).get(url).status_code == status
    values = {
        "team": world.company.finance_team.pk,
        "cluster": world.cluster.pk,
        "environment": "production",
        "data_classes": ["financial"],
    }
    admin = client_for(world["admin"])
    response = admin.post(url, values)
    assert response.status_code == 303
    assert "finance-production" in text(admin.get(response.headers["Location"]))
    assert admin.post(url, values).status_code == 400
