"""Where data of a class may be processed: the rules in force against the place a cluster stands. Pure.

Property P13: what is classified with a class under a rule, by itself or through its lineage, is placed only where every
such rule holds; a cluster that does not say where it stands holds no rule at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from apps.clusters import regions

ON_PREMISES = "on_premises"
_LOCATIONS = {ON_PREMISES: "on premises", "cloud": "in the cloud"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule in force. `location` "" and no `jurisdictions`: it would say nothing, which the rows forbid."""

    uid: str
    data_class: str
    location: str
    jurisdictions: tuple[str, ...]
    text: str
    citation: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cluster stands, as its platform admins stated; "": nobody has."""

    cluster: str
    location: str = ""
    jurisdiction: str = ""

    @property
    def words(self) -> str:
        """The place in words."""
        where = _LOCATIONS.get(self.location, "place not stated")
        return f"{where}, {self.jurisdiction or 'jurisdiction not stated'}"


@dataclass(frozen=True, slots=True)
class Judged:
    """One rule against one place."""

    rule: Rule
    ok: bool
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """All rules that a classification brings against one place."""

    place: Place
    lines: tuple[Judged, ...]

    @property
    def ok(self) -> bool:
        """Whether every rule holds."""
        return all(line.ok for line in self.lines)

    @property
    def refusals(self) -> list[str]:
        """Why it may not run there, one sentence a broken rule, with the rule."""
        return [f"{line.rule.text} {line.why}" for line in self.lines if not line.ok]

    def plain(self) -> dict[str, Any]:
        """Return it as it is frozen with a release."""
        return {
            "cluster": self.place.cluster,
            "location": self.place.location,
            "jurisdiction": self.place.jurisdiction,
            "ok": self.ok,
            "rules": [
                {
                    "rule": line.rule.uid,
                    "data_class": line.rule.data_class,
                    "location": line.rule.location,
                    "jurisdictions": list(line.rule.jurisdictions),
                    "text": line.rule.text,
                    "citation": line.rule.citation,
                    "ok": line.ok,
                    "why": line.why,
                }
                for line in self.lines
            ],
        }


def judge(classes: Collection[str], rules: Iterable[Rule], place: Place, day: date | None = None) -> Verdict:
    """Return what the rules for `classes` say of a place, with groups of countries as of `day` (None: today).

    Classes without a rule may run anywhere.
    """
    applying = sorted((rule for rule in rules if rule.data_class in classes), key=lambda r: (r.data_class, r.uid))
    return Verdict(place, tuple(_against(rule, place, day) for rule in applying))


def _against(rule: Rule, place: Place, day: date | None) -> Judged:
    unstated = []
    if rule.location and not place.location:
        unstated.append("where it stands")
    if rule.jurisdictions and not place.jurisdiction:
        unstated.append("under whose law")
    if unstated:
        return Judged(
            rule,
            False,
            f"{place.cluster} does not say {' and '.join(unstated)}: a platform admin states it in the cluster's"
            " settings.",
        )
    if rule.location and place.location != rule.location:
        where = _LOCATIONS.get(place.location, place.location)
        return Judged(rule, False, f"{place.cluster} stands {where}.")
    if rule.jurisdictions and not regions.within(place.jurisdiction, rule.jurisdictions, day):
        return Judged(rule, False, _elsewhere(rule, place, day))
    return Judged(rule, True, f"{place.cluster}: {place.words}.")


def _elsewhere(rule: Rule, place: Place, day: date | None) -> str:
    stated = place.jurisdiction
    if not regions.known(stated):
        return f"{place.cluster} states “{stated}”, which is no known place: a platform admin corrects its settings."
    possible = any(regions.within(one, [stated], day) for one in rule.jurisdictions)
    if possible:
        return (
            f"{place.cluster} states only {stated}, which is more than {', '.join(rule.jurisdictions)}: a platform"
            " admin states the country in its settings."
        )
    return f"{place.cluster} is under the law of {stated}."


def read(frozen: Mapping[str, Any]) -> Verdict:
    """Return a verdict as it was frozen with a release (`Verdict.plain`)."""
    place = Place(frozen["cluster"], frozen["location"], frozen["jurisdiction"])
    lines: Sequence[Mapping[str, Any]] = frozen["rules"]
    return Verdict(
        place,
        tuple(
            Judged(
                Rule(
                    line["rule"], line["data_class"], line["location"], tuple(line["jurisdictions"]), line["text"],
                    line["citation"],
                ),
                line["ok"],
                line["why"],
            )
            for line in lines
        ),
    )  # fmt: skip
