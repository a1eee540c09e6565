"""The form of a what-if: which hours, whose, and which prices."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeVar

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q

from apps.core.clock import hour_floor
from apps.core.forms import UtcDateTimeField
from apps.costs import whatif_questions as questions
from apps.costs.whatif_questions import Question
from apps.metering import billing
from apps.rates.choices import ProposalStatus
from apps.rates.forms import PricesForm
from apps.rates.models import RateCard, RateProposal

Moment = TypeVar("Moment", date, datetime)
#: Cards and proposals that are listed at once; a search finds the others.
LISTED = 25
_VALIDITY = [
    ("", "Flat where that is possible: one price per thing over the whole time"),
    (questions.FLAT, "Flat over the whole time, whenever the prices are valid"),
    (questions.OWN, "Each only within its own validity; outside, as charged"),
]


def found_cards(user: Any, words: str) -> list[RateCard]:
    """Return the newest cards whose name, note or cluster has all the words."""
    rows = RateCard.objects.visible_to(user).select_related("cluster").filter(_matching(words))
    return list(rows.order_by("-created_at", "-pk")[: LISTED + 1])


def found_proposals(user: Any, words: str) -> list[RateProposal]:
    """Return the newest proposals that are not published and whose name, note or cluster has all the words."""
    rows = RateProposal.objects.visible_to(user).select_related("cluster").filter(_matching(words))
    return list(rows.exclude(status=ProposalStatus.APPROVED).order_by("-created_at", "-pk")[: LISTED + 1])


def _matching(words: str) -> Q:
    found = Q()
    for word in words.split()[:10]:
        found &= Q(name__icontains=word) | Q(note__icontains=word) | Q(cluster__name__icontains=word)
    return found


def _sensible(found: Moment) -> Moment:
    """Return a moment in this century. Raises ValidationError for others, which calendars end at."""
    if not 2000 <= found.year < 2100:
        raise ValidationError("Enter a year from 2000 to 2099.")
    return found


class WhatIfForm(PricesForm):
    """Which hours, whose, and which prices: of cards and proposals, typed ones, or all of them by a factor."""

    def __init__(
        self, *args: Any, user: Any, units: list[Any], chosen: dict[str, list[str]], words: str, **kw: Any
    ) -> None:
        super().__init__(*args, **kw)
        self.fields.pop("version")
        self.user = user
        words = words[:100]
        for name, label in (("from", "From month"), ("to", "To month")):
            widget = forms.TextInput(attrs={"type": "month"})
            self.fields[name] = forms.CharField(label=label, max_length=7, required=False, widget=widget)
        help_text = "Instead of months: from this hour on, whole hours."
        self.fields["start"] = UtcDateTimeField(label="From hour", required=False, help_text=help_text)
        self.fields["end"] = UtcDateTimeField(label="Until hour", required=False, help_text="This hour excluded.")
        for name in ("start", "end"):
            self.fields[name].widget.attrs["step"] = "3600"
        self.fields["unit"] = forms.ChoiceField(
            label="Unit", required=False, choices=[("", "All I may see"), *((unit.slug, str(unit)) for unit in units)]
        )
        self.fields["find"] = forms.CharField(
            label="Find cards and proposals", required=False, max_length=100,
            widget=forms.TextInput(attrs={"type": "search"}),
            help_text="By name, note or cluster, then press Find. What is chosen stays chosen.",
        )  # fmt: skip
        self.more = False
        self._choices("card", "Prices of cards", found_cards(user, words), questions.cards_of(user, chosen["card"]))
        self._choices(
            "proposal", "Prices of proposals", found_proposals(user, words),
            questions.proposals_of(user, chosen["proposal"]),
        )  # fmt: skip
        self.fields["validity"] = forms.ChoiceField(
            label="How prices are tried", required=False, choices=_VALIDITY,
            help_text="Several cards of one cluster that follow each other are tried each within its own validity.",
        )  # fmt: skip
        self.fields["scale"] = forms.DecimalField(
            label="All other prices ×", required=False, max_digits=8, decimal_places=4, min_value=Decimal(0),
            help_text="Such as 1.05: five per cent more. Empty: as charged.",
            error_messages={"invalid": "Enter a factor, such as 1.05."},
        )  # fmt: skip

    def _choices(self, name: str, label: str, found: list[Any], chosen: list[Any]) -> None:
        """List what is chosen first, then what was found."""
        self.more = self.more or len(found) > LISTED
        rows = {row.pk: row for row in [*chosen, *found[:LISTED]]}
        self.fields[name] = forms.MultipleChoiceField(
            label=label, required=False, widget=forms.CheckboxSelectMultiple,
            choices=[(str(row.uid), f"{row} ({row.cluster})") for row in rows.values()],
        )  # fmt: skip

    @property
    def top_fields(self) -> list[Any]:
        """What is asked first."""
        return [self[name] for name in ("from", "to", "start", "end", "unit")]

    @property
    def price_fields(self) -> list[Any]:
        """Which prices."""
        names = ("card", "proposal") if self.fields["proposal"].choices else ("card",)  # type: ignore[attr-defined]  # a choice field
        return [self[name] for name in names]

    @property
    def way_fields(self) -> list[Any]:
        """How they are tried."""
        return [self["validity"], self["scale"]]

    def clean_from(self) -> date | None:
        """Read the month."""
        return self._month("from")

    def clean_to(self) -> date | None:
        """Read the month."""
        return self._month("to")

    def _month(self, name: str) -> date | None:
        if not self.cleaned_data[name]:
            return None
        try:
            found = billing.parse_month(self.cleaned_data[name])
        except ValueError as error:
            raise ValidationError("Enter a month, such as 2026-10.") from error
        return _sensible(found)

    def clean_start(self) -> datetime | None:
        """Take whole hours."""
        return self._hour("start")

    def clean_end(self) -> datetime | None:
        """Take whole hours."""
        return self._hour("end")

    def _hour(self, name: str) -> datetime | None:
        found: datetime | None = self.cleaned_data[name]
        if found is not None and hour_floor(found) != found:
            raise ValidationError("Whole hours only: usage is stored by the hour.")
        return None if found is None else _sensible(found)

    def clean(self) -> dict[str, Any]:
        """Ask for a span that is one."""
        data = forms.Form.clean(self) or self.cleaned_data
        if self.errors:
            return data
        if data.get("start") or data.get("end"):
            for name in ("start", "end"):
                if data.get(name) is None:
                    self.add_error(name, "Give both hours, or none and months instead.")
            if not self.errors and data["end"] <= data["start"]:
                self.add_error("end", "The time ends before it starts.")
        elif not data.get("from") or not data.get("to"):
            self.add_error("from" if not data.get("from") else "to", "Choose a month, or give hours.")
        elif data["to"] < data["from"]:
            self.add_error("to", "The last month lies before the first.")
        return data

    def question(self) -> Question:
        """Return what is asked, once the form is valid."""
        data = self.cleaned_data
        start, end = data.get("start"), data.get("end")
        if start is None or end is None:
            start, end = billing.month_bounds(data["from"])[0], billing.month_bounds(data["to"])[1]
        return Question(
            start, end, data["unit"], tuple(data["card"]), tuple(data["proposal"]), self.cluster.slug,
            tuple(self.lines), data.get("scale"), data["validity"],
        )  # fmt: skip


__all__ = ["WhatIfForm"]
