"""Entries of the navigation, and what a platform admin sees at home."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.reports import platform
from portal.panels import nav, panel

nav("Home", "reports:home", icon="home", order=0)
nav(
    "Monthly report",
    "reports:monthly-latest",
    icon="receipt",
    order=10,
    permission="reports.monthly.view",
    group="Money",
)


@panel(page="home", order=20, permission="clusters.cluster.manage")
def platform_state(request: HttpRequest, obj: Any) -> dict[str, Any]:
    """What of the platform needs a person, and that the rest is well."""
    return {"template": "reports/panels/platform.html", "state": platform.state()}
