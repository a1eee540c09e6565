"""Which adapter reads a source."""

from __future__ import annotations

from apps.clusters import crypto
from apps.clusters.errors import ClusterError
from apps.metering.choices import SourceKind
from apps.metering.models import Source
from apps.metering.sources.allocation import AllocationAdapter
from apps.metering.sources.base import SourceAdapter, SourceError
from apps.metering.sources.intervals import IntervalAdapter
from apps.metering.sources.prometheus import PrometheusAdapter


def adapter_for(source: Source) -> SourceAdapter:
    """Return a fresh adapter for `source`; close it after use. Raises SourceError where its address is refused."""
    if source.kind == SourceKind.CSV:
        return IntervalAdapter(source.pk, source.options.get("windows") or [])
    try:
        token = crypto.decrypt(source.credentials)
        kind = PrometheusAdapter if source.kind == SourceKind.PROMETHEUS else AllocationAdapter
        return kind(source.url, token=token, options=source.options)
    except (ClusterError, crypto.CannotDecrypt) as error:
        raise SourceError(str(error)) from error
