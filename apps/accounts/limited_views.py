"""What a limited token must carry for API views that ask who somebody is rather than for a permission.

One table to review, by the view's full name: action → permission, "*" for every other action, "" for no permission.
What stands neither here nor under a permission of its own is closed to limited tokens: a view that moves or is new
fails closed. A test holds the names to views that exist.
"""

from __future__ import annotations

from collections.abc import Mapping

LIMITED_VIEWS: Mapping[str, Mapping[str, str]] = {
    # Who the token belongs to, and how the API works, is for every token.
    "apps.accounts.api.Me": {"*": ""},
    "portal.api.Schema": {"*": ""},
    "portal.api.Docs": {"*": ""},
    "portal.api.root": {"*": ""},
    "apps.accounts.api.UserViewSet": {"list": "accounts.user.view", "retrieve": "accounts.user.view"},
    "apps.teams.api.GrantViewSet": {"list": "teams.grant.view", "retrieve": "teams.grant.view"},
    "apps.approvals.api.ApprovalRequestViewSet": {
        "list": "approvals.request.view",
        "retrieve": "approvals.request.view",
        "decide": "approvals.request.decide",
        "withdraw": "approvals.request.withdraw",
    },
    "apps.approvals.api.PolicyViewSet": {"list": "approvals.policy.view", "retrieve": "approvals.policy.view"},
    "apps.approvals.policy_api.GrantViewSet": {
        "list": "approvals.request.view",
        "retrieve": "approvals.request.view",
    },
    "apps.approvals.depth_api.CommentViewSet": {
        "list": "approvals.request.view",
        "retrieve": "approvals.request.view",
    },
    "apps.approvals.depth_api.LossViewSet": {
        "list": "approvals.request.view",
        "retrieve": "approvals.request.view",
        "restore": "approvals.standard.restore",
    },
    "apps.approvals.depth_api.ReviewViewSet": {
        "list": "approvals.request.view",
        "retrieve": "approvals.request.view",
        "close": "approvals.review.close",
    },
    "apps.catalogue.evidence_api.ControlViewSet": {"list": "catalogue.model.view", "retrieve": "catalogue.model.view"},
    "apps.clusters.api.FlavourViewSet": {"list": "quotas.quota.view", "retrieve": "quotas.quota.view"},
    "apps.deployments.core_api.RuleViewSet": {
        "list": "deployments.endpoint.view",
        "retrieve": "deployments.endpoint.view",
    },
    "apps.deployments.proof_api.TimeMachineView": {"*": "deployments.endpoint.view"},
    "apps.catalogue.rules_api.RegimeViewSet": {"list": "catalogue.model.view", "retrieve": "catalogue.model.view"},
    "apps.costs.books_api.BillViewSet": {
        "list": "costs.statement.view",
        "retrieve": "costs.statement.view",
        "withdraw": "costs.bill.manage",
    },
    "apps.costs.books_api.CrossCheckViewSet": {
        "list": "costs.statement.view",
        "retrieve": "costs.statement.view",
        "explain": "costs.bill.manage",
    },
    "apps.metering.admin_api.ResourceRuleViewSet": {
        "list": "metering.fact.view",
        "retrieve": "metering.fact.view",
        "create": "metering.rule.manage",
        "end": "metering.rule.manage",
    },
    "apps.quotas.admin_api.PoolFigures": {"*": "quotas.quota.view"},
    "apps.teams.why_api.Why": {"*": ""},
    "apps.reports.api.MonthlyReport": {"*": "reports.monthly.view"},
    "apps.rates.api.RateCardViewSet": {"list": "rates.card.view", "retrieve": "rates.card.view"},
}
#: Closed to limited tokens on purpose: a person's own keys, mail, preferences and who stands in for them.
CLOSED_VIEWS: Mapping[str, str] = {
    "apps.accounts.api.TokenViewSet": "a token that makes tokens could make wider ones",
    "apps.accounts.session_api.SessionViewSet": "a person's own sessions",
    "apps.approvals.policy_api.GrantViewSet": "revoking what was approved takes a person",
    "apps.notifications.preferences_api.MailWishes": "a person's own wishes",
    "apps.teams.import_api.PeopleImport": "moves people and roles: by a person, or by provisioning",
    "apps.approvals.depth_api.DelegationViewSet": "hands a person's voice to somebody else",
    "apps.approvals.depth_api.CommentViewSet": "words on a request are a person's",
    "apps.catalogue.registry_api.RegistryEvents": "signed by the registry; knows no tokens of people",
    "apps.notifications.api.NotificationViewSet": "a person's own news",
    "apps.notifications.api.SentMailViewSet": "a person's own mail",
}
