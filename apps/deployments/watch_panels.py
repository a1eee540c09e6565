"""What the cluster says, on an endpoint's page."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.deployments import watch_selectors
from apps.deployments.models import Endpoint
from portal.panels import panel


@panel(page="endpoint", order=10, permission="deployments.endpoint.view")
def live(request: HttpRequest, endpoint: Endpoint) -> dict[str, Any] | None:
    """State and figures; refreshes itself while the endpoint is there."""
    if endpoint.removed_at is not None or (endpoint.current_id is None and endpoint.candidate_id is None):
        return None
    return {"template": "deployments/live.html", **watch_selectors.live_context(endpoint)}
