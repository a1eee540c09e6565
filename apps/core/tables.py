"""Tables of the portal: one base, and columns that know how to show and how to export what they hold."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import django_tables2 as tables
from django.template.base import render_value_in_context
from django.template.context import Context
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django_tables2.utils import A

from apps.core import formats, statuses
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.core.templatetags import commons

_NO_UID = uuid.UUID(int=0)


def _computed(attrs: Mapping[str, Any]) -> bool:
    """Whether some attribute of cells is computed from the row."""
    return any(_computed(value) if isinstance(value, Mapping) else callable(value) for value in attrs.values())


class CommonsTable(tables.Table):
    """Base of all tables: our template, a dash for unknown values, sorting that keeps to declared columns.

    Set `Meta.order_by` for the order without a click, `Meta.caption` for what screen readers announce, and per row
    `Meta.row_attrs`. Hide what a phone has no room for with `attrs={"cell": {"class": "d-none d-md-table-cell"}}`.
    """

    class Meta:
        template_name = "components/table.html"
        default = formats.UNKNOWN
        attrs = {"class": "table table-vcenter card-table"}

    def drawn_rows(self) -> Iterator[SafeString]:
        """Yield the rows of this page as `<tr>` elements, each cell escaped as a template escapes a variable.

        Written here and not in the template: a list of fifty rows has hundreds of cells, and a template works out the
        attributes of each anew.
        """
        context = Context()
        known: dict[str, str] = {}
        for row in self.paginated_rows:
            cells = []
            for column, cell in row.items():
                attributes = known.get(column.name)
                if attributes is None:
                    attributes = column.attrs["td"].as_html()
                    if not _computed(self.attrs) and not _computed(column.column.attrs):
                        known[column.name] = attributes
                cells.append(f"<td {attributes}>{render_value_in_context(cell, context)}</td>")
            # Attributes are escaped by AttributeDict, cells just above.
            yield mark_safe(f"<tr {row.attrs.as_html()}>{''.join(cells)}</tr>")  # noqa: S308 (escaped, see above)


class UidLinkColumn(tables.Column):
    """A link to the row's page: `UidLinkColumn("quotas:request-detail", kwarg="request_uid", accessor="title")`.

    `lookup` is the attribute that goes into the URL (a path such as "team__slug" works); `target` is the path to the
    object whose attribute it is, where the link leads to another row than the table's own.
    """

    def __init__(
        self, url_name: str, *, kwarg: str = "uid", lookup: str = "uid", target: str = "", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.url_name, self.kwarg, self.lookup, self.target = url_name, kwarg, lookup, target
        self._pattern = ""  # each table has its own copy of a column: the address holds for one drawing

    def url_of(self, record: Any) -> str | None:
        """Return where the cell leads, or None where the target is missing."""
        path = f"{self.target}__{self.lookup}" if self.target else self.lookup
        value = A(path).resolve(record, quiet=True)
        if isinstance(value, uuid.UUID):
            # Addresses by uid differ in nothing else: looked up once for all rows.
            self._pattern = self._pattern or reverse(self.url_name, kwargs={self.kwarg: _NO_UID})
            return self._pattern.replace(str(_NO_UID), str(value))
        return reverse(self.url_name, kwargs={self.kwarg: value}) if value not in (None, "") else None

    def render(self, value: Any, record: Any) -> SafeString | str:
        """Draw the link."""
        url = self.url_of(record)
        return format_html('<a href="{}">{}</a>', url, value) if url else str(value)

    def value(self, value: Any, **_: Any) -> str:
        """Export the text."""
        return str(value)


class _FigureColumn(tables.Column):
    """Right-aligned, tabular numerals."""

    def __init__(self, **kwargs: Any) -> None:
        attrs = kwargs.pop("attrs", {})
        extra = attrs.get("cell", {}).get("class", "")
        attrs = {**attrs, "cell": {**attrs.get("cell", {}), "class": f"figure {extra}".strip()}}
        super().__init__(attrs=attrs, **kwargs)


class MoneyColumn(_FigureColumn):
    """An amount of money. The value is a `Money`, or a Decimal whose currency stands in `currency` on the row."""

    def __init__(self, *, currency: str = "currency", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.currency = currency

    def _money(self, value: Any, record: Any) -> Money | None:
        if value is None or isinstance(value, Money):
            return value
        found = record.get(self.currency) if isinstance(record, Mapping) else getattr(record, self.currency)
        return Money(Decimal(value), str(found))

    def render(self, value: Any, record: Any) -> str:
        """Write the amount with its currency."""
        return formats.money(self._money(value, record))

    def value(self, value: Any, record: Any, **_: Any) -> Money | None:
        """Export the rounded amount as a number."""
        return self._money(value, record)


class QuantityColumn(_FigureColumn):
    """A quantity: by default GPU-milliseconds shown as GPU-hours; `unit=None` shows the integer itself.

    The unit belongs into the column's heading ("GPU-hours", "GPUs").
    """

    def __init__(self, *, unit: str | None = "gpu_ms", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if unit not in ("gpu_ms", None):
            raise ValueError("a quantity is in gpu_ms, or a plain number (None)")
        self.unit = unit

    def render(self, value: Any) -> str:
        """Write the quantity."""
        return formats.gpu_hours(value) if self.unit == "gpu_ms" else formats.number(value)

    def value(self, value: Any, **_: Any) -> Any:
        """Export the number; GPU-hours to six places."""
        if self.unit == "gpu_ms" and value is not None:
            return (Decimal(value) / MILLISECONDS_PER_HOUR).quantize(Decimal("0.000001"))
        return value


class PercentColumn(_FigureColumn):
    """A ratio (1 = 100 %)."""

    def render(self, value: Any) -> str:
        """Write the ratio in per cent."""
        return formats.percent(value)

    def value(self, value: Any, **_: Any) -> Any:
        """Export the ratio."""
        return value


class TimeColumn(tables.Column):
    """An exact moment in UTC, with its age as title."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("attrs", {"cell": {"class": "text-nowrap"}})
        super().__init__(**kwargs)

    def render(self, value: datetime) -> SafeString:
        """Write the moment."""
        return commons.moment(value)

    def value(self, value: datetime | None, **_: Any) -> datetime | None:
        """Export the moment (RFC 3339 in CSV, a date cell in XLSX)."""
        return value


class AgeColumn(TimeColumn):
    """How long ago something was, with the exact time as title."""

    def render(self, value: datetime) -> SafeString:
        """Write the age."""
        return commons.ago(value)


class StatusColumn(tables.Column):
    """A status badge. `tones` maps values to tones where the one status scale does not fit; `labels` to words."""

    def __init__(
        self,
        *,
        tones: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | Callable[[Any], str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tones, self.labels = dict(tones or {}), labels

    def _label(self, raw: Any, value: Any, record: Any) -> str:
        if callable(self.labels):
            return self.labels(record)
        if self.labels is not None and str(raw) in self.labels:
            return self.labels[str(raw)]
        # django-tables2 hands over the label of a choice; without choices the value stands for itself.
        return str(value) if str(value) != str(raw) else statuses.label_of(raw)

    def render(self, value: Any, record: Any, bound_column: Any) -> SafeString:
        """Draw the badge; its tone hangs on the stored value, not on the word."""
        raw = bound_column.accessor.resolve(record, quiet=True)
        return commons.status_badge(raw, self._label(raw, value, record), self.tones.get(str(raw), ""))

    def value(self, value: Any, record: Any, bound_column: Any, **_: Any) -> str:
        """Export the word."""
        return self._label(bound_column.accessor.resolve(record, quiet=True), value, record)


class ActionsColumn(tables.Column):
    """Buttons at the end of a row, never exported: `ActionsColumn(template_name="quotas/rows/actions.html")`.

    The template sees `record` and `request`.
    """

    def __init__(self, *, template_name: str, **kwargs: Any) -> None:
        kwargs.setdefault("verbose_name", "Actions")
        kwargs.setdefault("attrs", {"cell": {"class": "row-actions"}})
        super().__init__(empty_values=(), orderable=False, exclude_from_export=True, **kwargs)
        self.template_name = template_name

    def render(self, record: Any, table: Any) -> SafeString:
        """Draw the buttons."""
        return render_to_string(self.template_name, {"record": record}, getattr(table, "request", None))


__all__ = [
    "ActionsColumn",
    "AgeColumn",
    "CommonsTable",
    "MoneyColumn",
    "PercentColumn",
    "QuantityColumn",
    "StatusColumn",
    "TimeColumn",
    "UidLinkColumn",
]
