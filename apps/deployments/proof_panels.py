"""Proof in the navigation."""

from __future__ import annotations

from portal.panels import nav

nav(
    "Placement", "deployments:placement-list", icon="file-text", order=80, permission="deployments.placement.view",
    group="Models",
)  # fmt: skip
nav(
    "Time machine", "deployments:time-machine", icon="history", order=82, permission="deployments.endpoint.view",
    group="Models",
)  # fmt: skip
