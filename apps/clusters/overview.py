"""What the page of a cluster shows of its check, its abilities, what runs out, and its maintenance. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Case, DateTimeField, F, Q, When

from apps.clusters import capabilities, checking, selectors
from apps.clusters.choices import CheckStatus, StepOutcome
from apps.clusters.models import Cluster, ClusterCheck, MaintenanceWindow
from apps.clusters.preflight import WARN_BEFORE
from apps.clusters.steps import TITLES, labels, yes
from apps.core import clock, formats

TONES = {"ok": "positive", "warning": "caution", "failed": "critical", "skipped": "neutral"}
WORDS = {"ok": "OK", "warning": "Warning", "failed": "Failed", "skipped": "Skipped"}


@dataclass(frozen=True, slots=True)
class ShownCheck:
    """A check as the page shows it: `moving` while it waits or runs, `done`/`total` steps, the worst outcome first.

    `untried`: the titles of the steps that a failed one left no room for; `because` says which.
    """

    row: ClusterCheck
    moving: bool
    steps: list[dict[str, Any]]
    total: int
    counts: list[tuple[str, str, int]]
    verdict: str
    tone: str
    title: str
    untried: list[str]
    because: str


def last_check(cluster: Cluster) -> ShownCheck | None:
    """Return the newest check of a cluster, None where there was none (one query)."""
    row = ClusterCheck.objects.filter(cluster=cluster).select_related("requested_by").order_by("-pk").first()
    if row is None:
        return None
    steps = [{**step, "tone": TONES.get(step.get("outcome", ""), "neutral"), "word": _word(step)} for step in row.steps]
    tally = {outcome: sum(1 for step in steps if step.get("outcome") == outcome) for outcome in StepOutcome.values}
    counts = [
        (TONES[key], WORDS[key].lower(), tally[key]) for key in ("failed", "warning", "ok", "skipped") if tally[key]
    ]
    moving = row.status != CheckStatus.DONE
    verdict = checking.verdict(row)
    title = {
        "": "Waiting for a worker" if row.status == CheckStatus.PENDING else "Checking",
        "ok": "Everything the portal needs is there",
        "warning": "The portal can work here; some things want attention",
        "failed": "Something is in the way",
    }[verdict]
    tried = [step for step in steps if not _untried(step)]
    untried = [step for step in steps if _untried(step)]
    because = str(untried[0]["detail"]) if untried else ""
    return ShownCheck(
        row, moving, tried, len(TITLES), counts, verdict, TONES.get(verdict, "neutral"), title,
        [str(step.get("title", "")) for step in untried], because,
    )  # fmt: skip


def _untried(step: dict[str, Any]) -> bool:
    """Whether a step was left out because another one failed; one about what is not there was tried."""
    return step.get("outcome") == StepOutcome.SKIPPED and str(step.get("detail", "")).startswith("Not tried")


def _word(step: dict[str, Any]) -> str:
    """Return the word of a step's badge: what need not be there and is not was looked for, not skipped."""
    outcome = str(step.get("outcome", ""))
    if outcome == StepOutcome.SKIPPED and step.get("key") in _NEED_NOT_BE_THERE and not _untried(step):
        return "Not there"
    return WORDS.get(outcome, "")


_NEED_NOT_BE_THERE = frozenset({"kserve", "keda", "metrics", "guard"})


def abilities(cluster: Cluster) -> list[dict[str, Any]]:
    """Return every feature with whether the cluster offers it and, if not, why (no query)."""
    return [
        {"key": key, "title": title, "why": (why := capabilities.missing(cluster, key)), "offered": why is None}
        for key, title in capabilities.FEATURES.items()
    ]


def installed(cluster: Cluster) -> list[tuple[str, str]]:
    """Return what was found on a cluster, in words."""
    found = capabilities.of(cluster)
    kueue, kserve, keda = found.kueue, found.kserve, found.keda
    rows = [("Kueue", _found(kueue.installed, kueue.api_versions))]
    if kueue.installed:
        rows += [
            ("Kueue queues pods", yes(kueue.pod_integration)),
            ("Kueue shares fairly", yes(kueue.fair_sharing)),
            ("Kueue manages namespaces with", labels(kueue.managed_labels)),
        ]
    rows.append(("KServe", _found(kserve.installed, kserve.api_versions)))
    if kserve.installed:
        rows.append(("KServe's default mode", kserve.mode or "not known"))
    rows += [
        ("KEDA", _found(keda.installed, keda.api_versions)),
        ("MIG strategies on nodes", ", ".join(found.mig_strategies) or "none"),
        ("The cluster knows the portal as", found.username or "not known"),
    ]
    return rows


def _found(present: bool | None, versions: tuple[str, ...]) -> str:
    if present is None:
        return "not known"
    return ", ".join(versions) if present else "not found"


@dataclass(frozen=True, slots=True)
class Expiry:
    """Something that ends: `left` in words, `tone` by how soon."""

    label: str
    at: datetime | None
    left: str
    tone: str
    unknown: str


def expiries(cluster: Cluster) -> list[Expiry]:
    """Return when the server's certificate and the portal's token end (no query)."""
    return [
        _expiry("Server certificate", cluster.certificate_expires_at, "not seen yet"),
        _expiry("The portal's token", cluster.credentials_expire_at, "it does not say"),
    ]


def _expiry(label: str, at: datetime | None, unknown: str) -> Expiry:
    if at is None:
        return Expiry(label, None, "", "neutral", unknown)
    left = at - clock.now()
    if left.total_seconds() <= 0:
        return Expiry(label, at, f"ended {formats.age(at)}", "critical", "")
    tone = "caution" if left < WARN_BEFORE else "positive"
    return Expiry(label, at, f"ends in {formats.duration(left)}", tone, "")


def windows(cluster: Cluster, *, limit: int = 10) -> list[dict[str, Any]]:
    """Return the windows that are planned or last, soonest first, then the latest ended ones (one query)."""
    now = clock.now()
    ahead = Q(cancelled_at=None, valid__endswith__gt=now)
    rows = MaintenanceWindow.objects.filter(cluster=cluster).annotate(
        soonest=Case(When(ahead, then=F("valid__startswith")), default=None, output_field=DateTimeField())
    )
    ordered = list(rows.order_by(F("soonest").asc(nulls_last=True), "-valid")[:limit])
    # The window that a cluster is in comes first of all.
    selectors.know_maintenance(cluster, next((row for row in ordered if _state(row, now)[0] == "Now"), None))
    return [{"row": row, "state": _state(row, now)} for row in ordered]


def _state(row: MaintenanceWindow, now: datetime) -> tuple[str, str, bool]:
    """Return word, tone and whether it can be cancelled."""
    if row.cancelled_at is not None:
        return "Cancelled", "neutral", False
    if row.valid.upper <= now:
        return "Over", "neutral", False
    if row.valid.lower <= now:
        return "Now", "caution", True
    return "Planned", "info", True
