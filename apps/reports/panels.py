"""Entries of the navigation."""

from __future__ import annotations

from portal.panels import nav

nav("Home", "reports:home", icon="home", order=0)
nav(
    "Monthly report",
    "reports:monthly-latest",
    icon="receipt",
    order=10,
    permission="reports.monthly.view",
    group="Money",
)
