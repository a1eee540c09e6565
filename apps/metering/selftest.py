"""Self-tests of sources: what a finding is, what a test comes to, how an unanswered question reads. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from apps.clusters.errors import (
    AddressRefused,
    ClusterError,
    Forbidden,
    InvalidObject,
    NotFound,
    ServerError,
    Throttled,
    TooLarge,
    Unauthorised,
    Unreachable,
)
from apps.metering.choices import CheckVerdict

OK: Final = "ok"
WARNING: Final = "warning"
FAILED: Final = "failed"

#: Checks by code, in the order of pages. Codes are stored with waivers: never rename one.
TITLES: dict[str, str] = {
    "changed": "Tested as it is asked now",
    "reachable": "The server answers",
    "version": "Version",
    "schema": "Version and schema",
    "range_semantics": "Ranges closed or left-open",
    "retention": "How long it remembers",
    "clock": "Clocks agree",
    "kube_state_metrics": "kube-state-metrics is there",
    "one_cluster": "One cluster only",
    "inventory": "The nodes are this cluster's",
    "duplicates": "Every pod is told once",
    "terminal_pods": "Finished pods are left out",
    "pod_times": "Start and completion times",
    "node_labels": "Labels of nodes: GPU model",
    "namespace_labels": "Labels of namespaces",
    "pod_labels": "Labels of pods: project, purpose, release",
    "scrape_interval": "Distance of samples",
    "gpu_metrics": "dcgm-exporter is there",
    "workload_labels": "GPU use names the workload",
    "best_measure": "Measure of GPU use",
    "sentinels": "Blank values of GPU use",
    "virtual_gpus": "Rows by pod beside rows by device",
    "dra": "Dynamic resource allocation",
    "resource_metrics": "CPU, memory, storage, egress",
    "steps": "Sets of one hour",
    "resolution": "Resolution and its error",
    "idle_rows": "Idle capacity is left out",
    "nodes": "Nodes with GPUs",
    "shared_gpus": "All GPUs are exclusive",
    "currency": "Whose prices count",
    "gaps": "No gap in the files",
    "intervals": "Imported rows",
    "address": "Address and credentials",
}

#: Wrong, not uncertain: nobody's word makes these quantities right.
NEVER_WAIVED: frozenset[str] = frozenset({"shared_gpus"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `status` ok, warning or failed; `todo` says what to do; `evidence` what was asked and answered."""

    code: str
    status: str
    detail: str
    todo: str = ""
    evidence: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the finding as it is stored."""
        return {
            "code": self.code,
            "status": self.status,
            "title": TITLES[self.code],
            "detail": self.detail,
            "todo": self.todo,
            "evidence": self.evidence[:1000],
        }


def verdict(findings: Iterable[Finding]) -> str:
    """Return what findings come to: one failed check fails the source."""
    statuses = {finding.status for finding in findings}
    if FAILED in statuses:
        return CheckVerdict.FAILED
    return CheckVerdict.WARNED if WARNING in statuses else CheckVerdict.PASSED


def voided(changed: Sequence[str]) -> Finding:
    """Return the finding that stands between a change of a source and its next self-test: nothing is known of it."""
    words = listed(changed)
    return Finding(
        "changed",
        FAILED,
        f"Changed ({words}): what was found of the former server or question says nothing of this one.",
        "Wait for the self-test, which begins within a minute, or have it begin now.",
    )


def failed_codes(findings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the codes of the failed checks of a stored test, each once, in order."""
    return list(dict.fromkeys(str(item.get("code")) for item in findings if item.get("status") == FAILED))


#: What to do about an error of each class, the most special ones first.
_ADVICE: tuple[tuple[type[ClusterError], str], ...] = (
    (AddressRefused, "Give an address that this installation is allowed to call."),
    (Unauthorised, "The bearer token is missing, wrong or has expired: register the source again with a valid one."),
    (Forbidden, "Let the token's account read metrics on this server."),
    (NotFound, "Check the address: it must lead to the API itself, with its path prefix if there is one."),
    (Throttled, "The server is asked too often: raise its limit, or give this installation a token of its own."),
    (TooLarge, "The answer is larger than this installation takes: ask for one cluster only, by a label matcher."),
    (InvalidObject, "The server does not understand the question: check its version, and the label matcher."),
    (Unreachable, "Check address, port, network policy and certificate; a slow server needs more memory or CPU."),
    (ServerError, "Check that the address leads to the API (not to a login page or a proxy), and the server's log."),
)


def advice(error: ClusterError) -> str:
    """Return what to do about an error of a source."""
    return next(text for kind, text in _ADVICE if isinstance(error, kind)) if _known(error) else _ADVICE[-1][1]


def _known(error: ClusterError) -> bool:
    return any(isinstance(error, kind) for kind, _ in _ADVICE)


def unanswered(code: str, error: ClusterError, asked: str = "") -> Finding:
    """Return the failed finding of a check whose question got no answer."""
    return Finding(code, FAILED, f"No usable answer: {error.message}.", advice(error), asked)


@dataclass(slots=True)
class Progress:
    """How far a test is; `tell` is called after every question with (asked, of, what)."""

    total: int
    tell: Callable[[int, int, str], None]
    done: int = 0

    def step(self, what: str) -> None:
        """Count one question."""
        self.done += 1
        self.tell(min(self.done, self.total), self.total, what)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the portal itself knows of the cluster, to compare answers with.

    `nodes`: names of nodes with GPUs in the inventory; `models`: GPU models of its pools; `shared`: reasons why not
    every GPU is exclusive.
    """

    nodes: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    shared: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """A finished test."""

    findings: list[Finding] = field(default_factory=list)
    requests: int = 0


def listed(items: Sequence[str], most: int = 5) -> str:
    """Return names as text: the first few, and how many more there are."""
    shown = ", ".join(items[:most])
    return f"{shown} and {len(items) - most} more" if len(items) > most else shown


def counted(number: int, one: str, many: str = "") -> str:
    """Return "1 pod", "3 pods"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Return a time in the largest unit that keeps it readable: 45 s, 5 min, 36 h, 31 days."""
    for size, unit in ((86_400 * 2, "days"), (7_200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / {'days': 86_400, 'h': 3_600, 'min': 60}[unit]:.0f} {unit}"
    return f"{seconds:.0f} s"
