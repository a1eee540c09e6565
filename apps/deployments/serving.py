"""What ran where, kept as intervals: rows follow every change of shares. Called under the endpoint's lock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps.deployments import intervals
from apps.deployments.grants import Standing
from apps.deployments.models import Endpoint, Release, ServingInterval


def set_shares(
    endpoint: Endpoint, shares: Mapping[int, int], at: datetime, standings: Mapping[int, Standing | None]
) -> None:
    """Write that from `at` on the releases (by id) have these shares of the traffic, in per cent; others have ended.

    `standings`: the grants that each release stands on, kept with its interval. Two changes in one instant are kept
    apart by a microsecond: the database never sees an empty interval.
    """
    open_rows = {
        row.release_id: row
        for row in ServingInterval.objects.select_for_update(of=("self",))
        .filter(endpoint=endpoint, valid__endswith__isnull=True)
        .order_by("pk")
    }
    found = intervals.switch({key: row.traffic for key, row in open_rows.items()}, shares)
    if found.close or found.open:
        latest = max((row.valid.lower for row in open_rows.values()), default=at)
        at = max(at, latest + timedelta(microseconds=1)) if open_rows else at
    for release_id in found.close:
        row = open_rows[release_id]
        row.valid = DateTimeTZRange(row.valid.lower, at, "[)")
        row.save(update_fields=["valid"])
    digests = dict(Release.objects.filter(pk__in=found.open.keys()).values_list("pk", "version_digest"))
    last = (
        ServingInterval.objects.filter(release_id__in=found.open.keys())
        .order_by("-valid")
        .values_list("valid", flat=True)
        .first()
    )
    start = max(at, last.upper) if last is not None and last.upper is not None else at
    workspace = endpoint.workspace
    for release_id, traffic in found.open.items():
        standing = standings.get(release_id)
        version = standing.version_grant if standing is not None else None
        own = standing.release_grant if standing is not None else None
        ServingInterval.objects.create(
            endpoint=endpoint, release_id=release_id, workspace=workspace, cluster=workspace.cluster,
            version_digest=digests[release_id], traffic=traffic, valid=DateTimeTZRange(start, None, "[)"),
            model_grant_uid=version.uid if version is not None else None,
            release_grant_uid=own.uid if own is not None else None,
        )  # fmt: skip
