"""Measured results against thresholds: pure. The bound that counts decides, not the point estimate, where it is known.

For "at least" the lower confidence bound has to reach the threshold, for "at most" the upper one has to stay below it;
a result without bounds is judged by its value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from apps.catalogue.cards_text import clean_line

AT_LEAST, AT_MOST = "ge", "le"
PASS, FAIL, INFO = "pass", "fail", "info"
COMPARISONS = {AT_LEAST: "at least", AT_MOST: "at most"}
#: More rows than that are a data set, not results: they belong into the attached file.
MAX_ROWS = 500
_LIMIT = Decimal(10) ** 11
_PLACES = Decimal("0.000000001")
_WORDS = {
    "ge": AT_LEAST, ">=": AT_LEAST, "≥": AT_LEAST, "at least": AT_LEAST, "min": AT_LEAST,
    "le": AT_MOST, "<=": AT_MOST, "≤": AT_MOST, "at most": AT_MOST, "max": AT_MOST,
}  # fmt: skip
#: Headings of a pasted table, in the order that is taken where it has none.
COLUMNS = (
    "metric", "value", "low", "high", "comparison", "threshold", "slice", "samples", "dataset", "dataset_revision",
)  # fmt: skip
_ALIASES = {
    "lower": "low", "ci_low": "low", "lower bound": "low", "upper": "high", "ci_high": "high", "upper bound": "high",
    "n": "samples", "sample size": "samples", "group": "slice", "subgroup": "slice", "dataset revision":
    "dataset_revision", "revision": "dataset_revision", "operator": "comparison", "limit": "threshold",
}  # fmt: skip
_TEXT_LIMITS = {"metric": 100, "slice": 200, "dataset": 200, "dataset_revision": 200}


class BadResults(ValueError):
    """Rows that cannot be taken; `problems` name the row and what to do."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class Result:
    """One metric over all data (`slice` empty) or a slice of them."""

    metric: str
    value: Decimal
    slice: str = ""
    low: Decimal | None = None
    high: Decimal | None = None
    comparison: str = ""
    threshold: Decimal | None = None
    samples: int | None = None
    dataset: str = ""
    dataset_revision: str = ""

    @property
    def deciding(self) -> Decimal:
        """The bound that counts for the comparison; the value where that bound is unknown."""
        bound = self.low if self.comparison == AT_LEAST else self.high if self.comparison == AT_MOST else None
        return self.value if bound is None else bound

    @property
    def passed(self) -> bool | None:
        """Whether the threshold is met; None: none was set."""
        if self.threshold is None or not self.comparison:
            return None
        return self.deciding >= self.threshold if self.comparison == AT_LEAST else self.deciding <= self.threshold

    @property
    def why(self) -> str:
        """The judgement in one sentence."""
        if self.passed is None:
            return "No threshold was set."
        bound = "lower bound" if self.comparison == AT_LEAST else "upper bound"
        known = (self.low if self.comparison == AT_LEAST else self.high) is not None
        name = bound if known else "value"
        return f"The {name} {self.deciding} has to be {COMPARISONS[self.comparison]} {self.threshold}."

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes a result the same one."""
        return self.metric, self.slice, self.dataset, self.dataset_revision


@dataclass(frozen=True, slots=True)
class Gap:
    """How far the values of a metric may lie apart over the slices: a bound on disparity."""

    metric: str
    maximum: Decimal


@dataclass(frozen=True, slots=True)
class Verdict:
    """What results say of themselves, and why."""

    word: str
    reasons: tuple[str, ...]


def parse_decimal(raw: object, name: str, where: str) -> Decimal:
    """Return a finite number with at most 9 places. Raises BadResults naming the row."""
    if isinstance(raw, (bool, float)):
        raise BadResults([f'{where}: write {name} as text, such as "0.93": binary fractions lose digits.'])
    try:
        found = Decimal(str(raw).strip())
    except InvalidOperation:
        raise BadResults([f"{where}: {name} is a number, such as 0.93, not “{str(raw)[:40]}”."]) from None
    if not found.is_finite() or abs(found) >= _LIMIT:
        raise BadResults([f"{where}: {name} is not a number that can be kept."])
    return plain_number(found)


def plain_number(value: Decimal) -> Decimal:
    """Return the number rounded to 9 places, without exponent and trailing zeros: one way to write each number."""
    rounded = value.quantize(_PLACES)
    return Decimal(f"{rounded:f}".rstrip("0").rstrip(".") or "0") if rounded else Decimal(0)


def read_result(raw: Mapping[str, Any], where: str) -> Result:
    """Return one result from named cells. Raises BadResults with everything that is wrong in it."""
    problems: list[str] = []
    numbers: dict[str, Decimal | None] = {}
    for name in ("value", "low", "high", "threshold"):
        cell = raw.get(name)
        if cell is None or cell == "":
            numbers[name] = None
            continue
        try:
            numbers[name] = parse_decimal(cell, name, where)
        except BadResults as bad:
            problems += bad.problems
            numbers[name] = None
    texts = {name: clean_line(raw.get(name) or "") for name in _TEXT_LIMITS}
    problems += [
        f"{where}: {name} takes at most {limit} characters." for name, limit in _TEXT_LIMITS.items()
        if len(texts[name]) > limit
    ]  # fmt: skip
    if not texts["metric"]:
        problems.append(f"{where}: name the metric.")
    if numbers["value"] is None and not problems:
        problems.append(f"{where}: give the value of {texts['metric']}.")
    word = str(raw.get("comparison") or "").strip().lower()
    comparison = _WORDS.get(word, "") if word else ""
    if word and not comparison:
        problems.append(f"{where}: the comparison is “at least” or “at most”, not “{word[:40]}”.")
    samples, wrong = _samples(raw.get("samples"), where)
    problems += wrong
    if bool(comparison) != (numbers["threshold"] is not None) and not problems:
        problems.append(f"{where}: a threshold needs “at least” or “at most”, and the other way round.")
    if problems or numbers["value"] is None:
        raise BadResults(problems)
    result = Result(
        metric=texts["metric"], value=numbers["value"], slice=texts["slice"], low=numbers["low"],
        high=numbers["high"], comparison=comparison, threshold=numbers["threshold"], samples=samples,
        dataset=texts["dataset"], dataset_revision=texts["dataset_revision"],
    )  # fmt: skip
    below = result.low is not None and result.low > result.value
    above = result.high is not None and result.high < result.value
    if below or above:
        raise BadResults([f"{where}: the value lies outside its confidence bounds."])
    return result


def _samples(raw: object, where: str) -> tuple[int | None, list[str]]:
    if raw is None or raw == "":
        return None, []
    text = str(raw).strip()
    if isinstance(raw, bool) or not text.isascii() or not text.isdecimal() or not 0 < int(text) < 2**53:
        return None, [f"{where}: samples is a whole number above 0."]
    return int(text), []


def read_results(rows: Iterable[Mapping[str, Any]]) -> list[Result]:
    """Return all results. Raises BadResults with every problem, a repeated one and too many included."""
    found: list[Result] = []
    problems: list[str] = []
    seen: set[tuple[str, str, str, str]] = set()
    for number, raw in enumerate(rows, start=1):
        if number > MAX_ROWS:
            problems.append(f"At most {MAX_ROWS} results; attach the rest as a file.")
            break
        try:
            result = read_result(raw, f"Row {number}")
        except BadResults as bad:
            problems += bad.problems
            continue
        if result.key in seen:
            problems.append(f"Row {number}: {result.metric} is there twice for the same slice and dataset.")
        seen.add(result.key)
        found.append(result)
    if problems:
        raise BadResults(problems)
    return found


def parse_table(text: str) -> list[Result]:
    """Return the results of a table pasted from a spreadsheet or a report: tabs, semicolons or commas between cells.

    A first row of headings (`COLUMNS` or usual other names) says what the cells are; without one they come in that
    order. Raises BadResults.
    """
    lines = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()]
    if not lines:
        return []
    delimiter = "\t" if "\t" in lines[0] else ";" if ";" in lines[0] else "," if "," in lines[0] else "|"
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)]
    first = [_ALIASES.get(cell.lower(), cell.lower()) for cell in rows[0]]
    if "metric" in first and "value" in first:
        unknown = [name for name in first if name not in COLUMNS]
        if unknown:
            raise BadResults([f"Unknown column “{unknown[0][:40]}”. Known are {', '.join(COLUMNS)}."])
        names: Sequence[str] = first
        rows = rows[1:]
    else:
        names = COLUMNS
    long = [number for number, row in enumerate(rows, start=1) if len(row) > len(names)]
    if long:
        raise BadResults([f"Row {long[0]}: it has more cells than there are columns."])
    return read_results([dict(zip(names, row, strict=False)) for row in rows])


def as_table(results: Sequence[Result]) -> str:
    """Return results as a table that `parse_table` reads back to the same."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        writer.writerow([as_plain(result).get(name, "") for name in COLUMNS])
    return out.getvalue()


def as_plain(result: Result) -> dict[str, str]:
    """Return a result as strings, for digests, cards and exports; what is unknown is left out."""
    cells = {
        "metric": result.metric, "value": _text(result.value), "low": _text(result.low), "high": _text(result.high),
        "comparison": result.comparison, "threshold": _text(result.threshold), "slice": result.slice,
        "samples": "" if result.samples is None else str(result.samples), "dataset": result.dataset,
        "dataset_revision": result.dataset_revision,
    }  # fmt: skip
    return {name: cell for name, cell in cells.items() if cell != ""}


def _text(value: Decimal | None) -> str:
    return "" if value is None else f"{value:f}"


def verdict(results: Sequence[Result], gaps: Sequence[Gap] = (), *, min_samples: int | None = None) -> Verdict:
    """Return what the results say: fail where any bound that counts misses its threshold, a gap is too wide, or a slice
    is too small; pass where something was asked and all of it holds; else info (no verdict).
    """
    failed = [f"{_name(one)}: {one.why}" for one in results if one.passed is False]
    asked = any(one.passed is not None for one in results) or bool(gaps)
    for gap in gaps:
        values = [one.value for one in results if one.metric == gap.metric and one.slice]
        if len(values) < 2:
            failed.append(f"{gap.metric}: a gap needs at least two slices.")
            continue
        width = max(values) - min(values)
        if width > gap.maximum:
            failed.append(f"{gap.metric}: the slices lie {width:f} apart; at most {gap.maximum:f} was allowed.")
    if min_samples is not None:
        failed += [
            f"{_name(one)}: {one.samples if one.samples is not None else 'an unknown number of'} samples;"
            f" at least {min_samples} were asked for."
            for one in results
            if one.slice and (one.samples is None or one.samples < min_samples)
        ]
    if failed:
        return Verdict(FAIL, tuple(failed))
    return Verdict(PASS, ()) if asked else Verdict(INFO, ("No threshold was set.",))


def _name(result: Result) -> str:
    return f"{result.metric} ({result.slice})" if result.slice else result.metric


def without_threshold(result: Result) -> Result:
    """Return the bare measurement."""
    return replace(result, comparison="", threshold=None)
