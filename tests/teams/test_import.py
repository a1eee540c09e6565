"""Import from CSV: a preview that changes nothing, row errors, all or nothing, the same file again changes nothing."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.models import User
from apps.audit.models import AuditEvent
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.teams import importing
from apps.teams.choices import Role
from apps.teams.import_reader import COLUMNS, MAX_ROWS, Line, Unreadable, decoded, read
from apps.teams.importing import CHANGED, MADE, REFUSED, SAME
from apps.teams.models import Membership, RoleGrant, Team, Unit
from tests.factories import Company, client_for

pytestmark = pytest.mark.django_db

FILES = {
    "people": "email,display_name\nana@example.com,Analyst one\nLEAD-FINANCE@example.com,Lead finance\n",
    "units": "slug,name,parent,cost_centre\ncards,Cards,retail-bank,CC-1\nretail-bank,Retail,example-group,CC-RETAIL\n",
    "teams": "slug,name,unit,cost_centre\nfraud,Fraud,retail-bank,CC-F\nfinance,Finance,other-unit,CC-finance\n",
    "memberships": "email;team;until\nvp@example.com;finance;\nmember-finance@example.com;finance;\n",
    "roles": "email,role,unit,team,reason\nlead-finance@example.com,team_lead,,marketing,covers\n"
    "vp@example.com,unit_owner,retail-bank,,head\n",
}


@pytest.mark.requirement("people-and-units-3.1", "people-and-units-3.3", "people-and-units-3.4")
@pytest.mark.parametrize("kind", list(FILES))
def test_a_preview_changes_nothing_and_is_then_done_once(company: Company, kind: str) -> None:
    actor = Actor.of(company.admin)

    def state() -> list[Any]:
        tables = (User, Unit, Team, Membership, RoleGrant, OutboxMessage, AuditEvent)
        return [list(table.objects.order_by("pk").values_list("pk", flat=True)) for table in tables] + [
            list(Unit.objects.order_by("pk").values_list("name", "path"))
        ]

    before = state()
    seen = importing.preview(kind, FILES[kind], actor=actor)
    assert state() == before
    assert [one.status for one in seen.outcomes] == [MADE, CHANGED if kind in ("units", "teams") else SAME]
    assert importing.import_file(kind, FILES[kind], seen.digest, actor=actor) == seen
    assert state() != before
    assert AuditEvent.objects.filter(action="teams.people.imported").count() == 1
    again = importing.preview(kind, FILES[kind], actor=actor)
    assert [one.status for one in again.outcomes] == [SAME, SAME]


@pytest.mark.requirement("people-and-units-3.2")
def test_every_wrong_row_is_named_and_none_is_taken(company: Company) -> None:
    text = (
        "email,role,unit,team,expires_at,reason\n"
        "lead-finance@example.com,auditor,,,,ok\n"
        "nobody@example.com,auditor,,,,ok\n"
        "vp@example.com,team_lead,retail-bank,,,ok\n"
        "vp@example.com,finance,,,yesterday,ok\n"
        "vp@example.com,finance,nowhere,,,ok\n"
        "vp@example.com,finance,,,,\n"
    )
    actor = Actor.of(company.admin)
    seen = importing.preview("roles", text, actor=actor)
    assert [(one.number, one.status) for one in seen.outcomes] == [(2, MADE), *((n, REFUSED) for n in range(3, 8))]
    texts = [one.text for one in seen.outcomes]
    for words, line in (
        ("no account", 3), ("is given for one team", 4), ("write a time as", 5), ("no unit nowhere", 6), ("reason", 7)
    ):  # fmt: skip
        assert words in texts[line - 2]
    with pytest.raises(Invalid, match="5 rows cannot be taken"):
        importing.import_file("roles", text, seen.digest, actor=actor)
    assert not RoleGrant.objects.filter(user=company.lead_finance, role=Role.AUDITOR).exists()


@pytest.mark.requirement("people-and-units-3.3")
def test_what_changed_since_the_preview_is_shown_anew(company: Company) -> None:
    actor, kind = Actor.of(company.admin), "units"
    seen = importing.preview(kind, FILES[kind], actor=actor)
    importing.import_file(
        kind, "slug,name\ncards,Cards\n", _digest(kind, "slug,name\ncards,Cards\n", actor), actor=actor
    )
    with pytest.raises(Conflict):
        importing.import_file(kind, FILES[kind], seen.digest, actor=actor)
    with pytest.raises(Conflict):
        importing.import_file(kind, "slug,name\nother,Other\n", seen.digest, actor=actor)


def _digest(kind: str, text: str, actor: Actor) -> str:
    return importing.preview(kind, text, actor=actor).digest


@pytest.mark.requirement("people-and-units-3.5")
def test_a_row_is_asked_what_the_change_by_hand_is_asked(company: Company) -> None:
    own = "email,role,reason\nadmin@example.com,auditor,I would like to look\n"
    (row,) = importing.preview("roles", own, actor=Actor.of(company.admin)).outcomes
    assert (row.status, "Nobody gives themselves a role" in row.text) == (REFUSED, True)
    (row,) = importing.preview(
        "memberships", "email,team\nadmin@example.com,finance\n", actor=Actor.of(company.admin)
    ).outcomes
    assert row.status == REFUSED
    for kind in COLUMNS:
        with pytest.raises(NotAllowed):
            importing.preview(kind, FILES[kind], actor=Actor.of(company.lead_finance))


@pytest.mark.requirement("people-and-units-3.2")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"), ("email\nx\n", "lacks display_name"),
        ("email,display_name,age\nx,y,1\n", "Unknown columns: age"),
        ("email,email,display_name\na,b,c\n", "twice"), ("email,display_name\n", "no rows"), ("a\x00b", "no text"),
        ("email,display_name\n" + "x,y\n" * (MAX_ROWS + 1), "more than"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_says_why(text: str, words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        read("people", text)
    with pytest.raises(Unreadable, match="UTF-8"):
        decoded(b"\xff\xfe\x00a")


@pytest.mark.requirement("people-and-units-3.2")
@given(text=st.text(max_size=200), kind=st.sampled_from(list(COLUMNS)))
def test_no_file_breaks_the_reader(text: str, kind: str) -> None:
    for body in (text, ",".join(COLUMNS[kind][0]) + "\n" + text):
        with contextlib.suppress(Unreadable):
            lines = read(kind, body)
            assert lines
            assert all(isinstance(line, Line) and set(line.cells) >= set(COLUMNS[kind][0]) for line in lines)


@pytest.mark.requirement("people-and-units-3.1", "people-and-units-3.3")
def test_the_page_shows_the_preview_and_imports_on_confirmation(company: Company) -> None:
    client = client_for(company.admin)
    assert "display_name" in client.get("/people-import/").content.decode()
    upload = SimpleUploadedFile("people.csv", b"\xef\xbb\xbf" + FILES["people"].encode(), "text/csv")
    shown = client.post("/people-import/", {"kind": "people", "file": upload}).content.decode()
    assert "A new account for Analyst one." in shown
    assert not User.objects.filter(email="ana@example.com").exists()
    (digest,) = re.findall(r'name="digest" value="([0-9a-f]{64})"', shown)
    # A browser ends the lines of every value in a form by CR LF, whatever the file had.
    sent = FILES["people"].replace("\n", "\r\n")
    done = client.post("/people-import/", {"kind": "people", "content": sent, "digest": digest})
    assert done.status_code == 303
    assert not User.objects.get(email="ana@example.com").has_usable_password(), "nobody was shown one"
    stale = client.post("/people-import/", {"kind": "people", "content": FILES["people"], "digest": digest})
    assert stale.status_code == 409
    assert client.post("/people-import/", {"kind": "people"}).status_code == 400
    assert client_for(company.lead_finance).get("/people-import/").status_code == 403


@pytest.mark.requirement("people-and-units-7.1")
def test_api_previews_and_imports(company: Company) -> None:
    client = client_for(company.admin)
    body = {"kind": "units", "csv": FILES["units"]}
    seen = client.post("/api/v1/people-import", body, content_type="application/json").json()
    assert (seen["done"], seen["moves"]) == (False, 2)
    done = client.post("/api/v1/people-import", {**body, "digest": seen["digest"]}, content_type="application/json")
    assert done.json()["done"] is True
    assert Unit.objects.get(slug="cards").parent == company.unit
