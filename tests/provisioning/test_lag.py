"""How far behind an observer may be, stage by stage on a clock of the test's own; and what it holds of ten thousand.

From a change on a cluster to the open page: the watch hands its event on at once, the writer gathers what comes with it
for a moment and writes it in one transaction, the page asks again at its interval. No test here looks at a real clock,
so a busy machine makes none of them fail.
"""

from __future__ import annotations

import queue
import re
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings

from apps.clusters.clients.kubernetes import Page
from apps.clusters.clients.watching import WatchEvent
from apps.core import clock, leases
from apps.core.canonical import canonical_bytes
from apps.core.testing import assert_queries
from apps.provisioning import observer as module
from apps.provisioning import observing
from apps.provisioning.models import Declaration, DeclaredObject, Observation
from apps.provisioning.observer import DEBOUNCE_SECONDS, PAGES, ClusterObserver, KindWatcher, Report
from apps.provisioning.ordering import Key
from tests.cluster.fixtures import quota
from tests.rates.factories import make_cluster

#: What issue and criteria promise, and what at least must be left of it for the network, one write and one answer.
PROMISED_SECONDS, LEFT_SECONDS = 5.0, 0.75
#: The longest pause before a watch that a server keeps cutting is opened again.
LONGEST_PAUSE_SECONDS = 1.0
NAMESPACES = 10_000


class _Stream:
    """A watch that gives what it was given; `asked` is called whenever it is asked for more."""

    def __init__(self, events: list[WatchEvent], asked: Any = None) -> None:
        self._events, self._asked = events, asked

    def __iter__(self) -> Iterator[WatchEvent]:
        for event in self._events:
            yield event
            if self._asked is not None:
                self._asked()

    def close(self) -> None:
        """Nothing is open."""


def _event(name: str, version: int) -> WatchEvent:
    return WatchEvent("MODIFIED", {"metadata": {"name": name, "resourceVersion": str(version)}})


def _watcher(client: Any, reports: queue.Queue[Report]) -> KindWatcher:
    return KindWatcher(client, "Namespace", reports, threading.Event(), resource_version="1", listed_at=clock.now())


@pytest.mark.requirement("provisioning-4.1")
def test_an_event_is_handed_on_before_the_next_is_asked_for() -> None:
    """However long the next one takes to come."""
    reports, waiting = queue.Queue[Report](), []
    events = [_event("a", 2), _event("b", 3), _event("c", 4)]
    stream = _Stream(events, lambda: waiting.append(reports.qsize()))
    _watcher(SimpleNamespace(watch=lambda *args, **kwargs: stream), reports)._once()
    assert waiting == [1, 2, 3]


@pytest.mark.requirement("provisioning-4.1", "provisioning-4.2")
def test_a_watch_that_is_always_cut_is_opened_again_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses grow so far and no further; a watch that lasted a while is opened again at once."""
    now, pauses = [100.0], list[float]()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    watcher = _watcher(SimpleNamespace(watch=lambda *args, **kwargs: _Stream([])), queue.Queue())
    monkeypatch.setattr(watcher._stopping, "wait", pauses.append)
    for _ in range(8):
        watcher._once()
    assert max(pauses) == LONGEST_PAUSE_SECONDS
    assert pauses == sorted(pauses)
    pauses.clear()

    def lasting(*args: Any, **kwargs: Any) -> _Stream:
        return _Stream([_event("a", 2)], lambda: now.__setitem__(0, now[0] + 1.5))

    watcher._client = SimpleNamespace(watch=lasting)  # type: ignore[assignment]  # what a watcher calls of it
    watcher._once()
    assert pauses == []


class _Storm:
    """Reports without end, one every hundredth of a second of the test's clock."""

    def __init__(self, now: list[float]) -> None:
        self.now, self.given = now, 0

    def get(self, timeout: float) -> Report:
        """One more, a moment later."""
        self.now[0] += 0.01
        self.given += 1
        return Report("Namespace", clock.now(), event=_event("a", self.given))


@pytest.mark.requirement("provisioning-4.1")
def test_a_storm_of_events_holds_a_change_up_no_longer_than_the_debounce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from the first report, so that what comes without end is written all the same."""
    now = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    observer = ClusterObserver(SimpleNamespace(pk=1, uid="u"), None)  # type: ignore[arg-type]  # nothing is written
    observer.reports = storm = _Storm(now)  # type: ignore[assignment]  # what a gatherer asks of a queue
    first = now[0] + 0.01
    batch = observer.gather()
    assert now[0] - first <= DEBOUNCE_SECONDS + 0.011
    assert len(batch) == storm.given


@pytest.mark.requirement("feasibility-5.1", "provisioning-4.1")
def test_the_stages_together_leave_time_for_the_network_and_the_answer() -> None:
    """Even where every watch is cut at once: the longest pause, the debounce and the interval of the open page."""
    folder = Path(settings.BASE_DIR) / "templates" / "quotas"
    for page in ("workspace_detail.html", "panels/team.html"):
        text = (folder / page).read_text("utf-8")
        (tag,) = re.findall(r"<div[^>]*-live\"[^>]*>", text.replace("%}", "").replace("{%", ""))
        interval = float(re.findall(r"every (\d+)s", tag)[0])
        assert LONGEST_PAUSE_SECONDS + DEBOUNCE_SECONDS + interval <= PROMISED_SECONDS - LEFT_SECONDS, page


def _declared(cluster: Any, space: str) -> dict[str, Any]:
    """Declare a quota as applied; returns it as it lives, with figures."""
    row = Declaration.objects.create(
        cluster=cluster, kind="workspace", owner_uid=cluster.uid, title=space, generation=1, observed_generation=1
    )
    body = quota(space, 8)
    DeclaredObject.objects.create(
        declaration=row, cluster=cluster, ordinal=1, api_version="v1", kind="ResourceQuota", namespace=space,
        name="gpu-quota", body=canonical_bytes(body), digest="d", generation=1,
    )  # fmt: skip
    return body


@pytest.mark.django_db
@pytest.mark.requirement("provisioning-4.1")
def test_one_change_is_one_short_transaction() -> None:
    """What is written of an event costs a dozen statements, however much else is declared."""
    cluster = make_cluster()
    token = leases.claim(f"observe:{cluster.uid}", seconds=30)
    assert token is not None
    observer = ClusterObserver(cluster, token)
    live = _declared(cluster, "a")
    for version in (7, 8):
        live["metadata"]["resourceVersion"] = str(version)
        live["status"] = {"hard": {"pods": "50"}, "used": {"pods": str(version)}}
        event = WatchEvent("MODIFIED", live)
        with assert_queries(16):
            observer.record([Report("ResourceQuota", clock.now(), event=event, version=str(version))])
    seen = Observation.objects.get(cluster=cluster, kind="ResourceQuota")
    assert seen.status["used"] == {"pods": "8"}


# -- ten thousand ---------------------------------------------------------------------------------------------------


class _Items(list[dict[str, Any]]):
    """A page's objects, which a test can see go."""


class _Cluster:
    """Ten thousand quotas, page by page; knows how many pages are held at once."""

    def __init__(self) -> None:
        self.held: list[weakref.ref[_Items]] = []
        self.most = self.given = 0

    def pages(self, kind: str, *, limit: int, **more: Any) -> Iterator[Page]:
        """Yield the list; nothing of a page that was given is kept here."""
        for start in range(0, NAMESPACES, limit):
            last = start + limit >= NAMESPACES
            yield Page(self._page(range(start, min(start + limit, NAMESPACES))), "99", last=last)

    def _page(self, numbers: range) -> _Items:
        labels = {"gpu-commons/managed": "true"}
        items = _Items(
            {"kind": "ResourceQuota", "metadata": {"name": "q", "namespace": f"n-{number}", "labels": labels}}
            for number in numbers
        )
        self.given += 1
        self.held = [one for one in self.held if one() is not None] + [weakref.ref(items)]
        self.most = max(self.most, len(self.held))
        return items


@pytest.mark.django_db
@pytest.mark.requirement("provisioning-4.2")
def test_of_ten_thousand_namespaces_a_few_pages_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list waits for the writer; of what was written only keys stay, until the list is complete."""
    cluster, live = make_cluster(), _Cluster()
    token = leases.claim(f"observe:{cluster.uid}", seconds=30)
    assert token is not None
    observer = ClusterObserver(cluster, token)
    written: list[int] = []
    present: list[set[Key]] = []

    def write(pk: int, items: list[Any], at: Any) -> int:
        written.append(len(items))
        return 0

    def absent(pk: int, kind: str, keys: set[Key], at: Any) -> list[Key]:
        present.append(set(keys))
        return []

    monkeypatch.setattr(observing, "record_objects", write)
    monkeypatch.setattr(observing, "absent", absent)
    api: Any = live
    watcher = KindWatcher(api, "ResourceQuota", observer.reports, observer.stop, pages=observer.pages)
    lister = threading.Thread(target=watcher._list, args=[clock.now()], daemon=True)
    lister.start()
    while not present:
        observer.record(observer.gather(wait_seconds=30.0))
    lister.join(30)
    assert sum(written) == NAMESPACES
    assert max(written) == observing.PAGE
    assert len(present[0]) == NAMESPACES
    assert live.given == NAMESPACES // observing.PAGE
    # Those that wait, the one that is being written, and the one that the lister has just been given.
    assert live.most <= PAGES + 2
    assert observer._present == {}
