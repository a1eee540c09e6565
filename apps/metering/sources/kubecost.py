"""Kubecost's allocation API as a source (reference cost C1): hour by hour, without idle rows, older schema included.

Its sets are precomputed: hourly ones for a limited time (`etlHourlyStoreDurationHours`, 49 by default), daily ones
after that, whatever step is asked for. A set that is no hour is refused, never spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from apps.metering.sources.allocation import AllocationAdapter


class KubecostAdapter(AllocationAdapter):
    """Reads one hour a time. Without `gpuAllocation` (older releases) use stays unknown; costs are never read."""

    path = "/model/allocation"
    longest_window = timedelta(hours=1)
    parameters: Mapping[str, str] = {"accumulate": "false", "idle": "false", "shareIdle": "false", "external": "false"}
