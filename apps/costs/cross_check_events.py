"""Events of comparisons and bills."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from apps.core import events
from apps.core.exports import Exported


@dataclass(frozen=True, slots=True)
class CheckExplained:
    """Somebody explained a difference between our figures of a cluster's day and another system's."""

    check_uid: uuid.UUID
    cluster_uid: uuid.UUID
    kind: str
    day: str
    ours: str | None
    theirs: str | None
    currency: str


@dataclass(frozen=True, slots=True)
class CheckSettingChanged:
    """Where a cluster's cost tool answers, or how much of a difference is none, was set."""

    setting_uid: uuid.UUID
    cluster_uid: uuid.UUID
    enabled: bool
    url: str
    path: str
    tolerance_permille: int
    tolerance_amount: str
    token_changed: bool


@dataclass(frozen=True, slots=True)
class BillEvent:
    """An invoice was imported, or withdrawn."""

    bill_uid: uuid.UUID
    cluster_uid: uuid.UUID
    month: str
    lines: int
    amount: str
    currency: str
    sha256: str


CHECK_EXPLAINED = events.declare("costs.cross_check.explained", CheckExplained, audience="auditors")
CHECK_SETTING_CHANGED = events.declare("costs.check_setting.changed", CheckSettingChanged, audience="auditors")
CHECKS_EXPORTED = events.declare("costs.cross_checks.exported", Exported, audience="auditors")
BILL_IMPORTED = events.declare("costs.bill.imported", BillEvent, audience="auditors")
BILL_WITHDRAWN = events.declare("costs.bill.withdrawn", BillEvent, audience="auditors")
