"""The page on which a workspace's idle policy is asked for."""

from __future__ import annotations

from typing import Any

from django import forms
from django.urls import reverse

from apps.core.forms import CommonsForm, WholeNumberField
from apps.core.views import ActionView, Crumb
from apps.quotas import idle_policy
from apps.quotas.changes import request_change
from apps.quotas.choices import ChangeKind
from apps.quotas.idle_policy import IDLE_MINUTES, KINDS, NOTICE_MINUTES, THRESHOLD_PERCENT, IdlePolicy
from apps.quotas.models import Workspace


class IdlePolicyForm(CommonsForm):
    """A workspace's idle policy. It checks shape; limits are checked with the change itself."""

    enabled = forms.BooleanField(
        label="Stop idle work", required=False, help_text="Off: idle work is left alone, whatever stands below."
    )
    threshold_percent = WholeNumberField(
        label="Idle below", unit="% of GPU use", help_text=f"{THRESHOLD_PERCENT[0]} to {THRESHOLD_PERCENT[1]}."
    )
    idle_minutes = WholeNumberField(
        label="Idle for", unit="minutes", help_text=f"At least {IDLE_MINUTES[0]}: use is metered by the hour."
    )
    notice_minutes = WholeNumberField(
        label="Notice", unit="minutes", help_text=f"How long the leads have to answer, at least {NOTICE_MINUTES[0]}."
    )
    production_serving = forms.BooleanField(
        label="Also stop what serves in production",
        required=False,
        help_text="Deployments and InferenceServices of a production workspace are left alone otherwise.",
    )
    spared_kinds = forms.MultipleChoiceField(
        label="Kinds left alone",
        choices=[(kind, kind) for kind in KINDS],
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    spared_priorities = forms.CharField(
        label="Priority classes left alone", required=False, max_length=2000, help_text="Names, with commas between."
    )
    reason = forms.CharField(
        label="Reason", max_length=4000, widget=forms.Textarea(attrs={"rows": 3}), help_text="Approvers read it."
    )

    def values(self) -> dict[str, Any]:
        """Return what is asked for, as the change takes it."""
        data = self.cleaned_data
        names = [name.strip() for name in data["spared_priorities"].split(",")]
        return {
            **{name: data[name] for name in ("enabled", "threshold_percent", "idle_minutes", "notice_minutes")},
            "production_serving": data["production_serving"],
            "spared_kinds": data["spared_kinds"],
            "spared_priorities": [name for name in names if name],
        }


class WorkspaceIdlePolicy(ActionView):
    """Ask for another idle policy of a workspace."""

    queryset = Workspace.objects.select_related("team", "cluster").filter(archived_at__isnull=True)
    permission = "quotas.change.create"
    url_kwarg = "workspace_uid"
    form_class = IdlePolicyForm
    submit_label = "Request this policy"
    success_message = "Requested. It is in force once it is approved."
    object: Workspace

    def get_title(self) -> str:
        """Whose policy."""
        return f"Idle policy of {self.object}"

    @property
    def intro(self) -> str:  # type: ignore[override]  # says what is in force for this row
        """What is in force now."""
        return f"In force now: {idle_policy.sentence(idle_policy.of(self.object.idle_policy))}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the workspace."""
        url = reverse("quotas:workspace-detail", kwargs={"workspace_uid": self.object.uid})
        return [Crumb("Workspaces", reverse("quotas:workspace-list")), Crumb(str(self.object), url)]

    def get_initial(self) -> dict[str, Any]:
        """Begin with what is in force, or with sane defaults; what the link that led here proposes comes first."""
        policy = idle_policy.of(self.object.idle_policy)
        shown = policy if policy.enabled else IdlePolicy(enabled=True)
        found = {**shown.plain(), "spared_priorities": ", ".join(shown.spared_priorities)}
        for name in ("threshold_percent", "idle_minutes", "notice_minutes"):
            if (text := self.request.GET.get(name, "")).isdecimal() and len(text) < 7:
                found[name] = int(text)
        return {**found, "reason": self.request.GET.get("reason", "")[:1000]}

    def perform(self, form: Any) -> str:
        """Request the change."""
        change = request_change(
            ChangeKind.IDLE_POLICY,
            cluster_id=self.object.cluster_id,
            workspace_id=self.object.pk,
            values=form.values(),
            reason=form.cleaned_data["reason"],
            actor=self.actor,
        )
        return reverse("quotas:change-detail", kwargs={"change_uid": change.uid})
