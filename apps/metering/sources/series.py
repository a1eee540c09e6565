"""Parses the answer of a Prometheus query one series at a time, so that a big hour stays small in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_DECODER = json.JSONDecoder()


def series_of(body: bytes) -> Iterator[tuple[dict[str, str], list[Any]]]:
    """Yield (labels, points) of a `query` or `query_range` answer; an instant value is a list of one point.

    Raises ValueError where the body is no successful answer with a result.
    """
    text = body.decode()
    at = text.find('"result":[')
    if at < 0 or '"status":"success"' not in text[:200]:
        raise ValueError("no result in the answer")
    at += len('"result":[')
    while True:
        while at < len(text) and text[at] in " \n\r\t,":
            at += 1
        if at >= len(text):
            raise ValueError("the answer ends inside its result")
        if text[at] == "]":
            return
        item, at = _DECODER.raw_decode(text, at)
        points = item.get("values")
        if points is None:
            points = [item["value"]] if "value" in item else []
        yield item.get("metric") or {}, points
