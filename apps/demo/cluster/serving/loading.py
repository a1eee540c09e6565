"""Loading of models, as the kubelet plays it: a pod runs, is not ready while it loads, then is, or tries again.

A failing load is asked for by the annotation `simulated.gpu-commons.internal/fail-load` (its value is the message) or
by the fault `load-fails`; the fault `tampered` makes the storage container find other bytes than were approved.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from apps.demo.cluster.errors import Obj
from apps.demo.cluster.faults import Faults
from apps.demo.cluster.serving import verifying
from apps.demo.cluster.serving.rendering import FAIL_LOAD, LOAD_SECONDS, SERVES, setting

DEFAULT_LOAD_SECONDS = 0.5
RETRY = timedelta(seconds=5)
_READY = ("Ready", "ContainersReady")


def serves(pod: Obj) -> bool:
    """Whether the pod loads a model before it is ready."""
    return SERVES in (pod["metadata"].get("annotations") or {})


def is_ready(pod: Obj) -> bool:
    """Whether the pod's model is loaded."""
    status = pod.get("status") or {}
    rows = {each["type"]: each["status"] for each in status.get("conditions") or []}
    return status.get("phase") == "Running" and rows.get("Ready") == "True"


def failure_of(pod: Obj) -> str:
    """Why the last load failed; empty where none did."""
    status = pod.get("status") or {}
    for group in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(group) or []:
            ended = (each.get("lastState") or {}).get("terminated") or {}
            if ended.get("exitCode") and not each.get("ready"):
                return str(ended.get("message", ""))
    return ""


def template_of(pod: Obj) -> str:
    """The hash of the template that the pod was made from."""
    return str((pod["metadata"].get("labels") or {}).get("pod-template-hash", ""))


def begin(pod: Obj) -> None:
    """Turn a pod that just started into one that loads, in place."""
    _conditions(pod, "False", pod["status"]["startTime"], "ContainersNotReady")
    for each in pod["status"]["containerStatuses"]:
        each["ready"] = False
    starters = (pod.get("spec") or {}).get("initContainers") or []
    if starters:
        pod["status"]["initContainerStatuses"] = [
            {"name": each["name"], "image": each.get("image", ""), "imageID": "", "ready": False, "restartCount": 0,
             "state": {"running": {"startedAt": pod["status"]["startTime"]}}, "lastState": {}}
            for each in starters
        ]  # fmt: skip


def due(pod: Obj) -> datetime:
    """When the load ends, or is tried again."""
    start = datetime.fromisoformat(pod["status"]["startTime"])
    for group in ("initContainerStatuses", "containerStatuses"):
        for each in pod["status"].get(group) or []:
            ended = (each.get("lastState") or {}).get("terminated") or {}
            if ended.get("finishedAt"):
                return datetime.fromisoformat(ended["finishedAt"]) + RETRY
    return start + timedelta(seconds=setting(pod, LOAD_SECONDS, DEFAULT_LOAD_SECONDS))


def end(pod: Obj, faults: Faults, now: str) -> None:
    """End a load, in place: the storage containers first, then the server."""
    status = pod["status"]
    notes = pod["metadata"].get("annotations") or {}
    subject = subject_of(pod)
    starters = {each["name"]: each for each in (pod.get("spec") or {}).get("initContainers") or []}
    for each in status.get("initContainerStatuses") or []:
        verdict = verifying.verdict(
            pod, starters[each["name"]], tampered=faults.serving("tampered", subject) is not None
        )
        ended = {"exitCode": verdict.exit_code, "reason": "Error" if verdict.exit_code else "Completed"}
        ended |= {"startedAt": status["startTime"], "finishedAt": now, "message": verdict.message}
        if verdict.exit_code:
            _failed(each, ended)
            _conditions(pod, "False", now, "ContainersNotInitialized")
            return
        each |= {"ready": True, "state": {"terminated": ended}}
    message = str(notes.get(FAIL_LOAD, ""))
    if not message and faults.serving("load-fails", subject) is not None:
        message = "the model could not be loaded (simulated fault)"
    for each in status["containerStatuses"]:
        if message and each["name"] == (pod["spec"]["containers"] or [{}])[0].get("name"):
            ended = {"exitCode": 1, "reason": "Error", "startedAt": status["startTime"], "finishedAt": now}
            _failed(each, ended | {"message": message})
        else:
            each |= {"ready": not message, "lastState": {}, "state": {"running": {"startedAt": status["startTime"]}}}
    _conditions(pod, "False" if message else "True", now, "ContainersNotReady" if message else "")


def subject_of(pod: Obj) -> str:
    """What a fault of serving is matched against: place, labels, images and addresses of the pod."""
    meta, spec = pod["metadata"], pod.get("spec") or {}
    words = [f"{meta.get('namespace', '')}/{meta.get('name', '')}"]
    words += [f"{key}={value}" for key, value in sorted((meta.get("labels") or {}).items())]
    words += [str(each.get("image", "")) for each in spec.get("containers") or []]
    return " ".join([*words, str((meta.get("annotations") or {}).get(SERVES, ""))])


def _failed(state: Obj, ended: Obj) -> None:
    text = f"back-off 5s restarting failed container={state['name']} (simulated)"
    state["ready"] = False
    state["restartCount"] = int(state.get("restartCount", 0)) + 1
    state["lastState"] = {"terminated": ended}
    state["state"] = {"waiting": {"reason": "CrashLoopBackOff", "message": text}}


def _conditions(pod: Obj, truth: str, now: str, reason: str) -> None:
    for each in pod["status"]["conditions"]:
        if each["type"] in _READY and (each["status"] != truth or each.get("reason", "") != reason):
            each |= {"status": truth, "lastTransitionTime": now}
            each.pop("reason", None)
            if reason:
                each["reason"] = reason
