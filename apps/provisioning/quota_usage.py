"""What many namespaces use of a few resources, as last observed: bare columns, for pages over a thousand of them."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction

from django.db.models import OuterRef, Subquery
from django.db.models.fields.json import KeyTextTransform, KeyTransform
from django.db.models.functions import Greatest

from apps.clusters.quantities import parse
from apps.core.db_time import Micros, at_micros
from apps.provisioning.models import Observation, WatchCursor

#: (cluster id, namespace).
Place = tuple[int, str]


@dataclass(slots=True)
class Used:
    """Units in use by resource name, and when that was seen (the oldest sight, where there are several quotas).

    `limits`: the tightest limit by resource name, where it was asked for.
    """

    at: datetime
    units: dict[str, Fraction] = field(default_factory=dict)
    limits: dict[str, Fraction] = field(default_factory=dict)


def used_units(cluster_ids: Collection[int], resources: Collection[str], *, limits: bool = False) -> dict[Place, Used]:
    """Return what each observed namespace of the clusters uses of these resources; unseen ones are absent. One query.

    The same figures as `selectors.quota_statuses`, without reading every resource of every quota. `limits`: read what
    the quotas allow, too.
    """
    names = sorted(resources)
    columns = {
        f"{part}_{index}": KeyTextTransform(f"requests.{name}", KeyTransform(part, "status"))
        for part in (("used", "hard") if limits else ("used",))
        for index, name in enumerate(names)
    }
    rows = Observation.objects.filter(kind="ResourceQuota", missing=False, cluster_id__in=cluster_ids)
    rows = rows.exclude(status__has_key="scoped")
    # A watch that is alive vouches for what has not changed since. Of one cluster it is looked up once, not per row.
    watched = WatchCursor.objects.filter(kind="ResourceQuota")
    alone = len(cluster_ids) == 1
    watched = watched.filter(cluster_id__in=cluster_ids) if alone else watched.filter(cluster_id=OuterRef("cluster_id"))
    current = Subquery(watched.values("seen_at")[:1])
    found: dict[Place, Used] = {}
    times: dict[int, datetime] = {}
    # The later of the two, or the one there is: the database's GREATEST passes over NULL.
    values = rows.annotate(at=Micros(Greatest("observed_at", current)), **columns)
    names_of = ("cluster_id", "namespace", "at", *columns)
    for cluster_id, namespace, micros, *texts in values.values_list(*names_of):
        at = times.get(micros) or times.setdefault(micros, at_micros(micros))
        place = (cluster_id, namespace)
        one = found.get(place)
        if one is None:
            one = found[place] = Used(at)
        elif at < one.at:
            one.at = at
        for name, text in zip(names, texts, strict=False):
            units = _used(text)
            if units is not None:
                before = one.units.get(name)
                if before is None or units > before:
                    one.units[name] = units
        for name, text in zip(names, texts[len(names) :], strict=False):
            units = _units(text)
            if units is not None:
                one.limits[name] = min(one.limits.get(name, units), units)
    return found


@functools.lru_cache(maxsize=4096)
def _used(text: str | None) -> Fraction | None:
    """Return what is used of a quantity, which is never less than nothing; None: it says none."""
    units = _units(text)
    return None if units is None else max(Fraction(0), units)


@functools.lru_cache(maxsize=4096)
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
