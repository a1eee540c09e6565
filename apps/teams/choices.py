"""Roles and the code table role → permissions. A permission is `room.noun.verb`; no role table in the database."""

from __future__ import annotations

from django.db import models


class Role(models.TextChoices):
    """What a person can be, within a scope (installation, unit and below, or team)."""

    MEMBER = "member", "Member"
    TEAM_LEAD = "team_lead", "Team lead"
    UNIT_OWNER = "unit_owner", "Unit owner (VP)"
    COMPLIANCE = "compliance", "Compliance"
    PLATFORM_ADMIN = "platform_admin", "Platform admin"
    FINANCE = "finance", "Finance"
    AUDITOR = "auditor", "Auditor"


class ReviewStatus(models.TextChoices):
    """Where an access review stands."""

    OPEN = "open", "Open"
    CLOSED = "closed", "Closed"


class ReviewAnswer(models.TextChoices):
    """What a reviewer said of one role or membership."""

    OPEN = "open", "Not answered"
    KEEP = "keep", "Still needed"
    REMOVE = "remove", "No longer needed"
    LAPSED = "lapsed", "Lapsed without an answer"
    GONE = "gone", "Ended before it was answered"
    HELD = "held", "Kept without an answer: nobody else could administer"


class ChangeStatus(models.TextChoices):
    """Where a dated change of a team or unit stands."""

    PLANNED = "planned", "Planned"
    DONE = "done", "Done"
    CANCELLED = "cancelled", "Cancelled"
    REFUSED = "refused", "Not possible"


_TEAM_READ = {
    "teams.team.view",
    "quotas.workspace.view",
    "quotas.quota.view",
    "quotas.request.view",
    "provisioning.declaration.view",
    "insights.finding.view",
    "metering.fact.view",
    "costs.charge.view",
    "costs.budget.view",
    "costs.statement.view",
    "catalogue.model.view",
    "deployments.endpoint.view",
}
_READ_EVERYTHING = _TEAM_READ | {
    "teams.unit.view",
    "teams.grant.view",
    "approvals.request.view",
    "approvals.policy.view",
    "clusters.cluster.view",
    "clusters.pool.view",
    "rates.card.view",
    "reports.monthly.view",
    "provisioning.run.view",
    "metering.run.view",
    "costs.whatif.run",
    "audit.event.view",
    "audit.event.export",
    "notifications.outbox.view",
    "catalogue.store.view",
    "catalogue.producer.view",
    "catalogue.signing_key.view",
    "catalogue.registry.view",
    "deployments.placement.view",
    "accounts.provider.view",
    "teams.mapping.view",
    "teams.service.view",
    "teams.review.view",
    "audit.hold.view",
}

PERMISSIONS: dict[str, frozenset[str]] = {
    Role.MEMBER: frozenset(_TEAM_READ | {"quotas.workspace.use", "catalogue.model.edit", "catalogue.evidence.add"}),
    Role.TEAM_LEAD: frozenset(
        _TEAM_READ
        | {
            "catalogue.model.edit",
            "catalogue.model.manage",
            "catalogue.evidence.add",
            "catalogue.version.submit",
            "catalogue.exception.propose",
            "deployments.release.create",
            "deployments.release.operate",
            "deployments.objective.set",
            "approvals.emergency.request",
            "quotas.workspace.use",
            "quotas.request.create",
            "quotas.request.withdraw",
            "quotas.change.create",
            "insights.finding.decide",
            "approvals.request.view",
            "approvals.request.withdraw",
            "teams.member.manage",
            "teams.service.view",
            "teams.service.manage",
            "costs.statement.dispute",
            "metering.namespace.claim",
        }
    ),
    Role.UNIT_OWNER: frozenset(
        _TEAM_READ
        | {
            "teams.unit.view",
            "approvals.request.view",
            "approvals.request.decide",
            "approvals.request.withdraw",
            "quotas.request.create",
            "quotas.change.create",
            "insights.finding.decide",
            "quotas.borrow.unlimited",
            "quotas.request.withdraw",
            "reports.monthly.view",
            "costs.budget.set",
            "costs.statement.dispute",
            "costs.whatif.run",
            "metering.namespace.claim",
            "teams.service.view",
            "teams.review.view",
            "teams.review.answer",
        }
    ),
    Role.COMPLIANCE: frozenset(
        _TEAM_READ
        | {
            "teams.review.view",
            "teams.review.answer",
            "teams.review.start",
            "audit.hold.view",
            "accounts.factor.confirm",
            "audit.hold.manage",
            "audit.retention.approve",
            "teams.unit.view",
            "approvals.request.view",
            "approvals.request.decide",
            "approvals.policy.view",
            "approvals.review.close",
            "approvals.standard.restore",
            "catalogue.evidence.add",
            "catalogue.exception.propose",
            "catalogue.exception.decide",
            "catalogue.control.publish",
            "catalogue.registry.view",
            "catalogue.producer.view",
            "catalogue.signing_key.view",
            "catalogue.signing_key.manage",
            "catalogue.store.view",
            "deployments.rule.publish",
            "deployments.enforcement.set",
            "deployments.placement.view",
        }
    ),
    Role.PLATFORM_ADMIN: frozenset(
        _READ_EVERYTHING - {"audit.event.export", "audit.event.view"}
        | {
            "approvals.request.decide",
            "approvals.policy.publish",
            "approvals.emergency.request",
            "approvals.standard.restore",
            "catalogue.store.manage",
            "catalogue.producer.manage",
            "catalogue.registry.manage",
            "deployments.release.operate",
            "deployments.enforcement.set",
            "clusters.cluster.manage",
            "clusters.pool.manage",
            "quotas.workspace.manage",
            "quotas.change.create",
            "insights.finding.decide",
            "provisioning.run.retry",
            "provisioning.drift.decide",
            "metering.run.retry",
            "metering.import.create",
            "metering.source.waive",
            "metering.rule.manage",
            "metering.namespace.claim",
            "notifications.mail.retry",
            "notifications.webhook.manage",
            "teams.unit.manage",
            "teams.grant.manage",
            "teams.member.manage",
            "accounts.user.manage",
            "accounts.user.view",
            "accounts.factor.confirm",
            "accounts.user.impersonate",
            "accounts.user.erase",
            "accounts.session.manage",
            "accounts.provider.manage",
            "teams.mapping.manage",
            "teams.service.manage",
            "teams.review.start",
            "teams.review.answer",
            "audit.retention.propose",
        }
    ),
    Role.FINANCE: frozenset(
        _TEAM_READ
        | {
            "teams.unit.view",
            "approvals.request.view",
            "approvals.request.decide",
            "rates.card.view",
            "rates.card.import",
            "rates.card.manage",
            "rates.card.approve",
            "reports.monthly.view",
            "costs.budget.set",
            "costs.period.manage",
            "costs.period.approve",
            "costs.credit.create",
            "costs.credit.approve",
            "costs.dispute.decide",
            "costs.policy.manage",
            "costs.policy.approve",
            "costs.bill.manage",
            "costs.whatif.run",
            "metering.run.view",
            "metering.source.waive",
            "metering.namespace.claim",
            "clusters.pool.view",
        }
    ),
    Role.AUDITOR: frozenset(_READ_EVERYTHING | {"accounts.user.view"}),
}

#: Roles that only make sense for the whole installation or a unit; the grant form enforces it.
SCOPES: dict[str, tuple[str, ...]] = {
    Role.MEMBER: ("team",),
    Role.TEAM_LEAD: ("team",),
    Role.UNIT_OWNER: ("unit",),
    Role.COMPLIANCE: ("installation", "unit"),
    Role.PLATFORM_ADMIN: ("installation",),
    Role.FINANCE: ("installation", "unit"),
    Role.AUDITOR: ("installation", "unit"),
}

ALL_PERMISSIONS: frozenset[str] = frozenset().union(*PERMISSIONS.values())


def roles_with(permission: str) -> frozenset[str]:
    """Return the roles that hold `permission`. Raises KeyError for a permission no role holds (a spelling mistake)."""
    if permission not in ALL_PERMISSIONS:
        raise KeyError(permission)
    return frozenset(role for role, held in PERMISSIONS.items() if permission in held)
