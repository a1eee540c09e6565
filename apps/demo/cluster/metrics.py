"""`/metrics`: the one kube-state-metrics series the portal can compare with, `kube_resourcequota`."""

from __future__ import annotations

from apps.demo.cluster.kinds import QUOTA
from apps.demo.cluster.quantity import parse
from apps.demo.cluster.store import Store


def text(store: Store) -> str:
    """Prometheus text format. Resource names are as in the quota, unsanitised, as kube-state-metrics leaves them."""
    lines = [
        "# HELP kube_resourcequota [STABLE] Information about resource quota (simulated cluster).",
        "# TYPE kube_resourcequota gauge",
    ]
    for entry in store.entries(QUOTA):
        status = entry.obj.get("status") or {}
        for kind in ("hard", "used"):
            for resource, amount in sorted((status.get(kind) or {}).items()):
                labels = (
                    f'namespace="{entry.namespace}",resourcequota="{entry.name}",resource="{resource}",type="{kind}"'
                )
                lines.append(f"kube_resourcequota{{{labels}}} {parse(amount):f}")
    return "\n".join(lines) + "\n"
