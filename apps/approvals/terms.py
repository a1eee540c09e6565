"""The named numbers and words that a policy sets for subjects: of a request under way, and before one is made."""

from __future__ import annotations

from collections.abc import Mapping

from apps.approvals import deciders, policies
from apps.approvals.engine import load_facts, terms_under
from apps.approvals.models import ApprovalRequest
from apps.approvals.policy_rules import FactValue


def of_request(request: ApprovalRequest) -> dict[str, int | str]:
    """Return what the pinned version sets on the facts of submission: a later version changes no open request."""
    return terms_under(deciders.rules_of(request.policy_version), load_facts(request.facts))


def of_policy(policy_slug: str, facts: Mapping[str, FactValue]) -> dict[str, int | str]:
    """Return what the policy's newest version sets, given facts. Raises Invalid where none is published."""
    return terms_under(deciders.rules_of(policies.newest(policy_slug)), facts)
