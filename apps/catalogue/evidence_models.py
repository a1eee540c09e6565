"""Evidence bound to bytes, the controls of regulations as dated data, answers and exceptions."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from apps.catalogue.choices import Answer, ControlKind, EvidenceKind, ExceptionKind
from apps.catalogue.models import DIGEST_LENGTH, Blob, Model, ModelVersion
from apps.catalogue.querysets import (
    CitationConfirmationQuerySet,
    ClassificationRecordQuerySet,
    ControlAnswerQuerySet,
    ControlQuerySet,
    EvaluationResultQuerySet,
    EvidenceProducerQuerySet,
    EvidenceQuerySet,
    RegimeQuerySet,
    VersionExceptionQuerySet,
)
from apps.catalogue.signing_models import SigningKey
from apps.core.models import Row, VersionedRow
from apps.teams.models import Team


class EvidenceProducer(VersionedRow):
    """A CI system that posts signed evidence. It signs in with its own token and proves each body with its key."""

    name = models.CharField(max_length=100, unique=True)
    models_allowed: models.ManyToManyField[Model, Any] = models.ManyToManyField(
        Model, blank=True, related_name="producers", help_text="None: every model of the teams below."
    )
    teams: models.ManyToManyField[Team, Any] = models.ManyToManyField(Team, related_name="evidence_producers")
    kinds: ArrayField[list[str], list[str]] = ArrayField(models.CharField(max_length=40), default=list)
    public_key = models.CharField(max_length=100, help_text="Ed25519, base64 of the 32 raw bytes.")
    token_digest = models.BinaryField(max_length=32, unique=True, help_text="SHA-256 of the token; shown once.")
    token_prefix = models.CharField(max_length=12)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    keepers: ArrayField[list[int], list[int]] = ArrayField(
        models.BigIntegerField(), default=list, blank=True, help_text="Ids of everybody who gave it a token or a key."
    )

    objects = EvidenceProducerQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class Evidence(VersionedRow):
    """One piece of evidence about exactly the bytes of `subject_digest`. Withdrawn, never deleted."""

    model = models.ForeignKey(Model, models.PROTECT, related_name="evidence")
    model_version = models.ForeignKey(ModelVersion, models.PROTECT, null=True, related_name="evidence")
    subject_digest = models.CharField(max_length=DIGEST_LENGTH, help_text="The manifest it was made for.")
    kind = models.CharField(max_length=40, choices=EvidenceKind.choices)
    title = models.CharField(max_length=300)
    blob = models.ForeignKey(Blob, models.PROTECT, null=True, related_name="evidence")
    file_name = models.CharField(max_length=200, blank=True)
    payload: models.JSONField = models.JSONField(default=dict, blank=True, help_text="Structured results.")
    verdict = models.CharField(
        max_length=10, choices=[("pass", "Pass"), ("fail", "Fail"), ("info", "No verdict")], default="info",
        help_text="What the evidence itself says, computed from its results where it has some.",
    )  # fmt: skip
    controls: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=80), default=list, blank=True, help_text="Control codes it is offered for."
    )
    produced_at = models.DateTimeField()
    valid_until = models.DateTimeField(null=True)
    produced_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="evidence")
    producer = models.ForeignKey(EvidenceProducer, models.PROTECT, null=True, related_name="evidence")
    signature = models.CharField(max_length=120, blank=True)
    delivery_id = models.CharField(max_length=100, blank=True, help_text="The producer's own id: delivered once.")
    digest = models.CharField(max_length=DIGEST_LENGTH, help_text="Over everything above.")
    signing_key = models.ForeignKey(
        SigningKey, models.PROTECT, null=True, related_name="evidence", help_text="What a signature was verified with."
    )
    verified_at = models.DateTimeField(null=True, help_text="When: the key was in force then.")
    withdrawn_at = models.DateTimeField(null=True)
    withdrawn_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    withdrawn_reason = models.CharField(max_length=500, blank=True)

    objects = EvidenceQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(produced_by__isnull=False, producer__isnull=True)
                | Q(produced_by__isnull=True, producer__isnull=False),
                name="evidence_one_producer",
            ),
            models.CheckConstraint(
                condition=Q(signing_key__isnull=True, verified_at__isnull=True)
                | Q(signing_key__isnull=False, verified_at__isnull=False, kind=EvidenceKind.SIGNATURE),
                name="evidence_signature_verified",
            ),
            models.UniqueConstraint(
                fields=["producer", "delivery_id"], name="evidence_delivery_once", condition=~Q(delivery_id="")
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["subject_digest"], name="evidence_subject"),
            models.Index(fields=["model", "kind"], name="evidence_model_kind"),
        ]

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.model.team_id


class EvaluationResult(Row):
    """One measured metric of an evaluation, for all data or a slice, against its threshold."""

    evidence = models.ForeignKey(Evidence, models.CASCADE, related_name="results")
    metric = models.CharField(max_length=100)
    slice = models.CharField(max_length=200, blank=True, help_text='Empty: all data; else e.g. "age ≥ 65".')
    dataset = models.CharField(max_length=200, blank=True)
    dataset_revision = models.CharField(max_length=200, blank=True)
    value = models.DecimalField(max_digits=20, decimal_places=9)
    low = models.DecimalField(max_digits=20, decimal_places=9, null=True, help_text="Lower confidence bound.")
    high = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    samples = models.BigIntegerField(null=True)
    comparison = models.CharField(max_length=2, choices=[("ge", "at least"), ("le", "at most")], blank=True)
    threshold = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    passed = models.BooleanField(null=True, help_text="Null: no threshold was set.")

    objects = EvaluationResultQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["metric", "slice", "id"]


class Regime(VersionedRow):
    """A regulation or framework. Its controls are dated rows with citations; nothing of it is code."""

    code = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=200)
    source = models.CharField(max_length=500, help_text="The legal act or standard, with where to read it.")
    note = models.TextField(blank=True, help_text="What is unconfirmed, or a choice of this company.")
    when: models.JSONField = models.JSONField(
        default=list, help_text='Applies where all hold: [["data_class", "in", ["health"]], …] (catalogue.regimes).'
    )
    card_fields: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=40),
        default=list,
        blank=True,
        help_text="Fields of a model card that the regime asks for (catalogue.cards).",
    )
    as_of = models.DateField(null=True, help_text="The state of the law that the data describe.")

    objects = RegimeQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class Control(Row):
    """One check of a regime over a time: superseded by a later row, never edited once in use."""

    regime = models.ForeignKey(Regime, models.PROTECT, related_name="controls")
    code = models.CharField(max_length=80, help_text='E.g. "hipaa-164.312-b".')
    citation = models.CharField(max_length=200)
    title = models.CharField(max_length=300)
    text = models.TextField(help_text="What has to be shown, in our own words.")
    kind = models.CharField(max_length=20, choices=ControlKind.choices)
    when: models.JSONField = models.JSONField(default=list)
    evidence_kinds: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=40), default=list, blank=True
    )
    computed = models.CharField(max_length=60, blank=True, help_text="Name of the check that the portal computes.")
    max_age_days = models.PositiveIntegerField(null=True, help_text="Evidence older than that has expired.")
    applies_from = models.DateField(null=True)
    applies_until = models.DateField(null=True)
    dated_by = models.CharField(
        max_length=400, blank=True, help_text="The provision that sets from when it applies, with the official journal."
    )
    confirmed = models.BooleanField(default=True, help_text="False: from a secondary source, to be confirmed.")
    unconfirmed = models.CharField(
        max_length=500, blank=True, help_text="What exactly is not confirmed, as of which day; empty where all is."
    )
    revision = models.PositiveIntegerField(default=1)
    superseded_at = models.DateTimeField(null=True)
    published_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    objects = ControlQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["code", "revision"], name="control_once"),
            models.UniqueConstraint(
                fields=["code"], name="control_one_in_force", condition=Q(superseded_at__isnull=True)
            ),
        ]
        ordering: ClassVar = ["code"]


class CitationConfirmation(Row):
    """That a person read the official text of one revision of a control: which text, on which day. Never changed."""

    control = models.OneToOneField(Control, models.PROTECT, related_name="confirmation")
    source = models.CharField(max_length=500, help_text="What was read: the act, its number in the official journal.")
    read_on = models.DateField(help_text="The day on which that text was read.")
    confirmed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    confirmed_at = models.DateTimeField()

    objects = CitationConfirmationQuerySet.as_manager()


class ControlAnswer(Row):
    """The documented answer to an addressable control for one version; a newer row replaces the one before."""

    model_version = models.ForeignKey(ModelVersion, models.PROTECT, related_name="answers")
    control_code = models.CharField(max_length=80)
    answer = models.CharField(max_length=20, choices=Answer.choices)
    rationale = models.TextField()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    subject_digest = models.CharField(max_length=DIGEST_LENGTH)

    objects = ControlAnswerQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["model_version", "control_code", "-id"], name="answer_newest")]


class VersionException(VersionedRow):
    """A named, two-person, expiring exception: a lower classification, or a control that is not met."""

    model_version = models.ForeignKey(ModelVersion, models.PROTECT, related_name="exceptions")
    kind = models.CharField(max_length=20, choices=ExceptionKind.choices)
    control_code = models.CharField(max_length=80, blank=True)
    data_classes: ArrayField[list[str], list[str]] = ArrayField(
        models.CharField(max_length=30), default=list, blank=True, help_text="The classes the version has instead."
    )
    reason = models.TextField()
    proposed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)
    approved = models.BooleanField(null=True)
    decision_reason = models.TextField(blank=True)
    expires_at = models.DateTimeField()
    subject_digest = models.CharField(max_length=DIGEST_LENGTH, blank=True, help_text="Empty: the version is a draft.")

    objects = VersionExceptionQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(decided_by__isnull=True) | ~Q(decided_by=F("proposed_by")), name="exception_two_people"
            ),
            models.CheckConstraint(
                condition=Q(approved__isnull=True, decided_by__isnull=True)
                | Q(approved__isnull=False, decided_by__isnull=False, decided_at__isnull=False),
                name="exception_decided_whole",
            ),
        ]

    @property
    def scope_team_id(self) -> int:
        """Where this row belongs, for the permission gate."""
        return self.model_version.model.team_id


class ClassificationRecord(Row):
    """How a version came to its classification: one row per data class and where it came from, written at sealing."""

    model_version = models.ForeignKey(ModelVersion, models.CASCADE, related_name="classification_records")
    data_class = models.CharField(max_length=30)
    origin = models.CharField(max_length=20, help_text="model | version | source | inherited | lowered")
    detail = models.CharField(max_length=300, blank=True)

    objects = ClassificationRecordQuerySet.as_manager()
