"""The checks that the catalogue itself can compute. Each says what is so, why, and what would change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apps.approvals import ports as approvals
from apps.approvals.models import PolicyVersion
from apps.catalogue import cards, controls
from apps.catalogue import manifest as manifests
from apps.catalogue.choices import REGULATED, ControlStatus, RiskTier
from apps.catalogue.controls import CheckResult, FactValue, holds
from apps.catalogue.models import Regime
from apps.catalogue.ports import CheckContext, register_check, verifies
from apps.clusters.choices import Location
from apps.core.errors import Invalid
from apps.quotas.choices import DataClass

VERSIONS_POLICY, RELEASES_POLICY = "model-versions", "releases"
#: Word of the releases policy's terms `logger` and `explainer`: every release has to have it.
REQUIRED = "required"
_LATER = "It hangs on the clusters and workspaces asked for, so it is computed with the request."


def good(why: str) -> CheckResult:
    """Return satisfied."""
    return CheckResult(ControlStatus.SATISFIED.value, why)


def lacking(why: str, todo: str) -> CheckResult:
    """Return missing, with what to do."""
    return CheckResult(ControlStatus.MISSING.value, why, todo)


def refused(why: str, todo: str) -> CheckResult:
    """Return failed, with what to do."""
    return CheckResult(ControlStatus.FAILED.value, why, todo)


def later() -> CheckResult:
    """Return that it is computed with a request."""
    return CheckResult(ControlStatus.NOT_APPLICABLE.value, _LATER)


def digest_bound(context: CheckContext) -> CheckResult:
    """Whether there is a digest to approve."""
    if context.version.digest:
        return good(f"One manifest, sha256:{context.version.digest[:12]}….")
    return lacking("It is a draft: nothing fixes its bytes.", "Seal the version.")


def bytes_bound(context: CheckContext) -> CheckResult:
    """Whether what a cluster loads is fixed to the byte."""
    if context.manifest is None:
        return digest_bound(context)
    if manifests.bound_by(context.manifest) == manifests.BYTES:
        return good("Every location is an OCI artifact by digest.")
    if context.scope is None:
        return later()
    if not manifests.verifiable(context.manifest):
        return lacking(
            "Bound by name only: no cluster can verify the bytes at these locations.",
            "Take OCI artifacts by digest, or files on S3 or a Hugging Face hub that a cluster verifies.",
        )
    without = [cluster.name for cluster in context.clusters if not verifies(cluster.slug)]
    if not without:
        return good("Every cluster asked for verifies the files it loads against the manifest.")
    return lacking(
        f"Bound by name only on {', '.join(without)}: the bytes there are not verified.",
        "Take OCI artifacts by digest, or have the verifying storage container installed on the cluster.",
    )


def placement(context: CheckContext) -> CheckResult:
    """Whether the version's data classes are allowed where it is to run."""
    if context.scope is None:
        return later()
    classes = _classes(context.facts)
    regulated = sorted(classes & {str(one) for one in REGULATED})
    for workspace in context.workspaces:
        lacks = [one for one in regulated if one not in workspace.data_classes]
        if lacks:
            return refused(
                f"{workspace.namespace} on {workspace.cluster.name} does not allow {_words(lacks)} data.",
                "Leave that workspace out, or have a platform admin allow the data class there.",
            )
    for cluster in context.clusters:
        if regulated and cluster.location == Location.UNKNOWN:
            return lacking(
                f"Nobody has said where {cluster.name} stands.", "A platform admin states the cluster's location."
            )
        if DataClass.HEALTH in classes and cluster.location != Location.ON_PREMISES:
            return refused(
                f"Health data stay on premises, and {cluster.name} is in the cloud.", "Leave that cluster out."
            )
        if classes & {DataClass.PERSONAL.value, DataClass.HEALTH.value} and not cluster.jurisdiction:
            return lacking(
                f"Nobody has said under whose law data on {cluster.name} are.",
                "A platform admin states the cluster's jurisdiction.",
            )
    return good("Every workspace and cluster asked for allows the version's data classes.")


def _classes(facts: Mapping[str, FactValue]) -> set[str]:
    raw = facts.get("data_class", ())
    return {str(raw)} if isinstance(raw, str | int) else {str(one) for one in raw}


def _words(classes: Sequence[str]) -> str:
    return ", ".join(str(DataClass(one).label).lower() for one in classes)


def card_complete(context: CheckContext) -> CheckResult:
    """Whether the card of the manifest leaves nothing empty that the regimes in force ask for."""
    if context.version.card is None:
        return lacking("The version names no model card.", "Write the card, then seal a version with it.")
    found = cards.missing(context.version.card.body, regimes_asking(context.facts))
    if not found:
        return good(f"Revision {context.version.card.number} of the card leaves nothing empty that is asked for.")
    labels = list(dict.fromkeys(one.label for one in found))
    more = f" and {len(labels) - 4} more" if len(labels) > 4 else ""
    return lacking(
        f"The card leaves empty: {', '.join(labels[:4])}{more}.", "Fill them in, then seal a version with that card."
    )


def regimes_asking(facts: Mapping[str, FactValue]) -> list[tuple[str, str, list[str]]]:
    """Return (code, name, card fields) of the regimes that apply under these facts and ask for card fields."""
    extra = facts.get("extra_regimes", ())
    wanted = {str(extra)} if isinstance(extra, str | int) else set(extra)
    found = []
    for regime in Regime.objects.exclude(card_fields=[]).order_by("code"):
        if regime.code in wanted or all(holds(condition, facts) for condition in regime.when):
            found.append((regime.code, regime.name, list(regime.card_fields)))
    return found


def prediction_records(context: CheckContext) -> CheckResult:
    """Whether every release has to write records of its predictions."""
    todo = f"A platform admin publishes “{RELEASES_POLICY}” with the term logger: {REQUIRED} for regulated models."
    try:
        terms = approvals.terms_for(RELEASES_POLICY, controls.gravest(context.facts))
    except Invalid:
        return lacking("No policy for releases is published, so nothing makes them record predictions.", todo)
    if terms.get("logger") == REQUIRED:
        return good("The policy for releases makes every release of it write records to the cluster's sink.")
    return lacking("The policy for releases does not ask for records of predictions.", todo)


def explainer(context: CheckContext) -> CheckResult:
    """Whether the version carries an explainer."""
    if context.manifest is not None and context.manifest.explainer:
        return good("The manifest holds an explainer.")
    return lacking("The version has no explainer.", "Seal a version with an explainer.")


def separation_of_duties(context: CheckContext) -> CheckResult:
    """Whether the policy in force keeps authors and producers of evidence from deciding."""
    from apps.approvals.deciders import rules_of

    newest = PolicyVersion.objects.filter(policy__slug=VERSIONS_POLICY).order_by("-number").first()
    todo = f"A platform admin publishes “{VERSIONS_POLICY}” with separation from evidence producers."
    if newest is None:
        return lacking("No policy for versions is published.", todo)
    if not rules_of(newest).separation.evidence_producers:
        return lacking("The policy lets those decide who produced the evidence.", todo)
    return good("Requester, authors, the owning team and producers of evidence never decide; it is all recorded.")


def audit_trail(context: CheckContext) -> CheckResult:
    """The portal's audit trail: append-only for the application's own role, hash-chained; nothing removes it."""
    return good("Append-only and hash-chained; the portal has no function that removes entries.")


def record_of_processing(context: CheckContext) -> CheckResult:
    """Whether owner, purpose, data classes, and on the card retention and recipients are on record."""
    version = context.version
    empty = [
        name
        for name, value in (
            ("purpose", version.model.purpose),
            ("data classes", version.classification or version.model.data_classes),
            ("data governance on the card", version.card.body.get("data_governance") if version.card else ""),
        )
        if not value
    ]
    if empty:
        return lacking(f"Not on record: {', '.join(empty)}.", "Complete model and card, then seal a version with it.")
    return good("Owner, purpose, data classes and data governance are on record.")


def not_prohibited(context: CheckContext) -> CheckResult:
    """Whether the owner stated a prohibited practice."""
    if context.version.model.risk_tier == RiskTier.PROHIBITED:
        return refused("The owner states a prohibited practice (Art. 5).", "Nobody can approve this.")
    return good("The owner states no prohibited practice.")


def act_classified(context: CheckContext) -> CheckResult:
    """Whether tier, role and, for high risk, the annex are stated."""
    model = context.version.model
    empty = [
        name
        for name, value in (
            ("the tier", model.risk_tier),
            ("the company's role", model.act_role),
            ("the annex", model.act_annex if model.risk_tier == RiskTier.HIGH else "-"),
        )
        if not value
    ]
    if empty:
        return lacking(f"Not stated: {', '.join(empty)}.", "A lead of the owning team states it on the model.")
    return good(f"{model.get_risk_tier_display()}, {model.get_act_role_display().lower()}.")


def register() -> None:
    """Offer all of them; a room above may replace one by its own."""
    for check in (
        digest_bound, bytes_bound, placement, card_complete, prediction_records, explainer, separation_of_duties,
        audit_trail, record_of_processing, not_prohibited, act_classified,
    ):  # fmt: skip
        register_check(check.__name__, check)
