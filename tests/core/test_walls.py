"""The walls that stand beside the sweep: views without scope, the check after writing, headers, files, logs, sizes."""

from __future__ import annotations

import ast
import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.test import Client

from apps.accounts.models import ApiToken, SignInSession
from apps.core import clock
from apps.core.api import CommonsViewSet
from apps.core.errors import NotAllowed
from apps.core.exports import neutralise
from apps.core.logs import JsonFormatter, RequestIdFilter
from apps.core.pages import PageView
from apps.core.scoping import must_see
from apps.teams.models import Team
from tests.factories import PASSWORD, Company, client_for, make_user

ROOT = Path(__file__).resolve().parents[2]
#: Who writes files with cells, and why nothing in them can be run as a formula.
_WRITERS = {
    "apps/core/exports.py": "neutralises every cell",
    "apps/metering/management/commands/import_usage.py": "neutralises every cell",
    "apps/costs/focus.py": "its rows come from focus_rows, which neutralises every text",
    "apps/catalogue/evidence_results.py": "text for a field of a form, read back by the portal; no file",
}


@pytest.mark.requirement("tenant-walls-1.5")
def test_pages_and_viewsets_without_a_scope_do_not_start() -> None:
    class Page(PageView):
        pass

    class Set(CommonsViewSet):
        pass

    class Unscoped(CommonsViewSet):
        queryset = ApiToken.objects.none()

    with pytest.raises(ImproperlyConfigured):
        Page.as_view()
    with pytest.raises(ImproperlyConfigured):
        Set.as_view({"get": "list"})
    Unscoped.queryset = type("Plain", (), {})()
    with pytest.raises(ImproperlyConfigured):
        Unscoped.as_view({"get": "list"})


@pytest.mark.django_db
@pytest.mark.requirement("tenant-walls-1.6")
def test_what_leaves_the_actors_sight_is_rolled_back(company: Company) -> None:
    def move() -> None:
        with transaction.atomic():
            company.finance_team.unit = company.other_unit
            company.finance_team.save(update_fields=["unit"])
            must_see(company.vp, company.finance_team)

    with pytest.raises(NotAllowed) as refused:
        move()
    assert refused.value.rule == "outside_scope"
    assert Team.objects.get(pk=company.finance_team.pk).unit_id == company.unit.pk
    with transaction.atomic():
        must_see(company.vp, company.marketing_team)
        must_see(None, company.finance_team)


@pytest.mark.django_db
@pytest.mark.requirement("tenant-walls-1.7")
@pytest.mark.parametrize("path", ["/", "/teams/finance/people/", "/sign-in/", "/no-such-page/", "/api/v1/teams"])
def test_every_answer_carries_its_headers(company: Company, path: str) -> None:
    client = client_for(company.lead_finance) if path != "/sign-in/" else Client()
    answer = client.get(path)
    policy = {
        part.split()[0]: part.split()[1:] for part in answer["Content-Security-Policy"].split(";") if part.strip()
    }
    assert "'unsafe-inline'" not in policy.get("script-src", policy["default-src"])
    assert "'unsafe-eval'" not in policy.get("script-src", policy["default-src"])
    assert policy["frame-ancestors"] == ["'none'"]
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"
    for cookie in answer.cookies.values():
        assert cookie["samesite"] == "Lax"
    if path != "/sign-in/":
        assert "no-store" in answer.get("Cache-Control", "") or "private" in answer.get("Cache-Control", "")


@pytest.mark.requirement("tenant-walls-1.8")
@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\x00=1"])
def test_no_cell_is_run(cell: str) -> None:
    assert str(neutralise(cell)).startswith("'")


@pytest.mark.requirement("tenant-walls-1.8")
def test_every_writer_of_cells_is_known() -> None:
    found = set()
    for path in (ROOT / "apps").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "csv" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and node.attr in ("writer", "DictWriter"):
                owner = node.value
                if isinstance(owner, ast.Name) and owner.id == "csv":
                    found.add(str(path.relative_to(ROOT)))
    assert found == set(_WRITERS), "say in _WRITERS why its cells cannot be run"


@pytest.mark.django_db
@pytest.mark.requirement("tenant-walls-1.9")
def test_flows_with_secrets_leave_none_in_the_logs(company: Company, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.handler.addFilter(RequestIdFilter())
    caplog.handler.setFormatter(JsonFormatter())
    person = make_user("signs-in@example.com", password=PASSWORD)
    browser = Client()
    wrong = "a wrong password that somebody typed"
    browser.post("/sign-in/", {"email": person.email, "password": wrong})
    browser.post("/sign-in/", {"email": person.email, "password": PASSWORD})
    assert SignInSession.objects.filter(user=person).exists()
    until = (clock.now() + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M")
    made = browser.post("/account/tokens/new/", {"name": "ci", "expires_at": until, "access": "read"})
    secret = made.context["secret"]
    api = Client(headers={"authorization": f"Bearer {secret}"})
    assert api.get("/api/v1/me").status_code == 200
    api.post("/api/v1/teams", json.dumps({"name": "x"}), content_type="application/json")
    Client(headers={"authorization": f"Bearer {secret}x"}).get("/api/v1/me")
    browser.get(f"/no-such-page/?token={secret[:5]}")
    logging.getLogger("apps.test").error("it broke", extra={"token": secret, "password": PASSWORD})
    said = caplog.text
    assert "it broke" in said
    session_key = browser.cookies["commons_session"].value if "commons_session" in browser.cookies else None
    for text in (PASSWORD, wrong, secret, session_key or next(iter(browser.cookies.values())).value):
        assert text not in said


@pytest.mark.django_db
@pytest.mark.requirement("tenant-walls-1.10")
def test_a_body_too_large_is_refused(company: Company, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    client = client_for(company.admin)
    body = json.dumps({"name": "x" * 2000, "slug": "x"})
    assert client.post("/api/v1/units", body, content_type="application/json").status_code in (400, 413)
    assert client.post("/units/new/", {"name": "x" * 2000}).status_code in (400, 413)
