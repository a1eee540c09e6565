"""P13: ruled data is placeable only where every rule holds; a cluster that does not say where it stands holds none."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.clusters import regions
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.deployments import placement_rules, reading
from apps.deployments.models import PlacementRule
from apps.deployments.placement import Place, Rule, judge, read
from tests.factories import Company

CLASSES = ["public", "internal", "personal", "financial", "health"]
PHI = Rule("1", "health", "on_premises", (), "Health data stays on premises.")
EU = Rule("2", "personal", "", ("EU", "DE"), "Personal data stays in the EU.")
rules = st.builds(
    Rule, st.uuids().map(str), st.sampled_from(CLASSES), st.sampled_from(["", "on_premises", "cloud"]),
    st.lists(st.sampled_from(["EU", "DE", "US"]), max_size=2).map(tuple), st.just("A rule."),
)  # fmt: skip
places = st.builds(
    Place, st.just("Atlas"), st.sampled_from(["", "on_premises", "cloud"]), st.sampled_from(["", "EU", "DE", "US"])
)


def _member(place: Place, rule: Rule) -> bool:
    """Whether the place is a member of the only group that the rules of these tests name."""
    return place.jurisdiction == "DE" and "EU" in rule.jurisdictions


@pytest.mark.requirement("releases-2.4")
@given(st.sets(st.sampled_from(CLASSES)), st.lists(rules, max_size=6), places)
def test_p13_placed_only_where_every_rule_holds(classes: set[str], held: list[Rule], place: Place) -> None:
    verdict = judge(classes, held, place)
    applying = [rule for rule in held if rule.data_class in classes]
    allowed = all(
        (not rule.location or rule.location == place.location)
        and (not rule.jurisdictions or place.jurisdiction in rule.jurisdictions or _member(place, rule))
        for rule in applying
    )
    assert verdict.ok is allowed
    assert len(verdict.refusals) == sum(1 for line in verdict.lines if not line.ok)
    assert read(verdict.plain()) == verdict


@given(st.sets(st.sampled_from(CLASSES)), places)
def test_p13_health_never_leaves_the_premises(classes: set[str], place: Place) -> None:
    if judge(classes | {"health"}, [PHI, EU], place).ok:
        assert place.location == "on_premises"


@pytest.mark.requirement("releases-2.4")
@pytest.mark.parametrize(
    ("stated", "wanted", "day", "holds"),
    [
        ("DE", "EU", None, True), ("RE", "EU", None, True), ("EU", "EU", None, True), ("EU", "EEA", None, True),
        ("NO", "EEA", None, True), ("NO", "EU", None, False), ("EEA", "EU", None, False), ("EU", "DE", None, False),
        ("CH", "EEA", None, False), ("US", "EU", None, False), ("GB", "UK", None, True), ("UK", "GB", None, True),
        ("GB", "EU", None, False), ("GB", "EU", date(2020, 1, 31), True), ("GB", "EU", date(2020, 2, 1), False),
        ("HR", "EU", date(2013, 6, 30), False), ("XX", "EU", None, False), ("", "EU", None, False),
        ("NC", "EU", None, False),
    ],
)  # fmt: skip
def test_a_group_covers_its_members_of_the_day_and_no_member_covers_its_group(
    stated: str, wanted: str, day: date | None, holds: bool
) -> None:
    assert regions.within(stated, [wanted], day) is holds
    rule = Rule("1", "personal", "", (wanted,), "It stays there.")
    assert judge(["personal"], [rule], Place("Atlas", "cloud", stated), day).ok is holds


@pytest.mark.requirement("releases-2.4")
def test_the_vocabulary_is_whole_and_what_is_too_wide_or_unknown_is_told() -> None:
    assert len(regions.COUNTRIES) == 249
    assert all(group.members <= regions.COUNTRIES and group.source for group in regions.GROUPS)
    assert len(regions.members("EU") - {"AX", "GF", "GP", "MF", "MQ", "RE", "YT"}) == 27
    rule = Rule("1", "personal", "", ("DE",), "It stays in Germany.")
    assert "states only EU" in judge(["personal"], [rule], Place("Atlas", "cloud", "EU")).refusals[0]
    assert "no known place" in judge(["personal"], [rule], Place("Atlas", "cloud", "MOON")).refusals[0]


@pytest.mark.requirement("releases-2.4")
def test_a_refusal_shows_the_rule_and_what_to_do() -> None:
    assert judge(["health"], [PHI], Place("Nimbus", "cloud", "EU")).refusals == [
        "Health data stays on premises. Nimbus stands in the cloud."
    ]
    unstated = judge(["personal"], [EU], Place("Atlas")).refusals[0]
    assert "does not say under whose law" in unstated
    assert "platform admin states it" in unstated
    assert judge(["internal"], [PHI, EU], Place("Atlas")).ok


@pytest.mark.django_db
@pytest.mark.requirement("releases-2.6")
def test_rules_are_dated_and_set_by_compliance_alone(company: Company, frozen_clock: Any) -> None:
    compliance = Actor.of(company.compliance)
    with pytest.raises(NotAllowed):
        placement_rules.add_rule("health", "on_premises", [], "PHI stays.", "", "A reason.", actor=Actor.of(company.vp))
    with pytest.raises(Invalid, match="Say where"):
        placement_rules.add_rule("health", "", [], "PHI stays.", "", "As the policy says.", actor=compliance)
    assert placement_rules.add_starting_rules(actor=Actor.system("demo")) == 2
    assert placement_rules.add_starting_rules(actor=Actor.system("demo")) == 0
    rule = PlacementRule.objects.get(data_class="health")
    with pytest.raises(Conflict, match="in force already"):
        placement_rules.add_rule("health", "on_premises", [], "Again.", "", "As the policy says.", actor=compliance)
    start = clock.now()
    clock.advance(timedelta(days=1))
    placement_rules.end_rule(rule.pk, "Superseded by the group's policy.", actor=compliance)
    assert [one.data_class for one in reading.rules_in_force(start)] == ["health", "personal"]
    assert [one.data_class for one in reading.rules_in_force(clock.now())] == ["personal"]
    with pytest.raises(Conflict, match="has ended"):
        placement_rules.end_rule(rule.pk, "Superseded by the group's policy.", actor=compliance)
