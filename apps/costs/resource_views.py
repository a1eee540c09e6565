"""Pages below a team's day: what a workload had of CPU, memory, storage and egress, by hour, by fact, one fact."""

from __future__ import annotations

import uuid
from datetime import date, datetime
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core.errors import Invalid, NotVisible
from apps.core.pages import Crumb, PageView
from apps.costs import resource_drill, selectors
from apps.costs.choices import RESOURCES, ChargeKind
from apps.costs.drill_pages import hour_of, hour_text, page_of
from apps.costs.drilldown import Downloadable, Table, resource_fact_rows, resource_rows
from apps.costs.tally import total_of
from apps.costs.views import TeamPage, day_of, day_url, month_url
from apps.metering import billing
from apps.metering.models import ResourceFact
from apps.teams.models import Team


def resource_day_url(team: Team, day: date, query: dict[str, str]) -> str:
    """Return the address of a workload's resources on a day."""
    address = reverse("costs:resource-day", kwargs={"team_slug": team.slug, "day": day.isoformat()})
    return f"{address}?{urlencode(query)}"


def fact_url(hour: datetime, fact_uid: uuid.UUID) -> str:
    """Return the permanent address of a resource fact."""
    return reverse("costs:resource-fact", kwargs={"hour": hour_text(hour), "fact_uid": fact_uid})


class ResourceDay(TeamPage):
    """A workload's resources on a day by hour and resource; with `hour` and `resource`, the single facts behind one."""

    template_name = "costs/resource_day.html"
    htmx_template = "costs/resource_day.html#list"

    def get_title(self) -> str:
        """Return the workload's name."""
        return str(self.request.GET.get("name", "")) or "Workload"

    def table_of(self, context: dict[str, Any]) -> Table:
        """The lines, as shown, of all pages."""
        return resource_rows(context)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the day, and from single facts to the workload."""
        day = day_of(self.kwargs["day"])
        found = self.crumbs(day.replace(day=1), day)
        if self.request.GET.get("hour"):
            found.append(Crumb(f"{self.get_title()}: other resources", resource_day_url(self.team, day, self._query())))
        return found

    def _query(self) -> dict[str, str]:
        return {name: self.request.GET.get(name, "") for name in ("cluster", "namespace", "name")}

    def _workload(self) -> tuple[resource_drill.Workload, Cluster]:
        asked = self._query()
        cluster = Cluster.objects.filter(slug=asked["cluster"]).first()
        if not asked["name"] or cluster is None:
            raise Invalid({"name": "The address names a workload by name, namespace and cluster."})
        return resource_drill.Workload(cluster.pk, asked["namespace"], asked["name"]), cluster

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the lines. Raises Invalid where the address names no workload, NotVisible where nothing was charged."""
        day = day_of(self.kwargs["day"])
        workload, cluster = self._workload()
        user = self.request.user
        figure = selectors.workload_figure(
            self.team, day, user, workload_name=workload.name, cluster_id=workload.cluster_id,
            namespace=workload.namespace, resources=True,
        )  # fmt: skip
        units = selectors.visible_units(self.team, *billing.day_bounds(day), user)
        lines = resource_drill.resource_hours(self.team, day, user, workload, total=figure, units=units)
        chosen, hour, resource = lines, None, self.request.GET.get("resource", "")
        if asked := self.request.GET.get("hour", ""):
            hour = hour_of(asked)
            if resource not in RESOURCES:
                raise Invalid({"resource": "The address names one of CPU, memory, storage and egress."})
            above = next((line for line in lines if (line.hour, line.resource) == (hour, resource)), None)
            if above is None:
                raise NotVisible
            chosen = resource_drill.resource_facts(
                self.team, hour, resource, user, workload, total=above.amount, units=units
            )
        if not chosen:
            raise NotVisible
        pages = page_of(self.request, chosen)
        return super().get_context(
            team=self.team,
            day=day,
            cluster=cluster,
            namespace=workload.namespace,
            zone=billing.zone_name(),
            hour=hour,
            resource=str(ChargeKind(resource).label) if hour is not None else "",
            lines=chosen,
            pages=pages,
            rows=[(line, self._address(day, line, hour is not None)) for line in pages.object_list],
            total=total_of(line.amount for line in chosen),
            unpriced=any(line.unpriced_ms for line in chosen),
            **extra,
        )

    def _address(self, day: date, line: resource_drill.ResourceLine, single: bool) -> str:
        """Return where a line opens: the fact, or the facts that it adds up."""
        if single or line.facts == 1:
            return fact_url(line.hour, line.fact_uid)
        query = {**self._query(), "resource": line.resource, "hour": hour_text(line.hour)}
        return resource_day_url(self.team, day, query)


class ResourceFactDetail(Downloadable, PageView):
    """One hourly resource fact: quantities, charges, rates, and the source proof."""

    permission = "metering.fact.view"
    queryset = ResourceFact.objects.all()
    template_name = "costs/resource_fact.html"
    detail: resource_drill.ResourceDetail

    def get_title(self) -> str:
        """Return the resource."""
        return f"Hourly fact: {self.detail.label}"

    def prepare(self) -> None:
        """Load the fact. Raises NotVisible."""
        hour = hour_of(self.kwargs["hour"])
        self.detail = resource_drill.resource_detail(hour, self.kwargs["fact_uid"], self.request.user)

    def table_of(self, context: dict[str, Any]) -> Table:
        """The fact's charges with their rates and the source query."""
        return resource_fact_rows(context)

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the workload's resources, its day and its month, where the team is there."""
        fact = self.detail.fact
        team = Team.objects.visible_to(self.request.user).filter(pk=fact.team_id).first() if fact.team_id else None
        found = [Crumb("Costs", reverse("costs:team-list"))]
        if team is None:
            return found
        day = billing.day_of(fact.hour)
        cluster = Cluster.objects.get(pk=fact.cluster_id)
        query = {"cluster": cluster.slug, "namespace": fact.namespace, "name": fact.workload_name}
        return [
            *found,
            Crumb(f"{team} in {day:%B %Y}", month_url(team, day)),
            Crumb(f"{day:%d %B}", day_url(team, day)),
            Crumb(f"{fact.workload_name}: other resources", resource_day_url(team, day, query)),
        ]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what the fact stands on."""
        fact = self.detail.fact
        return super().get_context(
            detail=self.detail,
            fact=fact,
            cluster=Cluster.objects.filter(pk=fact.cluster_id).first(),
            **extra,
        )


__all__ = ["ResourceDay", "ResourceFactDetail", "fact_url", "resource_day_url"]
