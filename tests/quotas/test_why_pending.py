"""Messages as clusters write them, in plain words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from apps.quotas.why_pending import Held, explain, held_up

QUOTA = (
    'pods "train-0" is forbidden: exceeded quota: gpu-commons, requested: requests.nvidia.com/gpu=4, '
    "used: requests.nvidia.com/gpu=28, limited: requests.nvidia.com/gpu=30"
)
NODES = (
    "0/8 nodes are available: 3 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint {nvidia.com/gpu: true}, "
    "3 node(s) didn't match Pod's node affinity/selector. preemption: 0/8 nodes are available: 8 Preemption is not "
    "helpful for scheduling."
)


@pytest.mark.requirement("quotas-7.2")
@pytest.mark.parametrize(
    ("message", "kind", "says", "advises"),
    [
        (QUOTA, "quota", "it asks for 4 nvidia.com/gpu, 28 of 30 are in use", "starts by itself"),
        (QUOTA.replace("gpu=4,", "gpu=40,"), "quota_never", "can never start", "Ask for less"),
        (NODES, "nodes", "None of the 8 nodes can take it now: 3 no free nvidia.com/gpu left", "given back"),
        ("0/4 nodes are available: 4 Insufficient memory.", "nodes", "4 too little free memory", "less memory per GPU"),
        (
            "0/3 nodes are available: 3 node(s) had untolerated taint {nvidia.com/gpu: true}.",
            "nodes",
            "3 reserved by a taint (nvidia.com/gpu: true)",
            "toleration",
        ),
        ("0/2 nodes are available: 2 node(s) were unschedulable.", "nodes", "2 closed for new work", "maintenance"),
        ("0/0 nodes are available.", "nodes", "no nodes to offer", "admins"),
        ("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.", "volume", "volume", "Claim"),
        ('persistentvolumeclaim "data" not found', "volume", "“data” does not exist", "Create it"),
        (
            'pods "x" is forbidden: failed quota: gpu-commons: must specify requests.cpu for: main',
            "unstated",
            "does not say how much it needs of requests.cpu",
            "State requests",
        ),
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false',
            "security",
            "restricted:latest",
            "security context",
        ),
        ("ErrImagePull: manifest unknown", "image", "cannot be pulled", "name and tag"),
        ('pods "x" is forbidden: no PriorityClass with name gold was found', "priority", "“gold”", "Leave it out"),
        ("maximum cpu usage per Container is 64, but limit is 65", "limit", "at most 64", "Ask for less"),
        ("something nobody has seen before", "other", "something nobody has seen before", ""),
        ("", "other", "No message yet.", ""),
    ],
)
def test_messages(message: str, kind: str, says: str, advises: str) -> None:
    found = explain(message)
    assert found.kind == kind
    assert says in found.summary
    assert advises in found.advice
    assert found.message == message.strip()


def _event(kind: str, name: str, message: str, at: str) -> dict[str, Any]:
    return {
        "type": "Warning",
        "involvedObject": {"kind": kind, "name": name},
        "message": message,
        "lastTimestamp": at,
    }


@pytest.mark.requirement("quotas-7.2")
def test_what_waits_is_told_with_its_newest_reasons() -> None:
    pods: list[dict[str, Any]] = [
        {"metadata": {"name": "busy"}, "status": {"phase": "Running"}},
        {
            "metadata": {"name": "waiting", "creationTimestamp": "2026-11-22T10:00:00Z"},
            "status": {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "message": NODES}],
            },
        },
        {
            "metadata": {"name": "pulling"},
            "status": {
                "phase": "Pending",
                "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}}],
            },
        },
    ]
    jobs: list[dict[str, Any]] = [
        {"metadata": {"name": "train"}, "status": {}},
        {"metadata": {"name": "done"}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}},
        {"metadata": {"name": "runs"}, "status": {"active": 1}},
    ]
    deployments: list[dict[str, Any]] = [
        {
            "metadata": {"name": "serve"},
            "spec": {"replicas": 2},
            "status": {"replicas": 0, "conditions": [{"type": "ReplicaFailure", "status": "True", "message": QUOTA}]},
        },
        {"metadata": {"name": "fine"}, "spec": {"replicas": 1}, "status": {"replicas": 1}},
    ]
    events = [
        _event("Job", "train", "old and unknown", "2026-11-22T09:00:00Z"),
        _event("Job", "train", QUOTA, "2026-11-22T10:00:00Z"),
        _event("Job", "done", QUOTA, "2026-11-22T10:00:00Z"),
        _event("Pod", "waiting", NODES, "2026-11-22T10:00:00Z"),
    ]
    found = {
        (held.kind, held.name): [e.kind for e in held.explanations] for held in held_up(pods, jobs, deployments, events)
    }
    assert found == {
        ("Pod", "waiting"): ["nodes"],
        ("Pod", "pulling"): ["image"],
        ("Job", "train"): ["quota", "other"],
        ("Deployment", "serve"): ["quota"],
    }


@pytest.mark.requirement("quotas-7.2")
def test_the_time_of_what_waits_is_a_time_or_left_out() -> None:
    assert Held("Pod", "p", "2026-11-22T13:08:44Z", []).since_at == datetime(2026, 11, 22, 13, 8, 44, tzinfo=UTC)
    assert Held("Pod", "p", "", []).since_at is None
