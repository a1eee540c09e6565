"""A sliver of PromQL over the figures: selectors, `rate`, `increase`, sums, `histogram_quantile`, `or`, + - * /.

What it does not know it refuses (`BadQuery`): an answer is never made up. `increase` interpolates at the window's start
and extrapolates nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from apps.demo.cluster.serving.recorder import BOUNDS, Point, Track

Labels = dict[str, str]
Vector = list[tuple[Labels, float]]
Value = float | Vector
_WORDS = re.compile(
    r'\s*(?:(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w:])|(?P<name>[a-zA-Z_:][\w:]*)|(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<range>\[\d+[smhd]\])|(?P<sign>=~|!~|!=|[=(){},+\-*/]))"
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": sum, "max": max, "min": min, "count": len, "avg": lambda values: sum(values) / len(values),
}  # fmt: skip


class BadQuery(ValueError):
    """A query that is malformed, or that this server does not understand."""


@dataclass(frozen=True)
class _Selector:
    name: str
    matchers: tuple[tuple[str, str, str], ...]


@dataclass
class _Query:
    """One evaluation: tokens, where reading stands, the moment, and the figures."""

    tokens: list[tuple[str, str]]
    moment: float
    tracks: Sequence[Track]
    place: int = field(default=0)

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.place] if self.place < len(self.tokens) else ("end", "")

    def take(self, *wanted: str) -> str:
        text = self.peek()[1]
        if wanted and text not in wanted:
            raise BadQuery(f"unexpected {text or 'end of the query'!r}, wanted {' or '.join(wanted)}")
        self.place += 1
        return text


def evaluate(text: str, moment: float, tracks: Sequence[Track]) -> Value:
    """The value of a query at a moment (seconds since the epoch). Raises `BadQuery`."""
    query = _Query(_tokens(text), moment, tracks)
    value = _either(query)
    if query.peek()[0] != "end":
        raise BadQuery(f"unexpected {query.peek()[1]!r}: the simulated cluster knows a sliver of PromQL only")
    return value


def _tokens(text: str) -> list[tuple[str, str]]:
    out, place = [], 0
    while place < len(text.rstrip()):
        match = _WORDS.match(text, place)
        if match is None:
            raise BadQuery(
                f"cannot be read from {text[place : place + 20]!r} on: the simulated cluster knows a sliver of PromQL"
            )
        out.append((str(match.lastgroup), match.group(match.lastgroup or 0)))
        place = match.end()
    return out


def _either(query: _Query) -> Value:
    left = _sum(query)
    while query.peek() == ("name", "or"):
        query.take()
        right = _vector(_sum(query))
        first = _vector(left)
        known = [_plain(labels) for labels, _ in first]
        left = first + [row for row in right if _plain(row[0]) not in known]
    return left


def _sum(query: _Query) -> Value:
    left = _product(query)
    while query.peek()[1] in ("+", "-"):
        sign = query.take()
        left = _combine(left, _product(query), (lambda a, b: a + b) if sign == "+" else (lambda a, b: a - b))
    return left


def _product(query: _Query) -> Value:
    left = _single(query)
    while query.peek()[1] in ("*", "/"):
        sign = query.take()
        right = _single(query)
        left = _combine(left, right, (lambda a, b: a * b) if sign == "*" else _divide)
    return left


def _divide(left: float, right: float) -> float:
    if right == 0:
        return float("nan")
    return left / right


def _combine(left: Value, right: Value, by: Callable[[float, float], float]) -> Value:
    if isinstance(left, float) and isinstance(right, float):
        return by(left, right)
    if isinstance(left, float):
        return [(_plain(labels), by(left, value)) for labels, value in _vector(right)]
    if isinstance(right, float):
        return [(_plain(labels), by(value, right)) for labels, value in left]
    out: Vector = []
    for labels, value in left:
        same = [other for told, other in right if _plain(told) == _plain(labels)]
        if len(same) == 1:
            out.append((_plain(labels), by(value, same[0])))
    return out


def _single(query: _Query) -> Value:
    kind, text = query.peek()
    if kind == "number":
        query.take()
        return float(text)
    if text == "(":
        query.take()
        inner = _either(query)
        query.take(")")
        return inner
    if text == "{":
        return _instant(query, _selector(query))
    if kind != "name":
        raise BadQuery(f"unexpected {text or 'end of the query'!r}")
    if text in _AGGREGATIONS:
        return _aggregate(query)
    following = query.tokens[query.place + 1][1] if query.place + 1 < len(query.tokens) else ""
    if following == "(":
        return _call(query)
    return _instant(query, _selector(query))


def _aggregate(query: _Query) -> Vector:
    by = _AGGREGATIONS[query.take()]
    names = _grouping(query)
    query.take("(")
    rows = _vector(_either(query))
    query.take(")")
    names = names if names is not None else _grouping(query) or []
    groups: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for labels, value in rows:
        key = tuple((name, labels[name]) for name in names if labels.get(name))
        groups.setdefault(key, []).append(value)
    return [(dict(key), float(by(values))) for key, values in groups.items()]


def _grouping(query: _Query) -> list[str] | None:
    if query.peek()[1] == "without":
        raise BadQuery("`without` is not simulated")
    if query.peek()[1] != "by":
        return None
    query.take()
    query.take("(")
    names = []
    while query.peek()[1] != ")":
        names.append(query.take())
        if query.peek()[1] == ",":
            query.take()
    query.take(")")
    return names


def _call(query: _Query) -> Value:
    name = query.take()
    query.take("(")
    if name in ("rate", "increase"):
        selector = _selector(query)
        kind, text = query.peek()
        if kind != "range":
            raise BadQuery(f"{name} takes a range such as [300s]")
        query.take()
        seconds = int(text[1:-2]) * _UNITS[text[-2]]
        value: Value = _increase(query, selector, seconds, 1.0 if name == "increase" else float(seconds))
    elif name == "histogram_quantile":
        share = _either(query)
        query.take(",")
        if not isinstance(share, float):
            raise BadQuery("histogram_quantile takes a number first")
        value = list(_quantiles(share, _vector(_either(query))))
    else:
        raise BadQuery(f"the function {name} is not simulated")
    query.take(")")
    return value


def _selector(query: _Query) -> _Selector:
    name = query.take() if query.peek()[0] == "name" else ""
    matchers: list[tuple[str, str, str]] = []
    if query.peek()[1] == "{":
        query.take()
        while query.peek()[1] != "}":
            label, sign = query.take(), query.take("=", "=~", "!=", "!~")
            kind, text = query.peek()
            if kind != "string":
                raise BadQuery("a matcher compares with a string")
            query.take()
            matchers.append((label, sign, re.sub(r"\\(.)", r"\1", text[1:-1])))
            if query.peek()[1] == ",":
                query.take()
        query.take("}")
    if not name and not matchers:
        raise BadQuery("a selector needs a name or a matcher")
    return _Selector(name, tuple(matchers))


def _matches(selector: _Selector, labels: Labels) -> bool:
    if selector.name and labels["__name__"] != selector.name:
        return False
    for label, sign, text in selector.matchers:
        value = labels.get(label, "")
        try:
            same = bool(re.fullmatch(text, value)) if sign.endswith("~") else value == text
        except re.error as error:
            raise BadQuery(f"{text!r} is no regular expression: {error}") from error
        if same is sign.startswith("!"):
            return False
    return True


def _instant(query: _Query, selector: _Selector) -> Vector:
    out: Vector = []
    for track in query.tracks:
        point = track.at(query.moment)
        if point is not None:
            out += [(labels, value(point)) for labels, value in series(track) if _matches(selector, labels)]
    return out


def _increase(query: _Query, selector: _Selector, seconds: int, per: float) -> Vector:
    out: Vector = []
    start = query.moment - seconds
    for track in query.tracks:
        points = track.within(start, query.moment)
        if len(points) < 2 or points[-1].at <= start:
            continue
        first = _between(points[0], points[1], start) if points[0].at < start else points[0]
        for labels, value in series(track):
            if _matches(selector, labels):
                out.append((_plain(labels), (value(points[-1]) - value(first)) / per))
    return out


def _between(one: Point, other: Point, at: float) -> Point:
    share = (at - one.at) / (other.at - one.at)

    def mid(low: float, high: float) -> float:
        return low + (high - low) * share

    return replace(
        one,
        at=at,
        requests=mid(one.requests, other.requests),
        errors=mid(one.errors, other.errors),
        latency=tuple(mid(*pair) for pair in zip(one.latency, other.latency, strict=True)),
        first=tuple(mid(*pair) for pair in zip(one.first, other.first, strict=True)),
    )


def _quantiles(share: float, rows: Vector) -> Iterator[tuple[Labels, float]]:
    """As Prometheus computes it: linear within the bucket that holds the rank."""
    groups: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    for labels, value in rows:
        if "le" in labels:
            key = tuple(sorted((name, text) for name, text in _plain(labels).items() if name != "le"))
            groups.setdefault(key, []).append((float(labels["le"].replace("+Inf", "inf")), value))
    for key, buckets in groups.items():
        buckets.sort()
        total = buckets[-1][1]
        if total <= 0:
            yield dict(key), float("nan")
            continue
        rank, low, below = share * total, 0.0, 0.0
        for bound, count in buckets:
            if count >= rank:
                if bound == float("inf"):
                    yield dict(key), low
                else:
                    inside = count - below
                    yield dict(key), low + (bound - low) * ((rank - below) / inside if inside else 0.0)
                break
            low, below = bound, count


def _vector(value: Value) -> Vector:
    if isinstance(value, float):
        raise BadQuery("a number where series are wanted")
    return value


def _plain(labels: Labels) -> Labels:
    return {name: text for name, text in labels.items() if name != "__name__"}


# ---- the series of one pod

_Read = Callable[[Point], float]


def series(track: Track) -> list[tuple[Labels, _Read]]:
    """Every series of a pod: labels, and how its value is read from a point."""

    def one(name: str, read: _Read, **more: str) -> tuple[Labels, _Read]:
        return {"__name__": name, **track.labels, **more}, read

    def good(point: Point) -> float:
        return float(int(point.requests) - int(point.errors))

    def bad(point: Point) -> float:
        return float(int(point.errors))

    def queue(point: Point) -> float:
        return float(round(point.queue))

    if track.dialect == "vllm":
        model = {"model_name": "model", "engine": "0"}
        calls = {"handler": "/v1/chat/completions", "method": "POST"}
        return [
            one("vllm:request_success_total", good, finished_reason="stop", **model),
            one("http_requests_total", good, status="2xx", **calls),
            one("http_requests_total", bad, status="5xx", **calls),
            one("vllm:num_requests_waiting", queue, **model),
            *_buckets(one, "vllm:e2e_request_latency_seconds", 1, lambda point: point.latency, model),
            *_buckets(one, "vllm:time_to_first_token_seconds", 1, lambda point: point.first, model),
        ]
    if track.dialect == "triton":
        model = {"model": "model", "version": "1"}
        return [
            one("nv_inference_request_success", good, **model),
            one("nv_inference_request_failure", bad, reason="OTHER", **model),
            one("nv_inference_pending_request_count", queue, **model),
            *(
                one("nv_inference_request_summary_us", _summary(share), quantile=str(share), **model)
                for share in (0.5, 0.95)
            ),
        ]
    if track.dialect == "knative":
        return [
            one("revision_app_request_count", good, response_code_class="2xx"),
            one("revision_app_request_count", bad, response_code_class="5xx"),
            one("revision_queue_depth", queue),
            *_buckets(one, "revision_app_request_latencies", 1000, lambda point: point.latency, {}),
        ]
    model = {"model_name": "model"}
    return _buckets(one, "request_predict_seconds", 1, lambda point: point.latency, model)


def _buckets(
    one: Callable[..., tuple[Labels, _Read]],
    name: str,
    scale: int,
    read: Callable[[Point], tuple[float, ...]],
    labels: Labels,
) -> list[tuple[Labels, _Read]]:
    bounds = [f"{bound * scale:g}" for bound in BOUNDS] + ["+Inf"]
    out = [
        one(f"{name}_bucket", (lambda point, index=index: read(point)[index]), le=bound, **labels)
        for index, bound in enumerate(bounds)
    ]
    return [*out, one(f"{name}_count", lambda point: float(int(read(point)[-1])), **labels)]


def _summary(share: float) -> _Read:
    """Triton's summary: over all that came, in microseconds; one without requests has no value."""

    def read(point: Point) -> float:
        bounds = [*BOUNDS, float("inf")]
        rows = [({"le": str(bound)}, count) for bound, count in zip(bounds, point.latency, strict=True)]
        found = [value for _, value in _quantiles(share, rows)]
        return found[0] * 1e6

    return read
