"""Rate cards: what is charged since when, and publishing."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponseBase
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.errors import NotVisible
from apps.core.permissions import may
from apps.core.views import CreateView, Crumb, DetailView, ListView
from apps.rates import actions, selectors
from apps.rates.forms import PublishCardForm
from apps.rates.models import RateCard
from apps.rates.tables import CardFilter, CardTable


def _list_crumb() -> Crumb:
    return Crumb("Rate cards", reverse("rates:card-list"))


class CardList(ListView):
    """All rate cards."""

    title = "Rate cards"
    intro = "What an hour of each flavour costs, and since when. A price in force never changes; a later card ends it."
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
        """Offer publishing to those who may."""
        if may(self.request.user, actions.MANAGE, None):
            return [("Publish a rate card", reverse("rates:card-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        found = self.get_page_actions()
        return found[0] if found else None


class CardDetail(DetailView):
    """One rate card: its prices, and the whole history of the flavours in it."""

    queryset = RateCard.objects.select_related("cluster", "created_by")
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


class CardCreate(CreateView):
    """Publish a rate card: fill in, look at what ends and begins, confirm."""

    title = "Publish a rate card"
    permission = actions.MANAGE
    queryset = RateCard.objects.all()
    form_class = PublishCardForm
    template_name = "rates/card_form.html"
    submit_label = "Show what changes"
    intro = "Prices are per hour of one unit of a flavour. Before anything is published you see which price ends when."
    cluster: Cluster

    def prepare(self) -> None:
        """Find the cluster: the one named, or the only one. Raises NotVisible for an unknown one."""
        self.clusters = list(Cluster.objects.order_by("name", "pk"))
        slug = self.request.GET.get("cluster", "")
        chosen = [cluster for cluster in self.clusters if cluster.slug == slug] if slug else self.clusters[:1]
        if not chosen:
            raise NotVisible("There is no such cluster." if slug else "There is no cluster to publish prices for yet.")
        self.cluster = chosen[0]

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [_list_crumb()]

    def get_form_kwargs(self) -> dict[str, Any]:
        """Fields for the cluster's flavours."""
        return {"cluster": self.cluster}

    def get_initial(self) -> dict[str, Any]:
        """Start at the next full hour."""
        from datetime import timedelta

        return {"valid_from": clock.hour_floor(clock.now()) + timedelta(hours=1)}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the choice of clusters."""
        return super().get_context(clusters=self.clusters, cluster=self.cluster, **extra)

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Show what would change; publish when exactly that was confirmed."""
        data = form.cleaned_data
        if data.get("confirm") != form.fingerprint:
            names = {flavour.pk: flavour.name for flavour in form.flavours}
            preview = selectors.preview_card(
                self.cluster.pk, form.moneys, names, data["valid_from"], data.get("valid_until")
            )
            return self.page(preview=preview, confirm=form.fingerprint, submit_label="Publish these prices")
        card = actions.publish_card(
            data["name"],
            self.cluster.pk,
            form.prices,
            next(iter(form.moneys.values())).currency,
            data["valid_from"],
            valid_until=data.get("valid_until"),
            note=data.get("note", ""),
            actor=self.actor,
        )
        self.success_message = f"Published: {card.name}."
        return reverse("rates:card-detail", kwargs={"card_uid": card.uid})
