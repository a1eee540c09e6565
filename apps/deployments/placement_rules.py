"""Placement rules as dated data: compliance adds and ends them with a reason; none is ever changed or removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.accounts.models import User
from apps.clusters import regions
from apps.clusters.choices import Location
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.permissions import may
from apps.deployments import events
from apps.deployments.models import PlacementRule
from apps.quotas.choices import DataClass

PUBLISH = "deployments.rule.publish"
MIN_REASON = 10
_JURISDICTIONS = 40


@dataclass(frozen=True, slots=True)
class Starting:
    """A rule that an installation starts with."""

    data_class: str
    location: str
    jurisdictions: tuple[str, ...]
    text: str
    citation: str


#: What most installations need first. Personal data may leave the EU on a transfer basis: then end the rule, with the
#: reason.
STARTING = (
    Starting(
        DataClass.HEALTH, Location.ON_PREMISES, (), "Health data (PHI) stays on premises.",
        "45 CFR 164.310 (facility access, device and media controls); company policy",
    ),
    Starting(
        DataClass.PERSONAL, "", ("EU",), "Personal data of people in the EU is processed in EU jurisdictions.",
        "Regulation (EU) 2016/679, Art. 44",
    ),
)  # fmt: skip


def _publisher(actor: Actor) -> User | None:
    if actor.is_system:
        return None
    user = User.objects.filter(pk=actor.user_id or 0, is_active=True).first()
    if user is None or not may(user, PUBLISH, None):
        raise NotAllowed("Placement rules are set by compliance.", rule=PUBLISH)
    return user


@transaction.atomic
def add_rule(
    data_class: str,
    location: str,
    jurisdictions: Sequence[str],
    text: str,
    citation: str,
    reason: str,
    *,
    actor: Actor,
) -> PlacementRule:
    """Add a rule from now on. Releases that break it are refused; what serves stays, and shows as breaking it.

    Raises NotAllowed, Invalid per field, Conflict where the same rule is in force.
    """
    user = _publisher(actor)
    places = sorted({one.strip().upper() for one in jurisdictions if one.strip()})
    errors: dict[str, str] = {}
    if data_class not in DataClass.values:
        errors["data_class"] = "Choose a data class."
    if location not in Location.values:
        errors["location"] = "Choose where, or anywhere."
    if not location and not places:
        errors["jurisdictions"] = "Say where: a location, jurisdictions, or both."
    if len(places) > _JURISDICTIONS:
        errors["jurisdictions"] = f"At most {_JURISDICTIONS} places: name a group instead of its members."
    elif unknown := [one for one in places if not regions.known(one)]:
        errors["jurisdictions"] = f"There is no place “{unknown[0][:10]}”. {regions.HINT}"
    if not text.strip() or len(text) > 500:
        errors["text"] = "The rule in a sentence, at most 500 characters: people read it where it refuses."
    if len(citation) > 300:
        errors["citation"] = "At most 300 characters."
    if len(reason.strip()) < MIN_REASON:
        errors["reason"] = f"Say in at least {MIN_REASON} characters why."
    if errors:
        raise Invalid(errors)
    now = clock.now()
    same = PlacementRule.objects.filter(data_class=data_class, location=location, jurisdictions=places)
    if same.filter(valid__contains=now).exists():
        raise Conflict("This rule is in force already.")
    rule = PlacementRule.objects.create(
        data_class=data_class, location=location, jurisdictions=places, text=text.strip(), citation=citation.strip(),
        valid=DateTimeTZRange(now, None, "[)"), published_by=user,
    )  # fmt: skip
    _record(events.RULE_ADDED, rule, reason, actor)
    return rule


@transaction.atomic
def end_rule(rule_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> PlacementRule:
    """End a rule from now on. Raises NotVisible, NotAllowed, Invalid, Conflict where it has ended."""
    _publisher(actor)
    rule = PlacementRule.objects.locked(rule_id, expected_version=expected_version)
    if len(reason.strip()) < MIN_REASON:
        raise Invalid({"reason": f"Say in at least {MIN_REASON} characters why."})
    if rule.valid.upper is not None:
        raise Conflict("This rule has ended.", current={"version": rule.version})
    now = clock.now()
    if now <= rule.valid.lower:
        raise NotVisible
    rule.valid = DateTimeTZRange(rule.valid.lower, now, "[)")
    rule.bump("valid")
    _record(events.RULE_ENDED, rule, reason, actor)
    return rule


def add_starting_rules(*, actor: Actor) -> int:
    """Add the rules that an installation starts with, where it has none of the class; returns how many."""
    held = set(PlacementRule.objects.values_list("data_class", flat=True))
    made = 0
    for one in STARTING:
        if one.data_class in held:
            continue
        add_rule(
            one.data_class, one.location, one.jurisdictions, one.text, one.citation,
            "A rule that an installation starts with.", actor=actor,
        )  # fmt: skip
        made += 1
    return made


def _record(event: EventType, rule: PlacementRule, reason: str, actor: Actor) -> None:
    audit.record(
        event,
        events.RuleEvent(rule.uid, rule.data_class, rule.text),
        actor=actor,
        subject_type="deployments.rule",
        subject_uid=rule.uid,
        reason=reason.strip(),
    )
