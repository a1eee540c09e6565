"""Pages of flavours."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponseBase
from django.urls import reverse

from apps.clusters import actions, capacity
from apps.clusters.flavour_forms import FlavourForm
from apps.clusters.models import Flavour
from apps.clusters.pool_tables import FlavourFilter, FlavourTable
from apps.core.permissions import may
from apps.core.views import CreateView, Crumb, ListView


def _flavours_crumb() -> Crumb:
    return Crumb("Flavours", reverse("clusters:flavour-list"))


class FlavourList(ListView):
    """All flavours."""

    title = "Flavours"
    intro = "The GPU and CPU classes a team can ask for."
    table_class = FlavourTable
    filterset_class = FlavourFilter
    queryset = Flavour.objects.prefetch_related("pools__cluster")
    empty_title = "No flavour yet"
    empty_text = "A flavour says which GPU model is asked for, under which resource name, and how it is shared."
    empty_icon = "cpu"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer creating to those who may."""
        if may(self.request.user, capacity.MANAGE, None):
            return [("Create a flavour", reverse("clusters:flavour-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        return next(iter(self.get_page_actions()), None)


class FlavourCreate(CreateView):
    """Create a flavour."""

    title = "Create a flavour"
    queryset = Flavour.objects.all()
    permission = capacity.MANAGE
    form_class = FlavourForm
    submit_label = "Create the flavour"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_flavours_crumb()]

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Create it."""
        data = {key: value for key, value in form.cleaned_data.items() if key != "version"}
        flavour = actions.create_flavour(data.pop("name"), actor=self.actor, **data)
        self.success_message = f"{flavour} can be offered from a pool now."
        return reverse("clusters:flavour-list")
