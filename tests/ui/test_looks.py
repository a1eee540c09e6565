"""What the eye sees, as far as it can be computed: colours, figures, words, templates."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.template.loader import get_template
from hypothesis import given
from hypothesis import strategies as st

from apps.core import charts, formats, palette, statuses
from apps.core.money import Money
from apps.core.templatetags import commons, words
from portal import panels

TEMPLATES = Path(settings.BASE_DIR) / "templates"
CSS = (Path(settings.BASE_DIR) / "static/css/tokens.css").read_text()
# The matrices of Machado, Oliveira and Fernandes (2009), severity 1.0, for linear RGB.
VISION = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}


def _linear(colour: str) -> list[float]:
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]


def _oklab(rgb: list[float]) -> tuple[float, float, float]:
    r, g, b = (max(0.0, min(1.0, value)) for value in rgb)
    l_ = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    m_ = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    s_ = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * l_ + 0.7936177850 * m_ - 0.0040720468 * s_,
        1.9779984951 * l_ - 2.4285922050 * m_ + 0.4505937099 * s_,
        0.0259040371 * l_ + 0.7827717662 * m_ - 0.8086757660 * s_,
    )


def _seen(colour: str, kind: str) -> tuple[float, float, float]:
    rgb = _linear(colour)
    return _oklab([sum(factor * value for factor, value in zip(row, rgb, strict=True)) for row in VISION[kind]])


def _contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        r, g, b = _linear(colour)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.requirement("shell-4.4")
@pytest.mark.parametrize("kind", VISION)
@pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_any_two_team_colours_differ_for_every_eye(colours: tuple[str, ...], kind: str) -> None:
    assert len(set(colours)) >= 12
    smallest = min(math.dist(_seen(a, kind), _seen(b, kind)) for a, b in itertools.combinations(colours, 2))
    assert smallest >= 0.10  # OKLab; 0.02 is just noticeable


@pytest.mark.requirement("shell-4.4")
def test_style_sheet_and_palette_hold_the_same_colours() -> None:
    light, dark = CSS.split('[data-bs-theme="dark"]', 1)
    for block, colours in ((light, palette.LIGHT), (dark, palette.DARK)):
        assert re.findall(r"--team-\d+: (#\w+);", block) == list(colours)
    assert palette.colour_for(13) == palette.colour_for(1)
    assert palette.css_variable(13) == "--team-1"


@pytest.mark.requirement("shell-4.1")
def test_text_of_the_status_scale_reads_on_its_ground_in_both_themes() -> None:
    light, dark = CSS.split('[data-bs-theme="dark"]', 1)
    for block in (light, dark):
        found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        for tone in ("positive", "caution", "critical", "info", "neutral"):
            assert _contrast(found[tone], found[f"{tone}-soft"]) >= 4.5, tone
            assert _contrast(found[tone], found["surface"]) >= 4.5, tone
        for ink in ("ink", "ink-soft", "ink-faint", "accent-text"):
            for ground in ("page", "surface", "surface-sunk", "surface-hover"):
                assert _contrast(found[ink], found[ground]) >= 4.5, (ink, ground)
        assert _contrast(found["on-accent"], found["accent"]) >= 4.5
        assert _contrast(found["line-strong"], found["surface"]) >= 3


@pytest.mark.requirement("shell-4.1")
def test_templates_hold_no_style_or_script_of_their_own_and_only_known_icons() -> None:
    known = {
        line.strip()
        for line in (Path(settings.BASE_DIR) / "tools/icons.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    for path in sorted(TEMPLATES.rglob("*.html")):
        text = path.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), path
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=\"", text), path
        assert not re.search(r"(src|href)=\"(https?:)?//", text), path
        for name in re.findall(r"{% icon [\"']([\w-]+)[\"']", text):
            assert name in known, f"{path}: {name}"


@pytest.mark.requirement("shell-4.1")
@pytest.mark.parametrize(
    "name", sorted(str(p.relative_to(TEMPLATES)) for p in (TEMPLATES / "components").glob("*.html"))
)
def test_every_component_compiles(name: str) -> None:
    assert get_template(name)


def test_icons_of_statuses_are_in_the_sprite() -> None:
    sprite = (Path(settings.BASE_DIR) / "tools/icons.txt").read_text().split()
    assert set(statuses.ICONS.values()) <= set(sprite)


# -- figures


@pytest.mark.requirement("shell-4.3")
def test_a_chart_keeps_ten_series_and_sums_up_the_rest() -> None:
    days = [date(2026, 11, 1) + timedelta(days=i) for i in range(3)]
    series = [charts.Series(f"t{i}", [i, i, i], colour=i) for i in range(14)]
    figure = charts.stacked_bars(days, series, unit="GPU-hours", title="Usage")
    names = [trace["name"] for trace in figure["data"]]
    assert names == [*(f"t{i}" for i in range(4, 14)), "Other (4)"]
    assert figure["data"][-1]["y"] == [6.0, 6.0, 6.0]
    assert figure["data"][0]["meta"] == {"colour": 4}
    assert figure["layout"]["yaxis"]["title"]["text"] == "GPU-hours"
    assert "color" not in str(figure)


@given(st.lists(st.lists(st.integers(0, 10**6), min_size=4, max_size=4), min_size=1, max_size=30))
def test_summing_up_loses_nothing(values: list[list[int]]) -> None:
    series = [charts.Series(str(i), row, colour=i) for i, row in enumerate(values)]
    kept = charts.top_and_other(series)
    assert len(kept) <= 11
    for position in range(4):
        assert sum(int(s.values[position]) for s in kept) == sum(row[position] for row in values)  # type: ignore[arg-type]  # the values are whole numbers here


def test_unknown_values_are_gaps_and_names_are_text() -> None:
    figure = charts.lines(
        ["a", "b"], [charts.Series("<b>%{x}</b>", [None, Money(Decimal(3), "USD")])], unit="USD", title=""
    )
    trace = figure["data"][0]
    assert trace["y"] == [None, 3.0]
    assert "<b>" not in trace["hovertemplate"]
    assert "%{x}" not in trace["hovertemplate"]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8), st.integers(0, 4000))
def test_parts_never_leave_their_bar(values: list[int], maximum: int) -> None:
    parts = charts.parts_of([{"label": str(i), "value": v} for i, v in enumerate(values)], maximum or None)
    assert all(0 <= Decimal(p.x) <= 1000 and Decimal(p.width) >= 0 for p in parts)
    assert sum(Decimal(p.width) for p in parts) <= Decimal("1000.1")


# -- words


@pytest.mark.parametrize(
    ("write", "shown"),
    [
        (lambda: formats.money(Money(Decimal("22176"), "USD")), "22,176.00 USD"),
        (lambda: formats.money(Money(Decimal("22176.5"), "USD"), whole=True), "22,176 USD"),
        (lambda: formats.money(None), "–"),
        (lambda: formats.gpu_hours(5_760 * 3_600_000), "5,760.00"),
        (lambda: formats.gpu_hours(None), "–"),
        (lambda: formats.percent(Decimal("0.31579")), "31.6 %"),
        (lambda: formats.duration(timedelta(hours=2, minutes=5)), "2 h 5 min"),
        (lambda: formats.duration(timedelta(minutes=3, seconds=9)), "3 min"),
        (lambda: formats.duration(timedelta(seconds=0)), "0 s"),
        (lambda: formats.age(None), "never"),
        (
            lambda: formats.age(datetime(2026, 1, 1, tzinfo=UTC), now=datetime(2026, 1, 1, 0, 3, tzinfo=UTC)),
            "3 min ago",
        ),
        (lambda: formats.age(datetime(2026, 1, 3, tzinfo=UTC), now=datetime(2026, 1, 1, tzinfo=UTC)), "in 2 d"),
        (lambda: formats.datetime_utc(datetime(2026, 1, 3, 4, 5, tzinfo=UTC)), "2026-01-03 04:05 UTC"),
        (lambda: str(commons.status_badge("waiting_for_capacity")).count("Waiting for capacity"), 1),
        (lambda: commons.initials("Finance team lead"), "FL"),
        (lambda: commons.unread_label(100), "99+"),
    ],
)
def test_figures_and_times_are_written_one_way(write: Callable[[], Any], shown: Any) -> None:
    assert write() == shown


def test_a_word_that_design_does_not_have_is_a_mistake() -> None:
    assert "always this workspace's" in words.explain("Guaranteed")
    with pytest.raises(KeyError):
        words.explain("entitlement")


@pytest.mark.requirement("shell-4.5")
def test_panels_open_only_for_those_who_may(monkeypatch: pytest.MonkeyPatch, rf: Any) -> None:
    monkeypatch.setattr(panels, "_panels", {page: {} for page in panels.PAGES})
    monkeypatch.setattr(panels, "_nav", {})
    asked: list[tuple[str, Any]] = []

    def gate(user: Any, permission: str, obj: Any) -> bool:
        asked.append((permission, obj))
        return permission == "teams.team.view"

    monkeypatch.setattr(panels, "_gate", gate)

    @panels.panel("team", order=2, permission="teams.team.view")
    def second(request: Any, obj: Any) -> dict[str, Any]:
        return {"template": "x.html", "rows": 3}

    @panels.panel("team", order=1, permission="teams.team.view")
    def silent(request: Any, obj: Any) -> None:
        return None

    @panels.panel("team", order=0, permission="costs.budget.set")
    def closed(request: Any, obj: Any) -> dict[str, Any]:
        raise AssertionError("must not be called")

    request = rf.get("/")
    request.user = object()
    shown = panels.panels_for("team", request, "the team")
    assert [(panel.template, panel.context) for panel in shown] == [("x.html", {"rows": 3})]
    assert ("costs.budget.set", "the team") in asked
    monkeypatch.setattr(panels, "_gate", None)
    with pytest.raises(RuntimeError):
        panels.panels_for("team", request, "the team")
    with pytest.raises(ValueError, match="no page"):
        panels.panel("nowhere")
    with pytest.raises(ValueError, match="no navigation group"):
        panels.nav("X", "x", "x", 1, group="Elsewhere")
