"""What a release would mean before anybody is asked: does it fit, may it run there, what does it cost, what is missing.

One assessment serves the panel beside the form, the action that submits and the approver's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from apps.approvals import ports
from apps.approvals.models import Grant
from apps.catalogue.choices import REGULATED, VersionStatus
from apps.catalogue.manifest import BYTES, Manifest
from apps.catalogue.models import ModelVersion
from apps.clusters import capabilities
from apps.clusters.choices import DeviceClass
from apps.clusters.models import Flavour, Pool
from apps.core.errors import Invalid
from apps.core.money import Money
from apps.deployments import canary_matrix, grants, ladder, manifests, money, placement, reading, verifying
from apps.deployments.choices import CanaryMode, ExpiryAction, ReleaseKind
from apps.deployments.feasibility import Fit, Size, fit
from apps.deployments.models import Endpoint, Release
from apps.deployments.spec import Spec, name_problem
from apps.quotas import book
from apps.quotas.choices import Environment
from apps.quotas.models import Workspace
from apps.rates.selectors import rate_at

POLICY = "releases"
SUBJECT_TYPE = "deployments.release"
YES, NO = "yes", "no"
REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody wants to release, checked for shape only."""

    workspace: Workspace
    name: str
    endpoint: Endpoint | None
    version: ModelVersion
    flavour: Flavour
    spec: Spec
    emergency: bool = False

    @property
    def current(self) -> Release | None:
        """The release that takes the traffic now."""
        return self.endpoint.current if self.endpoint is not None else None

    @property
    def serving(self) -> Release | None:
        """The release that takes traffic now; a stopped endpoint has none to share it with."""
        stopped = self.endpoint is not None and self.endpoint.stopped_at is not None
        return None if stopped else self.current

    @property
    def kind(self) -> str:
        """Whether it brings another version, or changes how the same one runs."""
        current = self.current
        same = current is not None and current.version_digest == self.version.digest
        return str(ReleaseKind.CHANGE if same else ReleaseKind.DEPLOY)


@dataclass(frozen=True, slots=True)
class Costs:
    """Before and after: the release that runs and the one that is wanted."""

    before: money.Cost | None
    after: money.Cost
    canary: Money | None
    rate_uid: str
    hourly: Money | None

    @property
    def change(self) -> Money | None:
        """What the monthly cost changes by, each at its largest size; None: a rate is missing."""
        if self.after.maximum is None or (self.before is not None and self.before.maximum is None):
            return None
        if self.before is None or self.before.maximum is None:
            return self.after.maximum
        return self.after.maximum - self.before.maximum

    def plain(self) -> dict[str, Any]:
        """Return it as it is frozen with a release."""
        change = self.change.quantized() if self.change is not None else None
        return {
            "amount": str(change.amount) if change is not None else None,
            "currency": change.currency if change is not None else None,
            "before": self.before.plain() if self.before is not None else None,
            "after": self.after.plain(),
            "canary": str(self.canary.quantized().amount) if self.canary is not None else None,
            "rate_uid": self.rate_uid or None,
            "hourly": str(self.hourly.amount) if self.hourly is not None else None,
            "hours_per_month": money.HOURS_PER_MONTH,
        }


@dataclass(frozen=True, slots=True)
class Assessment:
    """All that is known of a draft at a time. `problems`: field → why it cannot be submitted so."""

    draft: Draft
    at: datetime
    manifest: Manifest
    fit: Fit
    placement: placement.Verdict
    mode: CanaryMode | None
    mode_reason: str
    canary: bool
    costs: Costs
    tiers: list[money.TierRow]
    start_seconds: int
    start_words: str
    grant: Grant | None
    name_bound: bool
    staging: timedelta
    facts: dict[str, ports.FactValue]
    terms: Mapping[str, int | str]
    problems: dict[str, str]
    waits: list[str]

    @property
    def max_traffic(self) -> int:
        """The largest share of the traffic that is covered, per cent."""
        return grants.max_traffic(self.grant)


def check_shape(draft: Draft) -> dict[str, str]:
    """Return what is wrong with a draft by itself, field → message."""
    found = draft.spec.validate()
    if problem := name_problem(draft.name):
        found["name"] = problem
    if draft.version.status == VersionStatus.RETIRED:
        found["model_version"] = f"{draft.version} is retired."
    elif draft.version.status != VersionStatus.SEALED or not draft.version.digest:
        found["model_version"] = f"{draft.version} is not sealed: without a digest nothing can be approved or deployed."
    if draft.endpoint is not None and draft.endpoint.model_id != draft.version.model_id:
        found["name"] = f"“{draft.name}” serves {draft.endpoint.model}: another model needs an endpoint of its own."
    if draft.endpoint is None and reading.being_removed(draft.workspace, draft.name):
        found["name"] = f"An endpoint “{draft.name}” is still being removed from the cluster: try again in a moment."
    if draft.workspace.archived_at is not None:
        found["workspace"] = f"{draft.workspace} is archived."
    if draft.flavour.device_class == DeviceClass.CPU and draft.spec.cpu != draft.spec.units_per_replica:
        found["cpu"] = "Of a CPU class the units are the cores: both numbers are the same."
    return found


def assess(draft: Draft, at: datetime) -> Assessment:
    """Return all that a draft means at `at`. Raises Invalid where it has not even a shape."""
    wrong = check_shape(draft)
    if wrong:
        raise Invalid(wrong)
    workspace, spec, version = draft.workspace, draft.spec, draft.version
    manifest = reading.manifest_of(version)
    able = capabilities.of(workspace.cluster)
    mode, reason = _mode(draft, able)
    serving = draft.serving
    canary = bool(spec.ladder) and serving is not None and mode not in (None, CanaryMode.NONE)
    pool = book.pool_of(workspace.cluster_id, draft.flavour.pk)
    found_fit = _fit(draft, at, canary)
    verdict = placement.judge(manifest.classification, reading.rules_in_force(at), reading.place_of(workspace.cluster))
    costs, tiers, seconds, words = _money(draft, pool, at)
    grant = grants.version_grant(version.digest, workspace, at)
    staging = reading.staging_time(version.digest, at)
    name_bound = verifying.bound(workspace.cluster, manifest) != BYTES
    facts = _facts(
        draft, manifest, costs, at, grant=grant, fits=found_fit.ok, verdict=verdict, staging=staging,
        name_bound=name_bound, canary=canary,
    )  # fmt: skip
    terms = ports.terms_for(POLICY, facts)
    if terms.get("expiry_action") in ExpiryAction.values:
        # What happens at the end of an approval is the policy's to say, where it says it.
        draft = replace(draft, spec=replace(spec, expiry_action=str(terms["expiry_action"])))
    problems, waits = _judge(
        draft, manifest, at, terms=terms, fit=found_fit, verdict=verdict, mode=mode, reason=reason, canary=canary,
        grant=grant, staging=staging, name_bound=name_bound, pool=pool,
    )  # fmt: skip
    return Assessment(
        draft, at, manifest, found_fit, verdict, mode, reason, canary, costs, tiers, seconds, words, grant, name_bound,
        staging, facts, terms, problems, waits,
    )  # fmt: skip


def _mode(draft: Draft, able: capabilities.Capabilities) -> tuple[CanaryMode | None, str]:
    """Return how two releases share traffic there and why; an endpoint that has a release keeps its mode."""
    scaler = manifests.autoscaler(draft.spec)
    mode, reason = canary_matrix.mode_for(able, scaler)
    if draft.endpoint is None or draft.endpoint.current_id is None:
        return mode, reason
    kept = CanaryMode(draft.endpoint.canary_mode)
    refused = canary_matrix.refusal(able, kept, scaler, canary=False)
    return (kept, reason) if refused is None else (None, refused)


def _size(release: Release | None) -> Size | None:
    return reading.size_of(release.flavour, reading.spec_of(release)) if release is not None else None


def _fit(draft: Draft, at: datetime, canary: bool) -> Fit:
    workspace = draft.workspace
    return fit(
        reading.size_of(draft.flavour, draft.spec),
        _size(draft.serving),
        room=reading.room_of(workspace, draft.flavour, at),
        held=reading.held_elsewhere(workspace, draft.endpoint),
        cores=workspace.cpu_cores,
        memory_gib=workspace.memory_gib,
        production=workspace.environment == Environment.PRODUCTION,
        canary=canary,
        unit=draft.flavour.unit,
    )


def _money(draft: Draft, pool: Pool | None, at: datetime) -> tuple[Costs, list[money.TierRow], int, str]:
    workspace = draft.workspace
    rate = rate_at(workspace.cluster_id, draft.flavour.pk, at)
    hourly = rate.hourly if rate is not None else None
    before = None
    if (current := draft.current) is not None:
        old = rate_at(workspace.cluster_id, current.flavour_id, at)
        before = money.cost(reading.spec_of(current), old.hourly if old is not None else None)
    startup = pool.startup_minutes if pool is not None and pool.elastic else 0
    seconds = money.start_seconds(draft.version.total_bytes, startup)
    costs = Costs(
        before, money.cost(draft.spec, hourly), money.canary_cost(draft.spec, hourly),
        str(rate.uid) if rate is not None else "", hourly,
    )  # fmt: skip
    words = money.start_words(draft.version.total_bytes, startup)
    return costs, money.tiers(draft.spec, hourly, seconds), seconds, words


def _facts(
    draft: Draft,
    manifest: Manifest,
    costs: Costs,
    at: datetime,
    *,
    grant: Grant | None,
    fits: bool,
    verdict: placement.Verdict,
    staging: timedelta,
    name_bound: bool,
    canary: bool,
) -> dict[str, ports.FactValue]:
    """Return the named facts that policies may ask about; what is unknown is left out."""
    workspace, current = draft.workspace, draft.current
    facts: dict[str, ports.FactValue] = {
        "environment": str(workspace.environment),
        "release_kind": draft.kind,
        "data_class": reading.highest(manifest.classification),
        "regulated": YES if REGULATED & set(manifest.classification) else NO,
        "risk_tier": str(draft.version.model.risk_tier),
        "covered": YES if grant is not None else NO,
        "fits_now": YES if fits else NO,
        "placement_ok": YES if verdict.ok else NO,
        "on_premises": YES if verdict.place.location == placement.ON_PREMISES else NO,
        "staging_hours": int(staging.total_seconds() // 3600),
        "canary": YES if canary else NO,
        "canary_hours": draft.spec.ladder_hours,
        "first_release": YES if current is None else NO,
        "device_class": str(draft.flavour.device_class),
        "flavour_changes": YES if current is not None and current.flavour_id != draft.flavour.pk else NO,
        "max_replicas": draft.spec.max_replicas,
        "max_units": draft.spec.max_units,
        "bound_by": "name" if name_bound else "bytes",
        "emergency": YES if draft.emergency else NO,
    }
    if grant is not None:
        facts["granted_traffic"] = grants.max_traffic(grant)
    if (change := costs.change) is not None:
        amount: Decimal = change.quantized().amount
        facts[ports.MONTHLY_COST] = amount
        facts["monthly_cost_change"] = amount
        context = ports.FactContext(SUBJECT_TYPE, workspace.uid, workspace.team_id, workspace.team.unit_id, at)
        left = ports.read_fact("team.budget_remaining", context)
        exhausted = amount > 0 and ports.read_fact("team.budget_exhausted", context) == YES
        over = exhausted or (isinstance(left, int | Decimal) and amount > left)
        # Without a budget nothing is over it; `within_budget` says that one was set and is kept.
        facts["over_budget"] = YES if over else NO
        if exhausted or isinstance(left, int | Decimal):
            facts["within_budget"] = NO if over else YES
    return facts


def _judge(
    draft: Draft,
    manifest: Manifest,
    at: datetime,
    *,
    terms: Mapping[str, int | str],
    fit: Fit,
    verdict: placement.Verdict,
    mode: CanaryMode | None,
    reason: str,
    canary: bool,
    grant: Grant | None,
    staging: timedelta,
    name_bound: bool,
    pool: Pool | None,
) -> tuple[dict[str, str], list[str]]:
    """Return (field → why it cannot be submitted, what it has to wait for)."""
    workspace, spec = draft.workspace, draft.spec
    found: dict[str, str] = {}
    regulated = bool(REGULATED & set(manifest.classification))
    if pool is None:
        found["flavour"] = f"{workspace.cluster} does not offer {draft.flavour}."
    if mode is None:
        found["workspace"] = reason
    elif spec.ladder and draft.serving is not None and not canary:
        found["ladder"] = f"{reason} Leave the ladder empty: the release then takes all traffic at once."
    classes = sorted(set(manifest.classification) - set(workspace.data_classes))
    if classes:
        found["workspace"] = f"{workspace} is not for {', '.join(classes)} data, which {draft.version} touches."
    if not verdict.ok:
        found["workspace"] = " ".join(verdict.refusals)
    if regulated and name_bound:
        found["model_version"] = (
            "It touches regulated data, and nothing on this cluster verifies the bytes when they are loaded: use an OCI"
            " artifact by digest, or have the verifying storage container installed."
        )
    if grant is None and not draft.emergency:
        found["model_version"] = grants.why_not(draft.version.digest, workspace, at)
    never = [line for line in fit.lines if max(line.during, line.after) > line.have]
    if never:
        found["max_replicas"] = " ".join(line.words for line in never)
    found |= _terms(draft, manifest, terms, canary=canary, max_traffic=grants.max_traffic(grant))
    waits = [line.words for line in fit.lines if not line.ok and line not in never]
    needed = timedelta(hours=int(terms.get("staging_hours", 0)))
    if workspace.environment == Environment.PRODUCTION and staging < needed and not draft.emergency:
        hours = -(-(needed - staging) // timedelta(hours=1))
        waits.append(
            f"The policy asks for {needed // timedelta(hours=1)} h in staging with exactly these bytes; {hours} h are"
            " still missing."
        )
    return found, waits


def _terms(
    draft: Draft, manifest: Manifest, terms: Mapping[str, int | str], *, canary: bool, max_traffic: int
) -> dict[str, str]:
    """Return what the policy's terms say against a draft."""
    found: dict[str, str] = {}
    spec = draft.spec
    if not draft.emergency:
        most = min(max_traffic, int(terms.get("max_traffic", 100)))
        least, longest = terms.get("canary_hours_min"), terms.get("canary_hours_max")
        if draft.serving is None or canary:
            said = ladder.problems(
                spec.ladder if canary else (),
                max_traffic=most,
                hours_min=int(least) if least is not None and canary else None,
                hours_max=int(longest) if longest is not None and canary else None,
            )
            if said:
                found["ladder"] = " ".join(said)
        if least and draft.serving is not None and not spec.ladder and draft.kind == ReleaseKind.DEPLOY:
            found["ladder"] = f"The policy asks for a canary of at least {least} h before this version takes over."
    if terms.get("logger") == REQUIRED and not spec.logger:
        found["logger"] = "The policy asks for records of predictions here: switch them on."
    if terms.get("explainer") == REQUIRED and not (spec.explainer and manifest.explainer):
        found["explainer"] = (
            "The policy asks for an explainer here: switch it on."
            if manifest.explainer
            else "The policy asks for an explainer here, and this version has none: seal a version with one."
        )
    elif spec.explainer and not manifest.explainer:
        found["explainer"] = "This version has no explainer."
    return found
