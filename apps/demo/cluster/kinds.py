"""The fixed kind table: what this server serves, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, eq=False)
class Kind:
    """One served kind. Identity is the object itself: the table below is the only source of instances."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    short: tuple[str, ...] = ()
    has_status: bool = False
    counts_generation: bool = False
    categories: tuple[str, ...] = ()
    addon: str = ""
    """What must be installed for the kind to be served: nothing, `kueue`, `kserve`, `gateway`; `custom`: its CRD."""
    schema: object = None
    """Of a kind that a stored CustomResourceDefinition brings: what `crds` made of its schema."""

    @property
    def custom(self) -> bool:
        """Kinds of a CustomResourceDefinition: values are stored as sent, list items bear their kind."""
        return bool(self.addon)

    @cached_property
    def api_version(self) -> str:
        """`v1` or `group/version`, as in objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def group_resource(self) -> str:
        """`pods` or `deployments.apps`, as in messages and `count/…` quota keys."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @cached_property
    def key(self) -> str:
        """The row key in the state file."""
        return f"{self.group_resource}/{self.version}"

    @cached_property
    def raw_prefix(self) -> bytes:
        """The first bytes of every encoded object of this kind; list items go without them, as the real server's do."""
        return f'{{"apiVersion":"{self.api_version}","kind":"{self.kind}",'.encode()


NAMESPACE = Kind("", "v1", "Namespace", "namespaces", False, ("ns",), True)
NODE = Kind("", "v1", "Node", "nodes", False, ("no",), True)
POD = Kind("", "v1", "Pod", "pods", True, ("po",), True, False, ("all",))
QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas", True, ("quota",), True)
LIMIT_RANGE = Kind("", "v1", "LimitRange", "limitranges", True, ("limits",))
EVENT = Kind("", "v1", "Event", "events", True, ("ev",))
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts", True, ("sa",))
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments", True, ("deploy",), True, True, ("all",))
JOB = Kind("batch", "v1", "Job", "jobs", True, (), True, True, ("all",))
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", True)
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", False)
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True, ("netpol",), False, True)
PRIORITY_CLASS = Kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", False, ("pc",), False, True)
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps", True, ("cm",))
SERVICE = Kind("", "v1", "Service", "services", True, ("svc",), True, False, ("all",))
CLAIM = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, ("pvc",), True)
ROLE = Kind("rbac.authorization.k8s.io", "v1", "Role", "roles", True)
CLUSTER_ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", False)
_ADMISSION = "admissionregistration.k8s.io"
POLICY = Kind(
    _ADMISSION,
    "v1",
    "ValidatingAdmissionPolicy",
    "validatingadmissionpolicies",
    False,
    (),
    True,
    True,
    ("api-extensions",),
)
POLICY_BINDING = Kind(
    _ADMISSION,
    "v1",
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
    False,
    (),
    False,
    True,
    ("api-extensions",),
)

CRD = Kind(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    False,
    ("crd", "crds"),
    True,
    True,
    ("api-extensions",),
)

KUEUE_GROUP = "kueue.x-k8s.io"


def _kueue(kind: str, plural: str, short: tuple[str, ...], *, namespaced: bool = False, status: bool = True) -> Kind:
    return Kind(KUEUE_GROUP, "v1beta2", kind, plural, namespaced, short, status, True, (), "kueue")


RESOURCE_FLAVOR = _kueue("ResourceFlavor", "resourceflavors", ("flavor", "flavors", "rf"), status=False)
TOPOLOGY = _kueue("Topology", "topologies", ("topo",), status=False)
WORKLOAD_PRIORITY = _kueue("WorkloadPriorityClass", "workloadpriorityclasses", ("wpc",), status=False)
ADMISSION_CHECK = _kueue("AdmissionCheck", "admissionchecks", ("ac",))
COHORT = _kueue("Cohort", "cohorts", ("co",))
CLUSTER_QUEUE = _kueue("ClusterQueue", "clusterqueues", ("cq",))
LOCAL_QUEUE = _kueue("LocalQueue", "localqueues", ("queue", "queues", "lq"), namespaced=True)
WORKLOAD = _kueue("Workload", "workloads", ("kwl", "kueueworkload", "kueueworkloads"), namespaced=True)
INFERENCE_SERVICE = Kind(
    "serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices", True, ("isvc",), True, True, (), "kserve"
)
_SERVING = "serving.kserve.io"


def _serving(version: str, kind: str, short: tuple[str, ...], *, namespaced: bool = True, status: bool = True) -> Kind:
    return Kind(_SERVING, version, kind, f"{kind.lower()}s", namespaced, short, status, True, (), "kserve")


TRAINED_MODEL = _serving("v1alpha1", "TrainedModel", ("tm",))
LLM_SERVICE = _serving("v1alpha2", "LLMInferenceService", ("llmisvc",))
SERVING_RUNTIME = _serving("v1alpha1", "ServingRuntime", ())
CLUSTER_RUNTIME = _serving("v1alpha1", "ClusterServingRuntime", (), namespaced=False)
STORAGE_CONTAINER = _serving("v1alpha1", "ClusterStorageContainer", (), namespaced=False, status=False)
SCALED_OBJECT = Kind("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects", True, ("so",), True, True, (), "kserve")
HTTP_ROUTE = Kind(
    "gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", True, (), True, True, ("gateway-api",), "gateway"
)
GATEWAY = Kind(
    "gateway.networking.k8s.io", "v1", "Gateway", "gateways", True, ("gtw",), True, True, ("gateway-api",), "gateway"
)

KINDS: tuple[Kind, ...] = (
    NAMESPACE,
    NODE,
    POD,
    QUOTA,
    LIMIT_RANGE,
    EVENT,
    SERVICE_ACCOUNT,
    DEPLOYMENT,
    JOB,
    ROLE_BINDING,
    CLUSTER_ROLE,
    NETWORK_POLICY,
    PRIORITY_CLASS,
    CONFIG_MAP,
    SERVICE,
    CLAIM,
    ROLE,
    CLUSTER_ROLE_BINDING,
    POLICY,
    POLICY_BINDING,
    CRD,
    RESOURCE_FLAVOR,
    TOPOLOGY,
    WORKLOAD_PRIORITY,
    ADMISSION_CHECK,
    COHORT,
    CLUSTER_QUEUE,
    LOCAL_QUEUE,
    WORKLOAD,
    INFERENCE_SERVICE,
    TRAINED_MODEL,
    LLM_SERVICE,
    SERVING_RUNTIME,
    CLUSTER_RUNTIME,
    STORAGE_CONTAINER,
    SCALED_OBJECT,
    HTTP_ROUTE,
    GATEWAY,
)
ADDONS = ("kueue", "kserve", "gateway")
"""What options install. Without them their API groups are absent, as on a cluster without them."""

BY_PATH: dict[tuple[str, str, str], Kind] = {(k.group, k.version, k.plural): k for k in KINDS}
BY_NAME: dict[tuple[str, str], Kind] = {(k.api_version, k.kind): k for k in KINDS}
BY_KEY: dict[str, Kind] = {k.key: k for k in KINDS}
NAMESPACED: tuple[Kind, ...] = tuple(k for k in KINDS if k.namespaced)


def served(addons: frozenset[str]) -> tuple[Kind, ...]:
    """The kinds of a cluster with these add-ons."""
    return tuple(kind for kind in KINDS if not kind.addon or kind.addon in addons)


REVIEWS: dict[tuple[str, str, str], str] = {
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    ("authentication.k8s.io", "v1", "selfsubjectreviews"): "SelfSubjectReview",
}
"""Kinds that are only ever POSTed and never stored."""
