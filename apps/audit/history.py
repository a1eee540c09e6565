"""What was recorded about one row, as the second tab of its page (`core.pages.DetailView`, `?history`).

The page has let the person in already. Of the row's events they see those of their own teams and those of no team;
who acted and what changed is told where the event, or the row, belongs to a team or unit of theirs. Whoever reads the
whole trail sees everything. What people wrote (reasons, comments) stays with the trail's own readers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.http import HttpResponse
from django.template.response import TemplateResponse

from apps.audit import selectors
from apps.audit.models import AuditEvent
from apps.audit.reads import note_read
from apps.core.errors import Invalid, NotVisible
from apps.core.permissions import may, reach
from apps.core.statuses import label_of

PER_PAGE = 50
#: A moment as events hold it; people read it without fractions of a second.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
#: A value out of a fixed list, as rooms store it ("waiting_for_capacity"); names that people gave hold more than this.
_CODE = re.compile(r"[a-z]{2,}(_[a-z0-9]+)*")
#: What reads wrongly letter by letter.
_WORDS = {"openid": "Identity provider", "totp": "Authenticator app", "webauthn": "Security key or passkey"}
_DOORS = {"web": "on a page", "api": "through the API", "task": "by itself", "command": "on the server"}
READ_TRAIL, READ_TEAM = "audit.event.view", "teams.team.view"
#: Who reads what is for auditors, not for the owner of what was read.
_FOR_AUDITORS = Q(action__startswith="audit.") | Q(action__endswith=".viewed") | Q(action__endswith=".exported")


@dataclass(frozen=True, slots=True)
class Line:
    """One event as it is shown: `who` is empty where the person may not know, `changes` where none are to be shown."""

    event: AuditEvent
    at: datetime
    title: str
    who: str
    changes: list[tuple[str, str]]
    readable: bool

    @property
    def door(self) -> str:
        """Through which door it came, in words."""
        return _DOORS.get(self.event.channel, self.event.channel)


def title_of(action: str) -> str:
    """Return an event's name in words: "quotas.request.approved" is "Request approved"."""
    return " ".join(action.split(".")[1:]).replace("_", " ").capitalize()


def lines(user: Any, row: Any, *, start: int = 0, limit: int = PER_PAGE) -> list[Line]:
    """Return the events about `row` that the person may know of, newest first.

    The caller has checked that the person sees the row. Two statements beyond those that find out what they may.
    """
    trail, team = reach(user, READ_TRAIL), reach(user, READ_TEAM)
    found = AuditEvent.objects.filter(object_id=row.uid)
    if not trail.everywhere:
        found = found.exclude(_FOR_AUDITORS)
        if not team.everywhere:
            found = found.filter(Q(team_uid__isnull=True) | Q(team_uid__in=team.team_uids | trail.team_uids))
    own = team.everywhere or trail.everywhere or may(user, READ_TEAM, row)
    events = list(selectors.with_names(found).order_by("-occurred_at", "-uid")[start : start + limit])
    return [_line(user, event, own if event.team_uid is None else True, trail) for event in events]


def _line(user: Any, event: AuditEvent, own: bool, trail: Any) -> Line:
    mine = event.actor_type == "person" and event.actor_id == str(user.uid)
    return Line(
        event=event,
        at=event.occurred_at,
        title=title_of(event.action),
        who=str(event.who) if own or mine or event.actor_type == "system" else "",  # type: ignore[attr-defined]  # annotated by with_names
        changes=_changes(event) if own else [],
        readable=trail.everywhere or event.team_uid in trail.team_uids,
    )


def _changes(event: AuditEvent) -> list[tuple[str, str]]:
    said = event.data["changes"]
    return [(name.replace("_", " "), _text(value)) for name, value in said.items() if value not in ("", None, [], {})]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_text(item)}" for name, item in value.items())
    if isinstance(value, str) and _CODE.fullmatch(value):
        return _WORDS.get(value) or label_of(value)
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        return f"{value[:10]} {value[11:16]} UTC"
    return str(value)


def page(view: Any) -> HttpResponse:
    """Draw the tab of a detail page (installed as `core.hooks.history_page`). Raises Invalid, NotVisible."""
    request = view.request
    number = request.GET.get("page", "1")
    if not number.isascii() or not number.isdigit() or not 0 < int(number) < 100_000:
        raise Invalid({"page": "The page is a whole number."})
    start = (int(number) - 1) * PER_PAGE
    shown = lines(request.user, view.object, start=start, limit=PER_PAGE + 1)
    if start and not shown:
        raise NotVisible("The history has fewer pages than that.")
    # The path names the row. The row itself is no subject of this event: its history would be about being read.
    note_read(request, view.actor)
    return TemplateResponse(
        request,
        "audit/history.html",
        {
            "view": view,
            "title": view.get_title(),
            "breadcrumbs": view.breadcrumbs(),
            "object": view.object,
            "tabs_of": request.path,
            "tab": "history",
            "lines": shown[:PER_PAGE],
            "newer": int(number) - 1,
            "older": int(number) + 1 if len(shown) > PER_PAGE else 0,
        },
    )
