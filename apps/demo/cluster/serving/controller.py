"""InferenceServices: their workloads, revisions and status. What loads, and whether, is the kubelet's to say."""

from __future__ import annotations

import json
from collections.abc import Iterable

from apps.demo.cluster.api import Api
from apps.demo.cluster.apply import clone
from apps.demo.cluster.auth import User
from apps.demo.cluster.calls import Call
from apps.demo.cluster.defaults import template_hash
from apps.demo.cluster.errors import ApiError, Obj
from apps.demo.cluster.kinds import (
    CLUSTER_RUNTIME,
    CONFIG_MAP,
    DEPLOYMENT,
    INFERENCE_SERVICE,
    POD,
    SCALED_OBJECT,
    SERVICE,
    SERVING_RUNTIME,
    STORAGE_CONTAINER,
)
from apps.demo.cluster.serving import loading, rendering, status
from apps.demo.cluster.serving.options import DOMAIN, KNATIVE, STANDARD, VERSION
from apps.demo.cluster.serving.rendering import COMPONENTS, HASH, NAME_LABEL, REVISION_LABEL
from apps.demo.cluster.serving.status import Traffic, Workload
from apps.demo.cluster.store import Change, Entry
from apps.demo.cluster.usage import is_terminal

STOP = "serving.kserve.io/stop"
MODE = "serving.kserve.io/deploymentMode"
SCALER = "serving.kserve.io/autoscalerClass"
_OLD_WORDS = {"RawDeployment": STANDARD, "Serverless": KNATIVE}
_ACCOUNT = "kserve:kserve-controller-manager"
_USER = User(f"system:serviceaccount:{_ACCOUNT}", ("system:serviceaccounts", "system:serviceaccounts:kserve"))
_GENERATION = f"{REVISION_LABEL}-number"


def rename_mode(kind: object, obj: Obj) -> None:
    """KServe's mutating webhook: from 0.16 on it rewrites the old words for deployment modes."""
    notes = obj["metadata"].get("annotations") or {}
    if kind is INFERENCE_SERVICE and notes.get(MODE) in _OLD_WORDS:
        notes[MODE] = _OLD_WORDS[notes[MODE]]


class InferenceServices:
    """Control-loop part for InferenceServices."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._store = api.store
        self._dirty: set[tuple[str, str]] = set()
        self._refused: dict[tuple[str, str], str] = {}

    def observe(self, change: Change) -> None:
        """An InferenceService, something made for one, or what its rendering looks up."""
        entry = change.entry
        if entry.kind is INFERENCE_SERVICE and change.type != "DELETED":
            self._dirty.add((entry.namespace, entry.name))
        elif entry.kind in (DEPLOYMENT, POD):
            name = (entry.obj["metadata"].get("labels") or {}).get(NAME_LABEL)
            if name:
                self._dirty.add((entry.namespace, name))

    def work(self) -> float:
        """Bring every touched service to its wanted state."""
        while self._dirty:
            key = self._dirty.pop()
            with self._store.transaction():
                entry = self._store.get(INFERENCE_SERVICE, *key)
                if entry is not None and not entry.obj["metadata"].get("deletionTimestamp"):
                    self._reconcile(entry)
        return float("inf")

    def _reconcile(self, entry: Entry) -> None:
        obj = clone(entry.obj)
        notes = obj["metadata"].get("annotations") or {}
        known = obj.get("status") or {}
        mode = known.get("deploymentMode") or _OLD_WORDS.get(notes.get(MODE, ""), notes.get(MODE) or self._default())
        stopped = notes.get(STOP) == "true"
        keep: set[str] = set()
        works: dict[str, Workload] = {}
        traffic: Traffic | None = None
        if not stopped:
            for component in COMPONENTS:
                if not obj["spec"].get(component):
                    continue
                if mode == KNATIVE and component == "predictor":
                    works[component], traffic, names = self._revisions(entry, known)
                    keep |= names
                else:
                    works[component] = self._standard(entry, component)
                    keep.add(works[component].name)
        self._remove_others(entry, keep)
        obj["status"] = self._status(entry, mode, stopped, works, traffic, known)
        current = self._store.get(INFERENCE_SERVICE, entry.namespace, entry.name)
        if current is entry and obj["status"] != known:
            self._store.put(INFERENCE_SERVICE, obj)

    def _default(self) -> str:
        found = self._store.get(CONFIG_MAP, "kserve", "inferenceservice-config")
        text = ((found.obj.get("data") or {}) if found else {}).get("deploy", "{}")
        return str(json.loads(text).get("defaultDeploymentMode", STANDARD))

    # ---- workloads

    def _installed(self, namespace: str) -> rendering.Installed:
        def image(runtime: str, model_format: str) -> str:
            rows = [*self._store.entries(SERVING_RUNTIME, namespace), *self._store.entries(CLUSTER_RUNTIME)]
            for each in rows:
                spec = each.obj.get("spec") or {}
                formats = [one.get("name") for one in spec.get("supportedModelFormats") or []]
                if each.name == runtime or (not runtime and model_format in formats):
                    containers = spec.get("containers") or [{}]
                    return str(containers[0].get("image", ""))
            return f"kserve/{runtime or model_format or 'server'}:{VERSION}"

        return rendering.Installed(image, [each.obj for each in self._store.entries(STORAGE_CONTAINER)])

    def _standard(self, entry: Entry, component: str) -> Workload:
        spec = entry.obj["spec"][component]
        name = rendering.workload_name(entry.name, component, spec)
        template = rendering.template_of(entry.obj, component, self._installed(entry.namespace))
        self._ensure(entry, name, template, spec, scaled=self._scaled(entry.namespace, name, entry))
        self._front(entry, name, component)
        return self._seen(entry.namespace, name)

    def _scaled(self, namespace: str, name: str, entry: Entry) -> bool:
        """Whether somebody else says how many there are."""
        if (entry.obj["metadata"].get("annotations") or {}).get(SCALER) == "external":
            return True
        targets = [
            (each.obj["spec"].get("scaleTargetRef") or {}).get("name")
            for each in self._store.entries(SCALED_OBJECT, namespace)
        ]
        return name in targets

    def _ensure(self, entry: Entry, name: str, template: Obj, spec: Obj, *, scaled: bool = False) -> None:
        """Create or change a Deployment, under admission; what refuses it is shown in the status."""
        known = self._store.get(DEPLOYMENT, entry.namespace, name)
        low = int(spec.get("minReplicas", 1))
        high = max(low, int(spec.get("maxReplicas") or low))
        key = (entry.namespace, name)
        try:
            if known is None:
                body = rendering.deployment_of(entry.obj, name, template, low)
                self._api.system_create(DEPLOYMENT, body, _ACCOUNT)
            else:
                now = int(known.obj["spec"].get("replicas", low))
                wanted = now if scaled else min(high, max(low, now))
                same = known.obj["metadata"]["annotations"].get(HASH) == rendering.digest_of(template)
                if same and wanted == now:
                    return
                body = rendering.deployment_of(entry.obj, name, template, wanted)
                body["spec"]["selector"] = known.obj["spec"]["selector"]
                if same:
                    body["spec"]["template"] = clone(known.obj["spec"]["template"])
                self._api.update(DEPLOYMENT, entry.namespace, name, body, Call(_USER, "kserve"))
            self._refused.pop(key, None)
        except ApiError as error:
            self._refused[key] = error.message

    def _front(self, entry: Entry, name: str, component: str) -> None:
        if self._store.get(SERVICE, entry.namespace, name) is None:
            self._api.system_create(SERVICE, rendering.service_of(entry.obj, name, component), _ACCOUNT)

    def _seen(self, namespace: str, name: str) -> Workload:
        """A workload as it stands."""
        refused = self._refused.get((namespace, name), "")
        found = self._store.get(DEPLOYMENT, namespace, name)
        if found is None:
            return Workload(name, 1, 0, refused)
        digest = template_hash(found.obj["spec"]["template"])
        rows = {each["type"]: each for each in (found.obj.get("status") or {}).get("conditions") or []}
        refused = refused or str(rows.get("ReplicaFailure", {}).get("message", ""))
        ready = stale = 0
        busy, failure = False, ""
        for pod in self._pods(namespace, found.obj["metadata"]["uid"]):
            current = loading.template_of(pod) == digest
            if loading.is_ready(pod):
                ready, stale = ready + current, stale + (not current)
            elif current:
                failure = failure or loading.failure_of(pod)
                busy = busy or (pod.get("status") or {}).get("phase") == "Running"
        wanted = int(found.obj["spec"].get("replicas", 1))
        return Workload(name, wanted, ready, refused if ready < wanted else "", busy, failure, stale)

    def _pods(self, namespace: str, owner: str) -> Iterable[Obj]:
        for pod in self._store.entries(POD, namespace):
            if is_terminal(pod.obj) or pod.obj["metadata"].get("deletionTimestamp"):
                continue
            if any(each.get("uid") == owner for each in pod.obj["metadata"].get("ownerReferences") or []):
                yield pod.obj

    def _remove_others(self, entry: Entry, keep: set[str]) -> None:
        for kind in (DEPLOYMENT, SERVICE):
            for each in self._store.entries(kind, entry.namespace):
                owners = each.obj["metadata"].get("ownerReferences") or []
                ours = any(owner.get("uid") == entry.obj["metadata"]["uid"] for owner in owners)
                # The Service of a Knative predictor bears the name that its revisions are numbered from.
                if ours and each.name not in keep and not (kind is SERVICE and keep):
                    self._store.delete(each)

    # ---- Knative

    def _revisions(self, entry: Entry, known: Obj) -> tuple[Workload, Traffic, set[str]]:
        """Revisions of the predictor: a new one for a new template; those without traffic shrink to nothing."""
        spec = entry.obj["spec"]["predictor"]
        base = f"{entry.name}-predictor"
        template = rendering.template_of(entry.obj, "predictor", self._installed(entry.namespace))
        told = ((known.get("components") or {}).get("predictor")) or {}
        latest = str(told.get("latestCreatedRevision", ""))
        found = self._store.get(DEPLOYMENT, entry.namespace, f"{latest}-deployment") if latest else None
        digest = rendering.digest_of(template)
        if found is None or found.obj["metadata"]["annotations"].get(_GENERATION) != digest:
            number = int(latest.rpartition("-")[2]) + 1 if latest else 1
            latest = f"{base}-{number:05d}"
        self._front(entry, base, "predictor")
        before = Traffic(
            tuple((each["revisionName"], int(each["percent"])) for each in told.get("traffic") or []),
            str(told.get("latestRolledoutRevision", "")),
            str(told.get("previousRolledoutRevision", "")),
        )
        self._revision(entry, latest, template, digest)
        work = self._seen(entry.namespace, f"{latest}-deployment")
        traffic = status.split(latest, work.up, spec.get("canaryTrafficPercent"), before)
        served = {name for name, _ in traffic.shares}
        kept = served | {latest, traffic.rolled_out, traffic.previous} - {""}
        low = int(spec.get("minReplicas", 1))
        for name in kept:
            reached = name in served or (name == latest and not work.up)
            self._resize(entry.namespace, f"{name}-deployment", low if reached else 0)
        return work, traffic, {f"{name}-deployment" for name in kept} | {base}

    def _revision(self, entry: Entry, name: str, template: Obj, digest: str) -> None:
        deployment = f"{name}-deployment"
        if self._store.get(DEPLOYMENT, entry.namespace, deployment) is not None:
            return
        labelled = clone(template)
        labelled["metadata"]["labels"][REVISION_LABEL] = name
        body = rendering.deployment_of(
            entry.obj, deployment, labelled, int(entry.obj["spec"]["predictor"].get("minReplicas", 1))
        )
        body["metadata"]["annotations"][_GENERATION] = digest
        try:
            self._api.system_create(DEPLOYMENT, body, _ACCOUNT)
            self._refused.pop((entry.namespace, deployment), None)
        except ApiError as error:
            self._refused[(entry.namespace, deployment)] = error.message

    def _resize(self, namespace: str, name: str, replicas: int) -> None:
        found = self._store.get(DEPLOYMENT, namespace, name)
        if found is None:
            return
        now = int(found.obj["spec"].get("replicas", 1))
        if now == replicas or (now > replicas > 0):
            return
        obj = clone(found.obj)
        obj["spec"]["replicas"] = replicas
        self._store.put(DEPLOYMENT, obj)

    # ---- status

    def _status(
        self, entry: Entry, mode: str, stopped: bool, works: dict[str, Workload], traffic: Traffic | None, known: Obj
    ) -> Obj:
        now = self._api.now()
        host = f"http://{entry.name}-{entry.namespace}.{DOMAIN}"
        out: Obj = {"deploymentMode": mode, "observedGeneration": entry.obj["metadata"].get("generation", 1)}
        if stopped:
            rows: list[tuple[str, bool | None, str, str]] = [
                ("Stopped", True, "Stopped", ""), ("Ready", False, "Stopped", ""),
                ("PredictorReady", False, "Stopped", ""),
            ]  # fmt: skip
            out["conditions"] = status.conditions(rows, known.get("conditions") or [], now)
            return out
        predictor = works.get("predictor", Workload("", 0, 0))
        rows = [status.component_row(f"{name.title()}Ready", work) for name, work in works.items()]
        # A canary that is not ready leaves the service ready: what was rolled out serves.
        serving = traffic is not None and bool(traffic.shares)
        if traffic is not None:
            rows = [row for row in rows if row[0] != "PredictorReady"]
            rows.append(("LatestDeploymentReady", *status.component_row("", predictor)[1:]))
            rows.append(
                ("PredictorReady", serving, "", "") if serving else status.component_row("PredictorReady", predictor)
            )
            rows.append(("RoutesReady", serving, "" if serving else "RevisionMissing", ""))
        reachable = serving or all(work.up or work.stale_ready for work in works.values())
        rows.append(("IngressReady", reachable, "" if reachable else "PredictorNotReady", ""))
        truths = [truth for kind, truth, _, _ in rows if kind != "LatestDeploymentReady"]
        rows += [("Ready", all(truths), "" if all(truths) else "NotReady", ""), ("Stopped", False, "", "")]
        out["conditions"] = status.conditions(rows, known.get("conditions") or [], now)
        model = status.model_status(predictor, now)
        was = known.get("modelStatus") or {}
        if (model.get("lastFailureInfo") or {}).get("message") == (was.get("lastFailureInfo") or {}).get("message", 0):
            model["lastFailureInfo"]["time"] = was["lastFailureInfo"]["time"]
        out["modelStatus"] = model
        if reachable:
            out |= {
                "url": host,
                "address": {"url": f"http://{entry.name}-predictor.{entry.namespace}.svc.cluster.local"},
            }
        component: Obj = {"url": f"http://{entry.name}-predictor-{entry.namespace}.{DOMAIN}"}
        if traffic is not None:
            latest = predictor.name.removesuffix("-deployment")
            ready = latest if predictor.up else next((name for name, _ in traffic.shares), "")
            component |= {"latestCreatedRevision": latest, "latestReadyRevision": ready}
            if traffic.rolled_out:
                component["latestRolledoutRevision"] = traffic.rolled_out
            if traffic.previous:
                component["previousRolledoutRevision"] = traffic.previous
            component["traffic"] = [
                {"revisionName": name, "percent": share, "latestRevision": name == latest}
                for name, share in traffic.shares
            ]
        out["components"] = {"predictor": component}
        return out
