"""Entries of registries in the navigation."""

from __future__ import annotations

from portal.panels import nav

nav(
    "Registries", "catalogue:registry-list", icon="download", order=62, permission="catalogue.registry.view",
    group="Models",
)  # fmt: skip
nav(
    "Registry findings", "catalogue:registry-finding-list", icon="alert-triangle", order=64,
    permission="catalogue.registry.view", group="Models",
)  # fmt: skip
