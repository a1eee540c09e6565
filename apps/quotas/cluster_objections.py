"""What stands against decisions about a cluster, switching Kueue off or archiving it: asked by the clusters room."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import F, Q

from apps.clusters.choices import KueueMode
from apps.clusters.models import Cluster, Pool
from apps.core import clock
from apps.quotas.choices import OPEN_STATUSES, BorrowMode, LendMode
from apps.quotas.models import Quota, QuotaRequest, Workspace

_NAMED = 5


def _named(names: Iterable[str]) -> str:
    """Return the first few names, and how many more there are."""
    found = list(dict.fromkeys(names))
    more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    return f"{', '.join(found[:_NAMED])}{more}"


def kueue(cluster: Cluster, mode: str) -> str | None:
    """Return why Kueue cannot be switched off on a cluster: somebody holds, or asks for, what only Kueue does.

    Borrowing counts only in pools that are not best-effort: there nothing was ever taken back. Three queries.
    """
    if mode != KueueMode.OFF or cluster.kueue_mode == KueueMode.OFF:
        return None
    firm = Pool.objects.filter(cluster=cluster, best_effort=False).values("flavours")
    by_kueue = (Q(flavour__in=firm) & ~Q(borrow_mode=BorrowMode.NONE)) | ~Q(lend_mode=LendMode.ALL) | Q(serving__gt=0)
    place = F("workspace__namespace")
    held = Quota.objects.filter(by_kueue, workspace__cluster=cluster, workspace__archived_at=None)
    current = held.filter(Q(valid__endswith__gt=clock.now()) | Q(valid__upper_inf=True))
    names = list(current.order_by(place).values_list(place, flat=True).distinct()[:1000])
    asked = QuotaRequest.objects.filter(by_kueue, workspace__cluster=cluster, status__in=OPEN_STATUSES)
    wanted = list(asked.order_by(place).values_list(place, flat=True).distinct()[:1000])
    if not names and not wanted:
        return None
    parts = [
        text
        for text in (
            f"held by {_named(names)}" if names else "",
            f"asked for by {_named(wanted)}" if wanted else "",
        )
        if text
    ]
    return (
        f"Quota that borrows, lends a part only or keeps GPUs for serving needs Kueue here: {'; '.join(parts)}. Without"
        " it nothing takes a borrowed GPU back. Have these quotas changed and these requests decided or withdrawn"
        " first, or declare the pools best-effort."
    )


def archive(cluster: Cluster) -> str | None:
    """Return why a cluster cannot be archived: workspaces live there. One query."""
    rows = Workspace.objects.filter(cluster=cluster, archived_at=None).order_by("namespace")
    names = list(rows.values_list("namespace", flat=True)[:1000])
    if not names:
        return None
    word = "workspace is" if len(names) == 1 else "workspaces are"
    return f"{len(names):,} {word} not archived there: {_named(names)}. Archive them first."
