"""What is asked in a what-if: the span, the prices, whose; from a form's fields or from a stored question."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from apps.clusters.models import Cluster
from apps.core.errors import Invalid
from apps.costs import whatif_reading as reading
from apps.costs.whatif_windows import Timetable
from apps.rates import publishing
from apps.rates.choices import ProposalStatus
from apps.rates.models import RateCard, RateProposal
from apps.rates.publishing import PriceLine
from apps.rates.stored_lines import dump_lines, load_lines
from apps.teams import scope
from apps.teams.models import Unit

#: How prices are tried: over the whole span, or each within its own validity; "": flat where that is possible.
FLAT, OWN = "flat", "own"


@dataclass(frozen=True, slots=True)
class Question:
    """What stored hours [start, end) would have cost at these prices. `cluster`: of the typed lines."""

    start: datetime
    end: datetime
    unit: str = ""
    cards: tuple[str, ...] = ()
    proposals: tuple[str, ...] = ()
    cluster: str = ""
    lines: tuple[PriceLine, ...] = ()
    scale: Decimal | None = None
    validity: str = ""

    def plain(self) -> dict[str, Any]:
        """Return it as it is stored."""
        cluster = Cluster.objects.filter(slug=self.cluster).first() if self.lines else None
        lines = dump_lines(self.lines, publishing.flavours_of(cluster)) if cluster is not None else []
        return {
            "start": self.start.isoformat(), "end": self.end.isoformat(), "unit": self.unit, "cards": list(self.cards),
            "proposals": list(self.proposals), "cluster": self.cluster, "lines": lines,
            "scale": None if self.scale is None else str(self.scale), "validity": self.validity,
        }  # fmt: skip


def load(plain: dict[str, Any]) -> Question:
    """Return a stored question. Prices of flavours that a cluster no longer offers are left out."""
    cluster = Cluster.objects.filter(slug=plain["cluster"]).first() if plain["lines"] else None
    lines = load_lines(plain["lines"], publishing.flavours_of(cluster)) if cluster is not None else []
    return Question(
        datetime.fromisoformat(plain["start"]), datetime.fromisoformat(plain["end"]), plain["unit"],
        tuple(plain["cards"]), tuple(plain["proposals"]), plain["cluster"],
        tuple(line for line in lines if line.flavour_id != 0),
        None if plain["scale"] is None else Decimal(plain["scale"]), plain["validity"],
    )  # fmt: skip


def cards_of(user: Any, uids: Any) -> list[RateCard]:
    """Return the published cards of these uids that the person may see, in order of cluster and name."""
    rows = RateCard.objects.visible_to(user).filter(uid__in=_known(uids)).select_related("cluster")
    return list(rows.order_by("cluster__name", "name", "pk"))


def proposals_of(user: Any, uids: Any) -> list[RateProposal]:
    """Return the proposals of these uids that are not published and that the person may see."""
    rows = RateProposal.objects.visible_to(user).filter(uid__in=_known(uids)).select_related("cluster")
    return list(rows.exclude(status=ProposalStatus.APPROVED).order_by("cluster__name", "name", "pk"))


def _known(uids: Any) -> list[UUID]:
    found = []
    for uid in uids:
        try:
            found.append(UUID(str(uid)))
        except ValueError:
            continue
    return found


def prices_of(question: Question, user: Any, *, cluster: Cluster | None = None) -> Timetable:
    """Return the prices to try. `cluster`: of the typed lines, where it is known.

    Raises Invalid where nothing is tried, a card or proposal is not there (any more), typed prices could not be
    published, or two of the chosen price the same thing at the same time.
    """
    cards, waiting = cards_of(user, question.cards), proposals_of(user, question.proposals)
    if len(cards) < len(set(question.cards)) or len(waiting) < len(set(question.proposals)):
        raise Invalid({"card": "One of the chosen cards or proposals is not there. Take it out and find it again."})
    found = reading.timetable(reading.prices_of_cards(cards) if cards else [])
    for proposal in waiting:
        found.prices += reading.prices_of_proposal(proposal)
    if question.lines:
        if cards or waiting:
            raise Invalid({"": "Choose cards and proposals, or type prices: not both."})
        cluster = cluster or Cluster.objects.filter(slug=question.cluster).first()
        if cluster is None:
            raise Invalid({"": "There is no such cluster."})
        publishing.check_lines(cluster, list(question.lines), publishing.flavours_of(cluster))
        found.prices += reading.prices_of_lines(cluster.pk, question.lines)
    if not found.prices and question.scale is None:
        raise Invalid({"": "Choose a card or proposal, type prices, or give a factor for all prices."})
    if question.scale is not None:
        found.scale = question.scale
    found.flat = question.validity != OWN
    clash = found.conflict()
    if clash is not None and not question.validity:
        # Several cards of one cluster follow each other: flat they would be two prices for the same hour.
        found.flat = False
        clash = found.conflict()
    if clash is not None:
        names = {f"card {card.pk}": str(card) for card in cards} | {f"proposal {one.pk}": str(one) for one in waiting}
        one, other = (names.get(price.source, price.source) for price in clash)
        raise Invalid(
            {"card": f"{one} and {other} both have a price for the same thing at the same time. Choose one of the two"
                     " per cluster" + (", or have each tried within its own validity." if found.flat else ".")}
        )  # fmt: skip
    return found


def unit_of(question: Question, user: Any) -> Unit | None:
    """Return the unit that is asked for, where it lies in the person's scope; None: all that they may see.

    Raises Invalid for one outside.
    """
    if not question.unit:
        return None
    found = next((one for one in scope.of(user).units_with(reading.RUN) if one.slug == question.unit), None)
    if found is None:
        raise Invalid({"unit": "Choose a unit that you may see."})
    return found
