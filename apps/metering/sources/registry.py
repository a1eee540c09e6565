"""Which adapter reads a source."""

from __future__ import annotations

from apps.clusters import crypto
from apps.clusters.errors import ClusterError
from apps.metering.choices import SourceKind
from apps.metering.models import Source
from apps.metering.sources.allocation import AllocationAdapter
from apps.metering.sources.base import SourceAdapter, SourceError
from apps.metering.sources.intervals import IntervalAdapter
from apps.metering.sources.kubecost import KubecostAdapter
from apps.metering.sources.prometheus import PrometheusAdapter

_KINDS: dict[SourceKind, type[PrometheusAdapter] | type[AllocationAdapter]] = {
    SourceKind.PROMETHEUS: PrometheusAdapter,
    SourceKind.ALLOCATION: AllocationAdapter,
    SourceKind.KUBECOST: KubecostAdapter,
}


def adapter_for(source: Source) -> SourceAdapter:
    """Return a fresh adapter for `source`; close it after use. Raises SourceError where its address is refused."""
    if source.kind == SourceKind.CSV:
        return IntervalAdapter(source.pk, source.options.get("windows") or [])
    try:
        token = crypto.decrypt(source.credentials)
        return _KINDS[SourceKind(source.kind)](source.url, token=token, options=source.options)
    except (ClusterError, crypto.CannotDecrypt) as error:
        raise SourceError(str(error)) from error
