"""Adopting a namespace as a change request: a workspace with that very name, its quotas dated from the grant on.

The workspace's row is made in the deciding transaction and not before: a rejected adoption leaves nothing behind. Lock
order (design §2): approval request → change request → pools (by id) → workspace → declaration.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import combinations
from typing import Any

from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from apps import audit
from apps.approvals.ports import CannotTake, Change, describe_fact
from apps.clusters.models import Cluster, Flavour, Pool
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.formats import datetime_utc
from apps.provisioning.choices import DeclarationKind, PlanStatus
from apps.quotas import adopting_proposal as proposal
from apps.quotas import adopting_reader, book, change_records, events, kueue_state
from apps.quotas.adopting_events import NAMESPACE_ADOPTED, NamespaceAdopted
from apps.quotas.assess import MAX_UNITS, number
from apps.quotas.changes import Proposed
from apps.quotas.choices import ChangeKind, Environment, ReadingStatus
from apps.quotas.ledger import gpus, most
from apps.quotas.limits import LIMITS
from apps.quotas.models import ChangeRequest, NamespaceReading, Quota, Workspace
from apps.quotas.waitlist import line_name
from apps.rates.selectors import monthly_estimate
from apps.teams.models import Team

SYSTEM = Actor.system("quotas.adopting")
_GOOD_FOR = timedelta(hours=proposal.GOOD_FOR_HOURS)
MOVED = "The namespace has changed on the cluster since this was asked for: withdraw it, read it again, request anew."


def describe_facts() -> None:
    """Say what the facts of adoptions mean; the policy pages show it."""
    describe_fact(
        "adopted_gpus", label="GPUs of the adopted namespace",
        meaning="Whole GPUs that an adopted namespace is guaranteed from the grant on, in thousandths.",
        unit="milli-GPUs",
    )  # fmt: skip


def reading_of(values: Mapping[str, Any], cluster: Cluster) -> NamespaceReading | None:
    """Return the reading behind an adoption."""
    rows = NamespaceReading.objects.select_related("cluster", "team__unit")
    return rows.filter(uid=uuid.UUID(str(values["reading_uid"])), cluster=cluster).first()


class AdoptNamespaceHandler:
    """A namespace that is there already becomes a team's workspace."""

    kind = ChangeKind.ADOPT_NAMESPACE

    def check(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> dict[str, Any]:
        """Return everything that is approved. `values`: {"reading_uid", "units": {flavour slug: whole number}}.

        Raises Invalid where the reading is not there or too old, something clashes, or a number makes no sense.
        """
        if workspace is not None:
            raise Invalid({"": "A namespace is adopted for a cluster; its workspace comes with the grant."})
        try:
            reading = reading_of(values, cluster)
        except (KeyError, ValueError) as error:
            raise Invalid({"": "Say which reading is to be adopted."}) from error
        at = clock.now()
        if reading is None or reading.status != ReadingStatus.DONE or reading.read_at is None:
            raise Invalid({"": "The namespace has not been read yet."})
        if at - reading.read_at > _GOOD_FOR:
            raise Invalid({"": f"It was read {datetime_utc(reading.read_at)}: read it again first."})
        found = proposal.proposal_of(reading, at)
        if found.clashes:
            raise Invalid({"": [_clash_words(one) for one in found.clashes[:20]]})
        if found.blockers:
            raise Invalid({"": found.blockers})
        units = _checked_units(values.get("units") or {}, found.gpus)
        _check_room(units, found.gpus, at)
        _check_apart(cluster, units, found.gpus)
        future = proposal.future_workspace(reading, found.limits)
        if why := _queue_blockers(future, [row.flavour for row in found.gpus if units[row.flavour.slug]]):
            raise Invalid({"": why})
        return {
            "reading_uid": str(reading.uid),
            "workspace_uid": str(reading.workspace_uid),
            "namespace": reading.namespace,
            "team": str(reading.team.uid),
            "environment": str(reading.environment),
            "data_classes": sorted(reading.data_classes),
            "limits": found.limits,
            "labels": found.labels,
            "quotas": [_quota(row, units[row.flavour.slug], at) for row in found.gpus if units[row.flavour.slug]],
            "kept": found.kept,
            "fingerprint": proposal.fingerprint(reading.found),
            "taken_over": [_label_path(reading.namespace, key) for key in found.labels],
        }

    def receiver(self, values: Mapping[str, Any]) -> Team:
        """Return the team whose workspace it becomes. Raises Invalid where it is gone."""
        team = Team.objects.select_related("unit").filter(uid=values["team"], archived_at__isnull=True).first()
        if team is None:
            raise Invalid({"team": "This team is archived."})
        return team

    def title(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> str:
        """Return the change in one line."""
        return f"Adopt the namespace {values['namespace']} on {cluster} for {self.receiver(values)}"

    def settings_diff(self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any]) -> list[Change]:
        """Return workspace, quotas with their cost, limits, what is taken over, and what stays untouched."""
        slug, name = cluster.slug, values["namespace"]
        place = f"{self.receiver(values)}, {Environment(values['environment']).label.lower()}"
        classes = ", ".join(values["data_classes"]) or "none"
        lines = [Change(slug, name, "workspace", "", place), Change(slug, name, "data allowed there", "", classes)]
        for quota in values["quotas"]:
            cost = f"{quota['amount']} {quota['currency']}" if quota["amount"] else "unknown: no rate is published"
            note = f"guaranteed from the grant on; {quota['source']}; per month: {cost}"
            lines.append(Change(slug, name, quota["flavour"], "", str(quota["guaranteed"]), note))
        if not values["quotas"]:
            lines.append(Change(slug, name, "GPUs", "", "none"))
        for limit in LIMITS:
            text = f"{values['limits'][limit.name]:,} {limit.unit}".strip()
            lines.append(Change(slug, name, limit.label, "", text))
        for key, value in sorted(values["labels"].items()):
            lines.append(Change(slug, f"Namespace {name}", key, value, f"{value}, taken over as it lives"))
        for one in values["kept"]:
            lines.append(Change(slug, one["object"], "stays as it is", one["what"], one["means"]))
        return lines

    def propose(
        self, cluster: Cluster, workspace: Workspace | None, values: dict[str, Any], at: datetime
    ) -> list[Proposed]:
        """Return the objects of the workspace that would be made."""
        future = self._future(cluster, values)
        flavours = {
            row.slug: row.pk for row in Flavour.objects.filter(slug__in=[q["flavour"] for q in values["quotas"]])
        }
        try:
            units = {flavours[quota["flavour"]]: int(quota["guaranteed"]) for quota in values["quotas"]}
        except KeyError as error:
            raise Invalid({"": f"The flavour {error.args[0]} is gone."}) from error
        manifests = proposal.future_manifests(future, units, values["labels"], at)
        title = f"Workspace {future.namespace}"
        return [Proposed(DeclarationKind.WORKSPACE, future.uid, title, future.team_id, manifests)]

    def _future(self, cluster: Cluster, values: Mapping[str, Any]) -> Workspace:
        return Workspace(
            uid=uuid.UUID(values["workspace_uid"]),
            team=self.receiver(values),
            cluster=cluster,
            environment=values["environment"],
            namespace=values["namespace"],
            data_classes=values["data_classes"],
            **values["limits"],
        )

    def facts(self, change: ChangeRequest) -> Mapping[str, int | str]:
        """Return environment and GPUs for policies."""
        flavours = {
            row.slug: row for row in Flavour.objects.filter(slug__in=[q["flavour"] for q in change.values["quotas"]])
        }
        total = sum(
            (gpus(int(q["guaranteed"]), flavours[q["flavour"]].numerator, flavours[q["flavour"]].denominator)
             for q in change.values["quotas"] if q["flavour"] in flavours),
            Fraction(0),
        )  # fmt: skip
        return {"environment": str(change.values["environment"]), "adopted_gpus": int(total * 1000)}

    def line(self, change: ChangeRequest) -> str:
        """Return the line of the pool that it takes from, "" where it takes nothing.

        Where it takes from several pools it stands in the line of the first; room in the others is asked for, too.
        """
        slugs = [quota["flavour"] for quota in change.values["quotas"]]
        pool = Pool.objects.filter(cluster=change.cluster_id, flavours__slug__in=slugs).order_by("pk").first()
        return line_name(pool) if pool is not None else ""

    def blockers(self, change: ChangeRequest, at: datetime) -> Sequence[str]:
        """Return why nobody may approve it now."""
        values = change.values
        reading = reading_of(values, change.cluster)
        if reading is None or reading.read_at is None:
            return ["What was read of the namespace is gone: withdraw this and read it again."]
        found = proposal.standing_against(change.cluster, reading.team, reading.environment, reading.namespace)
        if reading.status == ReadingStatus.FAILED:
            found.append(f"The namespace could not be read again: {reading.error}")
        elif at - reading.read_at > _GOOD_FOR:
            found.append("What was read of the namespace is more than a day old: the portal is reading it again.")
        if proposal.fingerprint(reading.found) != values["fingerprint"]:
            found.append(MOVED)
        found += self._plan_blockers(change)
        future = self._future(change.cluster, values)
        held = list(Flavour.objects.filter(slug__in=[quota["flavour"] for quota in values["quotas"]]).order_by("pk"))
        found += _queue_blockers(future, held)
        try:
            frozen = change_records.freeze(self, change.cluster, None, values, at)
        except Invalid as invalid:
            found += [text for texts in invalid.errors.values() for text in texts]
        else:
            if frozen.leaves != change.change["leaves"] and not change.change.get("outdated"):
                found.append(
                    "The portal would declare the workspace differently now: withdraw this and request it anew."
                )
        return found

    def _plan_blockers(self, change: ChangeRequest) -> list[str]:
        plans = change_records.plans_of(change)
        failed = [plan.last_error for plan in plans if plan.status == PlanStatus.FAILED]
        if failed:
            return [f"The cluster refuses it: {failed[0]}"]
        if not plans or any(plan.status != PlanStatus.READY for plan in plans):
            return ["The cluster's dry run, which has to show that nothing is overwritten, is not ready yet."]
        clashes = [one for plan in plans for one in adopting_reader.clashes(plan.entries)]
        return [_clash_words(one) for one in clashes[:20]]

    def on_granted(self, change: ChangeRequest, at: datetime) -> None:
        """Make the workspace and its quotas. Raises CannotTake where a pool is full, Conflict where it cannot be."""
        values = change.values
        slugs = [quota["flavour"] for quota in values["quotas"]]
        rows = Pool.objects.filter(cluster=change.cluster, flavours__slug__in=slugs).distinct().order_by("pk")
        pools = [Pool.objects.locked(pk) for pk in rows.values_list("pk", flat=True)]
        try:
            with transaction.atomic():
                workspace = self._future(change.cluster, values)
                workspace.rolled_at = at
                workspace.save(force_insert=True)
        except IntegrityError as error:
            raise Conflict(
                "A workspace of this namespace, or of this team and environment, is there already."
            ) from error
        for quota in values["quotas"]:
            _take(workspace, pools, quota, at)
        self._record(change, workspace)

    def _record(self, change: ChangeRequest, workspace: Workspace) -> None:
        team = workspace.team
        made = events.WorkspaceCreated(
            workspace.uid, change.cluster.uid, team.uid, str(workspace.environment), workspace.namespace,
            list(workspace.data_classes),
        )  # fmt: skip
        adopted = NamespaceAdopted(
            change.uid, workspace.uid, change.cluster.slug, workspace.namespace, team.uid, str(workspace.environment),
            {quota["flavour"]: int(quota["guaranteed"]) for quota in change.values["quotas"]},
        )  # fmt: skip
        for event, payload in ((events.WORKSPACE_CREATED, made), (NAMESPACE_ADOPTED, adopted)):
            audit.record(
                event, payload, actor=SYSTEM, subject_type="quotas.workspace", subject_uid=workspace.uid,
                team_uid=team.uid,
            )  # fmt: skip


def _clash_words(one: Mapping[str, str]) -> str:
    if one["why"]:
        lives = f" {one['field']} is {one['live']}, the portal would set {one['wanted']};" if one["field"] else ""
        return f"{one['object']}:{lives} the cluster would refuse it: {one['why']} Resolve it on the cluster first."
    holder = f", held by {one['manager']}" if one["manager"] else ""
    place = f"{one['object']} {one['field']}{holder}"
    if not one["live"] and not one["wanted"]:
        return f"{place}: resolve it on the cluster first, nothing is overwritten."
    wanted = one["wanted"] or "nothing"
    return f"{place}: it is {one['live']}, the portal would set {wanted}. Resolve it on the cluster first."


def _label_path(namespace: str, key: str) -> str:
    """Return the path of a label of the Namespace as digest leaves write it, so that later baselines keep it."""
    return f"v1/Namespace//{namespace}#/metadata/labels/{key.replace('~', '~0').replace('/', '~1')}"


def _checked_units(asked: Mapping[str, Any], rows: Sequence[proposal.GpuRow]) -> dict[str, int]:
    """Return units by flavour slug, 0 where nothing is said. Raises Invalid per field."""
    errors: dict[str, str] = {f"gpus_{slug}": "This cluster does not offer it." for slug in asked}
    units = {}
    for row in rows:
        errors.pop(row.field, None)
        value = asked.get(row.flavour.slug, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_UNITS:
            errors[row.field] = f"Enter a whole number from 0 to {MAX_UNITS:,}."
        else:
            units[row.flavour.slug] = value
    if errors:
        raise Invalid(errors)
    return units


def _check_room(units: Mapping[str, int], rows: Sequence[proposal.GpuRow], at: datetime) -> None:
    """Raise Invalid where more is asked for than the pool ever hands out; what is merely taken today waits."""
    errors = {}
    for row in rows:
        ceiling = most(book.capacity(row.pool, at, None), at, None)
        if gpus(units[row.flavour.slug], row.flavour.numerator, row.flavour.denominator) > ceiling:
            errors[row.field] = f"That is more than the pool has: {row.pool} hands out at most {number(ceiling)} GPUs."
    if errors:
        raise Invalid(errors)


def _check_apart(cluster: Cluster, units: Mapping[str, int], rows: Sequence[proposal.GpuRow]) -> None:
    """Raise Invalid for two flavours that the cluster could not tell apart in one namespace (see book)."""
    labelled = kueue_state.state_of(cluster).queues
    held = [row for row in rows if units[row.flavour.slug]]
    for one, other in combinations(held, 2):
        a, b = one.flavour, other.flavour
        same = (a.gpu_model, a.numerator, a.denominator) == (b.gpu_model, b.numerator, b.denominator)
        if a.resource_name != b.resource_name or same or (labelled and kueue_state.apart(a, b)):
            continue
        raise Invalid(
            {
                other.field: f"The cluster counts {a} and {b} under the same name ({a.resource_name}) and could not "
                "keep the two apart in one namespace. Give one of them 0."
            }
        )


def _queue_blockers(workspace: Workspace, flavours: Sequence[Flavour]) -> list[str]:
    found: list[str] = []
    for flavour in flavours:
        found += kueue_state.blockers(workspace, flavour, borrows=False, creates=True)
    return list(dict.fromkeys(found))


def _quota(row: proposal.GpuRow, units: int, at: datetime) -> dict[str, Any]:
    estimate = monthly_estimate(row.pool.cluster_id, row.flavour.pk, units, at)
    amount = estimate.amount.quantized() if estimate.amount is not None else None
    return {
        "flavour": row.flavour.slug,
        "resource": row.flavour.resource_name,
        "guaranteed": units,
        "source": row.source,
        "amount": str(amount.amount) if amount is not None else None,
        "currency": amount.currency if amount is not None else None,
        "rate_uid": str(estimate.rate_uid) if estimate.rate_uid else None,
    }


def _take(workspace: Workspace, pools: Sequence[Pool], quota: Mapping[str, Any], at: datetime) -> None:
    """Write one quota down, from now on, where its locked pool has room (invariant 1). Raises CannotTake."""
    flavour = Flavour.objects.get(slug=quota["flavour"])
    pool = next((one for one in pools if one.flavours.filter(pk=flavour.pk).exists()), None)
    if pool is None:
        raise CannotTake(f"{workspace.cluster} no longer offers {flavour}.")
    start, units = at.replace(microsecond=0), int(quota["guaranteed"])
    room = book.load(pool, start).room(workspace.pk, flavour, units, start, None)
    if not room.fits:
        when = f" It would fit from {datetime_utc(room.first_fit_from)}." if room.first_fit_from else ""
        raise CannotTake(
            f"{pool} is full: at its tightest moment ({datetime_utc(room.worst_at)}) this workspace could have "
            f"{number(max(room.free_at_worst, Fraction(0)))} GPUs.{when}"
        )
    Quota.objects.create(
        workspace=workspace, flavour=flavour, guaranteed=units, valid=DateTimeTZRange(start, None, "[)")
    )


__all__ = ["AdoptNamespaceHandler", "describe_facts", "reading_of"]
