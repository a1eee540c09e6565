"""Steps of a cluster check: their order and titles, and how one is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from apps.clusters.choices import StepOutcome
from apps.clusters.rbac import PARTS

OK, WARNING, FAILED, SKIPPED = StepOutcome.OK, StepOutcome.WARNING, StepOutcome.FAILED, StepOutcome.SKIPPED

#: Key → title, in the order in which the steps are taken and shown.
TITLES: dict[str, str] = {
    "address": "Address is one the portal may call",
    "reach": "Server answers",
    "tls": "Connection is secure",
    "signin": "Token is taken",
    "clock": "Clocks agree",
    "version": "Kubernetes version is supported",
    "apis": "Installed interfaces can be read",
    **{f"rights-{part.key}": f"Rights: {part.title[:1].lower()}{part.title[1:]}" for part in PARTS},
    "nodes": "Nodes with GPUs",
    "kueue": "Kueue",
    "kserve": "KServe",
    "keda": "KEDA",
    "metrics": "Metrics",
    "guard": "Admission policies",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step as it is stored and shown: `items` is a list below the detail, `advice` what to do."""

    key: str
    title: str
    outcome: str
    detail: str
    advice: str = ""
    items: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the step as it is stored."""
        return {**asdict(self), "outcome": str(self.outcome)}


def step(key: str, outcome: str, detail: str, advice: str = "", items: list[str] | None = None) -> Step:
    """Return the step `key` with its title. Raises KeyError for a step that does not exist."""
    return Step(key, TITLES[key], outcome, detail, advice, items or [])


def sentence(text: str) -> str:
    """Return a server's words as a sentence of bearable length."""
    text = text.strip() or "no reason given"
    return f"{text[:1].upper()}{text[1:]}"[:600].rstrip(".") + "."


def yes(value: bool | None) -> str:
    """Return yes, no or not known."""
    return "not known" if value is None else ("yes" if value else "no")


def labels(found: Mapping[str, str] | None) -> str:
    """Return the labels that Kueue asks of a namespace, in words."""
    if found is None:
        return "not known"
    return ", ".join(f"{key}={value}" for key, value in sorted(found.items())) or "no label needed"
