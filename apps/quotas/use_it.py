"""What a person needs to run something in a workspace: kubeconfig and ready-made manifests. Pure, but for the demo's
token file.

The kubeconfig carries the person's own identity, by what the cluster says of its identity provider
(`Cluster.identity_provider`), never the portal's credentials:

    {"type": "oidc", "issuer_url": "https://…", "client_id": "…"}       exec: kubectl oidc-login
    {"type": "exec", "command": "…", "args": ["…"], "env": {"…": "…"}}   exec: whatever the company uses
    {"type": "token", "hint": "…"}                                       the person pastes a token
    {"type": "tokens_file", "file": "…"}                                 simulated clusters only
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from apps.quotas import priorities
from apps.quotas.manifests import Manifest

if TYPE_CHECKING:
    from apps.quotas.models import Workspace

TOKEN_PLACEHOLDER = "PASTE-YOUR-OWN-TOKEN-HERE"  # noqa: S105 (says what to put there; it opens nothing)
IMAGE = "registry.example.com/your-team/your-image:1.0"
SHAPES = ("job", "pod", "deployment")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something runs: the workspace and the flavour, as manifests need them. `gpus`: units per pod.

    `queue`: the LocalQueue to submit to, "" without Kueue; `queues_pods`: pods of services queue there, too.
    `priorities`: the cluster has the portal's priority classes.
    """

    cluster: str
    api_url: str
    ca_pem: str
    namespace: str
    environment: str
    resource: str
    gpus: int
    node_labels: Mapping[str, str]
    tolerations: list[Mapping[str, Any]]
    simulated: bool = False
    queue: str = ""
    queues_pods: bool = False
    priorities: bool = False

    def priority(self, shape: str) -> str:
        """Return the priority class of a ready-made shape, "" where the cluster has none.

        Services of production come first; training waits for nobody but them; in development everything gives way.
        """
        if not self.priorities:
            return ""
        if self.environment == "development":
            return priorities.DEVELOPMENT
        return priorities.PRODUCTION if (shape, self.environment) == ("deployment", "production") else priorities.BATCH


class _PlainDumper(yaml.SafeDumper):
    """Writes a value out wherever it stands: people do not read anchors and aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never point back."""
        return True


def to_yaml(*documents: Mapping[str, Any]) -> str:
    """Return objects as YAML in the order people write it."""
    return yaml.dump_all(
        [dict(document) for document in documents], Dumper=_PlainDumper, sort_keys=False, allow_unicode=True
    )


def kubeconfig(place: Place, person: str, provider: Mapping[str, Any]) -> tuple[Manifest, str]:
    """Return (kubeconfig, what the person still has to do). Raises ValueError for a provider that nobody described."""
    user, todo = _identity(place, person, provider)
    cluster: dict[str, Any] = {"server": place.api_url}
    if place.ca_pem:
        cluster["certificate-authority-data"] = base64.b64encode(place.ca_pem.encode()).decode()
    name = f"{place.namespace}@{place.cluster}"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": place.cluster, "cluster": cluster}],
        "users": [{"name": person, "user": user}],
        "contexts": [
            {"name": name, "context": {"cluster": place.cluster, "user": person, "namespace": place.namespace}}
        ],
        "current-context": name,
    }, todo


def access(workspace: Workspace, person: str) -> tuple[Manifest, str]:
    """Return (kubeconfig, what the person still has to do) for a workspace, whatever flavours it holds."""
    cluster = workspace.cluster
    place = Place(
        cluster=cluster.slug, api_url=cluster.api_url, ca_pem=cluster.ca_certificate, namespace=workspace.namespace,
        environment=workspace.environment, resource="", gpus=0, node_labels={}, tolerations=[],
        simulated=cluster.simulated,
    )  # fmt: skip
    return kubeconfig(place, person, cluster.identity_provider)


def _exec(command: str, args: list[str], env: Mapping[str, str], hint: str) -> Manifest:
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": command,
            "args": args,
            "env": [{"name": key, "value": value} for key, value in sorted(env.items())],
            "interactiveMode": "IfAvailable",
            "installHint": hint,
        }
    }


def _identity(place: Place, person: str, provider: Mapping[str, Any]) -> tuple[Manifest, str]:
    kind = provider.get("type", "token")
    if kind == "oidc":
        args = [
            "oidc-login",
            "get-token",
            f"--oidc-issuer-url={provider['issuer_url']}",
            f"--oidc-client-id={provider['client_id']}",
            *(f"--oidc-extra-scope={scope}" for scope in provider.get("extra_scopes", ["email", "groups"])),
        ]
        hint = "Install the kubectl plug-in oidc-login (kubelogin)."
        return _exec("kubectl", args, {}, hint), f"{hint} The first call opens your browser to sign in."
    if kind == "exec":
        hint = str(provider.get("hint", "Install the sign-in command of your company."))
        env = {str(key): str(value) for key, value in dict(provider.get("env", {})).items()}
        return _exec(str(provider["command"]), [str(arg) for arg in provider.get("args", [])], env, hint), hint
    if kind == "tokens_file" and place.simulated:
        token = _demo_token(str(provider.get("file", "")), person)
        if token:
            return {"token": token}, "Nothing: this token is yours on the simulated cluster."
        return {
            "token": TOKEN_PLACEHOLDER
        }, "The simulated cluster knows no token of yours: ask a team lead of the demo."
    if kind == "token":
        hint = str(provider.get("hint") or "Get a token of your own from whoever runs the cluster's sign-in.")
        return {"token": TOKEN_PLACEHOLDER}, f"Replace {TOKEN_PLACEHOLDER} by your own token. {hint}"
    raise ValueError(f"the cluster's identity provider {kind!r} is not known")


def _demo_token(file: str, person: str) -> str:
    """Return a person's token from the simulated cluster's file (`{token: {"user": …, "groups": […]}}`), or ""."""
    path = Path(file)
    if not file or not path.is_file():
        return ""
    for token, who in json.loads(path.read_text("utf-8")).items():
        if who.get("user") == person:
            return str(token)
    return ""


def _container(place: Place, command: list[str] | None = None) -> Manifest:
    amounts = {"cpu": "8", "memory": "64Gi", place.resource: str(place.gpus)}
    container: Manifest = {"name": "main", "image": IMAGE}
    if command:
        container["command"] = command
    # Requests = limits: what is asked for is what is held, paid for and never taken away under pressure.
    container["resources"] = {"requests": dict(amounts), "limits": dict(amounts)}
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return container


def _queued(place: Place, shape: str) -> dict[str, str]:
    """Return Kueue's labels of a Job, or of pods where these queue as well; empty where it is not used."""
    if not place.queue or (shape != "job" and not place.queues_pods):
        return {}
    found = {"kueue.x-k8s.io/queue-name": place.queue}
    if priority := place.priority(shape):
        found["kueue.x-k8s.io/priority-class"] = priority
    return found


def _pod_spec(place: Place, container: Manifest, restart: str | None, priority: str) -> Manifest:
    spec: Manifest = {"priorityClassName": priority} if priority else {}
    if restart:
        spec["restartPolicy"] = restart
    if place.node_labels:
        spec["nodeSelector"] = dict(place.node_labels)
    if place.tolerations:
        spec["tolerations"] = [dict(item) for item in place.tolerations]
    spec["containers"] = [container]
    return spec


def ready_made(place: Place, shape: str) -> Manifest:
    """Return a Job, a Pod or an inference Deployment for this flavour. Raises ValueError for another shape."""
    meta: Manifest = {"name": f"my-{shape}", "namespace": place.namespace}
    queued, priority = _queued(place, shape), place.priority(shape)
    if queued:
        meta["labels"] = queued
    if shape == "job":
        spec = _pod_spec(place, _container(place, ["python", "train.py"]), "Never", priority)
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": meta,
            "spec": {"backoffLimit": 2, "ttlSecondsAfterFinished": 86400, "template": {"spec": spec}},
        }
    if shape == "pod":
        spec = _pod_spec(place, _container(place, ["sleep", "3600"]), "Never", priority)
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
    if shape == "deployment":
        container = _container(place)
        container["ports"] = [{"containerPort": 8080, "name": "http"}]
        container["readinessProbe"] = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 10}
        labels = {"app": meta["name"]}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels | queued},
                    "spec": _pod_spec(place, container, None, priority),
                },
            },
        }
    raise ValueError(f"there is no ready-made {shape!r}")


def pod_of(manifest: Manifest) -> Manifest:
    """Return a pod as a Job or Deployment would make it, for a dry run against quota and pod security."""
    template = manifest["spec"]["template"]
    meta = {"name": f"{manifest['metadata']['name']}-check", "namespace": manifest["metadata"]["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
