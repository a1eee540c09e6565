"""How the API's description calls choices that several rooms call "status", "kind" or the like."""

from __future__ import annotations

from typing import Any

#: Name in the description → where the choices stand, or the choices themselves (drf-spectacular's ENUM_NAME_OVERRIDES).
ENUM_NAMES: dict[str, Any] = {
    "RoleEnum": "apps.teams.choices.Role",
    "ServiceRoleEnum": [("member", "Member"), ("team_lead", "Team lead"), ("auditor", "Auditor")],
    "ApprovalStatusEnum": "apps.approvals.choices.RequestStatus",
    "QuotaRequestStatusEnum": "apps.quotas.choices.RequestStatus",
    "DeclarationStatusEnum": "apps.provisioning.choices.DeclarationStatus",
    "PlanStatusEnum": "apps.provisioning.choices.PlanStatus",
    "DeclarationKindEnum": "apps.provisioning.choices.DeclarationKind",
    "PoolKindEnum": "apps.clusters.choices.PoolKind",
    "RunStatusEnum": "apps.metering.choices.RunStatus",
    "ChargeKindEnum": "apps.costs.choices.ChargeKind",
    "SourceKindEnum": "apps.metering.choices.SourceKind",
    "MailStatusEnum": "apps.notifications.choices.MailStatus",
    "WebhookStatusEnum": "apps.notifications.choices.WebhookStatus",
    "ChangeKindEnum": "apps.quotas.choices.ChangeKind",
    "FindingKindEnum": "apps.insights.choices.FindingKind",
    "DecisionVerdictEnum": "apps.approvals.choices.Verdict",
    "RequestKindEnum": "apps.approvals.choices.RequestKind",
    "ReviewOutcomeEnum": "apps.approvals.choices.ReviewOutcome",
    "LineageKindEnum": "apps.catalogue.choices.SourceKind",
    "EvidenceKindEnum": "apps.catalogue.choices.EvidenceKind",
    "ExceptionKindEnum": "apps.catalogue.choices.ExceptionKind",
    "RegistryKindEnum": "apps.catalogue.choices.RegistryKind",
    "ModelRequestStatusEnum": "apps.catalogue.choices.AskStatus",
    "SchemeEnum": "apps.catalogue.choices.Scheme",
    "ObjectiveKindEnum": "apps.deployments.choices.ObjectiveKind",
    "ReleaseStatusEnum": "apps.deployments.choices.ReleaseStatus",
    "EnforcementModeEnum": "apps.deployments.choices.EnforcementMode",
    "BillingModeEnum": "apps.costs.choices.BillingMode",
    "KueueModeEnum": "apps.clusters.choices.KueueMode",
    "DataClassEnum": "apps.quotas.choices.DataClass",
    "VerdictStatusEnum": "apps.costs.choices.Verdict",
    "DisputeStatusEnum": "apps.costs.choices.DisputeStatus",
    "FileStatusEnum": "apps.costs.choices.FileStatus",
    "FileKindEnum": "apps.costs.choices.FileKind",
    "WaiverKindEnum": "apps.costs.choices.WaiverKind",
    "CheckKindEnum": "apps.costs.choices.CheckKind",
    "StopStatusEnum": "apps.provisioning.choices.StopStatus",
    "LineKindEnum": "apps.metering.choices.LineKind",
    "EvidenceVerdictEnum": [("pass", "Pass"), ("fail", "Fail"), ("info", "No verdict")],
}
