"""What a release may stand on at a moment: the version's grant and its own, asked anew at every use (P9).

Nothing here reads a stored "is approved": both grants are looked up and compared with the clock each time, so an
expiry bites with every scheduler stopped.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.approvals.choices import RequestKind
from apps.approvals.engine import usable
from apps.approvals.models import Grant
from apps.catalogue import grants as version_grants
from apps.core.errors import NotAllowed
from apps.core.formats import datetime_utc
from apps.deployments.choices import ON_CLUSTER
from apps.deployments.models import Release
from apps.quotas.models import Workspace

#: The rule that refuses what stands on no usable grant.
RULE = "usable grant"
EMERGENCY_PATH = "Where it cannot wait, request it as an emergency."


@dataclass(frozen=True, slots=True)
class Standing:
    """What a release stands on at a moment. `refusal` "": both grants are usable for that much traffic."""

    version_grant: Grant | None
    release_grant: Grant | None
    refusal: str = ""

    @property
    def ok(self) -> bool:
        """Whether it may be used."""
        return not self.refusal

    @property
    def max_traffic(self) -> int:
        """The largest share of the traffic that the version's grant covers, per cent."""
        return max_traffic(self.version_grant)

    @property
    def ends_at(self) -> datetime | None:
        """When the first of both ends."""
        ends = [grant.expires_at for grant in (self.version_grant, self.release_grant) if grant and grant.expires_at]
        return min(ends) if ends else None


def max_traffic(grant: Grant | None) -> int:
    """Return how many per cent of the traffic a version's grant covers; without one (emergency): all."""
    return int(grant.scope.get("max_traffic", 100)) if grant is not None else 100


def version_scope(workspace: Workspace, traffic: int) -> dict[str, Any]:
    """Return what is asked of a version's grant: this environment, cluster and workspace, so much traffic."""
    return {
        "environments": [str(workspace.environment)],
        "clusters": [workspace.cluster.slug],
        "workspaces": [str(workspace.uid)],
        "max_traffic": traffic,
    }


def version_grant(digest: str, workspace: Workspace, at: datetime, traffic: int = 1) -> Grant | None:
    """Return a usable grant of the version with this manifest for a workspace, or None."""
    return version_grants.usable_grant(digest, version_scope(workspace, traffic), at)


def why_not(digest: str, workspace: Workspace, at: datetime, traffic: int = 1) -> str:
    """Return in a sentence why no grant of the version is usable there."""
    return version_grants.why_not_usable(digest, version_scope(workspace, traffic), at)


def release_grant(release: Release) -> Grant | None:
    """Return the release's own grant, usable or not; None: it was never granted."""
    return Grant.objects.filter(request__subject_type="deployments.release", request__subject_uid=release.uid).first()


def standing(release: Release, at: datetime, *, traffic: int) -> Standing:
    """Return what a release stands on at `at` for so much traffic; the refusal names the grant that is missing."""
    own = release_grant(release)
    workspace = release.endpoint.workspace
    if own is None:
        return Standing(None, None, "This release was never approved.")
    # The digest is worked out from the row as it stands: one that was changed behind the portal's back has no grant.
    if not usable(own, live_digest(release), {"subject_uid": str(release.uid)}, at):
        return Standing(None, own, f"The approval of release {release.number} {_ended(own, at)} {EMERGENCY_PATH}")
    if own.kind == RequestKind.EMERGENCY:
        return Standing(None, own)
    found = version_grant(release.version_digest, workspace, at, traffic)
    if found is None:
        why = why_not(release.version_digest, workspace, at, traffic)
        return Standing(None, own, f"{release.model_version} is not approved for this: {why} {EMERGENCY_PATH}")
    return Standing(found, own)


def live_digest(release: Release) -> str:
    """Return the digest of the release's canonical bytes as its columns are now."""
    from apps.core.canonical import digest
    from apps.deployments.records import canonical

    return digest(canonical(release))


def require(release: Release, at: datetime, *, traffic: int) -> Standing:
    """Return what the release stands on. Raises NotAllowed naming the grant that is not usable."""
    found = standing(release, at, traffic=traffic)
    if not found.ok:
        raise NotAllowed(found.refusal, rule=RULE)
    return found


def _ended(grant: Grant, at: datetime) -> str:
    if grant.revoked_at is not None and grant.revoked_at <= at:
        return f"was revoked on {datetime_utc(grant.revoked_at)}: {grant.revoked_reason}"
    if grant.expires_at is not None and grant.expires_at <= at:
        return f"expired on {datetime_utc(grant.expires_at)}."
    if grant.not_before > at:
        return f"begins only on {datetime_utc(grant.not_before)}."
    return "is for other bytes than the release now holds."


def emergency_entries(workspace_uid: uuid.UUID, at: datetime) -> list[tuple[Grant, Release]]:
    """Return the emergency grants that stand in for a version's grant in a workspace, with their releases.

    What the cluster enforces lists them beside `catalogue.grants.usable_entries`.
    """
    releases: Mapping[uuid.UUID, Release] = {
        release.uid: release
        for release in Release.objects.filter(
            endpoint__workspace__uid=workspace_uid, status__in=ON_CLUSTER, approval__kind=RequestKind.EMERGENCY
        ).select_related("model_version", "endpoint")
    }
    rows = Grant.objects.filter(
        request__subject_type="deployments.release", request__subject_uid__in=releases.keys(),
        kind=RequestKind.EMERGENCY,
    ).select_related("request")  # fmt: skip
    return [
        (grant, releases[grant.request.subject_uid])
        for grant in rows
        if usable(grant, releases[grant.request.subject_uid].digest, {}, at)
    ]
