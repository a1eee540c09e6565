"""What people do about comparisons: say where the other system answers, and explain differences."""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.db import transaction

from apps import audit
from apps.accounts.models import User
from apps.clusters import crypto
from apps.clusters.addresses import check_address
from apps.clusters.errors import ClusterError
from apps.clusters.models import Cluster
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.costs import cross_check_causes as causes
from apps.costs.choices import CheckKind, CheckState
from apps.costs.cross_check_events import (
    CHECK_EXPLAINED,
    CHECK_SETTING_CHANGED,
    CheckExplained,
    CheckSettingChanged,
)
from apps.costs.models import CheckSetting, CrossCheck
from apps.teams import scope

MIN_REASON = 10
MAX_REASON = 500


def require(actor: Actor) -> None:
    """Raise NotAllowed for who is not finance of the whole installation: a cluster's money is nobody else's."""
    if actor.user_id is None:
        return
    user = User.objects.filter(pk=actor.user_id, is_active=True).first()
    if user is None or not scope.of(user).everywhere("costs.bill.manage"):
        raise NotAllowed("Only finance of the whole installation does this.", rule="costs.bill.manage")


@transaction.atomic
def explain(check_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> CrossCheck:
    """Say why a difference is there. Raises NotVisible, NotAllowed, Invalid, Conflict (it moved, or there is none)."""
    require(actor)
    row = CrossCheck.objects.select_for_update(of=("self",)).select_related("cluster").filter(pk=check_id).first()
    if row is None:
        raise NotVisible
    if expected_version is not None and row.version != expected_version:
        raise Conflict("The figures moved since you looked.", current={"version": row.version, "state": row.state})
    if row.state == CheckState.MATCHED:
        raise Conflict("There is no difference beyond the tolerance to explain.", current={"state": row.state})
    text = reason.strip()
    if not MIN_REASON <= len(text) <= MAX_REASON:
        raise Invalid(
            {"reason": f"Explain the difference in {MIN_REASON} to {MAX_REASON} characters: auditors read it."}
        )
    row.state, row.explanation, row.explained_by_id = CheckState.EXPLAINED, text, actor.user_id
    row.bump("state", "explanation", "explained_by_id")
    audit.record(
        CHECK_EXPLAINED,
        CheckExplained(
            row.uid,
            row.cluster.uid,
            row.kind,
            row.day.isoformat(),
            None if row.ours is None else str(row.ours),
            None if row.theirs is None else str(row.theirs),
            row.currency,
        ),
        actor=actor,
        subject_type="costs.cross_check",
        subject_uid=row.uid,
        reason=text,
    )
    return row


@transaction.atomic
def set_endpoint(
    cluster_id: int,
    *,
    enabled: bool,
    url: str,
    path: str,
    token: str | None,
    currency: str,
    resolution_seconds: int,
    tolerance_permille: int,
    tolerance_amount: Decimal,
    actor: Actor,
    expected_version: int | None = None,
) -> CheckSetting:
    """Say where a cluster's cost tool answers, and how much of a difference is none. `token` None keeps the stored one.

    Raises NotVisible, NotAllowed, Invalid per field, Conflict (`expected_version`; 0: there was none).
    """
    require(actor)
    cluster = Cluster.objects.select_for_update(of=("self",)).filter(pk=cluster_id).first()
    if cluster is None:
        raise NotVisible
    address = url.strip().rstrip("/")
    errors: dict[str, str] = {}
    if address:
        try:
            check_address(address, resolve=False)
        except ClusterError as error:
            errors["url"] = str(error)
    if currency != settings.COMMONS_CURRENCY:
        errors["currency"] = (
            f"The ledger is kept in {settings.COMMONS_CURRENCY}, and amounts of two currencies cannot be compared."
        )
    if not path.startswith("/") or "?" in path or len(path) > 100:
        errors["path"] = "A path begins with a slash, such as /allocation or /model/allocation."
    if not 1 <= resolution_seconds <= 3600:
        errors["resolution_seconds"] = "From 1 to 3,600 seconds."
    if not 0 <= tolerance_permille <= 1000:
        errors["tolerance_permille"] = "From 0 to 1,000 thousandths."
    if not tolerance_amount.is_finite() or not 0 <= tolerance_amount < Decimal("1e12"):
        errors["tolerance_amount"] = "Give an amount of zero or more."
    if errors:
        raise Invalid(errors)
    row = CheckSetting.objects.select_for_update().filter(cluster=cluster).first()
    if expected_version is not None and (row.version if row is not None else 0) != expected_version:
        raise Conflict("Somebody changed this in the meantime.", current={"version": row.version if row else 0})
    made = row is None
    row = row or CheckSetting(cluster=cluster)
    row.enabled, row.url, row.path, row.currency = enabled, address, path, currency
    row.resolution_seconds, row.tolerance_permille = resolution_seconds, tolerance_permille
    row.tolerance_amount, row.failures, row.retry_at = tolerance_amount, 0, None
    if token is not None:
        row.credentials = crypto.encrypt(token)
    if made:
        row.save(force_insert=True)
    else:
        row.bump(
            "enabled", "url", "path", "currency", "resolution_seconds", "tolerance_permille", "tolerance_amount",
            "failures", "retry_at", "credentials",
        )  # fmt: skip
    _judge_anew(row)
    audit.record(
        CHECK_SETTING_CHANGED,
        CheckSettingChanged(
            row.uid, cluster.uid, enabled, address, path, tolerance_permille, str(tolerance_amount), token is not None
        ),
        actor=actor,
        subject_type="costs.check_setting",
        subject_uid=row.uid,
    )
    return row


def _judge_anew(setting: CheckSetting) -> None:
    """Let another tolerance decide anew which days match; what somebody explained stays explained."""
    rows = CrossCheck.objects.select_for_update().filter(
        cluster_id=setting.cluster_id, state__in=[CheckState.OPEN, CheckState.MATCHED]
    )
    for row in rows:
        left = remainder_of(row)
        if left is None or row.ours is None:
            continue
        matched = causes.within(left, row.ours, setting.tolerance_permille, setting.tolerance_amount)
        state = CheckState.MATCHED if matched else CheckState.OPEN
        if row.state != state:
            row.state = state
            row.bump("state")


def remainder_of(row: CrossCheck) -> Decimal | None:
    """Return what of a difference is left after the known causes; None where a side is unknown."""
    if row.ours is None or row.theirs is None:
        return None
    if row.kind == CheckKind.BILL:
        return row.ours - row.theirs
    found = row.detail.get("remainder")
    return None if found is None else Decimal(found)
