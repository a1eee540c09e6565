"""Filters and tags that every template has without loading them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django import template
from django.http import QueryDict
from django.middleware.csrf import get_token
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.core import charts, formats, palette, statuses
from apps.core.money import Money
from apps.core.templatetags import words

register = template.Library()


@register.filter
def money(value: Money | None, style: str = "") -> str:
    """Write an amount with its currency; `|money:"whole"` without the minor unit, `|money:"signed"` with a plus."""
    return formats.money(value, whole=style == "whole", signed=style == "signed")


@register.filter
def gpu_hours(gpu_ms: int | None, places: int = 2) -> str:
    """Write GPU-milliseconds as GPU-hours, without the unit."""
    return formats.gpu_hours(gpu_ms, places=places)


@register.filter
def percent(ratio: Decimal | float | None, places: int = 1) -> str:
    """Write a ratio (1 = 100 %) in per cent."""
    return formats.percent(ratio, places=places)


@register.filter
def permille(value: int | None) -> str:
    """Write thousandths in per cent: 985 → "98.5 %"; whole ones without the decimal."""
    if value is None:
        return formats.UNKNOWN
    return formats.percent(Decimal(value) / 1000, places=0 if value % 10 == 0 else 1)


@register.filter
def number(value: int | Decimal | None) -> str:
    """Write a number with thousands separators; a dash for an unknown one."""
    return formats.number(value)


@register.filter
def age(at: datetime | None) -> str:
    """Write how long ago a moment was, as plain text; on pages prefer `{% ago moment %}`."""
    return formats.age(at)


@register.filter
def datetime_utc(at: datetime | None) -> str:
    """Write a moment as "2026-11-22 10:41 UTC"."""
    return formats.datetime_utc(at)


@register.filter
def day(value: date | None) -> str:
    """Write a day as "22 Nov 2026"."""
    return formats.day(value)


@register.filter
def duration(value: timedelta | None) -> str:
    """Write a time span, "2 h 5 min"."""
    return formats.duration(value)


@register.filter
def tone(status: object) -> str:
    """Return the tone of a status on the one status scale."""
    return statuses.tone_of(status)


@register.filter
def team_colour(index: int) -> str:
    """Return the class that gives an element its team's colour (`team-colour-3`)."""
    return f"team-colour-{int(index) % len(palette.LIGHT)}"


@register.filter
def unread_label(count: int) -> str:
    """Write a count that stops counting at a hundred."""
    return "99+" if count > 99 else str(count)


@register.filter
def initials(name: str) -> str:
    """Return up to two initials of a name."""
    parts = [part for part in str(name).split() if part[:1].isalnum()]
    return "".join(part[0] for part in (parts[:1] + parts[-1:] if len(parts) > 1 else parts)).upper()


@register.simple_tag
def ago(at: datetime | None) -> SafeString:
    """Write how long ago a moment was, with the exact time as title and for machines."""
    if at is None:
        return format_html('<span class="text-secondary">{}</span>', "never")
    return _time(formats.rfc3339(at), formats.datetime_utc(at, seconds=True), formats.age(at))


@register.simple_tag
def moment(at: datetime | None) -> SafeString:
    """Write an exact moment, with its age as title."""
    if at is None:
        return format_html('<span class="text-secondary">{}</span>', formats.UNKNOWN)
    return _time(formats.rfc3339(at), formats.age(at), formats.datetime_utc(at))


def _time(machine: str, title: str, text: str) -> SafeString:
    # Written from numbers alone (`formats`), so there is nothing to escape; tables have hundreds of them.
    return SafeString(f'<time datetime="{machine}" title="{title}">{text}</time>')


@register.simple_tag
def icon(name: str, classes: str = "", label: str = "") -> SafeString:
    """Draw an icon of the sprite; decorative unless `label` says what it means."""
    return _icon(_sprite(), name, classes, label)


@functools.cache
def _sprite() -> str:
    # Where static files are does not change while the process lives, and a page draws fifty icons.
    return static("icons.svg")


@functools.lru_cache(maxsize=1024)
def _icon(sprite: str, name: str, classes: str, label: str) -> SafeString:
    href = f"{sprite}#{name}"
    css = f"icon {classes}".strip()
    if label:
        return format_html('<svg class="{}" role="img" aria-label="{}"><use href="{}"></use></svg>', css, label, href)
    return format_html('<svg class="{}" aria-hidden="true" focusable="false"><use href="{}"></use></svg>', css, href)


@register.simple_tag
def status_badge(status: object, label: str = "", tone: str = "") -> SafeString:
    """Draw a status as a badge: word, icon and tone. `label` and `tone` replace what the status itself says."""
    if status in (None, ""):
        return format_html('<span class="text-secondary">{}</span>', formats.UNKNOWN)
    chosen = tone or statuses.tone_of(status)
    return format_html(
        '<span class="status status-{}">{}{}</span>',
        chosen,
        icon(statuses.ICONS[chosen]),
        label or statuses.label_of(status),
    )


@register.simple_tag
def term(word: str, text: str = "") -> SafeString:
    """Write a word of the portal so that its meaning can be read there: on hover, focus or touch."""
    return format_html(
        '<button type="button" class="term" data-bs-toggle="tooltip" title="{}">{}</button>',
        words.explain(word), text or word,
    )  # fmt: skip


@register.simple_tag(takes_context=True)
def url_with(context: template.Context, **changes: Any) -> str:
    """Return the present query string with parameters replaced; None or "" takes one away."""
    request = context.get("request") or getattr(context, "request", None)
    query: QueryDict = request.GET.copy() if request is not None else QueryDict(mutable=True)
    for name, value in changes.items():
        if value in (None, ""):
            query.pop(name, None)
        else:
            query[name] = str(value)
    return f"?{query.urlencode()}"


@register.simple_tag(takes_context=True)
def form_token(context: template.Context) -> SafeString:
    """Write the hidden CSRF field; works inside `{% include … only %}`, where Django's own tag finds no token."""
    request = getattr(context, "request", None) or context.get("request")
    if request is None:
        return SafeString("")
    return format_html('<input type="hidden" name="csrfmiddlewaretoken" value="{}">', get_token(request))


@register.simple_tag(takes_context=True)
def render_panel(context: template.Context, panel: Any) -> SafeString:
    """Draw a panel that `panels_for()` returned."""
    if context.template is None:
        raise RuntimeError("render_panel works inside a template only")
    part = context.template.engine.get_template(panel.template)
    with context.push(**panel.context):
        return part.render(context)


@register.simple_tag
def bar_layout(segments: Sequence[Mapping[str, Any]], maximum: Any = None) -> list[charts.Part]:
    """Lay out the parts of `components/bar.html`."""
    return charts.parts_of(segments, maximum or None)
