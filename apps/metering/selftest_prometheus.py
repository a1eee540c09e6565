"""Self-test of a Prometheus: `ask` puts the questions, `check` judges the answers (pure)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from apps.clusters.clients.prometheus import PrometheusClient
from apps.clusters.errors import ClusterError, NotFound, ServerError, Unreachable
from apps.core import clock
from apps.metering import selftest_prometheus_rules as rules
from apps.metering.selftest import Finding, Knowledge, Outcome, Progress, unanswered
from apps.metering.selftest_questions import RANGES, Question, questions
from apps.metering.sources.series import series_of

#: One question may take so long; all of them together as long as below.
QUESTION_SECONDS = 20.0
BUDGET_SECONDS = 120.0
#: So many questions without any answer in a row, and the rest is not asked.
MISSES = 2


class _Asker(PrometheusClient):
    """Hands out raw answers; every question is asked once or, after a passing failure, twice."""

    def fetch(self, path: str, parameters: Mapping[str, str] | None = None, *, method: str = "POST") -> bytes:
        """Return the body of one API call. Raises clusters.errors."""
        url = f"{self.url}/api/v1/{path}"
        body: bytes = self._attempt(
            lambda: self._session.request(method, url, params=dict(parameters) if parameters else None)
        ).content
        return body


@dataclass(slots=True)
class Answers:
    """What a server said. `vectors`: (labels, value) by question; `errors`: why a question has no answer.

    `skew_seconds` is the server's clock minus ours, None: not told. `retention` as the server words it, "": not told.
    """

    vectors: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)
    errors: dict[str, ClusterError] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    version: str = ""
    retention: str = ""
    skew_seconds: float | None = None
    requests: int = 0

    def number(self, key: str) -> float:
        """Return the one value of an answer; an empty answer is nothing: 0."""
        found = self.vectors.get(key)
        return found[0][1] if found else 0.0

    def values(self, key: str, label: str) -> dict[str, float]:
        """Return label value → value."""
        return {labels.get(label, ""): value for labels, value in self.vectors.get(key, [])}

    def evidence(self, *keys: str) -> str:
        """Return question and answer as text."""
        parts = []
        for key in keys:
            found = self.vectors.get(key)
            if found is None:
                continue
            told = "; ".join(
                (",".join(f"{k}={v}" for k, v in sorted(labels.items())) + " → " if labels else "") + f"{value:g}"
                for labels, value in found[:8]
            )
            parts.append(f"{self.asked.get(key, key)}: {told or 'nothing'}")
        return "\n".join(parts)


def run(
    url: str,
    *,
    token: str,
    resources: tuple[str, ...],
    selector: str,
    at: datetime,
    known: Knowledge,
    tell: Callable[[int, int, str], None],
    seconds: float = QUESTION_SECONDS,
    budget: float = BUDGET_SECONDS,
) -> Outcome:
    """Test the server at `url` as of `at`. Raises AddressRefused, Unreachable for the address itself."""
    asker = _Asker(url, token=token, timeout=(min(3.0, seconds), seconds), attempts=2, sleep=_briefly)
    asks = questions(resources, selector)
    progress = Progress(len(asks) + 2, tell)
    try:
        answers = ask(asker, asks, at, progress, budget=budget)
    finally:
        asker.close()
    return Outcome(check(answers, known), answers.requests)


def _briefly(seconds: float) -> None:
    time.sleep(min(seconds, 2.0))


def ask(asker: Any, asks: list[Question], at: datetime, progress: Progress, *, budget: float) -> Answers:
    """Put all questions; stops after the first contact fails, the connection goes, or the time is up."""
    answers = Answers()
    until = time.monotonic() + budget
    whole = at.replace(second=0, microsecond=0)
    first = Question("ranges", "First contact", RANGES)
    misses = 0
    for position, question in enumerate([first, *asks]):
        answers.asked[question.key] = question.expression
        if misses == MISSES or time.monotonic() > until:
            why = f"the test may take {budget:.0f} s in all" if misses < MISSES else "the server is gone"
            answers.errors[question.key] = Unreachable(f"not asked: {why}")
            progress.step(question.what)
            continue
        try:
            moment = whole if position == 0 else at - question.back
            answers.requests += 1
            answers.vectors[question.key] = _vector(asker, question.expression, moment)
            misses = 0
        except ClusterError as error:
            answers.errors[question.key] = error
            if position == 0:
                return answers
            misses += isinstance(error, Unreachable)
        progress.step(question.what)
    if misses == MISSES:
        answers.errors |= dict.fromkeys(("version", "clock", "retention"), Unreachable("not asked: the server is gone"))
    else:
        _about(asker, answers)
    progress.step("Version, clock and retention")
    return answers


def _vector(asker: Any, expression: str, at: datetime) -> list[tuple[dict[str, str], float]]:
    body = asker.fetch("query", {"query": expression, "time": f"{at.timestamp():.3f}"})
    try:
        return [(labels, float(points[0][1])) for labels, points in series_of(body) if points]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ServerError("the answer is no query result") from error


def _about(asker: Any, answers: Answers) -> None:
    """Ask for version, clock and retention; servers that do not tell (Thanos, Mimir) leave them empty."""
    try:
        answers.requests += 1
        answers.version = asker.version()
    except ClusterError as error:
        answers.errors["version"] = error
    try:
        before = clock.now()
        answers.requests += 1
        body = json.loads(asker.fetch("query", {"query": "time()"}))
        after = clock.now()
        server = float(body["data"]["result"][1])
        middle = before + (after - before) / 2
        answers.skew_seconds = server - middle.timestamp()
    except ClusterError as error:
        answers.errors["clock"] = error
    except (ValueError, TypeError, KeyError, IndexError):
        answers.errors["clock"] = ServerError("the answer is no time")
    try:
        answers.requests += 1
        found = json.loads(asker.fetch("status/runtimeinfo", method="GET"))
        answers.retention = str(found.get("data", {}).get("storageRetention", ""))
    except (NotFound, ServerError, ValueError, AttributeError):
        answers.retention = ""
    except ClusterError as error:
        answers.errors["retention"] = error


def check(answers: Answers, known: Knowledge) -> list[Finding]:
    """Judge answers: the findings in the order of pages; one alone where the first contact failed."""
    if error := answers.errors.get("ranges"):
        return [unanswered("reachable", error, RANGES)]
    return [
        Finding("reachable", "ok", f"It answered {answers.requests} questions.", "", answers.evidence("ranges")),
        *(finding for rule in rules.RULES for finding in rule(answers, known)),
    ]
