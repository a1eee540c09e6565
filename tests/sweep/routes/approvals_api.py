"""Publishing policies, trying again and grants through the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.approvals.models import Grant
from apps.core import clock
from tests.sweep.routes.approvals import ROUTES as PAGES
from tests.sweep.routes.approvals_depth import _rows as rows_of
from tests.sweep.twins import post, twin
from tests.sweep.types import Route


def _grant(world: Any) -> Mapping[str, Any]:
    """The grant of the emergency that is under review."""
    request = rows_of(world).review.request
    found = Grant.objects.filter(request=request).first() or Grant.objects.create(
        request=request, subject_digest=request.subject_digest, not_before=clock.now(), kind=request.kind
    )
    return {"uid": found.uid}


ROUTES: dict[str, Route] = {
    "api:approval-request-retry": post(PAGES["approvals:request-retry"], "approval_request"),
    "api:policy-list#POST": post(PAGES["approvals:policy-create"]),
    "api:grant-list": twin(PAGES["approvals:request-list"]),
    "api:grant-detail": twin(PAGES["approvals:request-detail"], kwargs=_grant),
    "api:grant-revoke": post(PAGES["approvals:request-detail"], kwargs=_grant, allowed={"compliance", "admin"}),
}
