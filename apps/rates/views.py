"""Rate cards: what is charged, and since when."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.core import clock
from apps.core.permissions import INSTALLATION, may
from apps.core.views import Crumb, DetailView, ListView
from apps.rates import actions, selectors
from apps.rates.choices import ProposalStatus
from apps.rates.models import RateCard, RateProposal
from apps.rates.tables import CardFilter, CardTable


def _list_crumb() -> Crumb:
    return Crumb("Rate cards", reverse("rates:card-list"))


class CardList(ListView):
    """All rate cards."""

    title = "Rate cards"
    intro = (
        "What an hour of each flavour and resource costs, and since when. A price in force never changes; a later card"
        " ends it."
    )
    template_name = "rates/card_list.html"
    table_class = CardTable
    filterset_class = CardFilter
    empty_title = "No prices yet"
    empty_text = "Until finance publishes a rate card, costs are unknown (never zero)."
    empty_icon = "receipt"

    @staticmethod
    def queryset() -> Any:
        """Cards with their state, start and number of flavours."""
        return selectors.with_state(RateCard.objects.select_related("cluster"))

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer proposing, the proposals and the schedules to those who may."""
        user = self.request.user
        found = []
        if may(user, actions.MANAGE, INSTALLATION):
            found.append(("Propose a rate card", reverse("rates:card-create")))
        if may(user, "rates.card.view", None):
            found.append(("Proposals", reverse("rates:proposal-list")))
            found.append(("Owned GPUs", reverse("rates:capex-list")))
        return found

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        found = self.get_page_actions()
        return found[0] if found and may(self.request.user, actions.MANAGE, INSTALLATION) else None

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the proposals that wait, for those who see them."""
        rows = RateProposal.objects.visible_to(self.request.user).filter(status=ProposalStatus.PROPOSED)
        proposals = rows.select_related("cluster", "proposed_by").order_by("created_at", "pk")
        return super().get_context(proposals=list(proposals[:10]), **extra)


class CardDetail(DetailView):
    """One rate card: its prices, and the whole history of the flavours in it."""

    queryset = RateCard.objects.select_related("cluster", "created_by", "proposal__proposed_by")
    template_name = "rates/card_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_list_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add prices and history."""
        at = clock.now()
        return super().get_context(
            prices=selectors.card_prices(self.object, at=at),
            history=selectors.price_history(self.object, at=at),
            **extra,
        )
