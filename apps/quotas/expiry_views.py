"""Pages about the end of quota: policy, draining, archiving, restoring. Each says what it means first."""

from __future__ import annotations

from typing import Any

from django import forms
from django.urls import reverse

from apps.core.errors import Conflict
from apps.core.forms import CommonsForm, WholeNumberField
from apps.core.views import ActionView, Crumb
from apps.quotas import expiry, ladder
from apps.quotas.assess import MIN_REASON
from apps.quotas.changes import request_change
from apps.quotas.choices import ChangeKind, Rung
from apps.quotas.models import Workspace


def _reason() -> forms.CharField:
    return forms.CharField(
        label="Reason",
        min_length=MIN_REASON,
        max_length=4000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Approvers read it.",
    )


class ReasonForm(CommonsForm):
    """Only why."""

    reason = _reason()


class DrainForm(CommonsForm):
    """Why, for the record."""

    reason = forms.CharField(label="Reason", required=False, max_length=1000, help_text="Stays with the audit record.")


class ExpiryPolicyForm(CommonsForm):
    """How far down, and how fast. It checks shape; limits are checked with the change itself."""

    last_rung = forms.ChoiceField(
        label="When the quota has ended",
        choices=[
            (Rung.STOPPED_ADMITTING, "Admit nothing new; what runs goes on"),
            (Rung.DRAINED, "Then stop what holds GPUs"),
            (Rung.ARCHIVED, "Then stop what holds GPUs, and archive the workspace later"),
        ],
        widget=forms.RadioSelect,
        help_text="Nothing is deleted on any of these ways. Quota that is granted again leads back by itself.",
    )
    drain_after_hours = WholeNumberField(
        label="Stop what holds GPUs after",
        unit="hours",
        min_value=ladder.DRAIN_HOURS[0],
        max_value=ladder.DRAIN_HOURS[1],
        help_text="Hours after the end. Every stop can be undone.",
    )
    archive_after_days = WholeNumberField(
        label="Archive after",
        unit="days",
        min_value=ladder.ARCHIVE_DAYS[0],
        max_value=ladder.ARCHIVE_DAYS[1],
        help_text="Days after the end without any quota. Roles are then for looking only; volumes and data stay.",
    )
    reason = _reason()


class WorkspaceAction(ActionView):
    """Something done with one workspace."""

    queryset = Workspace.objects.select_related("team", "cluster")
    permission = "quotas.change.create"
    url_kwarg = "workspace_uid"
    object: Workspace

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the workspace."""
        return [Crumb("Workspaces", reverse("quotas:workspace-list")), Crumb(str(self.object), self.back())]

    def back(self) -> str:
        """The workspace's page."""
        return reverse("quotas:workspace-detail", kwargs={"workspace_uid": self.object.uid})


class WorkspaceChange(WorkspaceAction):
    """A change of one workspace, by request."""

    kind: ChangeKind

    def values(self, form: Any) -> dict[str, Any]:
        """Return what is asked for, as the change takes it."""
        return {}

    def perform(self, form: Any) -> str:
        """Request the change."""
        change = request_change(
            self.kind,
            cluster_id=self.object.cluster_id,
            workspace_id=self.object.pk,
            values=self.values(form),
            reason=form.cleaned_data["reason"],
            actor=self.actor,
        )
        return reverse("quotas:change-detail", kwargs={"change_uid": change.uid})


class WorkspaceExpiryPolicy(WorkspaceChange):
    """Ask for another policy for the end of a workspace's quota."""

    kind = ChangeKind.EXPIRY_POLICY
    form_class = ExpiryPolicyForm
    submit_label = "Request this policy"
    success_message = "Requested. It is in force once it is approved."

    def get_title(self) -> str:
        """Whose policy."""
        return f"At the end of quota in {self.object}"

    @property
    def intro(self) -> str:  # type: ignore[override]  # says what is in force for this row
        """What is in force now."""
        return f"In force now: {ladder.sentence(expiry.approved_policy(self.object))}"

    def check_state(self) -> None:
        """An archived workspace has no end before it."""
        if self.object.archived_at is not None:
            raise Conflict("The workspace is archived: restore it first.", current={"version": self.object.version})

    def get_initial(self) -> dict[str, Any]:
        """Begin with what is in force."""
        policy = expiry.approved_policy(self.object)
        return {
            "last_rung": policy.last_rung,
            "drain_after_hours": policy.drain_after_hours,
            "archive_after_days": policy.archive_after_days,
        }

    def values(self, form: Any) -> dict[str, Any]:
        """Return the policy."""
        return {name: form.cleaned_data[name] for name in ("last_rung", "drain_after_hours", "archive_after_days")}


class WorkspaceArchive(WorkspaceChange):
    """Ask to archive a workspace."""

    kind = ChangeKind.ARCHIVE
    form_class = ReasonForm
    submit_label = "Request archiving"
    danger = True
    success_message = "Requested. Nothing changes before it is approved."
    summary_template = "quotas/expiry_archive.html"

    def get_title(self) -> str:
        """What becomes of which workspace."""
        return f"Archive {self.object}"

    def check_state(self) -> None:
        """Only what is in use can be archived."""
        if self.object.archived_at is not None:
            raise Conflict("The workspace is archived already.", current={"version": self.object.version})


class WorkspaceRestore(WorkspaceChange):
    """Ask to bring an archived workspace back."""

    kind = ChangeKind.RESTORE
    form_class = ReasonForm
    submit_label = "Request restoring"
    success_message = "Requested. Nothing changes before it is approved."
    intro = (
        "Roles, labels and limits become what they were; the workspace holds no quota until one is granted. "
        "Requesting quota for it restores it, too."
    )

    def get_title(self) -> str:
        """What becomes of which workspace."""
        return f"Restore {self.object}"

    def check_state(self) -> None:
        """Only an archived workspace can be restored."""
        if self.object.archived_at is None:
            raise Conflict("The workspace is not archived.", current={"version": self.object.version})


class WorkspaceDrain(WorkspaceAction):
    """Stop what holds GPUs in a workspace that uses more than it may hold."""

    permission = expiry.DRAIN
    form_class = DrainForm
    submit_label = "Stop what holds GPUs"
    danger = True
    success_message = "Ordered. Every stop is listed with the workspace; platform admins can start them again."
    summary_template = "quotas/expiry_drain.html"

    def get_title(self) -> str:
        """What becomes of which workspace."""
        return f"Drain {self.object}"

    def check_state(self) -> None:
        """Only what uses more than it may hold is drained."""
        if self.object.drain_asked_at is not None:
            raise Conflict("It is being drained already.", current={"version": self.object.version})
        if not expiry.may_drain(expiry.standing_of(self.object).facts):
            raise Conflict(
                "The workspace uses no more than it may hold: there is nothing to drain.",
                current={"version": self.object.version},
            )

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add how much is in use."""
        return super().get_context(standing=expiry.standing_of(self.object), **extra)

    def perform(self, form: Any) -> str:
        """Order it."""
        expiry.ask_drain(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return self.back()
