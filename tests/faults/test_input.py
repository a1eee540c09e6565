"""What people get wrong: a message next to the field, what was typed is kept, and not one row is written."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.urls import reverse

from apps.accounts.models import SignInSession
from apps.core import clock
from apps.demo import seed
from apps.quotas import actions as quotas
from apps.quotas.models import QuotaRequest
from tests.acceptance.world import REASON, World, counts
from tests.factories import unknown_uid
from tests.rates.factories import make_cluster, make_flavour, make_pool

pytestmark = pytest.mark.django_db
NEW = "/quotas/requests/new/"
API = "/api/v1/quota-requests"
#: What differs between any two answers.
EVER_NEW = re.compile(r'"X-CSRFToken": "\w+"|name="csrfmiddlewaretoken" value="\w+"')


@contextmanager
def nothing_written(*allowed: str) -> Iterator[None]:
    """Fail where a table has gained or lost a row, other than those of sessions (and `allowed`)."""
    before = counts()
    yield
    after = counts()
    changed = {table: (before[table], after[table]) for table in after if before[table] != after[table]}
    assert {table: n for table, n in changed.items() if table not in ("public.django_session", *allowed)} == {}


def field_error(html: str, name: str) -> str:
    """The message that stands with a field: linked to it, so that a screen reader reads it, too."""
    tag = re.search(rf'<(?:input|select|textarea)[^>]*name="{name}"[^>]*>', html)
    assert tag, f"no field {name}"
    described = re.search(r'aria-describedby="([^"]+)"', tag[0])
    assert described, tag[0]
    assert 'aria-invalid="true"' in tag[0], tag[0]
    found = [
        re.sub(r"<[^>]+>|\s+", " ", part[1])
        for one in described[1].split()
        if (part := re.search(rf'id="{re.escape(one)}"[^>]*>(.*?)</(?:div|p|ul|span|small)>', html, re.S))
    ]
    return " ".join(found)


@pytest.mark.requirement("resilience-6.1")
@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"guaranteed": "-4"}, "guaranteed", "greater than or equal to 0"),
        ({"guaranteed": "2.5"}, "guaranteed", "whole number"),
        ({"guaranteed": "8e3"}, "guaranteed", "whole number"),
        ({"guaranteed": "51"}, "guaranteed", "more than the pool has"),
        ({"guaranteed": "9" * 40}, "guaranteed", "less than or equal to"),
        ({"valid_from": "2031-02-01T00:00", "valid_until": "2031-01-01T00:00"}, "valid_until", "after the start"),
        ({"valid_from": "31 February"}, "valid_from", "Enter a date and a time"),
        ({"reason": ""}, "reason", "required"),
    ],
)
def test_quota_requests_that_cannot_be(world: World, changes: dict[str, str], field: str, says: str) -> None:
    """On the page, 400 with the message at the field and the rest as typed; in the API the field is named."""
    lead = world.client("finance-lead")
    lead.get(NEW)
    with nothing_written():
        answer = lead.post(NEW, world.form(**changes))
        html = answer.content.decode()
        assert answer.status_code == 400
        assert says in field_error(html, field)
        if "reason" not in changes:
            assert REASON in html
        assert changes.get(field, "") in html or field == "reason"
        body = {
            "workspace": str(world.workspace().uid), "flavour": world.flavour.slug, "guaranteed": 8, "reason": REASON,
        } | changes  # fmt: skip
        problem = lead.post(API, body, content_type="application/json")
        assert problem.status_code == 400
        assert problem.headers["Content-Type"] == "application/problem+json"
        assert field in problem.json()["errors"]


@pytest.mark.requirement("resilience-6.1")
def test_a_flavour_that_the_cluster_does_not_have(world: World) -> None:
    """It exists, elsewhere: refused at the flavour, by page and API."""
    other = make_flavour(slug="h100-elsewhere")
    make_pool(make_cluster("elsewhere"), other)
    lead = world.client("finance-lead")
    with nothing_written():
        answer = lead.post(NEW, world.form(flavour=other.pk))
        assert answer.status_code == 400
        assert "not one of the available choices" in field_error(answer.content.decode(), "flavour")
        body = {"workspace": str(world.workspace().uid), "flavour": other.slug, "guaranteed": 8, "reason": REASON}
        problem = lead.post(API, body, content_type="application/json")
        assert problem.status_code == 400
        assert problem.json()["errors"]["flavour"]


@pytest.mark.requirement("resilience-6.2")
@pytest.mark.parametrize("how", ["expired", "signed out elsewhere", "cookie lost"])
def test_a_session_that_ended_before_the_form_was_sent(world: World, how: str) -> None:
    """The sign-in says what happened and leads back to the form; the API answers 401."""
    lead = world.client("finance-lead")
    if how == "cookie lost":
        lead.cookies.clear()
    else:
        ended = {"expires_at": clock.now()} if how == "expired" else {"closed_at": clock.now()}
        SignInSession.objects.filter(user=world.user("finance-lead")).update(**ended)
    with nothing_written():
        answer = lead.post(NEW, world.form())
        assert answer.status_code in (302, 303)
        target = answer.headers["Location"]
        assert target.startswith("/sign-in/?next=%2Fquotas%2Frequests%2Fnew%2F")
        page = lead.get(target)
        assert page.status_code == 200
        assert "session has ended" in page.content.decode()
        api = lead.post(API, {}, content_type="application/json")
        assert api.status_code == 401
    signed_in = lead.post(target, {"email": world.user("finance-lead").email, "password": seed.password()})
    assert (signed_in.status_code, signed_in.headers["Location"]) == (303, NEW)
    assert lead.get(NEW).status_code == 200


@pytest.mark.requirement("resilience-6.2")
def test_a_form_whose_token_is_old_says_so(world: World) -> None:
    """Signed in anew in another tab: not a bare refusal, and nothing happens."""
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = world.client("finance-lead").cookies
    with nothing_written():
        answer = strict.post(NEW, world.form())
        assert answer.status_code == 403
        assert "This form has expired" in answer.content.decode()


@pytest.mark.requirement("resilience-6.3")
def test_what_is_another_teams_does_not_exist(world: World) -> None:
    """Read, withdraw, correct, decide: 404 like a uid that never was, to the byte, by page and API."""
    theirs = world.ask("research")
    assert theirs.approval is not None
    lead = world.client("finance-lead")
    nobody = unknown_uid()
    with nothing_written("audit.event", "audit.note", "audit.link"):
        for name, uid in (
            ("quotas:request-detail", theirs.uid),
            ("quotas:request-withdraw", theirs.uid),
            ("quotas:request-correct", theirs.uid),
            ("approvals:request-detail", theirs.approval.uid),
            ("approvals:request-decide", theirs.approval.uid),
            ("approvals:request-withdraw", theirs.approval.uid),
        ):
            answers = []
            for one in (uid, nobody):
                url = reverse(name, kwargs={"request_uid": one})
                answer = lead.get(url) if name.endswith("detail") else lead.post(url, world.form(version=1))
                assert answer.status_code == 404, name
                answers.append(EVER_NEW.sub("", answer.content.decode()).replace(str(one), ""))
            assert answers[0] == answers[1], name
        for path in ("", "/withdraw", "/correct"):
            url = f"{API}/{theirs.uid}{path}"
            answer = lead.post(url, {}, content_type="application/json") if path else lead.get(url)
            assert answer.status_code == 404, path
        mine = lead.post(NEW, world.form(workspace=world.workspace("research").pk))
        assert mine.status_code == 400
        body = {"workspace": str(world.workspace("research").uid), "flavour": "a100-80gb", "guaranteed": 1}
        assert lead.post(API, body | {"reason": REASON}, content_type="application/json").status_code == 404
    theirs.refresh_from_db()
    assert theirs.status == "in_review"


@pytest.mark.requirement("resilience-6.3")
def test_a_stale_form_meets_the_newer_state(world: World) -> None:
    """Withdrawn in one tab, corrected and decided in others: 409 with how it stands now, and nothing changes."""
    request = world.ask()
    assert request.approval is not None
    stale = request.version
    lead, vp = world.client("finance-lead"), world.client("vp")
    correct = reverse("quotas:request-correct", kwargs={"request_uid": request.uid})
    decide = reverse("approvals:request-decide", kwargs={"request_uid": request.approval.uid})
    digest, version = request.approval.subject_digest, request.approval.version
    quotas.withdraw_request(request.pk, actor=world.actor("finance-lead"))
    with nothing_written():
        answer = lead.post(correct, world.form(guaranteed=12, version=stale))
        assert answer.status_code == 409
        assert "withdrawn" in answer.content.decode().lower()
        answer = vp.post(
            decide,
            {"digest": digest, "version": version, "verdict": "approve", "reason": "Fine with me.", "confirmed": "on"},
        )
        assert answer.status_code == 409
        assert "withdrawn" in answer.content.decode().lower()
        api = lead.post(
            f"{API}/{request.uid}/withdraw", {}, content_type="application/json", headers={"If-Match": f'"{stale}"'}
        )
        assert api.status_code in (409, 412)
        assert api.json()["current"]["status"] == "withdrawn"
    assert QuotaRequest.objects.get().status == "withdrawn"


GARBAGE = 10 * 1024 * 1024


@pytest.fixture(scope="module")
def garbage(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Ten megabytes each of noise, of the right header over nonsense, and of one endless line."""
    folder = tmp_path_factory.mktemp("garbage")
    dice = random.Random(7)
    header = b"workload,namespace,gpus,flavour,start,end\n"
    contents = {
        "noise": dice.randbytes(GARBAGE),
        "rows": header + (b"x" * 60 + b",,minus one,,yesterday,-\n") * (GARBAGE // 86),
        "line": header + b'"' + b"a," * (GARBAGE // 2),
    }
    files = {}
    for name, body in contents.items():
        files[name] = folder / f"{name}.csv"
        files[name].write_bytes(body)
    return files


@pytest.mark.requirement("resilience-6.1")
@pytest.mark.parametrize("kind", ["noise", "rows", "line"])
def test_ten_megabytes_of_garbage_are_refused(world: World, garbage: dict[str, Path], kind: str) -> None:
    """By the command: a reason with a line number, no row, no source, no hour asked for."""
    said = io.StringIO()
    with nothing_written(), pytest.raises(CommandError) as refused:
        call_command(
            "import_usage", str(garbage[kind]), cluster="atlas", report=str(garbage[kind]) + ".errors",
            stdout=said, stderr=said,
        )  # fmt: skip
    assert str(refused.value)
    assert len(str(refused.value)) < 5_000
    assert len(said.getvalue()) < 20_000


@pytest.mark.requirement("resilience-6.1")
@pytest.mark.parametrize("kind", ["noise", "rows", "line"])
def test_garbage_at_the_import_page_is_refused_beside_the_field(
    world: World, garbage: dict[str, Path], kind: str
) -> None:
    """The same through the browser: 400, the reason at the file, what else was typed is kept."""
    admin = world.client("admin")
    url = reverse("metering:import-create")
    assert admin.get(url).status_code == 200
    with nothing_written(), garbage[kind].open("rb") as file:
        answer = admin.post(url, {"cluster": "atlas", "file": file, "source_name": "Slurm of last year"})
    html = answer.content.decode()
    assert answer.status_code == 400
    assert field_error(html, "file").strip()
    assert "Slurm of last year" in html
    assert len(html) < 200_000
