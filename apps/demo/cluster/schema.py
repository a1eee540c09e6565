"""Field tables of the served kinds (notation: `fields.parse_types`).

Rarely used corners (volume sources, node affinity terms, probe handlers) are `any`: kept as sent, not looked into.
"""

from __future__ import annotations

from apps.demo.cluster.crds import custom_type
from apps.demo.cluster.fields import Type, parse_types
from apps.demo.cluster.kinds import KINDS, Kind
from apps.demo.cluster.schema_more import TEXT as _MORE

_TEXT = """
ObjectMeta
  name, generateName, namespace, selfLink, uid, resourceVersion: string; generation: int
  creationTimestamp, deletionTimestamp: time; deletionGracePeriodSeconds: int
  labels, annotations: map string; finalizers: set string
  ownerReferences: listmap(uid) OwnerReference; managedFields: list any
OwnerReference
  apiVersion, kind, name, uid: string; controller, blockOwnerDeletion: bool
LabelSelector
  matchLabels: map string; matchExpressions: list LabelSelectorRequirement
LabelSelectorRequirement
  key, operator: string; values: list string
LocalObjectReference
  name: string
ObjectReference
  apiVersion, kind, namespace, name, uid, resourceVersion, fieldPath: string
NamespaceCondition
  type, status, reason, message: string; lastTransitionTime: time
NodeCondition
  type, status, reason, message: string; lastTransitionTime, lastHeartbeatTime: time
PodCondition
  type, status, reason, message: string; lastTransitionTime, lastProbeTime: time; observedGeneration: int
DeploymentCondition
  type, status, reason, message: string; lastTransitionTime, lastUpdateTime: time
JobCondition
  type, status, reason, message: string; lastTransitionTime, lastProbeTime: time

Namespace
  apiVersion, kind: string; metadata: ObjectMeta; spec: NamespaceSpec; status: NamespaceStatus
NamespaceSpec
  finalizers: list string
NamespaceStatus
  phase: string; conditions: listmap(type) NamespaceCondition

Node
  apiVersion, kind: string; metadata: ObjectMeta; spec: NodeSpec; status: NodeStatus
NodeSpec
  podCIDR, providerID, externalID: string; podCIDRs: set string; unschedulable: bool; taints: list Taint
  configSource: any
Taint
  key, value, effect: string; timeAdded: time
NodeStatus
  capacity, allocatable: map quantity; phase: string; conditions: listmap(type) NodeCondition
  addresses: listmap(type) NodeAddress; nodeInfo: any; images: list any; daemonEndpoints: any; volumesAttached: list any
  volumesInUse: list string; config, features: any; runtimeHandlers: list any; declaredFeatures: list string
NodeAddress
  type, address: string

ResourceQuota
  apiVersion, kind: string; metadata: ObjectMeta; spec: ResourceQuotaSpec; status: ResourceQuotaStatus
ResourceQuotaSpec
  hard: map quantity; scopes: list string; scopeSelector: atomic ScopeSelector
ScopeSelector
  matchExpressions: list ScopeRequirement
ScopeRequirement
  scopeName, operator: string; values: list string
ResourceQuotaStatus
  hard, used: map quantity

LimitRange
  apiVersion, kind: string; metadata: ObjectMeta; spec: LimitRangeSpec
LimitRangeSpec
  limits: list LimitRangeItem
LimitRangeItem
  type: string; max, min, default, defaultRequest, maxLimitRequestRatio: map quantity

Event
  apiVersion, kind: string; metadata: ObjectMeta; involvedObject, related: ObjectReference
  reason, message, type, action, reportingComponent, reportingInstance: string; source: EventSource
  firstTimestamp, lastTimestamp, eventTime: time; count: int; series: any
EventSource
  component, host: string

ServiceAccount
  apiVersion, kind: string; metadata: ObjectMeta; secrets: listmap(name) ObjectReference
  imagePullSecrets: list LocalObjectReference; automountServiceAccountToken: bool

RoleBinding
  apiVersion, kind: string; metadata: ObjectMeta; roleRef: atomic RoleRef; subjects: list Subject
RoleRef
  apiGroup, kind, name: string
Subject
  apiGroup, kind, name, namespace: string
ClusterRole
  apiVersion, kind: string; metadata: ObjectMeta; rules: list PolicyRule; aggregationRule: any
PolicyRule
  apiGroups, resources, resourceNames, verbs, nonResourceURLs: list string

NetworkPolicy
  apiVersion, kind: string; metadata: ObjectMeta; spec: NetworkPolicySpec
NetworkPolicySpec
  podSelector: atomic LabelSelector; policyTypes: list string; ingress: list NetworkPolicyIngress
  egress: list NetworkPolicyEgress
NetworkPolicyIngress
  from: list NetworkPolicyPeer; ports: list NetworkPolicyPort
NetworkPolicyEgress
  to: list NetworkPolicyPeer; ports: list NetworkPolicyPort
NetworkPolicyPeer
  podSelector, namespaceSelector: LabelSelector; ipBlock: IPBlock
IPBlock
  cidr: string; except: list string
NetworkPolicyPort
  protocol: string; port: intstr; endPort: int

PriorityClass
  apiVersion, kind: string; metadata: ObjectMeta; value: int; globalDefault: flag; description, preemptionPolicy: string

Pod
  apiVersion, kind: string; metadata: ObjectMeta; spec: PodSpec; status: PodStatus
PodTemplate
  metadata: ObjectMeta; spec: PodSpec
PodSpec
  containers, initContainers: listmap(name) Container; ephemeralContainers: listmap(name) any
  activeDeadlineSeconds, terminationGracePeriodSeconds, priority: int; affinity: any
  automountServiceAccountToken, enableServiceLinks, hostIPC, hostNetwork, hostPID, hostUsers: bool
  setHostnameAsFQDN, shareProcessNamespace: bool; dnsConfig: any; hostAliases: listmap(ip) any
  dnsPolicy, hostname, hostnameOverride, nodeName, preemptionPolicy, priorityClassName, restartPolicy: string
  runtimeClassName, schedulerName, serviceAccount, serviceAccountName, subdomain: string
  imagePullSecrets: listmap(name) LocalObjectReference; nodeSelector: atomic map string; os: any
  overhead: map quantity; readinessGates: list any; resourceClaims: listmap(name) any; resources: Resources
  schedulingGates: listmap(name) LocalObjectReference; securityContext: PodSecurityContext
  tolerations: list Toleration; volumes: listmap(name) Volume; schedulingGroup: any
  topologySpreadConstraints: listmap(topologyKey|whenUnsatisfiable) any
PodSecurityContext
  fsGroup, runAsGroup, runAsUser: int; fsGroupChangePolicy, seLinuxChangePolicy, supplementalGroupsPolicy: string
  runAsNonRoot: bool; supplementalGroups: list int; sysctls: list any; seccompProfile: SeccompProfile
  appArmorProfile, seLinuxOptions, windowsOptions: any
SeccompProfile
  type, localhostProfile: string
Toleration
  key, operator, value, effect: string; tolerationSeconds: int
Volume
  name: string; awsElasticBlockStore, azureDisk, azureFile, cephfs, cinder, configMap, csi, downwardAPI: any
  emptyDir, ephemeral, fc, flexVolume, flocker, gcePersistentDisk, gitRepo, glusterfs, hostPath, image: any
  iscsi, nfs, persistentVolumeClaim, photonPersistentDisk, portworxVolume, projected, quobyte, rbd, scaleIO: any
  secret, storageos, vsphereVolume: any
Container
  name, image, imagePullPolicy, restartPolicy, terminationMessagePath, terminationMessagePolicy, workingDir: string
  command, args: list string; env: listmap(name) EnvVar; envFrom: list any; lifecycle: any
  livenessProbe, readinessProbe, startupProbe: any; ports: listmap(containerPort|protocol) ContainerPort
  resizePolicy, restartPolicyRules: list any; resources: Resources; securityContext: SecurityContext
  stdin, stdinOnce, tty: bool; volumeDevices: listmap(devicePath) any; volumeMounts: listmap(mountPath) VolumeMount
EnvVar
  name, value: string; valueFrom: any
ContainerPort
  name, protocol, hostIP: string; containerPort, hostPort: int
VolumeMount
  name, mountPath, mountPropagation, recursiveReadOnly, subPath, subPathExpr: string; readOnly: bool
Resources
  requests, limits: map quantity; claims: listmap(name) any
SecurityContext
  allowPrivilegeEscalation, privileged, readOnlyRootFilesystem, runAsNonRoot: bool; runAsGroup, runAsUser: int
  capabilities: Capabilities; procMount: string; seccompProfile: SeccompProfile
  appArmorProfile, seLinuxOptions, windowsOptions: any
Capabilities
  add, drop: list string
PodStatus
  phase, reason, message, hostIP, podIP, nominatedNodeName, qosClass, resize: string; startTime: time
  observedGeneration: int; conditions: listmap(type) PodCondition; podIPs: listmap(ip) any; hostIPs: list any
  containerStatuses, initContainerStatuses, ephemeralContainerStatuses, resourceClaimStatuses: list any
  allocatedResources: map quantity; resources, extendedResourceClaimStatus, nodeAllocatableResourceClaimStatuses: any

Deployment
  apiVersion, kind: string; metadata: ObjectMeta; spec: DeploymentSpec; status: DeploymentStatus
DeploymentSpec
  replicas, minReadySeconds, progressDeadlineSeconds, revisionHistoryLimit: int; paused: bool
  selector: atomic LabelSelector; strategy: DeploymentStrategy; template: PodTemplate
DeploymentStrategy
  type: string; rollingUpdate: RollingUpdate
RollingUpdate
  maxSurge, maxUnavailable: intstr
DeploymentStatus
  availableReplicas, collisionCount, observedGeneration, readyReplicas, replicas, terminatingReplicas: int
  unavailableReplicas, updatedReplicas: int; conditions: listmap(type) DeploymentCondition

Job
  apiVersion, kind: string; metadata: ObjectMeta; spec: JobSpec; status: JobStatus
JobSpec
  activeDeadlineSeconds, backoffLimit, backoffLimitPerIndex, completions, maxFailedIndexes, parallelism: int
  ttlSecondsAfterFinished: int; completionMode, managedBy, podReplacementPolicy: string; manualSelector, suspend: bool
  podFailurePolicy, successPolicy: any; selector: atomic LabelSelector; template: PodTemplate
JobStatus
  active, failed, ready, succeeded, terminating: int; completedIndexes, failedIndexes: string
  completionTime, startTime: time; conditions: list JobCondition; uncountedTerminatedPods: any
"""

TYPES: dict[str, Type] = parse_types(_TEXT + _MORE)


def type_of(kind: Kind) -> Type:
    """The object model of a served kind."""
    if kind.schema is not None:
        return custom_type(kind.schema, TYPES["ObjectMeta"])
    return TYPES[kind.kind]


POD_SPEC: Type = TYPES["PodSpec"]
SERVED: dict[str, Type] = {kind.kind: TYPES[kind.kind] for kind in KINDS}
