"""The way down as files: a team's days, a day's workloads, a workload's hourly facts, a fact's charges and source;
what nobody held by line, day and hour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from apps.core import exports, hooks
from apps.core.errors import Invalid
from apps.core.middleware import after_read
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.core.pages import PageView
from apps.costs.events import DRILL_DOWN_EXPORTED
from apps.costs.priced import PricedCharge
from apps.costs.spare_drill import SpareLine
from apps.metering.selectors import ProofView

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
    header = (
        "day", "allocated_gpu_hours", "used_gpu_hours", "measured_percent", "idle_gpu_hours", "cost", "currency",
        "other_resources_exact",
    )  # fmt: skip
    rows = [
        (
            line.day, _hours(line.allocated_gpu_ms), _hours(line.used_gpu_ms), Decimal(line.coverage_permille) / 10,
            _hours(line.idle_gpu_ms), line.amount, line.amount.currency if line.amount is not None else "",
            _six(line.resource_amount),
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


_CHARGED = (
    "what", "quantity_hours", "rate", "currency", "rate_card", "rate_uid", "query", "sha256", "quantity_ms",
    "rate_from", "rate_until", "cost_exact",
)  # fmt: skip


def _charged(what: str, charges: Iterable[PricedCharge]) -> list[Sequence[Any]]:
    """Return charges with their rates: quantity_ms × rate ÷ 3,600,000 is cost_exact."""
    return [
        (
            what, _hours(one.charge.quantity_ms), one.rate.amount if one.rate else None,
            one.rate.currency if one.rate else "", one.rate.card.name if one.rate else "",
            str(one.rate.uid) if one.rate else "", "", "", one.charge.quantity_ms,
            one.rate.valid.lower if one.rate else None, one.rate.valid.upper if one.rate else None,
            one.exact.amount if one.exact is not None else None,
        )
        for one in charges
    ]  # fmt: skip


def _sources(proof: ProofView | None) -> list[Sequence[Any]]:
    exchanges = proof.exchanges if proof else []
    return [
        ("source", None, None, "", "", "", exchange.get("query") or exchange.get("url"), exchange["sha256"],
         None, None, None, None)
        for exchange in exchanges
    ]  # fmt: skip


def fact_rows(context: dict[str, Any]) -> Table:
    """Return a fact's charges: quantity, rate, rate card; and the source queries with the hashes of their answers."""
    detail = context["detail"]
    rows = _charged("charge", detail.charges) + _sources(detail.proof)
    return f"fact-{context['fact'].uid}", _CHARGED, rows


def resource_fact_rows(context: dict[str, Any]) -> Table:
    """The same of a resource fact."""
    detail = context["detail"]
    rows = _charged(detail.fact.resource, detail.charges) + _sources(detail.proof)
    return f"fact-{context['fact'].uid}", _CHARGED, rows


def resource_rows(context: dict[str, Any]) -> Table:
    """Return a workload's resources by hour, or the single facts of one of them."""
    header = (
        "hour", "resource", "facts", "fact", "node", "quantity", "unit", "quantity_ms", "measured_percent", "cost",
        "currency",
    )  # fmt: skip
    rows = [
        (
            line.hour, line.resource, line.facts, str(line.fact_uid) if line.facts == 1 else "",
            line.node if line.facts == 1 else "", _hours(line.quantity_ms), line.unit, line.quantity_ms,
            Decimal(line.coverage_permille) / 10, line.amount, _currency(line.amount),
        )
        for line in context["lines"]
    ]  # fmt: skip
    return f"{context['team'].slug}-{context['day']}-resources", header, rows


def spare_month_rows(context: dict[str, Any]) -> Table:
    """Return a month's unallocated capacity by line, then by day."""
    header = ("what", "line", "gpu_hours", "gpu_ms", "cost", "currency")
    found = context["found"]
    rows: list[Sequence[Any]] = [("line", line.key.label, *_spare(line)) for line in found.lines]
    rows += [("day", day.at.isoformat(), *_spare(day)) for day in found.days]
    return f"unallocated-{context['month']:%Y-%m}", header, rows


def spare_day_rows(context: dict[str, Any]) -> Table:
    """Return a day's unallocated capacity by cluster, GPU model and line."""
    header = ("cluster", "gpu_model", "line", "gpu_hours", "gpu_ms", "cost", "currency")
    rows = [
        (line.cluster.slug if line.cluster else "", line.gpu_model, line.key.label, *_spare(line))
        for line in context["lines"]
    ]
    return f"unallocated-{context['day']}", header, rows


def spare_hour_rows(context: dict[str, Any]) -> Table:
    """Return a line's hours."""
    header = ("hour", "cluster", "gpu_model", "line", "gpu_hours", "gpu_ms", "cost", "currency")
    cluster, model = context["cluster"].slug, context["gpu_model"]
    rows = [(line.at, cluster, model, line.key.label, *_spare(line)) for line in context["lines"]]
    return f"unallocated-{context['day']}-hours", header, rows


def _spare(line: SpareLine) -> tuple[Any, ...]:
    return _hours(line.gpu_ms), line.gpu_ms, line.amount, _currency(line.amount)


def capacity_rows(context: dict[str, Any]) -> Table:
    """Return the capacity lines of an hour with their charges and rates, and the source queries."""
    header = ("line", "gpu_ms", *_CHARGED)
    rows: list[Sequence[Any]] = []
    empty: tuple[Any, ...] = ("line", None, None, "", "", "", "", "", None, None, None, None)
    for line in context["lines"]:
        charged = _charged("charge", line.charges) or [empty]
        rows += [(line.label, line.gpu_ms if at == 0 else None, *one) for at, one in enumerate(charged)]
    rows += [("", None, *one) for one in _sources(context["view"].proof)]
    found = context["found"]
    return f"capacity-{context['view'].cluster.slug}-{found.hour:%Y-%m-%dT%H}", header, rows


def _currency(amount: Money | None) -> str:
    return amount.currency if amount is not None else ""


def _six(amount: Money | None) -> Decimal | None:
    return None if amount is None else amount.amount.quantize(Decimal("0.000001"))
