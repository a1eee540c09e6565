"""What the catalogue asks: which versions of a model serve where, and what another one would change on the cluster."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime

from apps.catalogue.models import ModelVersion
from apps.catalogue.ports import Live, ObjectLine
from apps.core.errors import CommonsError
from apps.deployments import reading, rendering
from apps.deployments.choices import CanaryMode
from apps.deployments.models import Release, ServingInterval
from apps.provisioning import diff
from apps.quotas.change import object_path
from apps.quotas.choices import Environment

_GRAVEST = (Environment.PRODUCTION, Environment.STAGING, Environment.DEVELOPMENT)


class LiveVersions:
    """Registered with the catalogue (`catalogue.ports.Serving`)."""

    def live(self, model_id: int, workspace_uids: Collection[uuid.UUID], at: datetime) -> Sequence[Live]:
        """Return what of the model takes traffic at `at` in these workspaces, gravest environment first."""
        rows = (
            ServingInterval.objects.filter(
                endpoint__model_id=model_id, workspace__uid__in=workspace_uids, valid__contains=at, traffic__gt=0
            )
            .select_related("release", "endpoint", "workspace__cluster")
            .order_by("endpoint__name", "-traffic", "pk")
        )
        found = list(rows)
        since = _since(found, at)
        lines = [
            Live(
                row.release.model_version_id, row.workspace, row.endpoint.name, row.release.uid, row.release.number,
                row.traffic, since[row.release_id],
            )
            for row in found
        ]  # fmt: skip
        return sorted(lines, key=lambda one: (_GRAVEST.index(Environment(one.workspace.environment)), -one.traffic))

    def objects(self, live: Live, version: ModelVersion) -> Sequence[ObjectLine]:
        """Return how the endpoint's objects would change if the version took over as large as the release is."""
        release = (
            Release.objects.select_related("endpoint__workspace__cluster", "endpoint__workspace__team", "flavour")
            .filter(uid=live.release_uid)
            .first()
        )
        if release is None or not version.digest:
            return []
        endpoint, cluster = release.endpoint, live.workspace.cluster.slug
        # The same uid and number on both sides: what differs is the version alone.
        new = rendering.side(
            release.uid, release.number, reading.manifest_of(version), reading.spec_of(release), release.flavour
        )
        try:
            states = rendering.states(
                name=endpoint.name, endpoint_uid=endpoint.uid, workspace=endpoint.workspace,
                mode=CanaryMode(release.change["mode"]), new=new, current=None, canary=False,
            )  # fmt: skip
        except CommonsError as unfit:
            return [ObjectLine(cluster, f"Endpoint {endpoint.name}", "", "", f"It could not be rendered: {unfit}")]
        return _lines(cluster, release.change["states"].get(rendering.LIVE, []), states[rendering.LIVE])


def _since(rows: Sequence[ServingInterval], at: datetime) -> dict[int, datetime]:
    """Return since when each release takes its present share: intervals that touch are one."""
    found = {}
    for row in rows:
        found[row.release_id] = row.valid.lower
    earlier = ServingInterval.objects.filter(release_id__in=list(found), valid__startswith__lt=at, traffic__gt=0)
    share = {row.release_id: row.traffic for row in rows}
    for interval in earlier.order_by("-valid"):
        same = interval.traffic == share[interval.release_id]
        if same and interval.valid.upper is not None and interval.valid.upper == found[interval.release_id]:
            found[interval.release_id] = interval.valid.lower
    return found


def _lines(cluster: str, old: Sequence[rendering.Manifest], new: Sequence[rendering.Manifest]) -> list[ObjectLine]:
    was = {object_path(dict(one)): one for one in old}
    then = {object_path(dict(one)): one for one in new}
    found = []
    for path in sorted(was.keys() | then.keys()):
        if path not in was:
            found.append(ObjectLine(cluster, path, "", "", "created"))
        elif path not in then:
            found.append(ObjectLine(cluster, path, "", "there now", "removed"))
        else:
            found += [
                ObjectLine(
                    cluster, path, diff.render_path(one.path), diff.show(one.before) or "", diff.show(one.after) or ""
                )
                for one in diff.changes(was[path], then[path])
            ]
    return found
