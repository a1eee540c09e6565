"""Pages of cross-checks and bills: who sees them, filters, explaining, and taking an invoice after a preview."""

from __future__ import annotations

import csv
import io
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from apps.core import clock
from apps.core.testing import assert_queries
from apps.costs.models import Bill, CheckSetting, CrossCheck
from tests.costs.test_budget_steps import charge
from tests.factories import client_for
from tests.metering.world import World, make_world, utc

NOW = utc(2026, 12, 4, 9)
FIRST = date(2026, 11, 1)


@pytest.fixture
def world(company: Any) -> Any:
    with clock.frozen(NOW):
        yield make_world(company.teams.values())


def make_check(world: World, number: int = 0, **changes: Any) -> CrossCheck:
    values: dict[str, Any] = {
        "cluster": world.cluster, "day": FIRST + timedelta(days=number), "kind": "allocation", "ours": Decimal("154"),
        "theirs": Decimal("102"), "currency": "USD", "state": "open", "checked_at": NOW,
        "causes": [{"code": "price", "amount": "13.5"}], "detail": {"remainder": "38.5"},
    }  # fmt: skip
    return CrossCheck.objects.create(**(values | changes))


def get(user: Any, name: str, query: str = "", **kwargs: Any) -> Any:
    return client_for(user).get(reverse(name, kwargs=kwargs) + query)


def text(response: Any) -> str:
    assert response.status_code == 200, response.status_code
    return " ".join(response.content.decode().split())


@pytest.mark.requirement("cross-checks-1.7")
def test_the_list_is_filtered_and_for_readers_of_everything(world: World, company: Any) -> None:
    for number in range(30):
        make_check(world, number, state="explained" if number else "open")
    make_check(world, 0, kind="bill", ours=None, theirs=Decimal("7.77"), causes=[], detail={})
    client = client_for(company.auditor)
    url = reverse("costs:cross-check-list")
    with assert_queries(20):
        page = text(client.get(url))
    assert "+52.00 USD" in page
    assert "+38.50 USD" in page
    assert "unknown" in page
    data = client.get(f"{url}?state=open&kind=allocation&month=2026-11&cluster=dc1&export=csv")
    rows = list(csv.DictReader(io.StringIO(b"".join(data.streaming_content).decode("utf-8-sig"))))
    assert [(row["Without a known cause"], row["State"]) for row in rows] == [("38.5", "Open")]
    assert "+52.00" not in text(client.get(f"{url}?month=2026-10"))
    for outsider in (company.vp, company.lead_finance):
        assert client_for(outsider).get(url).status_code == 403


@pytest.mark.requirement("cross-checks-1.6", "cross-checks-1.3")
def test_a_day_is_shown_with_its_causes_and_explained(world: World, company: Any) -> None:
    row = make_check(world)
    page = text(get(company.finance, "costs:cross-check-detail", check_uid=row.uid))
    assert "Price of exclusive GPUs" in page
    assert "+13.50 USD" in page
    url = reverse("costs:cross-check-explain", kwargs={"check_uid": row.uid})
    assert url in page
    assert url not in text(get(company.auditor, "costs:cross-check-detail", check_uid=row.uid))
    assert client_for(company.auditor).post(url, {"reason": "Because it is so.", "version": "1"}).status_code == 403
    client = client_for(company.finance)
    assert "Without a known cause" in text(client.get(url))  # what is to be explained
    assert client.post(url, {"reason": "short", "version": "1"}).status_code == 400
    assert client.post(url, {"reason": "Their node was relabelled at noon.", "version": "1"}).status_code == 303
    assert "Their node was relabelled at noon." in text(
        get(company.auditor, "costs:cross-check-detail", check_uid=row.uid)
    )
    stale = client.post(url, {"reason": "Their node was relabelled at one.", "version": "1"})
    assert stale.status_code == 409


@pytest.mark.requirement("cross-checks-1.8")
def test_the_endpoint_is_set_and_its_token_never_shown(world: World, company: Any) -> None:
    url = reverse("costs:check-setting-edit", kwargs={"cluster_slug": "dc1"})
    client = client_for(company.finance)
    sent = {
        "enabled": "on", "url": "https://cost.example", "path": "/model/allocation", "token": "s3cret-token",
        "currency": "USD", "resolution_seconds": "60", "tolerance_permille": "2", "tolerance_amount": "5.00",
        "version": "0",
    }  # fmt: skip
    wrong = client.post(url, {**sent, "currency": "EUR"})
    assert wrong.status_code == 400
    assert "amounts of two currencies cannot be compared" in wrong.content.decode()
    assert client.post(url, sent).status_code == 303
    row = CheckSetting.objects.get()
    assert (row.url, row.path, row.resolution_seconds) == ("https://cost.example", "/model/allocation", 60)
    stored = bytes(row.credentials)
    assert "s3cret-token" not in client.get(url).content.decode()
    assert client.post(url, {**sent, "token": "", "version": "1"}).status_code == 303
    assert bytes(CheckSetting.objects.get().credentials) == stored
    assert client.post(url, {**sent, "token": "", "forget_token": "on", "version": "2"}).status_code == 303
    assert bytes(CheckSetting.objects.get().credentials) == b""
    page = text(get(company.auditor, "costs:check-setting-list"))
    assert "https://cost.example/model/allocation" in page
    assert url not in page


@pytest.mark.requirement("cross-checks-2.1", "cross-checks-2.2", "cross-checks-2.3", "cross-checks-2.6")
def test_a_bill_is_previewed_taken_shown_and_withdrawn(world: World, company: Any) -> None:
    charge(world, company.finance_team, date(2026, 11, 9), 10)
    client = client_for(company.finance)
    url = reverse("costs:bill-import")
    sent = {"cluster": "dc1", "month": "2026-11", "vendor": "Colocation Ltd"}

    def upload(body: bytes) -> Any:
        return client.post(url, {**sent, "file": SimpleUploadedFile("november.csv", body)})

    wrong = text(upload(b"day,amount,currency\n2026-11-09,42,USD\n2026-11-10,many,USD\n"))
    assert "“many” is no amount" in wrong
    assert "Nothing can be taken" in wrong
    shown = upload(b"day,description,amount,currency\n2026-11-09,Rack 4,42,USD\n,Support,100,USD\n")
    page = text(shown)
    assert "Rack 4" in page
    assert "142.00 USD" in page
    assert "Import 2 lines" in page
    assert not Bill.objects.exists()
    form = shown.context["form"]
    hidden = {name: form.data[name] for name in ("text", "filename", "confirmed")}
    # Another text than the one previewed is previewed again, not taken.
    forged = client.post(url, {**sent, **hidden, "text": hidden["text"].replace("42", "43")})
    assert "Import 2 lines" in text(forged)
    assert not Bill.objects.exists()
    done = client.post(url, {**sent, **hidden})
    assert done.status_code == 303
    bill = Bill.objects.get()
    assert (bill.amount, bill.filename, bill.vendor) == (Decimal(142), "november.csv", "Colocation Ltd")
    assert client.post(url, {**sent, **hidden}).status_code == 400
    page = text(get(company.auditor, "costs:bill-detail", bill_uid=bill.uid))
    assert "+103.50 USD" in page  # 142.00 − 38.50
    assert "45.33 USD" in page
    withdraw = reverse("costs:bill-withdraw", kwargs={"bill_uid": bill.uid})
    assert withdraw not in page
    assert client_for(company.auditor).get(url).status_code == 403
    assert client_for(company.vp).get(reverse("costs:bill-list")).status_code == 403
    assert client.post(withdraw, {"reason": "Of another month.", "version": "1"}).status_code == 303
    assert "no comparison counts it" in text(get(company.auditor, "costs:bill-detail", bill_uid=bill.uid))
    assert client.get(withdraw).status_code == 409
    listed = client.get(f"{reverse('costs:bill-list')}?export=csv")
    assert "2026-11" in b"".join(listed.streaming_content).decode()
