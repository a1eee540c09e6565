"""Brings the rows of regimes and controls to what the portal ships; what compliance published stays. Idempotent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections, transaction

from apps.catalogue import regimes_data
from apps.core import clock

_LOCK = 0x726567696D6573  # "regimes"


def load_regimes(*, rows: Any = None, using: str = "default") -> int:
    """Write what is shipped; returns how many rows it made or changed. Run after every migration.

    A control whose shipped text changed gets a new revision, the earlier one stays. A control that compliance published
    is left as published. `rows`: the app registry whose models are written (a migration's own state).
    """
    if rows is None:
        from django.apps import apps as rows
    regimes, controls = rows.get_model("catalogue", "Regime"), rows.get_model("catalogue", "Control")
    shipped = regimes_data.shipped()
    if not _differs(shipped, regimes.objects.using(using), controls.objects.using(using)):
        return 0  # the usual case, at every start of an installation: two statements and no lock
    changed = 0
    with transaction.atomic(using=using):
        with connections[using].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        for data in shipped:
            regime = regimes.objects.using(using).filter(code=data.code).first()
            if regime is None:
                regime = regimes.objects.using(using).create(code=data.code, **data.columns)
                changed += 1
            elif any(getattr(regime, key) != value for key, value in data.columns.items()):
                for key, value in data.columns.items():
                    setattr(regime, key, value)
                regime.version += 1
                regime.save(using=using)
                changed += 1
            changed += _controls(controls.objects.using(using), regime, data)
    return changed


def _differs(shipped: Sequence[regimes_data.RegimeData], regimes: Any, controls: Any) -> bool:
    """Whether some row is not what is shipped: compared as columns, so that no digest can go stale."""
    present = {row["code"]: row for row in regimes.values("pk", "code", *regimes_data.REGIME_COLUMNS)}
    in_force: dict[int, dict[str, Any]] = {}
    rows = controls.filter(superseded_at=None).values(
        "regime_id", "code", "published_by_id", *regimes_data.CONTROL_COLUMNS
    )
    for row in rows:
        in_force.setdefault(row["regime_id"], {})[row["code"]] = row
    for data in shipped:
        regime = present.get(data.code)
        if regime is None or any(regime[key] != value for key, value in data.columns.items()):
            return True
        found = in_force.get(regime["pk"], {})
        own = {code for code, row in found.items() if row["published_by_id"] is None}
        if own - set(data.controls) or set(data.controls) - set(found):
            return True
        if any(found[code][key] != value for code in own for key, value in data.controls[code].items()):
            return True
    return False


def _controls(rows: Any, regime: Any, data: regimes_data.RegimeData) -> int:
    present: dict[str, list[Any]] = {}
    for row in rows.filter(regime=regime).order_by("code", "revision"):
        present.setdefault(row.code, []).append(row)
    at, new, ended = clock.now(), [], []
    for code, columns in data.controls.items():
        revisions = present.get(code, [])
        in_force = next((row for row in revisions if row.superseded_at is None), None)
        if in_force is not None and in_force.published_by_id is not None:
            continue
        if in_force is not None and all(getattr(in_force, key) == value for key, value in columns.items()):
            continue
        if in_force is not None:
            ended.append(in_force.pk)
        number = max((row.revision for row in revisions), default=0) + 1
        new.append(rows.model(regime=regime, code=code, revision=number, **columns))
    ended += [
        row.pk for code, revisions in present.items() if code not in data.controls
        for row in revisions if row.superseded_at is None and row.published_by_id is None
    ]  # fmt: skip
    if ended:
        rows.filter(pk__in=ended).update(superseded_at=at)
    if new:
        rows.bulk_create(new)
    return len(new) + len(ended)


def after_migrate(sender: object, **options: Any) -> None:
    """Load what is shipped into a database whose rows have their columns (connected to `post_migrate`)."""
    from django.core.exceptions import FieldDoesNotExist

    rows = options.get("apps")
    try:
        if rows is not None:
            rows.get_model("catalogue", "Regime")._meta.get_field("card_fields")
            rows.get_model("catalogue", "Control")._meta.get_field("unconfirmed")
    except (LookupError, FieldDoesNotExist):
        return  # migrated back to before the columns: there is nothing to load into
    load_regimes(rows=rows, using=str(options.get("using", "default")))
