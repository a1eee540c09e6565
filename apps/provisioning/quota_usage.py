"""What many namespaces use of a few resources, as last observed: bare columns, for pages over a thousand of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction

from django.db.models.fields.json import KeyTextTransform, KeyTransform

from apps.clusters.quantities import parse
from apps.provisioning.models import Observation, WatchCursor

#: (cluster id, namespace).
Place = tuple[int, str]


@dataclass(slots=True)
class Used:
    """Units in use by resource name, and when that was seen (the oldest sight, where there are several quotas)."""

    at: datetime
    units: dict[str, Fraction] = field(default_factory=dict)


def used_units(cluster_ids: Collection[int], resources: Collection[str]) -> dict[Place, Used]:
    """Return what each observed namespace of the clusters uses of these resources; unseen ones are absent. Two queries.

    The same figures as `selectors.quota_statuses`, without reading every resource of every quota.
    """
    names = sorted(resources)
    used = KeyTransform("used", "status")
    columns = {f"used_{index}": KeyTextTransform(f"requests.{name}", used) for index, name in enumerate(names)}
    rows = Observation.objects.filter(kind="ResourceQuota", missing=False, cluster_id__in=cluster_ids)
    rows = rows.exclude(status__has_key="scoped")
    watched = WatchCursor.objects.filter(kind="ResourceQuota", cluster_id__in=cluster_ids)
    current = dict(watched.values_list("cluster_id", "seen_at"))
    found: dict[Place, Used] = {}
    values = rows.annotate(**columns).values_list("cluster_id", "namespace", "observed_at", *columns)
    for cluster_id, namespace, observed_at, *texts in values.iterator(chunk_size=5000):
        # A watch that is alive vouches for what has not changed since.
        vouched = current.get(cluster_id)
        at = max(observed_at, vouched) if vouched is not None else observed_at
        one = found.setdefault((cluster_id, namespace), Used(at))
        one.at = min(one.at, at)
        for name, text in zip(names, texts, strict=True):
            units = _units(text)
            if units is not None:
                one.units[name] = max(one.units.get(name, Fraction(0)), units)
    return found


def _units(text: str | None) -> Fraction | None:
    """Return a quantity's number; None: there is none, or it is none."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return Fraction(int(text))
    try:
        return Fraction(parse(text))
    except ValueError:
        return None
