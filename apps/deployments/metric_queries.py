"""The questions asked of Prometheus about a release, by whose names answer: pure.

vLLM V1 and Triton as their documentation names them, KServe's Python server (`request_*_seconds`) and Knative's
queue-proxy (`revision_*`). A question whose metric is off by default (Triton's summaries) is asked all the same:
without an answer the figure is unknown. Failures are zero only where the count of all requests is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

VLLM, TRITON, KSERVE, KNATIVE = "vllm", "triton", "kserve", "knative"
#: The metric by which a dialect is known, in the order of preference.
MARKS: Mapping[str, str] = {
    VLLM: "vllm:request_success_total",
    TRITON: "nv_inference_request_success",
    KNATIVE: "revision_app_request_count",
    KSERVE: "request_predict_seconds_count",
}
FIGURES = ("requests", "errors", "latency_p50_ms", "latency_p95_ms", "ttft_p95_ms", "queue_depth")
_SAFE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Place:
    """Whose figures: a namespace, and the workloads whose pods count. `extra` is a label matcher of the cluster's."""

    namespace: str
    workloads: tuple[str, ...]
    extra: str = ""

    def selector(self, more: str = "") -> str:
        """Return the selector of the place's pods. Raises ValueError for names that no Kubernetes object has."""
        for name in (self.namespace, *self.workloads):
            if not _SAFE.fullmatch(name):
                raise ValueError(f"{name!r} is no name of an object")
        pods = "|".join(name.replace(".", "[.]") for name in self.workloads)
        parts = [f'namespace="{self.namespace}"', f'pod=~"({pods})-.+"', *filter(None, (more, self.extra))]
        return "{" + ",".join(parts) + "}"


def workload_of(pod: str) -> str:
    """Return what a pod's name begins with: the Deployment's name, before the template's hash and the pod's own."""
    return "-".join(pod.split("-")[:-2]) or pod


def workloads_of(pods: Iterable[str]) -> tuple[str, ...]:
    """Return the workloads of pods, each once."""
    return tuple(sorted({workload_of(pod) for pod in pods}))


def marks(place: Place) -> str:
    """Return the question which dialects answer for a place."""
    names = "|".join(MARKS.values())
    selector = place.selector(f'__name__=~"{names}"')
    return f"count by (__name__) ({selector})"


def dialect_of(names: Iterable[str]) -> str:
    """Return the dialect of the metric names that answered; "" where none did."""
    found = set(names)
    return next((dialect for dialect, mark in MARKS.items() if mark in found), "")


def queries(dialect: str, place: Place, seconds: int) -> dict[str, str]:
    """Return the question of each figure over the last `seconds`. Raises KeyError for an unknown dialect."""
    return {VLLM: _vllm, TRITON: _triton, KSERVE: _kserve, KNATIVE: _knative}[dialect](place, seconds)


def _increase(metric: str, place: Place, seconds: int, more: str = "") -> str:
    return f"sum(increase({metric}{place.selector(more)}[{seconds}s]))"


def _or_none(failed: str, all_of_them: str) -> str:
    """Failures, or zero where there is no series of them and yet one of all: never zero out of nothing."""
    return f"{failed} or 0 * {all_of_them}"


def _quantile(share: str, metric: str, place: Place, seconds: int, scale: int) -> str:
    inner = f"sum by (le) (rate({metric}{place.selector()}[{seconds}s]))"
    found = f"histogram_quantile({share}, {inner})"
    return found if scale == 1 else f"{scale} * {found}"


def _vllm(place: Place, seconds: int) -> dict[str, str]:
    calls = 'handler=~"/v1/.+"'
    every = _increase("http_requests_total", place, seconds, calls)
    failed = _increase("http_requests_total", place, seconds, f'{calls},status=~"5.+"')
    return {
        # The server's own count leaves out what failed; that of its HTTP front has both.
        "requests": f"{every} or {_increase('vllm:request_success_total', place, seconds)}",
        "errors": _or_none(failed, every),
        "latency_p50_ms": _quantile("0.5", "vllm:e2e_request_latency_seconds_bucket", place, seconds, 1000),
        "latency_p95_ms": _quantile("0.95", "vllm:e2e_request_latency_seconds_bucket", place, seconds, 1000),
        "ttft_p95_ms": _quantile("0.95", "vllm:time_to_first_token_seconds_bucket", place, seconds, 1000),
        "queue_depth": f"sum(vllm:num_requests_waiting{place.selector()})",
    }


def _triton(place: Place, seconds: int) -> dict[str, str]:
    good = _increase("nv_inference_request_success", place, seconds)
    failed = _increase("nv_inference_request_failure", place, seconds)
    summary, half, most = "nv_inference_request_summary_us", 'quantile="0.5"', 'quantile="0.95"'
    return {
        "requests": f"{good} + ({_or_none(failed, good)})",
        "errors": _or_none(failed, good),
        # Of several pods the slowest: quantiles cannot be added up.
        "latency_p50_ms": f"max({summary}{place.selector(half)}) / 1000",
        "latency_p95_ms": f"max({summary}{place.selector(most)}) / 1000",
        "ttft_p95_ms": _quantile("0.95", "nv_inference_first_response_histogram_ms_bucket", place, seconds, 1),
        "queue_depth": f"sum(nv_inference_pending_request_count{place.selector()})",
    }


def _kserve(place: Place, seconds: int) -> dict[str, str]:
    return {
        "requests": _increase("request_predict_seconds_count", place, seconds),
        # The Python server does not count what failed: that stays unknown.
        "latency_p50_ms": _quantile("0.5", "request_predict_seconds_bucket", place, seconds, 1000),
        "latency_p95_ms": _quantile("0.95", "request_predict_seconds_bucket", place, seconds, 1000),
    }


def _knative(place: Place, seconds: int) -> dict[str, str]:
    every = _increase("revision_app_request_count", place, seconds)
    failed = _increase("revision_app_request_count", place, seconds, 'response_code_class="5xx"')
    return {
        "requests": every,
        "errors": _or_none(failed, every),
        "latency_p50_ms": _quantile("0.5", "revision_app_request_latencies_bucket", place, seconds, 1),
        "latency_p95_ms": _quantile("0.95", "revision_app_request_latencies_bucket", place, seconds, 1),
        "queue_depth": f"sum(revision_queue_depth{place.selector()})",
    }
