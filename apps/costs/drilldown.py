"""The way down as files: a team's days, a day's workloads, a workload's hourly facts, a fact's charges and source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from apps.core import exports, hooks
from apps.core.errors import Invalid
from apps.core.middleware import after_read
from apps.core.money import MILLISECONDS_PER_HOUR
from apps.core.pages import PageView
from apps.costs.events import DRILL_DOWN_EXPORTED

#: (name of the file, header, rows)
Table = tuple[str, Sequence[str], Iterable[Sequence[Any]]]


class Downloadable(PageView):
    """A page whose table is a file, too: `?export=csv` or `xlsx`, recorded in the audit trail."""

    def table_of(self, context: dict[str, Any]) -> Table:
        """Return the page's table out of its context."""
        raise Invalid({"export": "This page has no table."})

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show the page, or give its table. Raises Invalid for another format."""
        kind = request.GET.get("export", "")
        if not kind:
            return super().get(request, *args, **kwargs)
        if kind not in exports.FORMATS:
            raise Invalid({"export": f"Exports are {' or '.join(exports.FORMATS)}."})
        name, header, rows = self.table_of(self.get_context())
        response, count = exports.export_response(name, kind, header, rows)
        payload = exports.Exported(listing=name, format=kind, rows=count, query=request.path)
        actor = self.actor
        after_read(request, lambda: hooks.record_export(DRILL_DOWN_EXPORTED, payload, actor))
        return response


def _hours(gpu_ms: int | None) -> Decimal | None:
    return None if gpu_ms is None else (Decimal(gpu_ms) / MILLISECONDS_PER_HOUR).quantize(Decimal("0.000001"))


def month_rows(context: dict[str, Any]) -> Table:
    """Return a team's days."""
    header = ("day", "allocated_gpu_hours", "used_gpu_hours", "measured_percent", "idle_gpu_hours", "cost", "currency")
    rows = [
        (
            line.day, _hours(line.allocated_gpu_ms), _hours(line.used_gpu_ms), Decimal(line.coverage_permille) / 10,
            _hours(line.idle_gpu_ms), line.amount, line.amount.currency if line.amount is not None else "",
        )
        for line, _ in context["days"]
    ]  # fmt: skip
    return f"{context['team'].slug}-{context['month']:%Y-%m}-days", header, rows


def day_rows(context: dict[str, Any]) -> Table:
    """Return a day's workloads."""
    header = (
        "workload", "kind", "namespace", "cluster", "flavour", "hours", "allocated_gpu_hours", "used_gpu_hours",
        "measured_percent", "cost", "currency",
    )  # fmt: skip
    rows = [
        (
            line.workload_name, line.workload_kind, line.namespace, line.cluster_slug, line.flavour_name, line.hours,
            _hours(line.allocated_gpu_ms), _hours(line.used_gpu_ms), Decimal(line.coverage_permille) / 10, line.amount,
            line.amount.currency if line.amount is not None else "",
        )
        for line in context["rows"]
    ]  # fmt: skip
    return f"{context['team'].slug}-{context['day']}-workloads", header, rows


def hour_rows(context: dict[str, Any]) -> Table:
    """Return a workload's hourly facts."""
    header = (
        "hour", "fact", "pod", "node", "flavour", "project", "purpose", "allocated_gpu_hours", "used_gpu_hours",
        "measured_percent", "quality", "revision", "cost", "currency",
    )  # fmt: skip
    rows = [
        (
            line.fact.hour, str(line.fact.uid), line.fact.pod, line.fact.node, line.fact.flavour_name,
            line.fact.project, line.fact.purpose, _hours(line.fact.allocated_gpu_ms), _hours(line.fact.used_gpu_ms),
            Decimal(line.fact.coverage_permille) / 10, " ".join(line.fact.flags), line.fact.revision, line.amount,
            line.amount.currency if line.amount is not None else "",
        )
        for line in context["lines"]
    ]  # fmt: skip
    return f"{context['team'].slug}-{context['day']}-hours", header, rows


def fact_rows(context: dict[str, Any]) -> Table:
    """Return a fact's charges: quantity, rate, rate card; and the source queries with the hashes of their answers."""
    detail = context["detail"]
    header = ("what", "quantity_hours", "rate", "currency", "rate_card", "rate_uid", "query", "sha256")
    rows: list[Sequence[Any]] = [
        (
            "charge", _hours(charge.quantity_ms), rate.amount if rate else None, rate.currency if rate else "",
            rate.card.name if rate else "", str(rate.uid) if rate else "", "", "",
        )
        for charge, rate in detail.charges
    ]  # fmt: skip
    if detail.proof:
        rows += [
            ("source", None, None, "", "", "", exchange.get("query") or exchange.get("url"), exchange["sha256"])
            for exchange in detail.proof.exchanges
        ]
    return f"fact-{context['fact'].uid}", header, rows
