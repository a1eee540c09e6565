"""Field tables of the kinds that are stored and checked, but drive nothing by themselves, and of the add-ons' kinds.

Same notation as `schema.py`. The Kueue part follows the CustomResourceDefinitions of Kueue 0.19 (`v1beta2`): what is
atomic there (`resourceGroups`, `namespaceSelector`, labels and taints of flavours) is atomic here.
"""

TEXT = """
ConfigMap
  apiVersion, kind: string; metadata: ObjectMeta; data, binaryData: map string; immutable: bool
Role
  apiVersion, kind: string; metadata: ObjectMeta; rules: list PolicyRule
ClusterRoleBinding
  apiVersion, kind: string; metadata: ObjectMeta; roleRef: atomic RoleRef; subjects: list Subject
PersistentVolumeClaim
  apiVersion, kind: string; metadata: ObjectMeta; spec: PersistentVolumeClaimSpec; status: any
PersistentVolumeClaimSpec
  accessModes: list string; storageClassName, volumeMode, volumeName, volumeAttributesClassName: string
  resources: VolumeResources; selector: atomic LabelSelector; dataSource, dataSourceRef: any
VolumeResources
  requests, limits: map quantity
Service
  apiVersion, kind: string; metadata: ObjectMeta; spec: ServiceSpec; status: any
ServiceSpec
  allocateLoadBalancerNodePorts, publishNotReadyAddresses: bool; clusterIP, externalName, externalTrafficPolicy: string
  clusterIPs, externalIPs, ipFamilies, loadBalancerSourceRanges: list string; healthCheckNodePort: int
  internalTrafficPolicy, ipFamilyPolicy, loadBalancerClass, loadBalancerIP, sessionAffinity, type: string
  trafficDistribution: string; ports: listmap(port|protocol) ServicePort; selector: atomic map string
  sessionAffinityConfig: any
ServicePort
  appProtocol, name, protocol: string; nodePort, port: int; targetPort: intstr

ValidatingAdmissionPolicy
  apiVersion, kind: string; metadata: ObjectMeta; spec: ValidatingAdmissionPolicySpec; status: any
ValidatingAdmissionPolicySpec
  auditAnnotations: list AuditAnnotation; failurePolicy: string; matchConditions: listmap(name) MatchCondition
  matchConstraints: atomic MatchResources; paramKind: atomic ParamKind
  validations: list Validation; variables: listmap(name) atomic Variable
ParamKind
  apiVersion, kind: string
ParamRef
  name, namespace, parameterNotFoundAction: string; selector: LabelSelector
AuditAnnotation
  key, valueExpression: string
MatchCondition
  name, expression: string
Variable
  name, expression: string
Validation
  expression, message, messageExpression, reason: string
MatchResources
  matchPolicy: string; namespaceSelector, objectSelector: LabelSelector
  resourceRules, excludeResourceRules: list NamedRule
NamedRule
  apiGroups, apiVersions, operations, resources, resourceNames: list string; scope: string
ValidatingAdmissionPolicyBinding
  apiVersion, kind: string; metadata: ObjectMeta; spec: ValidatingAdmissionPolicyBindingSpec
ValidatingAdmissionPolicyBindingSpec
  matchResources: atomic MatchResources; paramRef: atomic ParamRef; policyName: string; validationActions: set string

CustomResourceDefinition
  apiVersion, kind: string; metadata: ObjectMeta; spec: CustomResourceDefinitionSpec; status: any
CustomResourceDefinitionSpec
  group, scope: string; names: CrdNames; versions: list CrdVersion; conversion: any; preserveUnknownFields: flag
CrdNames
  plural, singular, kind, listKind: string; shortNames, categories: list string
CrdVersion
  name, deprecationWarning: string; served, storage, deprecated: bool; schema, subresources: any
  additionalPrinterColumns, selectableFields: list any

MetaCondition
  type, status, reason, message: string; lastTransitionTime: time; observedGeneration: int
ResourceFlavor
  apiVersion, kind: string; metadata: ObjectMeta; spec: ResourceFlavorSpec
ResourceFlavorSpec
  nodeLabels: atomic map string; nodeTaints: list Taint; tolerations: list Toleration; topologyName: string
Topology
  apiVersion, kind: string; metadata: ObjectMeta; spec: TopologySpec
TopologySpec
  levels: list TopologyLevel
TopologyLevel
  nodeLabel: string
WorkloadPriorityClass
  apiVersion, kind: string; metadata: ObjectMeta; value: int; description: string
AdmissionCheck
  apiVersion, kind: string; metadata: ObjectMeta; spec: AdmissionCheckSpec; status: AdmissionCheckStatus
AdmissionCheckSpec
  controllerName: string; parameters: AdmissionCheckParameters
AdmissionCheckParameters
  apiGroup, kind, name: string
AdmissionCheckStatus
  conditions: listmap(type) MetaCondition
FairSharing
  weight: crdquantity
FairSharingStatus
  weightedShare: int
LocalFairSharingStatus
  weightedShare: int; admissionFairSharingStatus: any
FlavorQuotas
  name: string; resources: list ResourceQuotaLimits
ResourceQuotaLimits
  name: string; nominalQuota, borrowingLimit, lendingLimit: crdquantity
ResourceGroup
  coveredResources: list string; flavors: list FlavorQuotas
FlavorUse
  name: string; resources: listmap(name) ResourceUse
ResourceUse
  name: string; total, borrowed: crdquantity
LocalFlavorUse
  name: string; resources: listmap(name) LocalResourceUse
LocalResourceUse
  name: string; total: crdquantity
Cohort
  apiVersion, kind: string; metadata: ObjectMeta; spec: CohortSpec; status: CohortStatus
CohortSpec
  parentName: string; resourceGroups: list ResourceGroup; fairSharing: FairSharing
CohortStatus
  fairSharing: FairSharingStatus
ClusterQueue
  apiVersion, kind: string; metadata: ObjectMeta; spec: ClusterQueueSpec; status: ClusterQueueStatus
ClusterQueueSpec
  admissionChecksStrategy: AdmissionChecksStrategy; admissionScope: AdmissionScope; cohortName, stopPolicy: string
  concurrentAdmissionPolicy: any; fairSharing: FairSharing; flavorFungibility: FlavorFungibility
  namespaceSelector: atomic LabelSelector; preemption: ClusterQueuePreemption; queueingStrategy: string
  resourceGroups: list ResourceGroup
AdmissionChecksStrategy
  admissionChecks: listmap(name) AdmissionCheckRule
AdmissionCheckRule
  name: string; onFlavors: set string
AdmissionScope
  admissionMode: string
FlavorFungibility
  whenCanBorrow, whenCanPreempt, preference: string
ClusterQueuePreemption
  reclaimWithinCohort, withinClusterQueue: string; borrowWithinCohort: BorrowWithinCohort
BorrowWithinCohort
  policy: string; maxPriorityThreshold: int
ClusterQueueStatus
  conditions: listmap(type) MetaCondition; flavorsReservation, flavorsUsage: listmap(name) FlavorUse
  pendingWorkloads, reservingWorkloads, admittedWorkloads: int; fairSharing: FairSharingStatus
LocalQueue
  apiVersion, kind: string; metadata: ObjectMeta; spec: LocalQueueSpec; status: LocalQueueStatus
LocalQueueSpec
  clusterQueue, stopPolicy: string; fairSharing: FairSharing
LocalQueueStatus
  conditions: listmap(type) MetaCondition; flavorsReservation, flavorsUsage: listmap(name) LocalFlavorUse
  pendingWorkloads, reservingWorkloads, admittedWorkloads: int; fairSharing: LocalFairSharingStatus
Workload
  apiVersion, kind: string; metadata: ObjectMeta; spec: WorkloadSpec; status: WorkloadStatus
WorkloadSpec
  active: bool; maximumExecutionTimeSeconds, priority: int; podSets: listmap(name) PodSet; queueName: string
  preemptionGates: listmap(name) LocalObjectReference; priorityClassRef: PriorityClassRef
PriorityClassRef
  group, kind, name: string
PodSet
  name: string; count, minCount: int; template: any; topologyRequest: any
WorkloadStatus
  accumulatedPastExecutionTimeSeconds: int; admission: Admission; admissionChecks: listmap(name) any
  clusterName: string; conditions: listmap(type) MetaCondition; nominatedClusterNames: list string
  preemptionGates: listmap(name) any; reclaimablePods: listmap(name) any; requeueState: any
  resourceRequests: listmap(name) any; schedulingStats: any; unhealthyNodes: any
Admission
  clusterQueue: string; podSetAssignments: listmap(name) PodSetAssignment
PodSetAssignment
  name: string; count: int; flavors: map string; resourceUsage: map crdquantity; topologyAssignment: any
  delayedTopologyRequest: string

InferenceService
  apiVersion, kind: string; metadata: ObjectMeta; spec: InferenceServiceSpec; status: any
InferenceServiceSpec
  predictor, transformer, explainer: map any; canary: list any
TrainedModel
  apiVersion, kind: string; metadata: ObjectMeta; spec: TrainedModelSpec; status: any
TrainedModelSpec
  inferenceService: string; model: TrainedModelFile
TrainedModelFile
  storageUri, framework, memory: string
LLMInferenceService
  apiVersion, kind: string; metadata: ObjectMeta; spec: map any; status: any
ServingRuntime
  apiVersion, kind: string; metadata: ObjectMeta; spec: map any; status: any
ClusterServingRuntime
  apiVersion, kind: string; metadata: ObjectMeta; spec: map any; status: any
ClusterStorageContainer
  apiVersion, kind: string; metadata: ObjectMeta; disabled: bool; spec: ClusterStorageContainerSpec
ClusterStorageContainerSpec
  container: any; supportedUriFormats: list UriFormat; workloadType: string
UriFormat
  prefix, regex: string
HTTPRoute
  apiVersion, kind: string; metadata: ObjectMeta; spec: HTTPRouteSpec; status: any
HTTPRouteSpec
  hostnames: list string; parentRefs: list ParentReference; rules: list HTTPRouteRule
  useDefaultGateways: string
ParentReference
  group, kind, namespace, name, sectionName: string; port: int
HTTPRouteRule
  name: string; matches, filters: list any; backendRefs: list HTTPBackendRef; timeouts, retry, sessionPersistence: any
HTTPBackendRef
  group, kind, namespace, name: string; port, weight: int; filters: list any
Gateway
  apiVersion, kind: string; metadata: ObjectMeta; spec: map any; status: any
ScaledObject
  apiVersion, kind: string; metadata: ObjectMeta; spec: ScaledObjectSpec; status: any
ScaledObjectSpec
  scaleTargetRef: any; pollingInterval, initialCooldownPeriod, cooldownPeriod, idleReplicaCount: int
  minReplicaCount, maxReplicaCount: int; fallback, advanced: any; triggers: list any
"""
