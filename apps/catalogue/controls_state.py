"""Where every control stands for a version, or for a request's scope: reads rows, asks `catalogue.controls`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef

from apps.catalogue import controls, lineage
from apps.catalogue import manifest as manifests
from apps.catalogue.choices import REGULATED, SENSITIVITY, EvidenceKind, ExceptionKind, RiskTier
from apps.catalogue.classification import Cycle
from apps.catalogue.controls import ControlState, FactValue
from apps.catalogue.models import (
    CitationConfirmation,
    Control,
    ControlAnswer,
    Evidence,
    Model,
    ModelVersion,
    VersionException,
)
from apps.catalogue.ports import CheckContext, checks
from apps.clusters import regions
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.canonical import digest_of
from apps.quotas.choices import DataClass, Environment
from apps.quotas.models import Workspace

#: Where the GDPR applies directly.
EEA = ("EEA",)
YES, NO = "yes", "no"


@dataclass(frozen=True, slots=True)
class Standing:
    """Facts and control states of a version in a scope at a moment."""

    facts: dict[str, FactValue]
    states: list[ControlState]
    at: datetime

    @property
    def open(self) -> list[ControlState]:
        """What keeps an approval from being given."""
        return controls.open_controls(self.states)

    @property
    def applying(self) -> list[ControlState]:
        """The controls that apply."""
        return [state for state in self.states if state.status != "not_applicable"]

    @property
    def digest(self) -> str:
        """Over what the checklist answers: goes with each decision."""
        return digest_of([state.plain() for state in self.applying])


def classes_of(version: ModelVersion) -> list[str]:
    """Return the data classes of a version: as sealed, or as it would be sealed now."""
    if version.digest:
        return list(version.classification)
    try:
        return list(lineage.classification_of(version).classes)
    except Cycle:
        return [SENSITIVITY[-1]]  # unknown is never harmless


def facts_of(
    version: ModelVersion,
    scope: Mapping[str, Any] | None = None,
    clusters: Sequence[Cluster] = (),
    manifest: manifests.Manifest | None = None,
) -> dict[str, FactValue]:
    """Return the facts that conditions of regimes ask; without a scope as for production."""
    model, classes = version.model, classes_of(version)
    regulated = any(one in REGULATED for one in classes)
    high = model.risk_tier == RiskTier.HIGH or model.solely_automated or DataClass.HEALTH in classes
    facts: dict[str, FactValue] = {
        "data_class": classes,
        "regulated": YES if regulated else NO,
        "risk_tier": model.risk_tier or "unknown",
        "act_annex": model.act_annex or "none",
        "act_role": model.act_role or "unknown",
        "solely_automated": YES if model.solely_automated else NO,
        "high_risk": YES if high else NO,
        "extra_regimes": list(model.extra_regimes),
        "environment": list(scope["environments"]) if scope else [Environment.PRODUCTION.value],
        "serves_image": YES if (manifest.image if manifest else version.image) else NO,
    }
    if scope is not None:
        abroad = any(one.jurisdiction and not regions.within(one.jurisdiction.upper(), EEA) for one in clusters)
        facts["cross_border"] = YES if abroad else NO
    return facts


def facts_of_model(model: Model) -> dict[str, FactValue]:
    """Return the facts of a model's next version, as far as the model itself says, as for production."""
    version = ModelVersion(model=model, classification=list(model.data_classes), digest="-")
    return facts_of(version)


def control_facts(rows: Iterable[Control]) -> list[controls.ControlFact]:
    """Return rows of controls as the pure module takes them."""
    return [
        controls.ControlFact(
            code=row.code, regime=row.regime.code, title=row.title, citation=row.citation, kind=str(row.kind),
            regime_when=tuple(row.regime.when), when=tuple(row.when), evidence_kinds=tuple(row.evidence_kinds),
            computed=row.computed, max_age_days=row.max_age_days, applies_from=row.applies_from,
            applies_until=row.applies_until, confirmed=row.confirmed or getattr(row, "was_read", False),
            revision=row.revision,
        )
        for row in rows
    ]  # fmt: skip


def in_force() -> list[Control]:
    """Return the controls in force, by regime and code."""
    read = CitationConfirmation.objects.filter(control=OuterRef("pk"))
    rows = Control.objects.filter(superseded_at__isnull=True).select_related("regime").annotate(was_read=Exists(read))
    return list(rows.order_by("regime__code", "code"))


def evidence_facts(version: ModelVersion) -> list[controls.EvidenceFact]:
    """Return the evidence bound to a version's bytes, and per kind the newest about other bytes of the model."""
    rows = Evidence.objects.filter(model=version.model, withdrawn_at__isnull=True).select_related(
        "blob", "signing_key"
    )  # fmt: skip
    mine = list(rows.filter(subject_digest=version.digest)) if version.digest else []
    others = rows.exclude(subject_digest=version.digest).order_by("kind", "-produced_at", "-pk").distinct("kind")
    return [
        controls.EvidenceFact(
            uid=str(row.uid), kind=row.kind, subject_digest=row.subject_digest, verdict=row.verdict,
            produced_at=row.produced_at, valid_until=row.valid_until, controls=tuple(row.controls),
            scan=str(row.blob.scan) if row.blob is not None else "", title=row.title, void=why_void(row),
        )
        for row in [*mine, *others]
    ]  # fmt: skip


def why_void(row: Evidence) -> str:
    """Return why a piece that nobody withdrew counts no more, or ""."""
    if row.kind != EvidenceKind.SIGNATURE:
        return ""
    if row.signing_key is None or row.verified_at is None:
        return "no key was ever asked whether it made it; add the signature itself"
    return row.signing_key.why_void(row.verified_at)


def answer_facts(version: ModelVersion) -> list[controls.AnswerFact]:
    """Return the newest answer per control."""
    rows = ControlAnswer.objects.filter(model_version=version).order_by("control_code", "-pk").distinct("control_code")
    return [controls.AnswerFact(row.control_code, str(row.answer), row.subject_digest, row.pk) for row in rows]


def exception_facts(version: ModelVersion) -> list[controls.ExceptionFact]:
    """Return the approved exceptions from controls."""
    rows = VersionException.objects.filter(model_version=version, kind=ExceptionKind.CONTROL, approved=True)
    return [controls.ExceptionFact(row.control_code, row.subject_digest, row.expires_at, str(row.uid)) for row in rows]


def standing(version: ModelVersion, scope: Mapping[str, Any] | None = None, at: datetime | None = None) -> Standing:
    """Return where every control in force stands for a version: in a scope, or (None) as for production."""
    moment = at or clock.now()
    clusters: list[Cluster] = []
    workspaces: list[Workspace] = []
    if scope is not None:
        clusters = list(Cluster.objects.filter(slug__in=scope["clusters"]).order_by("slug"))
        rows = Workspace.objects.filter(uid__in=scope["workspaces"]).select_related("cluster")
        workspaces = list(rows.order_by("namespace", "pk"))
    manifest = manifests.parse(version.manifest) if version.digest else None
    facts = facts_of(version, scope, clusters, manifest)
    context = CheckContext(version, manifest, facts, scope, clusters, workspaces, moment)
    known, done = checks(), dict[str, controls.CheckResult]()

    def ask(name: str) -> controls.CheckResult | None:
        if name not in done and name in known:
            done[name] = known[name](context)
        return done.get(name)

    states = controls.statuses(
        control_facts(in_force()), evidence_facts(version), answer_facts(version), exception_facts(version), facts,
        version.digest, moment, checks=ask,
    )  # fmt: skip
    return Standing(facts, states, moment)
