"""The catalogue's entries in the navigation, and where clusters load uploaded files from."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.catalogue import copies
from apps.catalogue.access import VIEW
from apps.catalogue.blobs import mib
from apps.catalogue.choices import JobStatus, Scheme, VersionStatus
from apps.catalogue.models import ModelVersion, StoredCopy
from apps.core import clock
from apps.core.permissions import may
from portal.panels import nav, panel

nav("Models", "catalogue:model-list", icon="stack-2", order=10, permission="catalogue.model.view", group="Models")
nav("Stores", "catalogue:store-list", icon="database", order=60, permission="catalogue.store.view", group="Models")


@panel(page="model_version", order=5, permission=VIEW)
def where_clusters_load_it(request: HttpRequest, version: ModelVersion) -> dict[str, Any] | None:
    """Of uploaded files: their copies in stores, with progress, and the button."""
    if version.scheme != Scheme.UPLOAD or version.status == VersionStatus.DRAFT:
        return None
    rows = list(
        StoredCopy.objects.filter(model_version=version).select_related("store", "requested_by").order_by("-pk")
    )
    under_way = any(row.status in copies.OPEN for row in rows)
    may_submit = may(request.user, copies.SUBMIT, version)
    why = copies.why_not(version, clock.now())
    return {
        "template": "catalogue/panels/version_copies.html",
        "model_version": version,
        "rows": [
            {
                "row": row, "open": row.status in copies.OPEN,
                "text": f"{mib(min(row.bytes_done, row.bytes_total))} of {mib(row.bytes_total)},"
                f" {row.files_done:,} of {row.files_total:,} files verified",
            }
            for row in rows[:5]
        ],
        "done": any(row.status == JobStatus.DONE for row in rows),
        "under_way": under_way,
        "why_not": why,
        "may_put": may_submit and not why and not under_way,
        "may_cancel": may_submit,
    }  # fmt: skip
