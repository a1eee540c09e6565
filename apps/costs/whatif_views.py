"""What if: stored months at other prices, side by side. GET throughout: nothing is written, every answer is a link."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponseBase

from apps.clusters.models import Cluster
from apps.core import exports, hooks
from apps.core.errors import Invalid, NotVisible
from apps.core.middleware import after_read
from apps.core.money import MILLISECONDS_PER_HOUR, Money
from apps.core.views import Crumb, PageView
from apps.costs import whatif_reading as reading
from apps.costs.events import WHATIF_EXPORTED
from apps.costs.models import DayCharge
from apps.costs.whatif import TriedPrices
from apps.metering import billing
from apps.rates import proposals, publishing
from apps.rates.choices import ProposalStatus
from apps.rates.forms import PricesForm
from apps.rates.models import RateCard, RateProposal
from apps.teams import scope

HEADER = ["By", "Name", "GPU-hours", "Quantity, unit-hours", "Now", "Then", "Difference", "Currency", "Remark"]


class WhatIfForm(PricesForm):
    """Which months, whose, and which prices: a card's, a proposal's, typed ones, or all of them by a factor."""

    def __init__(
        self, *args: Any, units: list[Any], cards: list[RateCard], waiting: list[RateProposal], **kw: Any
    ) -> None:
        super().__init__(*args, **kw)
        self.fields.pop("version")
        month = forms.TextInput(attrs={"type": "month"})
        self.fields["from"] = forms.CharField(label="From month", max_length=7, widget=month)
        self.fields["to"] = forms.CharField(
            label="To month", max_length=7, widget=forms.TextInput(attrs={"type": "month"})
        )
        self.fields["unit"] = forms.ChoiceField(
            label="Unit", required=False, choices=[("", "All I may see"), *((unit.slug, str(unit)) for unit in units)]
        )
        self.fields["card"] = forms.ChoiceField(
            label="Prices of a card", required=False,
            choices=[("", "–"), *((str(card.uid), f"{card} ({card.cluster})") for card in cards)],
        )  # fmt: skip
        self.fields["proposal"] = forms.ChoiceField(
            label="Prices of a proposal", required=False,
            choices=[("", "–"), *((str(one.uid), f"{one} ({one.cluster})") for one in waiting)],
        )  # fmt: skip
        self.fields["scale"] = forms.DecimalField(
            label="All other prices ×", required=False, max_digits=8, decimal_places=4, min_value=Decimal(0),
            help_text="Such as 1.05: five per cent more. Empty: as charged.",
            error_messages={"invalid": "Enter a factor, such as 1.05."},
        )  # fmt: skip

    @property
    def top_fields(self) -> list[Any]:
        """What is asked first."""
        return [self[name] for name in ("from", "to", "unit", "card", "proposal", "scale")]

    def clean_from(self) -> date:
        """Read the month."""
        return self._month("from")

    def clean_to(self) -> date:
        """Read the month."""
        return self._month("to")

    def _month(self, name: str) -> date:
        try:
            return billing.parse_month(self.cleaned_data[name])
        except ValueError as error:
            raise ValidationError("Enter a month, such as 2026-10.") from error

    def clean(self) -> dict[str, Any]:
        """Ask for one list of prices, and a span that can be answered."""
        data = forms.Form.clean(self) or self.cleaned_data
        if "from" in data and "to" in data:
            months = (data["to"].year - data["from"].year) * 12 + data["to"].month - data["from"].month + 1
            if months < 1:
                self.add_error("to", "The last month lies before the first.")
            elif months > reading.MAX_MONTHS:
                self.add_error("to", f"At most {reading.MAX_MONTHS} months at once.")
        chosen = [bool(data.get("card")), bool(data.get("proposal")), bool(self.lines)]
        if not self.errors and sum(chosen) > 1:
            raise ValidationError("Choose a card, or a proposal, or type prices: one of the three.")
        if not self.errors and not any(chosen) and data.get("scale") is None:
            raise ValidationError("Choose a card or proposal, type prices, or give a factor for all prices.")
        return data


class WhatIfPage(PageView):
    """Stored months at other prices."""

    title = "What if"
    permission = reading.RUN
    queryset = DayCharge.objects.all()
    template_name = "costs/whatif.html"

    def prepare(self) -> None:
        """Read what can be chosen. Raises NotVisible for a cluster that is not there."""
        user, slug = self.request.user, self.request.GET.get("cluster", "")
        self.clusters = list(Cluster.objects.order_by("name", "pk"))
        chosen = [cluster for cluster in self.clusters if cluster.slug == slug] if slug else self.clusters[:1]
        if not chosen:
            raise NotVisible("There is no such cluster." if slug else "There is no cluster with prices yet.")
        self.cluster = chosen[0]
        self.units = scope.of(user).units_with(reading.RUN)
        self.cards = list(
            RateCard.objects.visible_to(user).select_related("cluster").order_by("-created_at", "-pk")[:100]
        )
        rows = RateProposal.objects.visible_to(user).select_related("cluster").order_by("-created_at", "-pk")
        self.waiting = list(rows.exclude(status=ProposalStatus.APPROVED)[:100])

    def breadcrumbs(self) -> list[Crumb]:
        """Below the costs."""
        from django.urls import reverse

        return [Crumb("Costs", reverse("costs:team-list"))]

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Ask, or answer what is asked in the address."""
        asked = any(value for key, value in request.GET.items() if key not in ("cluster", "export"))
        month = f"{reading.last_full_month():%Y-%m}"
        data = request.GET.copy()
        if asked:
            for name in ("from", "to"):
                data.setdefault(name, month)
        self.form = WhatIfForm(
            data if asked else None, cluster=self.cluster, units=self.units, cards=self.cards, waiting=self.waiting,
            initial={"from": month, "to": month},
        )  # fmt: skip
        if not asked:
            return self.page()
        if not self.form.is_valid():
            return self.page(status=400)
        try:
            found = self.worked_out()
        except Invalid as invalid:
            self.form.add_invalid(invalid)
            return self.page(status=400)
        if "export" in request.GET:
            return self.export(found)
        return self.page(found=found)

    def prices(self) -> TriedPrices:
        """Return the prices to try. Raises Invalid for typed ones that nobody could publish."""
        data = self.form.cleaned_data
        if data.get("card"):
            prices = reading.prices_of_card(next(card for card in self.cards if str(card.uid) == data["card"]))
        elif data.get("proposal"):
            proposal = next(one for one in self.waiting if str(one.uid) == data["proposal"])
            prices = reading.prices_of_lines(proposal.cluster_id, proposals.lines_of(proposal))
        else:
            if self.form.lines:
                publishing.check_lines(self.cluster, self.form.lines, self.form.flavours)
            prices = reading.prices_of_lines(self.cluster.pk, self.form.lines)
        if data.get("scale") is not None:
            prices.scale = data["scale"]
        return prices

    def worked_out(self) -> reading.WhatIf:
        """Work it out. Raises NotVisible for a unit outside the scope."""
        data = self.form.cleaned_data
        unit = next((unit for unit in self.units if unit.slug == data.get("unit")), None)
        return reading.what_if(self.request.user, self.prices(), data["from"], data["to"], unit)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the form."""
        query = self.request.GET.copy()
        query["export"] = "csv"
        return super().get_context(
            form=self.form, clusters=self.clusters, cluster=self.cluster, zone=billing.zone_name(),
            export_url=f"?{query.urlencode()}", **extra,
        )  # fmt: skip

    def export(self, found: reading.WhatIf) -> HttpResponseBase:
        """Give the answer as a file and have it recorded once the read transaction is closed."""
        kind = self.request.GET["export"]
        if kind not in exports.FORMATS:
            raise Invalid({"export": f"Exports are {' or '.join(exports.FORMATS)}."})
        name = f"what-if-{found.first:%Y-%m}-{found.last:%Y-%m}"
        response, count = exports.export_response(name, kind, HEADER, _rows(found))
        query = self.request.GET.copy()
        query.pop("export")
        payload = exports.Exported(listing="what-if", format=kind, rows=count, query=query.urlencode())
        actor = self.actor
        after_read(self.request, lambda: hooks.record_export(WHATIF_EXPORTED, payload, actor))
        return response


def _rows(found: reading.WhatIf) -> Iterator[list[Any]]:
    """Yield the lines as they stand on the page: teams, things, total."""
    total = reading.NamedLine("Total", "", found.comparison.total)
    for by, lines in (("team", found.teams), ("price", found.things), ("total", [total])):
        for row in lines:
            line = row.line
            remarks = ["part unknown"] if line.unknown else []
            remarks += ["part as charged"] if line.kept else []
            yield [
                by, row.name, _hours(line.gpu_ms), _hours(line.quantity_ms) if by == "price" else None,
                _amount(line.now), _amount(line.then), _amount(line.change), _currency(line.now or line.then),
                ", ".join(remarks),
            ]  # fmt: skip


def _hours(milliseconds: int) -> Decimal:
    return (Decimal(milliseconds) / MILLISECONDS_PER_HOUR).quantize(Decimal("0.000001"))


def _amount(money: Money | None) -> Decimal | None:
    return None if money is None else money.amount


def _currency(money: Money | None) -> str:
    return "" if money is None else money.currency
