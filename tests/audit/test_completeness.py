"""What every page of a kind does, read from the addresses of the portal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from django.urls import URLResolver, get_resolver

from apps.audit.models import AuditEvent
from apps.core.events import EventType
from apps.core.views import DetailView, ListView
from tests.factories import Company, client_for

#: Pages about one row that are no home of it, with the reason.
NO_HISTORY = {
    "audit:event-detail": "an event is history itself",
    "accounts:provisioning": "a part of the provider's page, which has the tab",
}


def _views(patterns: Iterable[Any], space: str = "") -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _views(pattern.url_patterns, f"{space}{pattern.namespace}:" if pattern.namespace else space)
        else:
            yield f"{space}{pattern.name}", getattr(pattern.callback, "view_class", None)


def _of_kind(kind: type) -> dict[str, Any]:
    return {name: view for name, view in _views(get_resolver().url_patterns) if view and issubclass(view, kind)}


@pytest.mark.requirement("audit-keeping-1.1")
def test_every_page_about_one_row_has_the_tab() -> None:
    pages = _of_kind(DetailView)
    assert len(pages) > 60
    assert {name for name, view in pages.items() if not view.history} == set(NO_HISTORY)


@pytest.mark.requirement("audit-keeping-5.4")
def test_every_list_that_leaves_as_a_file_has_an_event() -> None:
    lists = {name: view for name, view in _of_kind(ListView).items() if view.exportable}
    assert len(lists) > 30
    assert [name for name, view in lists.items() if not isinstance(view.export_event, EventType)] == []


@pytest.mark.requirement("audit-keeping-5.4")
@pytest.mark.django_db
def test_who_took_the_list_of_people_is_recorded(company: Company) -> None:
    client_for(company.admin).get("/people/", {"export": "csv", "q": "vp"})
    event = AuditEvent.objects.get(action="audit.list.exported", actor_id=str(company.admin.uid))
    assert (event.data["changes"]["listing"], event.data["changes"]["format"]) == ("people", "csv")
