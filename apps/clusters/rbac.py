"""What the portal needs on a cluster: one table, read by the check and by the generated ClusterRole alike. Pure.

Facts: server-side apply of a new object asks for `create` beside `patch`; whoever creates a RoleBinding needs `bind` on
the role it names, or every right in it (Kubernetes, "Using RBAC Authorization"); reading one ConfigMap asks for `get`
with its name. Nothing here lets the portal delete a namespace or a volume, read a Secret, or give itself more rights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import yaml

from apps.clusters.capabilities import KUEUE_CONFIG, KUEUE_NAMESPACE
from apps.clusters.choices import GuardMode, KueueMode

if TYPE_CHECKING:
    from apps.clusters.models import Cluster

#: Names of what is generated; the roles are called as the service account is.
NAMESPACE, ACCOUNT = "gpu-commons", "gpu-commons"
#: The cluster roles that workspaces hand out to people's groups.
HANDED_OUT = ("edit", "view")
#: Where KServe keeps its settings.
KSERVE_NAMESPACE, KSERVE_CONFIG = "kserve", "inferenceservice-config"

_READ = ("get", "list", "watch")
_OWN = (*_READ, "create", "patch", "delete")
_RBAC = "rbac.authorization.k8s.io"
_KUEUE = "kueue.x-k8s.io"
_VISIBILITY = "visibility.kueue.x-k8s.io"
_ADMISSION = "admissionregistration.k8s.io"
_KSERVE = "serving.kserve.io"
_GATEWAY = "gateway.networking.k8s.io"
_CRDS = "apiextensions.k8s.io"
#: The type of which a regulated workspace has one object (deployments.admission).
APPROVED_MODELS = "approvedmodels.gpu-commons.internal"


@dataclass(frozen=True, slots=True)
class Need:
    """A right: `verbs` on `resource` (with `/subresource`) of `group`, in `namespace` (empty: everywhere).

    `resource` that begins with a slash is a path that is no resource. `breaks` says what does not work without it.
    """

    part: str
    group: str
    resource: str
    verbs: tuple[str, ...]
    breaks: str
    names: tuple[str, ...] = ()
    namespace: str = ""

    @property
    def is_path(self) -> bool:
        """Whether it is a path such as /version instead of a resource."""
        return self.resource.startswith("/")


@dataclass(frozen=True, slots=True)
class Part:
    """Rights that belong together: `title` for people; without a `required` one the portal cannot work at all."""

    key: str
    title: str
    required: bool = False


PARTS = (
    Part("base", "Signing in and looking around", required=True),
    Part("workspaces", "Workspaces: quota, limits, roles, network policies", required=True),
    Part("inventory", "Nodes and their GPUs", required=True),
    Part("stopping", "Draining and stopping idle workloads"),
    Part("kueue", "Queues by Kueue"),
    Part("serving", "Models served by KServe"),
    Part("autoscaling", "Autoscaling by KEDA"),
    Part("routes", "Sharing traffic between releases by the Gateway API"),
    Part("guard", "Guarding what the portal owns"),
    Part("enforcement", "Refusing models that nobody approved"),
)

_WORKSPACE = "no workspace can be set up or changed"
_ENFORCE = "a regulated workspace cannot refuse models that nobody approved"
_STOP = "workloads that are idle, or run on after their quota's end, cannot be stopped"

#: Every right that the portal uses.
NEEDS: tuple[Need, ...] = (
    Need("base", "", "/version", ("get",), "the version is not known"),
    Need("base", "", "/apis", ("get",), "what is installed is not known"),
    Need("base", "authorization.k8s.io", "selfsubjectaccessreviews", ("create",), "rights cannot be checked"),
    Need("base", "authentication.k8s.io", "selfsubjectreviews", ("create",), "the portal does not know its own name"),
    # A namespace is never deleted by the portal, so the right to do it is not asked for.
    Need("workspaces", "", "namespaces", (*_READ, "create", "patch"), _WORKSPACE),
    Need("workspaces", "", "limitranges", _OWN, _WORKSPACE),
    Need("workspaces", "", "resourcequotas", _OWN, _WORKSPACE),
    Need("workspaces", _RBAC, "rolebindings", _OWN, "people get no access to their workspaces"),
    Need("workspaces", _RBAC, "clusterroles", ("bind",), "people get no access to their workspaces", HANDED_OUT),
    Need("workspaces", "networking.k8s.io", "networkpolicies", _OWN, _WORKSPACE),
    Need("workspaces", "scheduling.k8s.io", "priorityclasses", _OWN, "production, batch and development rank alike"),
    Need("inventory", "", "nodes", ("get", "list"), "GPUs are not counted, and nothing can be offered"),
    Need("stopping", "", "pods", _READ, "what holds GPUs in a workspace is not known"),
    Need("stopping", "", "events", ("get", "list"), "why a workload waits or fails is not shown"),
    Need("stopping", "batch", "jobs", ("get", "list", "patch"), _STOP),
    Need("stopping", "apps", "deployments", ("get", "list", "patch"), _STOP),
    Need("kueue", _KUEUE, "resourceflavors", _OWN, "GPU models have no queues"),
    Need("kueue", _KUEUE, "topologies", _OWN, "placement by topology cannot be declared"),
    Need("kueue", _KUEUE, "cohorts", _OWN, "nothing can be borrowed between teams"),
    Need("kueue", _KUEUE, "clusterqueues", _OWN, "no workspace gets a queue"),
    Need("kueue", _KUEUE, "localqueues", _OWN, "no workspace gets a queue"),
    Need("kueue", _KUEUE, "workloadpriorityclasses", _OWN, "production, batch and development queue alike"),
    Need("kueue", _KUEUE, "admissionchecks", _READ, "why admission waits is not shown"),
    Need("kueue", _KUEUE, "workloads", (*_READ, "patch"), "what waits is not shown, nothing admitted is stopped"),
    Need("kueue", _VISIBILITY, "clusterqueues/pendingworkloads", ("get",), "positions in a queue are not shown"),
    Need("kueue", _VISIBILITY, "localqueues/pendingworkloads", ("get",), "positions in a queue are not shown"),
    Need(
        "kueue", "", "configmaps", ("get",),
        "pod integration, fair sharing and the labels of managed namespaces are not known", (KUEUE_CONFIG,),
        KUEUE_NAMESPACE,
    ),
    Need("serving", _KSERVE, "inferenceservices", _OWN, "no release can be brought there, and none can be stopped"),
    Need("serving", _KSERVE, "servingruntimes", _READ, "which runtimes a release can use is not known"),
    Need("serving", _KSERVE, "llminferenceservices", _READ, "models served beside the portal are not seen"),
    Need("serving", _KSERVE, "trainedmodels", _READ, "models served beside the portal are not seen"),
    Need("serving", "", "configmaps", ("get",), "KServe's mode is not known", (KSERVE_CONFIG,), KSERVE_NAMESPACE),
    Need("autoscaling", "keda.sh", "scaledobjects", _OWN, "replicas do not follow demand, nor keep to a stop"),
    Need("routes", _GATEWAY, "httproutes", _OWN, "no canary gets a share of the traffic in KServe's Standard mode"),
    Need("guard", _ADMISSION, "validatingadmissionpolicies", _OWN, "the guard cannot be set up"),
    Need("guard", _ADMISSION, "validatingadmissionpolicybindings", _OWN, "the guard cannot be set up"),
    Need("enforcement", _ADMISSION, "validatingadmissionpolicies", _OWN, _ENFORCE),
    Need("enforcement", _ADMISSION, "validatingadmissionpolicybindings", _OWN, _ENFORCE),
    # Server-side apply of a new object asks for create without a name; changing is asked for one type alone.
    Need("enforcement", _CRDS, "customresourcedefinitions", ("list", "watch", "create"), _ENFORCE),
    Need("enforcement", _CRDS, "customresourcedefinitions", ("get", "patch"), _ENFORCE, (APPROVED_MODELS,)),
    Need("enforcement", "gpu-commons.internal", "approvedmodels", _OWN, _ENFORCE),
    Need("enforcement", _KSERVE, "clusterstoragecontainers", _OWN, "models are bound by their names only"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What a generated role is for. `lasting_token`: a Secret with a token without end, where nobody renews one."""

    stopping: bool = True
    kueue: bool = True
    serving: bool = True
    autoscaling: bool = True
    routes: bool = True
    guard: bool = False
    enforcement: bool = False
    lasting_token: bool = False
    namespace: str = NAMESPACE
    account: str = ACCOUNT

    def __post_init__(self) -> None:
        """Raise ValueError for a namespace or account that Kubernetes would not take."""
        for field, limit in (("namespace", 63), ("account", 253)):
            value = getattr(self, field)
            if len(value) > limit or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", value):
                raise ValueError(f"{field}: lower-case letters, digits and hyphens")

    @property
    def username(self) -> str:
        """The name under which the cluster knows the portal."""
        return f"system:serviceaccount:{self.namespace}:{self.account}"

    def parts(self) -> set[str]:
        """The keys of the parts that are asked for."""
        chosen = {field.name for field in fields(self) if getattr(self, field.name) is True}
        return {part.key for part in PARTS if part.required or part.key in chosen}


def options_for(cluster: Cluster) -> Options:
    """Return the options that fit a cluster: what was found there, and what an admin switched on."""
    from apps.clusters import capabilities

    found = capabilities.of(cluster)
    return Options(
        kueue=bool(found.kueue.installed) or cluster.kueue_mode != KueueMode.OFF,
        serving=bool(found.kserve.installed),
        autoscaling=bool(found.keda.installed),
        routes=bool(found.http_routes),
        guard=cluster.guard_mode != GuardMode.OFF or bool(found.admission_policies),
        enforcement=capabilities.missing(cluster, "enforcement") is None,
    )


def needs(parts: Iterable[str]) -> list[Need]:
    """Return the rights of some parts, in the order of the table."""
    wanted = set(parts)
    return [need for need in NEEDS if need.part in wanted]


def manifests(options: Options | Cluster) -> list[dict[str, Any]]:
    """Return what an administrator of a cluster applies before it is registered, in order.

    Namespace, ServiceAccount, ClusterRole with its binding. They are the administrator's: they do not carry the label
    of what the portal owns. Nothing in it lies in a namespace that it does not make: see `settings_files`.
    """
    if not isinstance(options, Options):
        options = options_for(options)
    wanted = needs(options.parts())
    subject = {"kind": "ServiceAccount", "name": options.account, "namespace": options.namespace}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": _meta(options.namespace)},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(options.account, options.namespace)},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": _meta(options.account),
            "rules": _rules(need for need in wanted if not need.namespace),
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": _meta(options.account),
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": options.account},
            "subjects": [subject],
        },
    ]
    if options.lasting_token:
        meta = _meta(f"{options.account}-token", options.namespace)
        meta["annotations"] = {"kubernetes.io/service-account.name": options.account}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "kubernetes.io/service-account-token"}
        objects.append(secret)
    return objects


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A Role in a namespace of others, to read one ConfigMap there. Applied once that namespace exists."""

    part: Part
    namespace: str
    name: str
    breaks: str
    objects: list[dict[str, Any]]

    @property
    def text(self) -> str:
        """The file as YAML."""
        return to_yaml(self.objects)

    @property
    def command(self) -> str:
        """What applies it where it can be, and says why not elsewhere."""
        return f"kubectl get namespace {self.namespace} && kubectl apply --filename {self.name}"


def settings_files(options: Options | Cluster) -> list[SettingsFile]:
    """Return a file for each namespace of others of which one ConfigMap is read, by name.

    In files of their own: where such a namespace is missing, `kubectl apply` of one file stops half-way.
    """
    if not isinstance(options, Options):
        options = options_for(options)
    wanted = [need for need in needs(options.parts()) if need.namespace]
    name = f"{options.account}-reads-settings"
    subject = {"kind": "ServiceAccount", "name": options.account, "namespace": options.namespace}
    found: list[SettingsFile] = []
    for namespace in sorted({need.namespace for need in wanted}):
        here = [need for need in wanted if need.namespace == namespace]
        objects: list[dict[str, Any]] = [
            {
                "apiVersion": f"{_RBAC}/v1",
                "kind": "Role",
                "metadata": _meta(name, namespace),
                "rules": _rules(here),
            },
            {
                "apiVersion": f"{_RBAC}/v1",
                "kind": "RoleBinding",
                "metadata": _meta(name, namespace),
                "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
                "subjects": [subject],
            },
        ]
        part = next(part for part in PARTS if part.key == here[0].part)
        found.append(SettingsFile(part, namespace, f"gpu-commons-access-{namespace}.yaml", here[0].breaks, objects))
    return found


def to_yaml(objects: Iterable[dict[str, Any]]) -> str:
    """Return objects as one YAML stream for `kubectl apply -f`."""
    return yaml.dump_all(list(objects), Dumper=_Compact, sort_keys=False, explicit_start=True, width=110)


class _Compact(yaml.SafeDumper):
    """Writes lists of plain words in one line, as people write roles."""


def _list(dumper: _Compact, found: list[Any]) -> yaml.Node:
    plain = all(isinstance(item, str) for item in found)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", found, flow_style=plain)


_Compact.add_representer(list, _list)


def commands(options: Options) -> list[tuple[str, str]]:
    """Return the commands that lead from the YAML to what the form asks for, each with what it is for."""
    context = "kubectl config view --raw --minify --flatten --output"
    if options.lasting_token:
        token = (
            f"kubectl get secret {options.account}-token --namespace {options.namespace}"
            " --output jsonpath='{.data.token}' | base64 --decode"
        )
    else:
        token = f"kubectl create token {options.account} --namespace {options.namespace} --duration 8760h"
    return [
        ("Apply it, as an administrator of that cluster", "kubectl apply --filename gpu-commons-access.yaml"),
        ("The token", token),
        ("The API address", f"{context} jsonpath='{{.clusters[0].cluster.server}}'"),
        (
            "The CA certificate",
            f"{context} jsonpath='{{.clusters[0].cluster.certificate-authority-data}}' | base64 --decode",
        ),
    ]


def _meta(name: str, namespace: str = "") -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name}
    if namespace:
        meta["namespace"] = namespace
    meta["labels"] = {"app.kubernetes.io/name": "gpu-commons"}
    return meta


def _rules(wanted: Iterable[Need]) -> list[dict[str, Any]]:
    """Return the rules, resources with the same group, verbs and names put together."""
    resources: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    paths: dict[tuple[str, ...], list[str]] = {}
    for need in wanted:
        if need.is_path:
            paths.setdefault(need.verbs, []).append(need.resource)
        else:
            resources.setdefault((need.group, need.verbs, need.names), []).append(need.resource)
    rules: list[dict[str, Any]] = [{"nonResourceURLs": urls, "verbs": list(verbs)} for verbs, urls in paths.items()]
    for (group, verbs, names), found in resources.items():
        rule: dict[str, Any] = {"apiGroups": [group], "resources": found, "verbs": list(verbs)}
        if names:
            rule["resourceNames"] = list(names)
        rules.append(rule)
    return rules
