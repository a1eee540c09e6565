"""Pages of capacity that nobody held: a month by day, a day by line, a line by hour, the lines of one hour."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.errors import Invalid, NotVisible
from apps.core.pages import Crumb, PageView
from apps.costs import capacity_money, selectors, spare_drill
from apps.costs.choices import UNALLOCATED, ChargeKind
from apps.costs.drill_pages import hour_of, hour_text, page_of, sensible
from apps.costs.drilldown import Downloadable, Table, capacity_rows, spare_day_rows, spare_hour_rows, spare_month_rows
from apps.costs.models import DayCharge
from apps.costs.report_figures import Reach, reach_of
from apps.costs.reporting import OTHERS
from apps.costs.spare_drill import EVERYTHING, Choice, SpareLine
from apps.costs.tally import total_of
from apps.costs.views import day_of
from apps.metering import billing
from apps.teams.models import Team, Unit

#: What the line of an hours' page was shown among on the day's page: everything, its kind, or its owner alone.
_WITHIN = ("all", "kind", "owner")


def hour_url(cluster_slug: str, hour: datetime, gpu_model: str) -> str:
    """Return the permanent address of the capacity lines of a cluster, GPU model and hour."""
    address = reverse("costs:capacity-hour", kwargs={"cluster_slug": cluster_slug, "hour": hour_text(hour)})
    return f"{address}?{urlencode({'model': gpu_model})}"


def spare_url(at: date, query: dict[str, str], *, page: str = "month") -> str:
    """Return the address of a month's, day's or line's unallocated capacity; empty parts of the query are left out."""
    key = {"month": f"{at:%Y-%m}"} if page == "month" else {"day": at.isoformat()}
    asked = urlencode({name: value for name, value in query.items() if value})
    return reverse(f"costs:unallocated-{page}", kwargs=key) + (f"?{asked}" if asked else "")


class SparePage(Downloadable, PageView):
    """Base: what is chosen by unit, kind and owner, and what of it the person sees."""

    permission = "costs.charge.view"
    queryset = DayCharge.objects.all()
    reach: Reach
    unit: Unit | None = None
    choice: Choice

    def prepare(self) -> None:
        """Read the unit and the choice. Raises NotVisible for a unit outside the scope, Invalid for no such kind."""
        asked = self.request.GET
        if slug := asked.get("unit", ""):
            self.unit = Unit.objects.filter(slug=slug).first()
            if self.unit is None:
                raise NotVisible
        self.reach = reach_of(self.unit, self.request.user)
        kind, owner = asked.get("kind", ""), asked.get("owner", "")
        if kind and kind not in UNALLOCATED:
            raise Invalid({"kind": f"Unallocated capacity is {', '.join(UNALLOCATED)}."})
        self.choice = Choice(kind, owner[:100])

    @property
    def query(self) -> dict[str, str]:
        """The choice as addresses carry it."""
        unit = self.unit.slug if self.unit is not None else ""
        return {"unit": unit, "kind": self.choice.kind, "owner": self.choice.owner}

    @property
    def chosen(self) -> str:
        """The choice in words; "": everything."""
        if not self.choice.kind:
            return ""
        words = str(ChargeKind(self.choice.kind).label)
        if not self.choice.owner:
            return words
        owner = {spare_drill.FOREIGN: OTHERS, spare_drill.NOBODY: "no owner"}.get(self.choice.owner)
        if owner is None:
            teams = Team.objects.visible_to(self.request.user).filter(slug=self.choice.owner)
            owner = teams.values_list("name", flat=True).first() or self.choice.owner
        return f"{words}: {owner}"

    def crumbs(self, at: date, *, day: bool = False) -> list[Crumb]:
        """Return the way down to here: the report of the unit, the month, the day."""
        found = [Crumb("Costs", reverse("costs:team-list"))]
        if self.unit is not None:
            report = {"unit_slug": self.unit.slug, "month": f"{at:%Y-%m}"}
            found = [Crumb(f"{self.unit}: {at:%B %Y}", reverse("reports:monthly", kwargs=report))]
        found.append(Crumb(f"Unallocated in {at:%B %Y}", spare_url(at, self.query)))
        if day:
            found.append(Crumb(f"{at:%d %B}", spare_url(at, self.query, page="day")))
        return found

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what is chosen."""
        return super().get_context(unit=self.unit, chosen=self.chosen, zone=billing.zone_name(), **extra)


class UnallocatedMonth(SparePage):
    """A month's unallocated capacity: its lines as in the monthly report, and its days."""

    template_name = "costs/unallocated_month.html"

    def _month(self) -> date:
        try:
            return sensible(billing.parse_month(self.kwargs["month"]))
        except ValueError as error:
            raise NotVisible("There is no such month.") from error

    def get_title(self) -> str:
        """Return the month, and whose view it is."""
        whose = f"{self.unit}: " if self.unit is not None else ""
        return f"{whose}Unallocated in {self._month():%B %Y}"

    def table_of(self, context: dict[str, Any]) -> Table:
        """Lines and days, as shown."""
        return spare_month_rows(context)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the report, or to all costs."""
        return self.crumbs(self._month())[:-1]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add lines and days."""
        month = self._month()
        found = spare_drill.spare_month(self.reach, month, self.choice)
        following = billing.following(month)
        return super().get_context(
            month=month,
            previous_url=spare_url(billing.previous(month), self.query),
            next_url=spare_url(following, self.query) if following <= clock.now().date() else "",
            found=found,
            lines=[
                (line, spare_url(month, {**self.query, "kind": line.key.kind, "owner": line.key.owner}))
                for line in _largest(found.lines)
            ],
            more=max(0, len(found.lines) - _MOST),
            days=[(day, spare_url(day.at, self.query, page="day")) for day in found.days],
            gpu_ms=sum(day.gpu_ms for day in found.days),
            unpriced=any(day.unpriced_gpu_ms for day in found.days),
            completeness=selectors.month_completeness(month, spare_drill.clusters_seen(self.reach, month)),
            **extra,
        )


_MOST = 50


def _largest(lines: list[SpareLine]) -> list[SpareLine]:
    """Return at most fifty lines, the largest, in the order of the report."""
    if len(lines) <= _MOST:
        return lines
    kept = {id(line) for line in sorted(lines, key=lambda one: -one.gpu_ms)[:_MOST]}
    return [line for line in lines if id(line) in kept]


class UnallocatedDay(SparePage):
    """A day's unallocated capacity by cluster, GPU model, kind and owner."""

    template_name = "costs/unallocated_day.html"
    htmx_template = "costs/unallocated_day.html#list"

    def get_title(self) -> str:
        """Return the day."""
        return f"Unallocated on {day_of(self.kwargs['day']):%d %B %Y}"

    def table_of(self, context: dict[str, Any]) -> Table:
        """The lines, of all pages."""
        return spare_day_rows(context)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the month."""
        return self.crumbs(day_of(self.kwargs["day"]))

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the lines, adding up to the day's figure of the month."""
        day = day_of(self.kwargs["day"])
        above, lines = spare_drill.spare_day(self.reach, day, self.choice)
        pages = page_of(self.request, lines)
        return super().get_context(
            day=day,
            previous_url=spare_url(day - timedelta(days=1), self.query, page="day"),
            next_url=spare_url(day + timedelta(days=1), self.query, page="day"),
            above=above,
            lines=lines,
            pages=pages,
            rows=[(line, self._address(day, line)) for line in pages.object_list],
            **extra,
        )

    def _address(self, day: date, line: SpareLine) -> str:
        within = "owner" if self.choice.owner else "kind" if self.choice.kind else ""
        cluster = line.cluster.slug if line.cluster is not None else ""
        query = {
            **self.query, "kind": line.key.kind, "owner": line.key.owner, "cluster": cluster, "model": line.gpu_model,
            "within": within,
        }  # fmt: skip
        return spare_url(day, query, page="hours")


class UnallocatedHours(SparePage):
    """One line of a day by hour."""

    template_name = "costs/unallocated_hours.html"

    def get_title(self) -> str:
        """Return the line."""
        return self.chosen or "Unallocated capacity"

    def table_of(self, context: dict[str, Any]) -> Table:
        """The hours, as shown."""
        return spare_hour_rows(context)

    @property
    def within(self) -> Choice:
        """Among what the day's page showed the line."""
        asked = self.request.GET.get("within") or "all"
        if asked not in _WITHIN:
            raise Invalid({"within": f"The line stands among {', '.join(_WITHIN)}."})
        if asked == "all":
            return EVERYTHING
        return Choice(self.choice.kind, self.choice.owner if asked == "owner" else "")

    @property
    def query(self) -> dict[str, str]:
        """The choice of the pages above."""
        within = self.within
        return {**super().query, "kind": within.kind, "owner": within.owner}

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the day."""
        return self.crumbs(day_of(self.kwargs["day"]), day=True)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the hours. Raises Invalid where the address names no line, NotVisible where the day has none of it."""
        day = day_of(self.kwargs["day"])
        cluster = Cluster.objects.filter(slug=self.request.GET.get("cluster", "")).first()
        if cluster is None or not self.choice.kind:
            raise Invalid({"cluster": "The address names a line by cluster, GPU model, kind and owner."})
        model = self.request.GET.get("model", "")
        above, hours = spare_drill.spare_hours(self.reach, day, self.choice, cluster, model, within=self.within)
        return super().get_context(
            day=day,
            cluster=cluster,
            gpu_model=model,
            above=above,
            lines=hours,
            rows=[(line, hour_url(cluster.slug, line.at, model)) for line in hours],
            **extra,
        )


class CapacityHour(Downloadable, PageView):
    """The capacity lines of one cluster, GPU model and hour: every GPU-millisecond, rates, amounts, source."""

    permission = "costs.charge.view"
    queryset = DayCharge.objects.all()
    template_name = "costs/capacity_hour.html"
    view: capacity_money.HourView

    def get_title(self) -> str:
        """Return what it is about."""
        return f"Capacity: {self.view.hour.gpu_model or 'GPU model unknown'} on {self.view.cluster}"

    def prepare(self) -> None:
        """Load the lines. Raises NotVisible, whether there are none or they are not the person's to see."""
        hour = hour_of(self.kwargs["hour"])
        cluster = Cluster.objects.filter(slug=self.kwargs["cluster_slug"]).first()
        if cluster is None:
            raise NotVisible
        self.view = capacity_money.hour_view(cluster, self.request.GET.get("model", ""), hour, self.request.user)

    def table_of(self, context: dict[str, Any]) -> Table:
        """Lines with rates, and the source queries."""
        return capacity_rows(context)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the day and month of unallocated capacity."""
        day = billing.day_of(self.view.hour.hour)
        return [
            Crumb("Costs", reverse("costs:team-list")),
            Crumb(f"Unallocated in {day:%B %Y}", spare_url(day, {})),
            Crumb(f"{day:%d %B}", spare_url(day, {}, page="day")),
        ]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the lines, what they follow from, and the hours beside this one."""
        view, found = self.view, self.view.hour
        step = timedelta(hours=1)
        return super().get_context(
            view=view,
            found=found,
            lines=view.lines,
            reserved=[line for line in view.lines if line.guaranteed_gpu_ms is not None],
            # What single teams held costs is not told to everybody: then no sum of what is told stands for the whole.
            total=total_of(line.amount for line in view.lines) if all(line.told for line in view.lines) else None,
            previous_url=hour_url(view.cluster.slug, found.hour - step, found.gpu_model),
            next_url=hour_url(view.cluster.slug, found.hour + step, found.gpu_model),
            **extra,
        )


__all__ = [
    "CapacityHour", "SparePage", "UnallocatedDay", "UnallocatedHours", "UnallocatedMonth", "hour_url", "spare_url",
]  # fmt: skip
