"""Bodies as they are sent, by operation: what the description and the reader of it show first."""

from __future__ import annotations

from typing import Any

EXAMPLES: dict[str, Any] = {
    "quota_requests_create": {
        "workspace": "3f6b3f0a-5a57-4f0e-8a3e-0a1d3b1c5e11",
        "flavour": "h100-sxm",
        "guaranteed": 8,
        "borrow_mode": "limited",
        "borrow_limit": 4,
        "valid_until": "2027-03-31T00:00:00Z",
        "reason": "Fine-tuning of the credit model until the end of the first quarter.",
    },
    "quota_requests_feasibility_create": {
        "workspace": "3f6b3f0a-5a57-4f0e-8a3e-0a1d3b1c5e11",
        "flavour": "h100-sxm",
        "guaranteed": 8,
    },
    "approval_requests_decide_create": {
        "verdict": "approve",
        "reason": "Within the budget of the quarter.",
        "subject_digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    },
    "releases_create": {
        "workspace": "3f6b3f0a-5a57-4f0e-8a3e-0a1d3b1c5e11",
        "name": "credit-scoring",
        "model_version": "7b0f6a52-1c7b-4a5d-9e55-0d9d5c8d2f10",
        "flavour": "h100-sxm",
        "spec": {"min_replicas": 1, "max_replicas": 2, "units_per_replica": 1, "cpu": 8, "memory_gib": 64},
        "reason": "The version of November.",
    },
    "endpoints_promote_create": {"reason": "Two days at a quarter of the traffic without an error."},
    "endpoints_roll_back_create": {"reason": "Answers take twice as long."},
    "findings_snooze_create": {"until": "2026-12-20T00:00:00Z", "reason": "The training starts on Monday."},
    "findings_dismiss_create": {"reason": "Kept free for the recovery drill."},
    "budgets_create": {"team": "finance-data", "amount": "12000.00", "currency": "EUR", "month_from": "2027-01"},
    "pools_set_committable_create": {
        "gpus": 64,
        "valid_from": "2027-01-01T00:00:00Z",
        "reason": "Eight nodes more are in service.",
    },
    "webhooks_create": {
        "name": "Change calendar",
        "url": "https://hooks.example.com/gpu",
        "events": ["quotas", "approvals.request.approved"],
    },
    "role_grants_create": {
        "user_uid": "c7d0d6a4-8a53-44b0-a7a2-6b9c1b0e2a77",
        "role": "team_lead",
        "team_uid": "0d5f1b4e-2a67-4c35-8b0e-5b1f9a0c7d22",
        "expires_at": "2027-06-30T00:00:00Z",
        "reason": "Leads the team during the parental leave.",
    },
}
