"""The Prometheus adapter against a server of our own: both range semantics, bad answers, number of requests."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from apps.metering import engine
from apps.metering.engine import HOUR_MS
from apps.metering.sources.base import SourceError, ms
from apps.metering.sources.prometheus import PrometheusAdapter
from apps.metering.sources.promql import Queries
from apps.metering.sources.series import series_of
from tests.metering.server import serving
from tests.metering.world import utc

START = utc(2026, 3, 3, 10)
BASE = ms(START) // 1000
QUERIES = Queries(resources=("nvidia_com_gpu", "nvidia_com_mig_"))


class Emulated:
    """Evaluates the adapter's queries over a pod held from 300 s to 1500 s, on a server of one of the two semantics.

    Instant selectors see a sample younger than the lookback (left-open) or at most as old (closed); what is asked must
    not depend on it.
    """

    def __init__(self, *, left_open: bool) -> None:
        self.left_open = left_open
        self.asked: list[tuple[str, dict[str, str]]] = []

    def __call__(self, path: str, parameters: dict[str, str]) -> tuple[int, Any]:
        self.asked.append((path, parameters))
        query = parameters["query"]
        result: list[Any] = []
        pod = {"uid": "u1", "container": "main", "resource": "nvidia_com_gpu", "node": "n1"}
        if path.endswith("query_range"):
            start, end, step = (int(parameters[name]) for name in ("start", "end", "step"))
            points = list(range(start, end + 1, step))
            if "kube_node_status_capacity" in query:
                labels = {"node": "n1", "resource": "nvidia_com_gpu", "what": "capacity"}
                result = [{"metric": labels, "values": [[at, "8"] for at in points]}]
            elif "kube_pod_status_phase" in query:
                seen = [at for at in points if self._sees(at, 300, 1500)]
                result = [{"metric": pod, "values": [[at, "4"] for at in seen]}]
        elif "kube_pod_container_resource_requests" in query:
            result = [{"metric": {**pod, "namespace": "team", "pod": "p"}, "value": [BASE, "4"]}]
        return 200, {"status": "success", "data": {"resultType": "matrix", "result": result}}

    def _sees(self, at: int, first: int, last: int) -> bool:
        """Whether a scrape in [first, last) on the minute + 17 s is within a lookback of 60 s before `at`."""
        scrapes = range(BASE + first + 17, BASE + last, 60)
        return any((at - 60 < s if self.left_open else at - 60 <= s) and s <= at for s in scrapes)


def read(answer: Any) -> tuple[Any, PrometheusAdapter]:
    with serving(answer) as url:
        adapter = PrometheusAdapter(url, options={"timeout_seconds": 5})
        try:
            return adapter.read(START, START + timedelta(hours=1)), adapter
        finally:
            adapter.close()


@pytest.mark.requirement("metering-3.1")
@pytest.mark.parametrize("left_open", [False, True])
def test_both_range_semantics_give_the_same_hour(left_open: bool) -> None:
    server = Emulated(left_open=left_open)
    reading, adapter = read(server)
    facts = engine.hour_quantities(reading.holdings, {})[ms(START)]
    assert [fact.unit_ms for fact in facts] == [4 * 1_200_000]
    assert reading.hours[ms(START)].coverage_permille == 1000
    assert engine.unit_ms(reading.nodes[0].spans) == 8 * HOUR_MS
    assert adapter.requests == len(server.asked)
    assert adapter.requests - adapter.resource_requests <= 8
    assert 0 < adapter.resource_requests <= 8
    for path, parameters in server.asked:
        if path.endswith("query_range"):
            assert (int(parameters["start"]), int(parameters["end"])) == (BASE + 60, BASE + 3600)
            assert parameters["step"] == "60"


@pytest.mark.requirement("metering-3.1")
@pytest.mark.parametrize(
    "query", [QUERIES.held(), QUERIES.requests(), QUERIES.times(), QUERIES.nodes(), QUERIES.use(), QUERIES.devices()]
)
def test_ranges_stand_around_constants_only(query: str) -> None:
    """A subquery or `avg_over_time` would take a sample more or less depending on the server's version.

    Except over an hour less a millisecond, where no sample can lie on the boundary.
    """
    for found in re.finditer(r"(\w+)\([^()\[\]]*\[([^\]]*)\]", query):
        assert found.group(1) == "last_over_time" or found.group(2) == "3599999ms"
    assert ":" not in "".join(re.findall(r"\[[^\]]*\]", query))


@pytest.mark.requirement("metering-2.4")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b'{"status":"success","data":{}}'),
        (200, b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{}'),
        (400, {"status": "error", "error": "parse error"}),
        (422, {"status": "error", "error": "too many samples"}),
    ],
)
def test_bad_answers_are_errors_not_zero(status: int, body: Any) -> None:
    with pytest.raises(SourceError):
        read(lambda path, parameters: (status, body))


def test_an_empty_server_covers_nothing() -> None:
    empty = {"status": "success", "data": {"resultType": "matrix", "result": []}}
    reading, adapter = read(lambda path, parameters: (200, empty))
    assert reading.hours == {}
    assert adapter.requests == 1


def test_series_one_at_a_time() -> None:
    body = (
        b'{"status":"success","data":{"resultType":"matrix","result":[ {"metric":{"a":"]}"},"values":[[1,"2"]]},'
        b'{"metric":{},"value":[3,"4"]} ]}}'
    )
    assert list(series_of(body)) == [({"a": "]}"}, [[1, "2"]]), ({}, [[3, "4"]])]


def test_cluster_filter_is_in_every_selector() -> None:
    queries = Queries(resources=("nvidia_com_gpu",), selector='cluster="dc1"')
    for query in (queries.held(), queries.times(), queries.nodes(), queries.use(), queries.devices(), queries.owners()):
        assert len(re.findall(r"\{[^}]*\}", query)) == query.count('cluster="dc1"') > 0
