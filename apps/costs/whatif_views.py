"""What if: stored hours at other prices, side by side.

What can be answered at once is a link (GET); what takes long is asked by POST, answered by a worker and kept for a
while for the person who asked. Prices, quantities and statements stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core import exports, hooks
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.middleware import after_read
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.core.pages import SeeOther
from apps.core.views import Crumb, DetailView, PageView
from apps.costs import whatif_questions as questions
from apps.costs import whatif_reading as reading
from apps.costs import whatif_runs as runs
from apps.costs.choices import UNDER_WAY, FileStatus
from apps.costs.events import WHATIF_EXPORTED
from apps.costs.models import DayCharge, WhatIfRun
from apps.costs.whatif_forms import WhatIfForm
from apps.costs.whatif_questions import Question
from apps.metering import billing
from apps.teams import scope

HEADER = [
    "By", "Name", "GPU-hours", "Quantity, unit-hours", "Now", "Then", "Difference", "Difference, %", "Currency",
    "Remark",
]  # fmt: skip
#: Answers of before that the page lists.
LISTED = 10
_NOT_ASKED = ("cluster", "export", "find", "search")


class WhatIfPage(PageView):
    """Stored hours at other prices: asked, and answered at once where that is possible."""

    title = "What if"
    permission = reading.RUN
    queryset = DayCharge.objects.all()
    template_name = "costs/whatif.html"

    def prepare(self) -> None:
        """Read what can be chosen. Raises NotVisible for a cluster that is not there."""
        slug = self.request.GET.get("cluster", "")
        self.clusters = list(Cluster.objects.order_by("name", "pk"))
        chosen = [cluster for cluster in self.clusters if cluster.slug == slug] if slug else self.clusters[:1]
        if not chosen:
            raise NotVisible("There is no such cluster." if slug else "There is no cluster with prices yet.")
        self.cluster = chosen[0]
        self.stored = reading.stored()
        self.units = scope.of(self.request.user).units_with(reading.RUN)

    def breadcrumbs(self) -> list[Crumb]:
        """Below the costs."""
        return [Crumb("Costs", reverse("costs:team-list"))]

    def _form(self, *, bound: bool) -> WhatIfForm:
        """Return the form as it was sent, or only filled in with that: while somebody searches nothing is wrong yet."""
        data = self._data()
        named = {name: data.getlist(name) for name in ("card", "proposal")}
        return WhatIfForm(
            data if bound else None, cluster=self.cluster, user=self.request.user, units=self.units, chosen=named,
            words=data.get("find", ""), initial={**data.dict(), **named},
        )  # fmt: skip

    def _data(self) -> Any:
        data = self.request.GET.copy()
        if not any(data.get(name) for name in ("from", "to", "start", "end")):
            month = f"{reading.last_full_month():%Y-%m}"
            data["from"] = data["to"] = month
        elif data.get("from") and not data.get("to"):
            data["to"] = f"{reading.last_full_month():%Y-%m}"
        elif data.get("to") and not data.get("from"):
            data["from"] = f"{reading.last_full_month():%Y-%m}"
        for name in ("card", "proposal"):
            data.setlist(name, [uid for uid in data.getlist(name) if uid])
        return data

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Ask, or answer what is asked in the address; what takes long is offered to a worker."""
        asked = any(value for key, value in request.GET.items() if key not in _NOT_ASKED)
        if not asked or "search" in request.GET:
            self.form = self._form(bound=False)
            return self.page()
        self.form = self._form(bound=True)
        if not self.form.is_valid():
            return self.page(status=400)
        question = self.form.question()
        try:
            prices = questions.prices_of(question, request.user, cluster=self.cluster)
            if not runs.at_once(question, prices):
                return self.page(long=question)
            found = reading.what_if(
                request.user, prices, question.start, question.end, questions.unit_of(question, request.user),
                standing=self.stored,
            )  # fmt: skip
        except Invalid as invalid:
            self.form.add_invalid(invalid)
            return self.page(status=400)
        if "export" in request.GET:
            return exported(self, found)
        return self.page(found=found)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Have a worker answer what is asked in the address."""
        self.form = self._form(bound=True)
        if not self.form.is_valid():
            return self.page(status=400)
        try:
            run = runs.ask(self.form.question(), actor=self.actor)
        except Invalid as invalid:
            self.form.add_invalid(invalid)
            return self.page(status=400)
        return SeeOther(reverse("costs:whatif-run", kwargs={"run_uid": run.uid}))

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the form, what is stored, and the answers of before."""
        query = self.request.GET.copy()
        query["export"] = "csv"
        own = WhatIfRun.objects.visible_to(self.request.user).defer("answer").order_by("-created_at", "-pk")[:LISTED]
        return super().get_context(
            form=self.form, clusters=self.clusters, cluster=self.cluster, zone=billing.zone_name(),
            export_url=f"?{query.urlencode()}", stored=self.stored, months=self._quick_months(self.stored),
            answers=[(run, questions.load(run.question)) for run in own], kept=runs.KEPT.days, **extra,
        )  # fmt: skip

    def _quick_months(self, standing: Any) -> list[tuple[str, str]]:
        """Return (label, address) of spans that are often asked for: they fill in the form."""
        if standing is None:
            return []
        full = reading.last_full_month()
        oldest = billing.month_of(standing[0])
        newest = billing.month_of(standing[1] - timedelta(hours=1))
        spans = [("Last month", full, full)]
        for count in (3, 12):
            first = full
            for _ in range(count - 1):
                first = billing.previous(first)
            spans.append((f"Last {count} months", max(first, oldest), full))
        spans = [span for span in spans if span[1] <= span[2]] + [("All that is stored", oldest, newest)]
        query = self.request.GET.copy()
        for name in ("start", "end", "export"):
            query.pop(name, None)
        found = []
        for label, first, last in spans:
            query["from"], query["to"], query["search"] = f"{first:%Y-%m}", f"{last:%Y-%m}", "1"
            found.append((label, f"?{query.urlencode()}"))
        return found


class WhatIfRunPage(DetailView):
    """A what-if that a worker answers: how far it is, then the answer."""

    title = "What if"
    permission = reading.RUN
    queryset = WhatIfRun.objects.all()
    url_kwarg = "run_uid"
    template_name = "costs/whatif_run.html"
    object: WhatIfRun

    def scope_object(self) -> Any:
        """`visible_to` has decided: it is the person's own."""
        return None

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the question."""
        return [Crumb("Costs", reverse("costs:team-list")), Crumb("What if", reverse("costs:whatif"))]

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show it. Raises Conflict for a file of what is not answered."""
        run = self.object
        found = runs.load(run, request.user) if run.status == FileStatus.DONE else None
        if "export" in request.GET:
            if found is None:
                raise Conflict("This is not answered yet.", current={"status": run.status})
            return exported(self, found)
        question: Question = questions.load(run.question)
        return self.page(
            run=run, found=found, question=question, under_way=run.status in UNDER_WAY, zone=billing.zone_name(),
            cards=questions.cards_of(request.user, question.cards),
            proposals=questions.proposals_of(request.user, question.proposals),
        )  # fmt: skip


def exported(page: PageView, found: reading.WhatIf) -> HttpResponseBase:
    """Give the answer as a file and have it recorded once the read transaction is closed."""
    kind = page.request.GET["export"]
    if kind not in exports.FORMATS:
        raise Invalid({"export": f"Exports are {' or '.join(exports.FORMATS)}."})
    name = f"what-if-{found.start:%Y-%m-%dT%H}-{found.end:%Y-%m-%dT%H}"
    response, count = exports.export_response(name, kind, HEADER, _rows(found))
    query = page.request.GET.copy()
    query.pop("export")
    payload = exports.Exported(listing="what-if", format=kind, rows=count, query=query.urlencode())
    actor = page.actor
    after_read(page.request, lambda: hooks.record_export(WHATIF_EXPORTED, payload, actor))
    return response


def _rows(found: reading.WhatIf) -> Iterator[list[Any]]:
    """Yield the lines as they stand on the page: group by group, then the total."""
    total = reading.Group("total", "", "", [reading.NamedLine("Total", "", found.total)])
    for group in [*found.groups, total]:
        for row in group.lines:
            line = row.line
            remarks = ["part unknown"] if line.unknown else []
            remarks += ["part as charged"] if line.kept else []
            yield [
                group.by, row.name, _hours(line.gpu_ms), _hours(line.quantity_ms) if group.by == "price" else None,
                _amount(line.now), _amount(line.then), _amount(line.change), line.change_percent,
                _currency(line.now or line.then), ", ".join(remarks),
            ]  # fmt: skip


def _hours(milliseconds: int) -> Decimal:
    return (Decimal(milliseconds) / MILLISECONDS_PER_HOUR).quantize(Decimal("0.000001"))


def _amount(money: Money | None) -> Decimal | None:
    return None if money is None else money.amount


def _currency(money: Money | None) -> str:
    return "" if money is None else money.currency
