"""The generic pages: scope first, order of refusals, forms that keep what was typed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from django.test import Client

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.api import CommonsViewSet
from apps.core.querysets import ScopedQuerySet
from apps.core.views import DetailView, ListView, PageView
from apps.teams.models import Team
from tests.factories import Company, client_for, make_team
from tests.ui.urls import Rename

pytestmark = [pytest.mark.urls("tests.ui.urls"), pytest.mark.django_db]


class _Unscoped(ScopedQuerySet[Any]):
    """A queryset that does not say who sees its rows."""


@pytest.mark.requirement("shell-1.4")
@pytest.mark.parametrize(
    "attributes",
    [{}, {"queryset": Session.objects.all()}, {"queryset": _Unscoped(Team)}, {"queryset": Session.objects}],
    ids=["none", "plain queryset", "scoped without visible_to", "manager"],
)
@pytest.mark.parametrize("base", [PageView, DetailView, ListView])
def test_a_page_without_a_scope_does_not_start(base: type[PageView], attributes: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured):
        type("Page", (base,), attributes).as_view()


@pytest.mark.requirement("shell-1.4")
def test_a_page_that_says_why_starts_and_a_viewset_without_a_scope_does_not() -> None:
    assert type("Page", (PageView,), {"scope_free": "shows a sentence"}).as_view()
    with pytest.raises(ImproperlyConfigured):
        type("Rows", (CommonsViewSet,), {}).as_view({"get": "list"})
    with pytest.raises(ImproperlyConfigured):
        type("Rows", (CommonsViewSet,), {"queryset": Session.objects.all()}).as_view({"get": "list"})


@pytest.mark.requirement("shell-1.5")
def test_foreign_and_missing_rows_look_the_same(company: Company) -> None:
    client = client_for(company.lead_marketing)
    foreign = client.get("/sample/finance/")
    missing = client.get("/sample/no-such-team/")
    assert (foreign.status_code, missing.status_code) == (404, 404)
    hide = re.compile(r"csrf[^>]*value=\"[^\"]*\"|X-CSRFToken\": \"[^\"]*\"|/sample/[a-z-]+/")
    assert hide.sub("", foreign.content.decode()) == hide.sub("", missing.content.decode())


@pytest.mark.requirement("shell-1.5")
def test_a_refused_permission_is_403_and_in_the_audit_trail(company: Company) -> None:
    before = AuditEvent.objects.filter(action="audit.access.refused").count()
    response = client_for(company.member_finance).post("/sample/finance/rename/", {"name": ""})
    assert response.status_code == 403  # and not 400: permission comes before input
    event = AuditEvent.objects.filter(action="audit.access.refused").order_by("occurred_at").last()
    assert AuditEvent.objects.filter(action="audit.access.refused").count() == before + 1
    assert event is not None
    assert event.actor_id == str(company.member_finance.uid)
    assert b"teams.member.manage" in bytes(event.canonical)


@pytest.mark.requirement("shell-1.5")
def test_a_refused_get_is_recorded_after_its_read_transaction(company: Company) -> None:
    before = AuditEvent.objects.filter(action="audit.access.refused").count()
    assert client_for(company.member_finance).get("/sample/finance/").status_code == 403
    assert AuditEvent.objects.filter(action="audit.access.refused").count() == before + 1


@pytest.mark.requirement("shell-1.5")
def test_state_comes_before_input(company: Company) -> None:
    company.finance_team.archived_at = clock.now()
    company.finance_team.save()
    client = client_for(company.lead_finance)
    for response in (client.get("/sample/finance/rename/"), client.post("/sample/finance/rename/", {"name": ""})):
        assert response.status_code == 409
        assert "It is archived." in response.content.decode()
    assert (
        '<button type="submit" class="btn btn-primary">' not in client.get("/sample/finance/rename/").content.decode()
    )


@pytest.mark.requirement("shell-1.2", "shell-1.6")
def test_visitors_are_led_to_sign_in_and_back(company: Company) -> None:
    visitor = Client()
    shown = visitor.get("/sample/finance/?tab=cost")
    assert (shown.status_code, shown["Location"]) == (302, "/sign-in/?next=%2Fsample%2Ffinance%2F%3Ftab%3Dcost")
    posted = visitor.post("/sample/finance/rename/", {"name": "New"})
    assert posted.status_code == 303
    assert "nothing was changed" in visitor.get(posted["Location"]).content.decode()
    fragment = visitor.get("/sample/", HTTP_HX_REQUEST="true")
    assert fragment.status_code == 401
    assert fragment["HX-Redirect"].startswith("/sign-in/")


@pytest.mark.requirement("shell-3.1")
def test_refused_input_is_kept_with_its_message_beside_the_field(company: Company) -> None:
    response = client_for(company.lead_finance).post("/sample/finance/rename/", {"name": "x" * 31})
    page = response.content.decode()
    assert response.status_code == 400
    field = re.search(r"<input[^>]*name=\"name\"[^>]*>", page)
    assert field is not None
    assert f'value="{"x" * 31}"' in field[0]
    assert 'aria-invalid="true"' in field[0]
    assert 'aria-describedby="id_name_helptext id_name_error"' in field[0]
    assert 'id="id_name_error"' in page
    assert 'id="id_name_helptext"' in page


@pytest.mark.requirement("shell-3.1")
def test_what_the_action_refuses_lands_beside_its_field_or_on_top(company: Company) -> None:
    Rename.ran.clear()
    response = client_for(company.lead_finance).post("/sample/finance/rename/", {"name": "taken"})
    page = response.content.decode()
    assert response.status_code == 400
    assert Rename.ran == []
    assert re.search(r'id="id_name_error".*Another team has this name\.', page, re.DOTALL)
    top = page[: page.index('id="id_name"')]
    assert "Nothing was changed." in top
    assert "other: elsewhere" in top


@pytest.mark.requirement("shell-3.2")
def test_a_stale_form_keeps_what_was_typed_and_carries_the_newer_version(company: Company) -> None:
    Rename.ran.clear()
    client = client_for(company.lead_finance)
    team = company.finance_team
    seen = team.version
    team.bump()
    response = client.post("/sample/finance/rename/", {"name": "Typed name", "version": seen})
    page = response.content.decode()
    assert response.status_code == 409
    assert Rename.ran == []
    assert 'value="Typed name"' in page
    assert re.search(rf'name="version" value="{seen + 1}"', page)
    again = client.post("/sample/finance/rename/", {"name": "Typed name", "version": seen + 1})
    assert again.status_code == 303
    assert Rename.ran == ["Typed name"]


@pytest.mark.requirement("shell-3.3")
def test_success_redirects_and_says_so(company: Company) -> None:
    client = client_for(company.lead_finance)
    response = client.post("/sample/finance/rename/", {"name": "Money"})
    assert (response.status_code, response["Location"]) == (303, "/words/")
    assert "It has a new name." in client.get("/words/").content.decode()
    fragment = client.post("/sample/finance/rename/", {"name": "Money 2"}, HTTP_HX_REQUEST="true")
    assert (fragment.status_code, fragment["HX-Redirect"]) == (204, "/words/")


@pytest.mark.requirement("shell-1.5")
def test_nothing_is_changed_by_get_and_unknown_methods_are_refused(company: Company) -> None:
    Rename.ran.clear()
    client = client_for(company.lead_finance)
    assert client.get("/sample/finance/rename/?name=Sneaky").status_code == 200
    assert client.delete("/sample/finance/rename/").status_code == 405
    assert Rename.ran == []


@pytest.mark.requirement("shell-3.4")
def test_an_unforeseen_error_shows_the_request_id_and_nothing_of_the_inside(company: Company) -> None:
    client = client_for(company.admin)
    client.raise_request_exception = False
    response = client.get("/sample/broken/", HTTP_X_REQUEST_ID="request-id-1234")
    page = response.content.decode()
    assert response.status_code == 500
    assert "request-id-1234" in page
    assert "inner secret" not in page
    assert "Traceback" not in page
    fragment = client.get("/sample/broken/", HTTP_HX_REQUEST="true").content.decode()
    assert "<html" not in fragment
    assert "Something went wrong on our side" in fragment


@pytest.mark.requirement("shell-3.4")
def test_unknown_addresses_and_refusals_are_pages_fragments_and_problems(company: Company) -> None:
    client = client_for(company.lead_marketing)
    page = client.get("/no/such/page/")
    assert page.status_code == 404
    assert "There is no such page, or it is not yours to see." in page.content.decode()
    assert 'id="sidebar"' in page.content.decode()
    visitor = Client().get("/no/such/page/")
    assert visitor.status_code == 404
    assert 'id="sidebar"' not in visitor.content.decode()
    fragment = client.get("/sample/finance/", HTTP_HX_REQUEST="true")
    assert fragment.status_code == 404
    assert "<html" not in fragment.content.decode()
    problem = client.get("/api/v1/no-such-thing")
    assert problem.status_code == 404
    assert problem["Content-Type"] == "application/problem+json"


@pytest.mark.requirement("shell-3.4")
def test_an_expired_form_says_so(company: Company) -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies = client_for(company.lead_finance).cookies
    response = client.post("/sample/finance/rename/", {"name": "New"})
    assert response.status_code == 403
    assert "This form has expired" in response.content.decode()


@pytest.mark.requirement("shell-3.5")
def test_while_the_database_is_away_a_page_waits_for_it(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_for(company.admin)
    client.raise_request_exception = False

    def away(self: Any) -> None:
        raise OperationalError("connection to server at 10.0.0.1 refused")

    monkeypatch.setattr(PageView, "prepare", away)
    response = client.get("/words/")
    page = response.content.decode()
    assert response.status_code == 503
    assert response["Retry-After"] == "5"
    assert '<meta http-equiv="refresh" content="5">' in page
    assert "10.0.0.1" not in page
    problem = client.get("/api/v1/sample-teams")
    assert problem.status_code == 200


@pytest.mark.requirement("shell-1.5")
def test_pages_are_not_kept_by_caches(company: Company) -> None:
    response = client_for(company.admin).get("/words/")
    assert response["Cache-Control"] == "no-store, private"
    assert "HX-Request" in response["Vary"]


@pytest.mark.requirement("shell-4.5")
def test_the_navigation_shows_what_a_person_may_open_and_where_they_are(company: Company) -> None:
    admin = client_for(company.admin).get("/notifications/sent-mail/").content.decode()
    assert re.search(r'<a class="sidebar-link active" href="/notifications/sent-mail/" aria-current="page">', admin)
    lead = client_for(company.lead_finance).get("/notifications/").content.decode()
    assert "/notifications/sent-mail/" not in lead


@pytest.mark.requirement("shell-2.2")
def test_a_team_list_is_scoped(company: Company) -> None:
    make_team("Quagga", company.other_unit)
    page = client_for(company.lead_finance).get("/sample/").content.decode()
    assert "Finance" in page
    assert "Quagga" not in page
    assert "Marketing" not in page
