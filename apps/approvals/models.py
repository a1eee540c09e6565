"""Policies, requests, stages, decisions, grants. The room knows no domain: a subject is a type, a uid, a digest."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.postgres.fields import DateTimeRangeField
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.db import models
from django.db.models import F, Q
from django.db.models.fields.json import KeyTextTransform, KeyTransform

from apps.approvals.choices import RequestKind, RequestStatus, ReviewOutcome, Verdict
from apps.approvals.querysets import (
    ApprovalRequestQuerySet,
    CommentQuerySet,
    DecisionQuerySet,
    DelegationQuerySet,
    EmergencyReviewQuerySet,
    GrantQuerySet,
    PolicyQuerySet,
    PolicyVersionQuerySet,
    StageQuerySet,
    StandardLossQuerySet,
)
from apps.core.models import Row, VersionedRow
from apps.teams.models import Team, Unit

#: SHA-256, lower-case hexadecimal.
DIGEST_LENGTH = 64


class Policy(VersionedRow):
    """The rules for one kind of subject; what counts is always one of its published versions."""

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=200)
    subject_type = models.CharField(max_length=60, help_text='E.g. "quotas.request".')

    objects = PolicyQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class PolicyVersion(Row):
    """A published, immutable version. `body` is what approvals.engine reads; `digest` covers its RFC 8785 bytes."""

    policy = models.ForeignKey(Policy, models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    body: models.JSONField = models.JSONField()
    digest = models.CharField(max_length=DIGEST_LENGTH)
    published_at = models.DateTimeField()
    published_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    objects = PolicyVersionQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["policy", "number"], name="policy_version_once")]

    def __str__(self) -> str:
        return f"{self.policy} v{self.number}"


class ApprovalRequest(VersionedRow):
    """One pass of a policy version over one subject digest. An edit makes a new pass that supersedes this one."""

    subject_type = models.CharField(max_length=60)
    subject_uid = models.UUIDField()
    subject_digest = models.CharField(max_length=DIGEST_LENGTH)
    leaves: models.JSONField = models.JSONField(default=list, help_text="One digest leaf per cluster and field path.")
    title = models.CharField(max_length=300)
    policy_version = models.ForeignKey(PolicyVersion, models.PROTECT, related_name="requests")
    status = models.CharField(max_length=30, choices=RequestStatus.choices, default=RequestStatus.IN_REVIEW)
    requester = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="approval_requests")
    team = models.ForeignKey(
        Team,
        models.PROTECT,
        null=True,
        related_name="approval_requests",
        help_text="The receiving team; null: the platform itself.",
    )
    unit = models.ForeignKey(Unit, models.PROTECT, related_name="approval_requests", help_text="The paying unit.")
    facts: models.JSONField = models.JSONField(
        default=dict, help_text="Named facts read at submission (`engine.load_facts`)."
    )
    requester_side: models.JSONField = models.JSONField(
        default=list, help_text="User ids on the requester's side at submission; those of now count as well."
    )
    queue = models.CharField(max_length=100, blank=True, help_text="The line it stands in where capacity is short.")
    current_stage = models.PositiveSmallIntegerField(default=0)
    automatic = models.BooleanField(default=False, help_text="Approved by policy, without a person.")
    automatic_rule = models.CharField(max_length=120, blank=True, help_text="The policy's rule that approved it.")
    submitted_at = models.DateTimeField()
    due_at = models.DateTimeField(null=True)
    concluded_at = models.DateTimeField(null=True)
    conclusion = models.CharField(max_length=500, blank=True)
    supersedes = models.OneToOneField("self", models.PROTECT, null=True, related_name="superseded_by")
    kind = models.CharField(max_length=20, choices=RequestKind.choices, default=RequestKind.NORMAL)
    reason = models.TextField(blank=True, help_text="Why it is an emergency; empty for every other kind.")

    objects = ApprovalRequestQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["subject_type", "subject_uid"],
                name="approval_one_open",
                condition=Q(status__in=["in_review", "waiting_for_capacity"]),
            )
        ]
        indexes: ClassVar = [
            models.Index(fields=["status", "submitted_at"], name="approval_status"),
            models.Index(fields=["subject_type", "subject_uid"], name="approval_subject"),
            models.Index(
                fields=["queue", "submitted_at"], name="approval_line", condition=Q(status="waiting_for_capacity")
            ),
            models.Index(fields=["due_at"], name="approval_due", condition=Q(status="in_review")),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def scope_team_id(self) -> int | None:
        """Where this row belongs, for the permission gate."""
        return self.team_id


class Stage(Row):
    """A step of one request, copied from the policy version when it opened."""

    request = models.ForeignKey(ApprovalRequest, models.PROTECT, related_name="stages")
    ordinal = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=120)
    role = models.CharField(max_length=30)
    unit = models.ForeignKey(
        Unit, models.PROTECT, null=True, related_name="+", help_text="Where the role must be held."
    )
    rule = models.CharField(max_length=1000, help_text="Which rule of the policy asks for it, in words.")
    quorum = models.PositiveSmallIntegerField(default=1)
    due_hours = models.PositiveIntegerField(null=True, help_text="Time to decide, from the opening of the stage.")
    due_at = models.DateTimeField(null=True)
    opened_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    group = models.PositiveSmallIntegerField(
        default=0, help_text="Stages of one group are open at the same time; groups follow each other. 0: by itself."
    )
    wait_hours = models.PositiveIntegerField(null=True, help_text="No approval counts before so long after opening.")
    escalate_hours = models.PositiveIntegerField(null=True, help_text="After so long the escalation role may decide.")
    escalation_role = models.CharField(max_length=30, blank=True)
    escalation_unit = models.ForeignKey(Unit, models.PROTECT, null=True, related_name="+")
    escalated_at = models.DateTimeField(null=True)
    fallback_role = models.CharField(
        max_length=30,
        blank=True,
        help_text="May decide, too, where too few of the stage's own role are free of conflicts to reach the quorum.",
    )
    fallback_unit = models.ForeignKey(Unit, models.PROTECT, null=True, related_name="+")

    objects = StageQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["request", "ordinal"], name="stage_once")]
        ordering: ClassVar = ["ordinal"]


class Decision(Row):
    """One person's verdict on one digest under one policy version; append-only."""

    request = models.ForeignKey(ApprovalRequest, models.PROTECT, related_name="decisions")
    stage = models.ForeignKey(Stage, models.PROTECT, related_name="decisions")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="decisions")
    on_behalf_of = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    verdict = models.CharField(max_length=20, choices=Verdict.choices)
    reason = models.TextField()
    subject_digest = models.CharField(max_length=DIGEST_LENGTH)
    policy_digest = models.CharField(max_length=DIGEST_LENGTH)
    facts: models.JSONField = models.JSONField(default=dict, help_text="The facts as they stood at the decision.")
    held = models.CharField(max_length=300, help_text="The role and where it was held when deciding.")
    decided_at = models.DateTimeField()
    checklist_digest = models.CharField(
        max_length=DIGEST_LENGTH, blank=True, help_text="What the subject's checklist answered then (ports.Checked)."
    )
    auth: models.JSONField = models.JSONField(
        default=dict, help_text="How the person proved who they are: session uid, when the password was asked again."
    )

    objects = DecisionQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["decided_at", "id"]


def _copied(model: Any) -> Any:
    """Return a field that holds what the request's own foreign key holds: checked and indexed there."""
    return models.ForeignKey(
        model, models.DO_NOTHING, null=True, editable=False, related_name="+", db_constraint=False, db_index=False
    )


class Grant(Row):
    """The result of an approval. Whether it is usable at a time is derived (`engine.usable`), never stored."""

    request = models.OneToOneField(ApprovalRequest, models.PROTECT, related_name="grant")
    subject_digest = models.CharField(max_length=DIGEST_LENGTH)
    scope: models.JSONField = models.JSONField(default=dict)
    # What lists and the database's wall ask of every grant, as columns: conditions on JSON keys, or on another walled
    # table's rows, are asked row by row behind the wall. Of the request, copied (and kept right) by the database, too.
    subject_type = models.CharField(max_length=60, editable=False, blank=True)
    team = _copied(Team)
    unit = _copied(Unit)
    requester = _copied(settings.AUTH_USER_MODEL)
    manifest = models.GeneratedField(
        expression=KeyTextTransform("manifest", "scope"), db_persist=True, null=True,
        output_field=models.CharField(max_length=DIGEST_LENGTH, null=True),
        help_text="The digest of the bytes that it approves; null: it approves something else.",
    )  # fmt: skip
    not_before = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    revoked_reason = models.CharField(max_length=500, blank=True)
    kind = models.CharField(max_length=20, choices=RequestKind.choices, default=RequestKind.NORMAL)
    noticed_days = models.PositiveSmallIntegerField(
        null=True, help_text="The last notice of its end that was sent: so many days before."
    )
    end_handled_at = models.DateTimeField(null=True, help_text="When the room was told that it ended.")

    objects = GrantQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["expires_at"], name="grant_ends", condition=Q(end_handled_at__isnull=True)),
            models.Index(fields=["subject_digest"], name="grant_digest"),
            # Which bytes, and what a workspace may load: asked for every page of versions and at every rendering.
            models.Index(fields=["manifest"], name="grant_of_manifest"),
            GinIndex(OpClass(KeyTransform("workspaces", "scope"), name="jsonb_path_ops"), name="grant_workspaces"),
        ]


class Delegation(VersionedRow):
    """That `delegate` may speak for `giver` in one role over a time. It cannot be passed on, nor launder a conflict."""

    giver = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="delegations_given")
    delegate = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="delegations_held")
    role = models.CharField(max_length=30)
    unit = models.ForeignKey(
        Unit, models.PROTECT, null=True, related_name="+", help_text="Only for requests at or below it; null: all."
    )
    valid = DateTimeRangeField()
    reason = models.CharField(max_length=500)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    objects = DelegationQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=~Q(giver=F("delegate")), name="delegation_two_people"),
            models.CheckConstraint(condition=Q(valid__isempty=False), name="delegation_some_time"),
        ]
        indexes: ClassVar = [models.Index(fields=["delegate", "role"], name="delegation_held")]


class Comment(VersionedRow):
    """A remark on one request, anchored to a control or to a part of the change, and to the bytes it was made on."""

    request = models.ForeignKey(ApprovalRequest, models.PROTECT, related_name="comments")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="approval_comments")
    anchor = models.CharField(
        max_length=200, blank=True, help_text='"control:CODE", "leaf:PATH", "evidence:UID"; "": all.'
    )
    body = models.TextField()
    subject_digest = models.CharField(max_length=DIGEST_LENGTH)
    resolved_at = models.DateTimeField(null=True)
    resolved_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    objects = CommentQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["created_at", "id"]


class EmergencyReview(VersionedRow):
    """The review that an emergency grant opens. While it is open the team's next normal request is refused."""

    request = models.OneToOneField(ApprovalRequest, models.PROTECT, related_name="emergency_review")
    due_at = models.DateTimeField()
    outcome = models.CharField(max_length=20, choices=ReviewOutcome.choices, default=ReviewOutcome.OPEN, blank=True)
    findings = models.TextField(blank=True)
    closed_at = models.DateTimeField(null=True)
    closed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    overdue_told_at = models.DateTimeField(null=True, help_text="When those who should have closed it were reminded.")

    objects = EmergencyReviewQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(closed_at__isnull=True, outcome="")
                | (Q(closed_at__isnull=False, closed_by__isnull=False) & ~Q(outcome="") & ~Q(findings="")),
                name="review_closed_whole",
            )
        ]


class StandardLoss(VersionedRow):
    """That a pre-approved standard change lost its status for a team after a failure, until somebody restores it."""

    policy = models.ForeignKey(Policy, models.PROTECT, related_name="standard_losses")
    rule = models.CharField(max_length=120, help_text="The automatic rule's name.")
    team = models.ForeignKey(Team, models.PROTECT, null=True, related_name="+")
    request = models.ForeignKey(
        ApprovalRequest, models.PROTECT, related_name="+", help_text="The change that it let through and that failed."
    )
    why = models.CharField(max_length=500)
    lost_at = models.DateTimeField()
    restored_at = models.DateTimeField(null=True)
    restored_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    restored_reason = models.CharField(max_length=500, blank=True)

    objects = StandardLossQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["policy", "rule", "team"], name="standard_loss_once", condition=Q(restored_at__isnull=True),
                nulls_distinct=False,
            )
        ]  # fmt: skip
