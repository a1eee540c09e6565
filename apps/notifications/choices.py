"""Vocabulary of mail: where one stands, and whether a person wants it."""

from __future__ import annotations

from datetime import timedelta

from django.db import models

from apps.core.transitions import Transitions


class MailStatus(models.TextChoices):
    """Where one mail to one person stands."""

    QUEUED = "queued", "Queued"
    SENDING = "sending", "Being sent"
    SENT = "sent", "Sent"
    RETRYING = "retrying", "Will be tried again"
    FAILED = "failed", "Could not be sent"
    # A worker died between handing the mail over and writing that down: it may have arrived, so nobody sends it again
    # by itself; the same news stands in the portal anyway.
    UNCERTAIN = "uncertain", "May have arrived"


MAIL_TRANSITIONS = Transitions(
    {
        MailStatus.QUEUED: {"claim": MailStatus.SENDING},
        MailStatus.RETRYING: {"claim": MailStatus.SENDING},
        MailStatus.SENDING: {
            "sent": MailStatus.SENT,
            "again": MailStatus.RETRYING,
            "give_up": MailStatus.FAILED,
            "lose": MailStatus.UNCERTAIN,
            "wait": MailStatus.QUEUED,
        },
        MailStatus.SENT: {},
        MailStatus.FAILED: {"retry": MailStatus.QUEUED},
        MailStatus.UNCERTAIN: {"retry": MailStatus.QUEUED},
    }
)


class WebhookStatus(models.TextChoices):
    """Where one delivery to one receiver stands."""

    QUEUED = "queued", "Queued"
    SENDING = "sending", "Being sent"
    DELIVERED = "delivered", "Delivered"
    RETRYING = "retrying", "Will be tried again"
    FAILED = "failed", "Could not be delivered"


# Unlike mail, a delivery whose worker died is tried again: receivers know it by its id.
WEBHOOK_TRANSITIONS = Transitions(
    {
        WebhookStatus.QUEUED: {"claim": WebhookStatus.SENDING},
        WebhookStatus.RETRYING: {"claim": WebhookStatus.SENDING},
        WebhookStatus.SENDING: {
            "deliver": WebhookStatus.DELIVERED,
            "again": WebhookStatus.RETRYING,
            "give_up": WebhookStatus.FAILED,
        },
        WebhookStatus.DELIVERED: {"replay": WebhookStatus.QUEUED},
        WebhookStatus.FAILED: {"replay": WebhookStatus.QUEUED},
    }
)


class MailWish(models.TextChoices):
    """What a person wants by mail of one group of events; the portal itself shows everything."""

    IMMEDIATELY = "immediately", "Immediately"
    NONE = "none", "No mail"


#: Names of the groups of events (the room that declares them).
GROUPS = {
    "accounts": "Your account",
    "approvals": "Decisions and approvals",
    "quotas": "Quota and workspaces",
    "provisioning": "Changes on clusters",
    "clusters": "Clusters and pools",
    "metering": "Metering",
    "costs": "Costs and budgets",
    "rates": "Prices",
    "reports": "Monthly report",
    "teams": "Teams and roles",
    "catalogue": "Models",
    "deployments": "Releases and endpoints",
    "audit": "Audit trail",
    "notifications": "Webhooks",
}

#: What touches a person's account is always mailed: whoever took it over would switch these off first.
ALWAYS_MAILED = frozenset({"accounts"})

#: A mail is tried this often, then it needs a person.
MAIL_ATTEMPTS = 8
#: A delivery is tried this often (over about six hours), then it needs a person.
WEBHOOK_ATTEMPTS = 12
#: Deliveries that arrived or failed are kept so long; the news themselves stay in the audit trail.
DELIVERIES_KEPT = timedelta(days=90)
#: An outbox message that cannot be read is tried again at these distances, never dropped.
FIRST_RETRY, LAST_RETRY = timedelta(minutes=1), timedelta(hours=1)
#: After this time without a word from the worker that claimed it, a mail counts as uncertain; a delivery is not lost.
CLAIM = timedelta(minutes=2)


def backoff(attempts: int) -> timedelta:
    """Return how long to wait after the n-th failed attempt: 1, 2, 4, … minutes, an hour at most."""
    doublings = min(max(attempts, 1) - 1, 10)
    return min(FIRST_RETRY * (1 << doublings), LAST_RETRY)


def group_label(group: str) -> str:
    """Return the name of a group of events."""
    return GROUPS.get(group, group.replace("_", " ").capitalize())
