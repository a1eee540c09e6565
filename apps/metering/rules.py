"""The admin's table of resources: set and end rules, from the current hour or later, never back."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.accounts.models import User
from apps.clusters.choices import DeviceClass
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed
from apps.core.events import declare
from apps.core.permissions import INSTALLATION, may
from apps.metering.models import ResourceRule

PERMISSION = "metering.rule.manage"
_RESOURCE = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
#: Parts of a device that a resource may count in, at most.
MAX_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A resource is counted by this share of a device from then on; `numerator` 0: its rule ended."""

    rule_uid: uuid.UUID
    resource: str
    gpu_model: str
    numerator: int
    denominator: int
    valid_from: datetime


RULE_SET = declare("metering.rule.set", RuleSet, audience="platform admins")


def _require(actor: Actor) -> None:
    if actor.user_id is None:
        return
    user = User.objects.filter(pk=actor.user_id, is_active=True).first()
    if user is None or not may(user, PERMISSION, INSTALLATION):
        raise NotAllowed("This takes a platform admin.", rule=PERMISSION)


def _from(at: datetime | None) -> datetime:
    """Return the full hour from which a change counts. Raises Invalid for a past one."""
    this = clock.hour_floor(clock.now())
    start = clock.hour_floor(at) if at is not None else this
    if start < this:
        hour = f"{this:%Y-%m-%d %H:%M} UTC"
        raise Invalid({"valid_from": f"A change counts from the current hour ({hour}) on, or later: never back."})
    return start


@transaction.atomic
def set_rule(
    resource: str,
    numerator: int,
    denominator: int,
    *,
    actor: Actor,
    gpu_model: str = "",
    valid_from: datetime | None = None,
    note: str = "",
) -> ResourceRule:
    """Count a unit of `resource` as numerator/denominator of a device from a full hour on (default: this one).

    The rule in force then ends there; one that begins later stays, and this one ends where it begins. Raises
    NotAllowed, Invalid for a name that is no extended resource, a share above one device, a past hour, or an hour at
    which another rule begins.
    """
    _require(actor)
    resource, gpu_model = resource.strip(), gpu_model.strip()
    errors: dict[str, str] = {}
    if not _RESOURCE.fullmatch(resource) or len(resource) > 120:
        errors["resource"] = "Write the resource as nodes name it, such as nvidia.com/mig-3g.40gb."
    if not 0 < denominator <= MAX_PARTS:
        errors["denominator"] = f"A device has between 1 and {MAX_PARTS:,} parts."
    elif not 0 < numerator <= denominator:
        errors["numerator"] = "A unit is at least one part and at most the whole device."
    if errors:
        raise Invalid(errors)
    start = _from(valid_from)
    rules = ResourceRule.objects.select_for_update().filter(
        resource=resource, gpu_model=gpu_model, valid__endswith__isnull=True
    ) | ResourceRule.objects.select_for_update().filter(
        resource=resource, gpu_model=gpu_model, valid__endswith__gt=start
    )
    until: datetime | None = None
    for rule in rules.order_by("valid"):
        low = rule.valid.lower
        if low == start:
            raise Invalid({"valid_from": "A rule for this resource begins at this hour: end it first, or begin later."})
        if low is not None and low > start:
            until = low if until is None else min(until, low)
            continue
        rule.valid = DateTimeTZRange(low, start, "[)")
        rule.bump("valid")
    made = ResourceRule.objects.create(
        resource=resource,
        gpu_model=gpu_model,
        device_class=DeviceClass.GPU,
        numerator=numerator,
        denominator=denominator,
        note=note.strip()[:300],
        set_by_id=actor.user_id,
        valid=DateTimeTZRange(start, until, "[)"),
    )
    _record(made, start, actor, numerator)
    return made


@transaction.atomic
def end_rule(
    rule_id: int, *, actor: Actor, at: datetime | None = None, expected_version: int | None = None
) -> ResourceRule:
    """End a rule at a full hour (default: this one); what has no rule counts by its name.

    A rule that has not begun by then never counts. Raises NotAllowed, NotVisible, Conflict, Invalid for a past hour or
    a rule that has ended.
    """
    _require(actor)
    rule = ResourceRule.objects.locked(rule_id, expected_version=expected_version)
    end = _from(at)
    if rule.valid.isempty or (rule.valid.upper is not None and rule.valid.upper <= end):
        raise Invalid({"valid_from": "This rule has ended by then."})
    low = rule.valid.lower
    rule.valid = DateTimeTZRange(empty=True) if low is not None and low >= end else DateTimeTZRange(low, end, "[)")
    rule.bump("valid")
    _record(rule, end, actor, 0)
    return rule


def _record(rule: ResourceRule, start: datetime, actor: Actor, numerator: int) -> None:
    audit.record(
        RULE_SET,
        RuleSet(rule.uid, rule.resource, rule.gpu_model, numerator, rule.denominator, start),
        actor=actor,
        subject_type="metering.rule",
        subject_uid=rule.uid,
    )
