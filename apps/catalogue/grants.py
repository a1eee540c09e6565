"""Which grants of versions are usable where and when: derived at every question, stored nowhere.

A scope is asked as `{"environments", "clusters", "workspaces", "max_traffic"}` (a text or a list each); what a grant
does not name it does not grant.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models.expressions import RawSQL

from apps.approvals.engine import covers, usable
from apps.approvals.models import Grant
from apps.catalogue import locations
from apps.catalogue import manifest as manifests
from apps.catalogue.choices import VersionStatus
from apps.catalogue.models import ModelVersion
from apps.catalogue.ports import verifies
from apps.catalogue.requests import SUBJECT_TYPE
from apps.core.row_security import lifted


@dataclass(frozen=True, slots=True)
class Entry:
    """What a cluster may load in a workspace by one usable grant."""

    grant_uid: uuid.UUID
    manifest_digest: str
    version_uid: uuid.UUID
    uris: tuple[str, ...]
    images: tuple[str, ...]
    max_traffic: int
    not_before: datetime
    expires_at: datetime | None
    bound: str


def asked(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return an asked scope with texts in place of uids."""
    found: dict[str, Any] = {}
    for key, value in scope.items():
        if isinstance(value, list | tuple | set | frozenset):
            found[key] = [str(one) for one in value]
        else:
            found[key] = str(value) if isinstance(value, uuid.UUID) else value
    return found


@lifted("whether bytes are approved holds for everybody who may load them")
def grants_of(manifest_digest: str) -> list[Grant]:
    """Return every grant that approves exactly these bytes, usable or not, the longest lasting first."""
    if not manifest_digest:
        return []
    rows = Grant.objects.filter(
        subject_type=SUBJECT_TYPE,
        manifest=manifest_digest,
        request__model_request__model_version__digest=manifest_digest,
    ).select_related("request__model_request__model_version")
    return sorted(rows, key=lambda row: (row.expires_at is None, row.expires_at, row.pk), reverse=True)


def holds(grant: Grant, manifest_digest: str, scope: Mapping[str, Any], at: datetime) -> bool:
    """Whether one grant covers these bytes in this scope at this moment, and its version is in use."""
    version = version_of(grant)
    if version.status != VersionStatus.SEALED or version.digest != manifest_digest:
        return False
    return usable(grant, grant.subject_digest, {"manifest": manifest_digest, **asked(scope)}, at)


def version_of(grant: Grant) -> ModelVersion:
    """Return the version a grant approves."""
    found: ModelVersion = grant.request.model_request.model_version
    return found


def usable_grant(manifest_digest: str, scope: Mapping[str, Any], at: datetime) -> Grant | None:
    """Return a grant that covers the bytes in the scope at `at`, the longest lasting one; None: nothing covers it."""
    return next((row for row in grants_of(manifest_digest) if holds(row, manifest_digest, scope, at)), None)


def why_not_usable(manifest_digest: str, scope: Mapping[str, Any], at: datetime) -> str:
    """Return in a sentence why nothing covers the bytes in the scope at `at`; "": something does."""
    rows = grants_of(manifest_digest)
    if any(holds(row, manifest_digest, scope, at) for row in rows):
        return ""
    if not rows:
        return "These bytes were never approved: ask for the version's approval first."
    wanted = {"manifest": manifest_digest, **asked(scope)}
    fitting = [row for row in rows if covers(row.scope, wanted)]
    if not fitting:
        return _narrower(rows, wanted)
    version = version_of(fitting[0])
    if version.status == VersionStatus.RETIRED:
        when = f" on {version.retired_at:%Y-%m-%d}" if version.retired_at is not None else ""
        return f"The version was retired{when}."
    for row in fitting:
        if row.revoked_at is not None and at >= row.revoked_at:
            why = f": {row.revoked_reason}" if row.revoked_reason else "."
            return f"The approval was revoked on {row.revoked_at:%Y-%m-%d}{why}"
    ended = [row.expires_at for row in fitting if row.expires_at is not None and at >= row.expires_at]
    if ended:
        return f"The approval expired on {max(ended):%Y-%m-%d %H:%M} UTC: it has to be renewed."
    return f"The approval begins on {min(row.not_before for row in fitting):%Y-%m-%d %H:%M} UTC."


_PARTS = {"environments": "environments", "clusters": "clusters", "workspaces": "workspaces"}


def _narrower(rows: Iterable[Grant], wanted: Mapping[str, Any]) -> str:
    """Say which part of the scope no approval names."""
    scopes = [row.scope for row in rows]
    for key, word in _PARTS.items():
        if key in wanted and not any(covers(scope, {key: wanted[key]}) for scope in scopes):
            named = sorted({str(one) for scope in scopes for one in scope.get(key, [])})
            listed = ", ".join(named[:5]) if key != "workspaces" else f"{len(named)} others"
            return f"These bytes are approved for other {word} only: {listed}."
    if "max_traffic" in wanted:
        most = max((int(scope.get("max_traffic", 0)) for scope in scopes), default=0)
        if int(wanted["max_traffic"]) > most:
            return f"These bytes are approved for at most {most} % of the traffic."
    return "No single approval covers this environment, cluster, workspace and share of traffic together."


@lifted("what a workspace may load is all that was approved for it, whoever's model it is")
def usable_entries(workspace_uid: uuid.UUID, cluster_slug: str, environment: str, at: datetime) -> list[Entry]:
    """Return what may be loaded in a workspace at `at`: one entry per usable grant, by digest and start."""
    scope = {"environments": [environment], "clusters": [cluster_slug], "workspaces": [str(workspace_uid)]}
    rows = (
        Grant.objects.filter(
            pk__in=RawSQL("SELECT commons.grants_naming(%s)", [str(workspace_uid)]),
            subject_type=SUBJECT_TYPE,
            revoked_at__isnull=True,
            not_before__lte=at,
        )
        .exclude(expires_at__lte=at)
        .select_related("request__model_request__model_version")
    )
    verified = verifies(cluster_slug)
    found = []
    for row in rows:
        version = version_of(row)
        if not holds(row, version.digest, scope, at):
            continue
        manifest = locations.manifest_of(version)
        bound = manifests.bound_where(manifest, verified=verified)
        found.append(
            Entry(
                row.uid, version.digest, version.uid, tuple(manifests.model_uris(manifest)),
                tuple(manifests.images(manifest)), int(row.scope["max_traffic"]), row.not_before, row.expires_at, bound,
            )
        )  # fmt: skip
    return sorted(found, key=lambda one: (one.manifest_digest, one.not_before, str(one.grant_uid)))
