"""What owned GPUs cost: enter, see the price of a GPU-hour worked out line by line, propose it."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.core.permissions import INSTALLATION, may
from apps.core.views import Crumb, DetailView, ListView
from apps.rates import actions, capex
from apps.rates.capex_actions import enter_schedule
from apps.rates.forms import CapexForm
from apps.rates.models import CapexSchedule
from apps.rates.proposal_views import ClusterChoice
from apps.rates.tables import CapexTable


def _crumbs() -> list[Crumb]:
    return [Crumb("Rate cards", reverse("rates:card-list")), Crumb("Owned GPUs", reverse("rates:capex-list"))]


class CapexList(ListView):
    """All schedules, newest first."""

    title = "Owned GPUs"
    permission = "rates.card.view"
    intro = "What GPUs of our own cost, and the price of a GPU-hour that this comes to."
    queryset = CapexSchedule.objects.select_related("cluster", "flavour")
    table_class = CapexTable
    empty_title = "No schedules yet"
    empty_text = "Enter what a purchase of GPUs cost to see the price of their GPU-hour."
    empty_icon = "calculator"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the cards."""
        return _crumbs()[:1]

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer entering to those who may."""
        if may(self.request.user, actions.MANAGE, INSTALLATION):
            return [("Enter what GPUs cost", reverse("rates:capex-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        found = self.get_page_actions()
        return found[0] if found else None


class CapexCreate(ClusterChoice):
    """Enter what GPUs cost."""

    title = "What our own GPUs cost"
    queryset = CapexSchedule.objects.all()
    form_class = CapexForm
    template_name = "rates/capex_form.html"
    submit_label = "Work out the price"
    intro = "All amounts are for all GPUs together. A schedule is never edited: a corrected one is a new one."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return _crumbs()

    def perform(self, form: Any) -> str:
        """Enter it."""
        data = form.cleaned_data
        same = ("gpus", "in_service_from", "life_months", "purchase", "residual", "power_watts", "per_kwh",
                "operations_monthly")  # fmt: skip
        schedule = enter_schedule(
            data["name"],
            self.cluster.pk,
            data["flavour"].pk,
            actor=self.actor,
            pue_permille=int(data["pue"] * 1000),
            sellable_permille=int(data["sellable_percent"] * 10),
            **{name: data[name] for name in same},
        )
        return reverse("rates:capex-detail", kwargs={"capex_uid": schedule.uid})


class CapexDetail(DetailView):
    """One schedule with its computation."""

    permission = "rates.card.view"
    queryset = CapexSchedule.objects.select_related("cluster", "flavour", "created_by")
    template_name = "rates/capex_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return _crumbs()

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the computation and where its price is proposed."""
        schedule = self.object
        propose = f"{reverse('rates:card-create')}?cluster={schedule.cluster.slug}&capex={schedule.uid}"
        return super().get_context(
            found=capex.hourly(schedule),
            propose_url=propose if may(self.request.user, actions.MANAGE, INSTALLATION) else "",
            **extra,
        )
