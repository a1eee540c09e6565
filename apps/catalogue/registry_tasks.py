"""Sweeps of registries."""

from __future__ import annotations

from datetime import timedelta

from apps.catalogue import registry_bytes, registry_sync, registry_webhooks
from apps.core.sweeps import sweep


# A first reading pages through everything twice and imports a batch; the lease keeps others away meanwhile.
@sweep("catalogue.poll_registries", every=timedelta(seconds=30), seconds=3600)
def poll_registries() -> int:
    """Read every registry that is due."""
    return registry_sync.poll_due()


@sweep("catalogue.compare_registry_bytes", every=timedelta(minutes=10))
def compare_registry_bytes() -> int:
    """Look whether what was sealed still lies where it came from."""
    return registry_bytes.check_due()


@sweep("catalogue.forget_deliveries", every=timedelta(hours=1))
def forget_deliveries() -> int:
    """Drop webhook deliveries that nobody can send again."""
    return registry_webhooks.forget_old()
