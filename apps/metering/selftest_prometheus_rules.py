"""The checks of a Prometheus, each over the answers to its questions. Pure: no network, no rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from apps.metering.selftest import (
    FAILED,
    OK,
    WARNING,
    Finding,
    Knowledge,
    counted,
    duration,
    listed,
    unanswered,
)
from apps.metering.selftest_questions import (
    MEASURES,
    MONTH,
    NEEDED,
    REPULL,
    RESOURCES,
    SCRAPE_WINDOW_SECONDS,
    TIMES,
    USEFUL,
)

if TYPE_CHECKING:
    from apps.metering.selftest_prometheus import Answers

#: Oldest release with everything that metering asks (`last_over_time`, 2.26).
OLDEST = (2, 26)
SKEW_WARNING, SKEW_FAILED = 10.0, 120.0
#: Prometheus looks five minutes back for a sample: further apart, series vanish between two of them.
LOOKBACK_SECONDS = 300.0
STEP_SECONDS = 60.0
_UNITS = {"y": 31_536_000, "w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}

Rule = Callable[["Answers", Knowledge], Iterator[Finding]]


def seconds_of(text: str) -> float | None:
    """Return the time in a retention as Prometheus words it ("15d", "1w2d or 10GiB"); None where there is none."""
    found = re.match(r"(?:\d+(?:ms|[ywdhms]))+", text.strip())
    if not found:
        return None
    return float(sum(int(n) * _UNITS.get(unit, 0) for n, unit in re.findall(r"(\d+)(ms|[ywdhms])", found[0])))


def version(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    """Old enough releases lack functions that metering asks for."""
    if error := answers.errors.get("version"):
        yield unanswered("version", error, "/api/v1/status/buildinfo")
        return
    numbers = re.match(r"v?(\d+)\.(\d+)", answers.version)
    if numbers is None:
        yield Finding("version", OK, "The server does not tell its version (Thanos and Mimir do not).")
    elif (int(numbers[1]), int(numbers[2])) < OLDEST:
        todo = f"Upgrade to Prometheus {OLDEST[0]}.{OLDEST[1]} or later."
        yield Finding("version", FAILED, f"Version {answers.version} lacks last_over_time.", todo, answers.version)
    else:
        yield Finding("version", OK, f"Version {answers.version}.", "", answers.version)


def range_semantics(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    """Closed ranges take in the sample at their very beginning (2.x), left-open ones do not (3.x)."""
    found = round(answers.number("ranges"))
    words = {4: "closed (as in 2.x)", 3: "left-open (as in 3.x)"}
    evidence = answers.evidence("ranges")
    if found not in words:
        detail = f"A range of three minutes holds {found} samples instead of 3 or 4."
        todo = "Check what stands between the portal and Prometheus: something changes queries or times."
        yield Finding("range_semantics", FAILED, detail, todo, evidence)
        return
    major = answers.version.lstrip("v").split(".")[0]
    differs = major.isdigit() and (int(major) >= 3) != (found == 3)
    detail = f"Ranges are {words[found]}, found by asking. Metering asks so that both give sixty points an hour."
    if differs:
        detail += f" The version, {answers.version}, lets expect the other one."
    yield Finding("range_semantics", OK, detail, "", evidence)


def retention(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    """48 hours are read again by themselves; a month is what a repair before closing may need."""
    for key in ("retention", "back_2d", "back_32d"):
        if error := answers.errors.get(key):
            yield unanswered("retention", error, answers.asked.get(key, ""))
            return
    two_days, month = answers.number("back_2d") > 0, answers.number("back_32d") > 0
    told = seconds_of(answers.retention)
    evidence = f"storageRetention: {answers.retention or 'not told'}\n" + answers.evidence("back_2d", "back_32d")
    todo = "Set --storage.tsdb.retention.time to 40d or more (or read from Thanos or Mimir), and give it the disk."
    if told is not None and told < REPULL.total_seconds():
        detail = f"It keeps {answers.retention}: late data of the last 48 hours could not be read again."
        yield Finding("retention", FAILED, detail, todo, evidence)
    elif told is not None and told < MONTH.total_seconds():
        detail = f"It keeps {answers.retention}: a month cannot be read again as a whole before it is closed."
        yield Finding("retention", WARNING, detail, todo, evidence)
    elif told is None and not two_days:
        detail = "It has no samples of 48 hours ago, and does not tell how long it keeps them."
        yield Finding("retention", WARNING, detail, todo, evidence)
    elif not month:
        detail = f"It keeps {answers.retention or 'samples'}, but has none of a month ago: it is young, or cut by size."
        status = WARNING if told is None or not two_days else OK
        yield Finding("retention", status, detail, todo if status == WARNING else "", evidence)
    else:
        yield Finding("retention", OK, "A month can be read again.", "", evidence)


def clocks(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    """A server's clock that is off moves use into the wrong hour."""
    if error := answers.errors.get("clock"):
        yield unanswered("clock", error, "time()")
        return
    skew = answers.skew_seconds or 0.0
    size, evidence = abs(skew), f"time() minus the portal's clock: {skew:+.1f} s"
    todo = "Let both machines follow a time server (NTP)."
    detail = f"The clocks differ by {size:.1f} s."
    if size > SKEW_FAILED:
        yield Finding("clock", FAILED, f"{detail} Use would fall into the wrong hour.", todo, evidence)
    elif size > SKEW_WARNING:
        yield Finding("clock", WARNING, detail, todo, evidence)
    else:
        yield Finding("clock", OK, detail, "", evidence)


def kube_state_metrics(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    """Requests, phases and nodes: without them no GPU time can be metered."""
    if error := answers.errors.get("names"):
        for code in ("kube_state_metrics", "pod_times", "gpu_metrics", "best_measure", "resource_metrics"):
            yield unanswered(code, error, answers.asked.get("names", ""))
        return
    names = answers.values("names", "__name__")
    evidence = answers.evidence("names")
    missing = [name for name in NEEDED if not names.get(name)]
    lacking = [f"{name}: {lost}" for name, lost in USEFUL.items() if not names.get(name)]
    if len(missing) == len(NEEDED):
        todo = "Install kube-state-metrics on the cluster and let this Prometheus scrape it; check the label matcher."
        yield Finding("kube_state_metrics", FAILED, "There are no series of kube-state-metrics.", todo, evidence)
    elif missing:
        todo = (
            "Let kube-state-metrics emit them (--metric-allowlist, --resources) and Prometheus keep them (relabelling)."
        )
        detail = f"Missing: {', '.join(missing)}. Without phases finished pods would be billed on."
        yield Finding("kube_state_metrics", FAILED, detail, todo, evidence)
    elif lacking:
        todo = "Add them to --metric-allowlist of kube-state-metrics."
        yield Finding("kube_state_metrics", WARNING, f"Missing: {'; '.join(lacking)}.", todo, evidence)
    else:
        yield Finding("kube_state_metrics", OK, "Every series that metering needs is there.", "", evidence)
    if without := [name for name in TIMES if not names.get(name)]:
        detail = f"Missing: {', '.join(without)}. Edges of pods stand on the samples instead of exact times."
        todo = "Add them to --metric-allowlist of kube-state-metrics."
        yield Finding("pod_times", WARNING, detail, todo)
    else:
        yield Finding("pod_times", OK, "Pods are metered to their exact start and completion.")
    yield from _measures(names)
    yield from _resources(names)


def _measures(names: dict[str, float]) -> Iterator[Finding]:
    found = [name for name in MEASURES if names.get(name)]
    if not found:
        todo = "Install dcgm-exporter (the GPU operator brings it) and let this Prometheus scrape it."
        detail = "No series of dcgm-exporter: what was allocated is known, what was used stays unknown."
        yield Finding("gpu_metrics", WARNING, detail, todo)
        return
    yield Finding("gpu_metrics", OK, f"{counted(int(sum(names[n] for n in found)), 'series', 'series')} of GPU use.")
    best = found[0]
    if best == MEASURES[0]:
        yield Finding("best_measure", OK, f"Use is read from {best}.")
    elif best == MEASURES[1]:
        detail = f"Use is read from {best}; {MEASURES[0]}, finer, is off by default."
        yield Finding("best_measure", OK, detail, f"Add {MEASURES[0]} to dcgm-exporter's list of counters.")
    else:
        detail = f"Use is read from {best} only: busy as soon as anything runs, and not there on MIG."
        yield Finding("best_measure", WARNING, detail, f"Add {MEASURES[0]} and {MEASURES[1]} to dcgm-exporter's list.")


def _resources(names: dict[str, float]) -> Iterator[Finding]:
    missing = [resource for resource, series in RESOURCES.items() if not any(names.get(name) for name in series)]
    if missing:
        series = "; ".join(f"{resource}: {' or '.join(RESOURCES[resource])}" for resource in missing)
        detail = f"Use of {', '.join(missing)} cannot be read."
        yield Finding("resource_metrics", WARNING, detail, f"Let Prometheus scrape kubelet and cAdvisor: {series}.")
    else:
        yield Finding("resource_metrics", OK, "CPU, memory, storage and egress can be metered.")


def one_cluster(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    """A server of several clusters without a matcher would bill their pods here."""
    if error := answers.errors.get("clusters") or answers.errors.get("nodes"):
        yield unanswered("one_cluster", error, answers.asked.get("clusters", ""))
        return
    names = sorted(name for name in answers.values("clusters", "cluster") if name)
    evidence = answers.evidence("clusters")
    if len(names) > 1:
        todo = f'Register the source again with a label matcher, such as cluster="{names[0]}".'
        yield Finding("one_cluster", FAILED, f"It holds {len(names)} clusters: {listed(names)}.", todo, evidence)
    else:
        yield Finding("one_cluster", OK, "Only one cluster's nodes are read.", "", evidence)
    nodes = {name for name in answers.values("nodes", "node") if name}
    if not nodes or not known.nodes:
        detail = "No node with GPUs is told." if not nodes else "The inventory knows no node to compare with yet."
        yield Finding("inventory", WARNING if not nodes and known.nodes else OK, detail)
    elif not nodes & known.nodes:
        detail = f"None of its {len(nodes)} nodes is in this cluster's inventory: {listed(sorted(nodes))}."
        todo = "Check the address and the label matcher: this looks like another cluster's Prometheus."
        yield Finding("inventory", FAILED, detail, todo)
    elif nodes != known.nodes:
        gone, more = sorted(known.nodes - nodes), sorted(nodes - known.nodes)
        parts = [f"not told: {listed(gone)}"] * bool(gone) + [f"not in the inventory: {listed(more)}"] * bool(more)
        todo = "Nodes of elastic pools come and go; otherwise check which nodes kube-state-metrics sees."
        yield Finding("inventory", WARNING, f"Nodes differ: {'; '.join(parts)}.", todo)
    else:
        yield Finding("inventory", OK, f"All {counted(len(nodes), 'node')} with GPUs are this cluster's.")


def duplicates(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    """Replicas or a second kube-state-metrics tell every pod twice; the largest counts, never the sum."""
    if error := answers.errors.get("duplicates"):
        yield unanswered("duplicates", error, answers.asked.get("duplicates", ""))
        return
    number = int(answers.number("duplicates"))
    tellers = [
        f"{labels.get('job', '')} {labels.get('instance', '')}" for labels, _ in answers.vectors.get("tellers", [])
    ]
    if number:
        detail = f"{counted(number, 'request')} told more than once, by {listed(tellers) or 'unknown exporters'}."
        todo = "Scrape kube-state-metrics once, or deduplicate replicas. Until then each is counted once."
        yield Finding("duplicates", WARNING, detail, todo, answers.evidence("duplicates", "tellers"))
    else:
        yield Finding("duplicates", OK, "No pod is told twice.", "", answers.evidence("duplicates"))


def terminal_pods(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    """Finished pods go on telling their requests until they are deleted: the phase decides."""
    if error := answers.errors.get("terminal") or answers.errors.get("holding"):
        yield unanswered("terminal_pods", error, answers.asked.get("terminal", ""))
        return
    done, held = int(answers.number("terminal")), int(answers.number("holding"))
    evidence = answers.evidence("terminal", "holding")
    phases = answers.values("names", "__name__").get("kube_pod_status_phase")
    if not phases and "names" not in answers.errors:
        todo = "Let kube-state-metrics emit kube_pod_status_phase."
        yield Finding("terminal_pods", FAILED, "Without phases finished pods cannot be told apart.", todo, evidence)
    else:
        detail = f"{counted(done, 'finished pod')} still told and left out; {counted(held, 'request')} held now."
        yield Finding("terminal_pods", OK, detail, "", evidence)


def labels(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    """kube-state-metrics hands on no label that its allow-list does not name."""
    option = "--metric-labels-allowlist of kube-state-metrics"
    for code, key in (("node_labels", "unlabelled"), ("namespace_labels",) * 2, ("pod_labels",) * 2):
        if error := answers.errors.get(key):
            yield unanswered(code, error, answers.asked.get(key, ""))
            continue
        if code == "node_labels":
            bare = sorted(answers.values("unlabelled", "node"))
            wanted = "nvidia.com/gpu.product,nvidia.com/gpu.count,nvidia.com/gpu.replicas,nvidia.com/mig.strategy"
            todo = f"Add nodes=[{wanted}] to {option}."
            if bare and len(known.models) != 1:
                detail = f"The GPU model of {listed(bare)} is unknown, so its price is, too."
                yield Finding(code, FAILED, detail, todo, answers.evidence(key))
            elif bare:
                detail = (
                    f"The GPU model of {listed(bare)} is not told; this cluster has one model only, which is taken."
                )
                yield Finding(code, WARNING, detail, todo, answers.evidence(key))
            else:
                yield Finding(code, OK, "Every node with GPUs tells its model.", "", answers.evidence(key))
        elif answers.number(key) > 0:
            yield Finding(code, OK, "They are handed on.", "", answers.evidence(key))
        elif code == "namespace_labels":
            detail = (
                "No namespace carries gpu-commons/workspace here. Owners are found by the namespace's name instead."
            )
            todo = f"Add namespaces=[gpu-commons/workspace,gpu-commons/team] to {option}."
            yield Finding(code, WARNING, detail, todo, answers.evidence(key))
        else:
            detail = "No pod carries the portal's labels: project, purpose and release stay empty on facts."
            todo = f"Add pods=[gpu-commons/project,gpu-commons/purpose,gpu-commons/release] to {option}."
            yield Finding(code, WARNING, detail, todo, answers.evidence(key))


def scrape_interval(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    """Jobs as short as the distance of samples alias with it (trap 1 of the Philly data)."""
    if error := answers.errors.get("scrapes"):
        yield unanswered("scrape_interval", error, answers.asked.get("scrapes", ""))
        return
    number = answers.number("scrapes")
    evidence = answers.evidence("scrapes", "dcgm_scrapes")
    todo = "Scrape kube-state-metrics every 60 s or more often."
    if not number:
        yield Finding("scrape_interval", WARNING, "No samples of nodes with GPUs to measure by.", "", evidence)
        return
    apart = SCRAPE_WINDOW_SECONDS / number
    bound = f"An edge without exact time is off by at most {duration(apart + STEP_SECONDS)}"
    if apart > LOOKBACK_SECONDS * 1.05:
        detail = (
            f"Samples lie {duration(apart)} apart: further than Prometheus looks back, so that pods vanish between."
        )
        yield Finding("scrape_interval", FAILED, detail, todo, evidence)
    elif apart > STEP_SECONDS * 1.1:
        detail = (
            f"Samples lie {duration(apart)} apart. {bound}; a job shorter than that may never be seen, and one that"
        )
        detail += " runs as often as it is looked for is off by several per cent."
        yield Finding("scrape_interval", WARNING, detail, todo, evidence)
    else:
        yield Finding("scrape_interval", OK, f"Samples lie {duration(apart)} apart. {bound}.", "", evidence)


def workload_labels(answers: Answers, known: Knowledge) -> Iterator[Finding]:
    """honorLabels false gives exported_*, true gives plain names; series without either belong to nobody."""
    keys = ("exported", "plain", "sentinels", "vgpu", "device_rows", "dra", "holding")
    names = answers.values("names", "__name__")
    if not any(names.get(name) for name in MEASURES):
        return
    for key in keys:
        if error := answers.errors.get(key):
            yield unanswered("workload_labels", error, answers.asked.get(key, ""))
            return
    exported, plain, held = (answers.number(key) for key in ("exported", "plain", "holding"))
    evidence = answers.evidence("exported", "plain", "holding")
    if exported and plain:
        detail = "Some series name the workload in exported_* labels, some in plain ones: both are read."
        todo = "Set honorLabels the same for every dcgm-exporter."
        yield Finding("workload_labels", WARNING, detail, todo, evidence)
    elif exported:
        detail = "In exported_* labels (honorLabels: false); namespace and pod are the exporter's own."
        yield Finding("workload_labels", OK, detail, "", evidence)
    elif plain:
        yield Finding("workload_labels", OK, "In plain labels (honorLabels: true).", "", evidence)
    elif held:
        detail = f"{counted(int(held), 'request')} held, but no series names a workload: use stays unknown."
        todo = "Set DCGM_EXPORTER_KUBERNETES=true, and mount the kubelet's pod-resources socket."
        yield Finding("workload_labels", WARNING, detail, todo, evidence)
    else:
        yield Finding("workload_labels", OK, "No GPU is held now: nothing to name.", "", evidence)
    yield from _odd_rows(answers)


def _odd_rows(answers: Answers) -> Iterator[Finding]:
    blank = int(answers.number("sentinels"))
    if blank:
        detail = f"{counted(blank, 'series', 'series')} with blank values; they are dropped, not averaged."
        todo = "Upgrade dcgm-exporter: newer ones leave them out."
        yield Finding("sentinels", WARNING, detail, todo, answers.evidence("sentinels"))
    else:
        yield Finding("sentinels", OK, "None.", "", answers.evidence("sentinels"))
    shared, rows = int(answers.number("vgpu")), int(answers.number("device_rows"))
    evidence = answers.evidence("vgpu", "device_rows")
    if shared or rows:
        detail = (
            f"{counted(shared, 'row')} of virtual GPUs, {counted(rows, 'device')} with several rows. Rows of a device"
        )
        detail += " are no workload's, and one value is copied to every pod on it: use of shared GPUs is an estimate."
        yield Finding("virtual_gpus", WARNING, detail, "Nothing to do; facts of shared GPUs carry the flag.", evidence)
    else:
        yield Finding("virtual_gpus", OK, "One row for each device.", "", evidence)
    claims = int(answers.number("dra"))
    detail = f"{counted(claims, 'series', 'series')} of claimed devices." if claims else "No claimed device is told."
    todo = "" if claims else "Where GPUs are claimed through DRA, start dcgm-exporter with --kubernetes-enable-dra."
    yield Finding("dra", OK, detail, todo, answers.evidence("dra"))


RULES: tuple[Rule, ...] = (
    version,
    range_semantics,
    retention,
    clocks,
    kube_state_metrics,
    one_cluster,
    duplicates,
    terminal_pods,
    labels,
    scrape_interval,
    workload_labels,
)
