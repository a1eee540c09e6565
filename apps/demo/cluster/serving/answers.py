"""The Prometheus HTTP API over simulated figures: `/api/v1/query`, `/query_range`, `/status/buildinfo`, no token asked.

Wire format: https://prometheus.io/docs/prometheus/latest/querying/api/. What is not simulated answers 400 `bad_data`.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from apps.demo.cluster.errors import Obj
from apps.demo.cluster.requests import Request, Response, as_json
from apps.demo.cluster.serving.promql import BadQuery, Labels, Value, evaluate
from apps.demo.cluster.serving.recorder import Recorder

PATHS = ("/api/v1/query", "/api/v1/query_range", "/api/v1/status/buildinfo")
_MOST_POINTS = 11_000
"""Points a series may have, as Prometheus limits it."""


def respond(request: Request, recorder: Recorder, now: datetime) -> Response:
    """Answer one query."""
    if request.path.endswith("/buildinfo"):
        return _good({"version": "0.0.0+simulated", "revision": "simulated"})
    fields = dict(request.query)
    if request.method == "POST":
        fields |= dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
    text = fields.get("query", "")
    try:
        if not text:
            raise BadQuery('invalid parameter "query": unknown position: no expression found in input')
        if request.path.endswith("/query_range"):
            return _good(_range(text, fields, recorder))
        moment = _time(fields.get("time", ""), now.timestamp())
        return _good(_instant(evaluate(text, moment, recorder.tracks()), moment))
    except BadQuery as error:
        return as_json({"status": "error", "errorType": "bad_data", "error": f"{error} (simulated cluster)"}, 400)


def _good(data: Obj) -> Response:
    return as_json({"status": "success", "data": data})


def _time(text: str, default: float) -> float:
    if not text:
        return default
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadQuery(f'cannot parse "{text}" to a valid timestamp') from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:.12g}"


def _instant(value: Value, moment: float) -> Obj:
    if isinstance(value, float):
        return {"resultType": "scalar", "result": [moment, _number(value)]}
    rows = [{"metric": labels, "value": [moment, _number(each)]} for labels, each in value]
    return {"resultType": "vector", "result": rows}


def _range(text: str, fields: dict[str, str], recorder: Recorder) -> Obj:
    start, end = _time(fields.get("start", ""), 0.0), _time(fields.get("end", ""), 0.0)
    step = _step(fields.get("step", ""))
    if end < start or (end - start) / step > _MOST_POINTS:
        raise BadQuery("exceeded maximum resolution of 11,000 points per timeseries, or the end lies before the start")
    tracks = recorder.tracks()
    rows: dict[tuple[tuple[str, str], ...], tuple[Labels, list[list[float | str]]]] = {}
    moment = start
    while moment <= end:
        value = evaluate(text, moment, tracks)
        found = [({}, value)] if isinstance(value, float) else value
        for labels, each in found:
            key = tuple(sorted(labels.items()))
            rows.setdefault(key, (labels, []))[1].append([moment, _number(each)])
        moment += step
    return {
        "resultType": "matrix",
        "result": [{"metric": labels, "values": values} for labels, values in rows.values()],
    }


def _step(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        step = float(text[:-1]) * units[text[-1]] if text[-1:] in units else float(text)
    except ValueError as error:
        raise BadQuery(f'cannot parse "{text}" to a valid duration') from error
    if step <= 0:
        raise BadQuery("zero or negative query resolution step widths are not accepted")
    return step
