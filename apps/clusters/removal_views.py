"""Pages that end a cluster in the portal, and bring an archived one back."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpResponseBase
from django.urls import reverse

from apps.clusters import removing
from apps.clusters.views import ClusterAction, cluster_url
from apps.core.errors import Conflict
from apps.core.forms import CommonsForm


class RemoveForm(CommonsForm):
    """The name of what goes."""

    confirm = forms.CharField(max_length=200, label="The cluster's name", help_text="Typed as it stands above.")


class ArchiveForm(CommonsForm):
    """Why a cluster is put away."""

    reason = forms.CharField(max_length=280, help_text="Stands on the cluster's page and in the audit trail.")


class ClusterRemove(ClusterAction):
    """Remove a cluster that was registered by mistake."""

    title = "Remove"
    form_class = RemoveForm
    submit_label = "Remove the cluster"
    danger = True
    intro = (
        "The portal forgets this cluster: its registration, credentials, pools, nodes and checks. Nothing on the"
        " cluster itself is touched. What was removed is kept in the audit trail alone."
    )
    success_message = "The cluster is removed."

    def get_title(self) -> str:
        """Name it: the same words are to be typed."""
        return f"Remove {self.object.name}"

    def check_state(self) -> None:
        """Refuse one with a history, and say what to do instead."""
        if held := removing.history(self.object):
            raise Conflict(
                f"It has a history in the portal ({', '.join(held)}), which is kept. Archive it instead: it is paused,"
                " nothing new is offered there, and all of that stays readable.",
                current={"held": held},
            )

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Remove it."""
        removing.remove(
            self.object.pk, form.cleaned_data["confirm"], actor=self.actor, expected_version=self.expected_version
        )
        return reverse("clusters:cluster-list")


class ClusterArchive(ClusterAction):
    """Put a cluster with a history away."""

    title = "Archive"
    form_class = ArchiveForm
    submit_label = "Archive the cluster"
    danger = True
    intro = (
        "It is paused, and nothing new is offered there: no workspace, no quota. What was applied to it and metered"
        " from it stays readable. Nothing on the cluster itself is touched, and it can be brought back."
    )
    success_message = "The cluster is archived."

    def check_state(self) -> None:
        """Refuse while something lives there."""
        if self.object.archived_at is not None:
            raise Conflict("This cluster is archived already.")
        if refusals := removing.archive_refusals(self.object):
            raise Conflict(" ".join(refusals), current={"refusals": refusals})

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Archive it."""
        removing.archive(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return cluster_url(self.object)


class ClusterRestore(ClusterAction):
    """Bring an archived cluster back."""

    title = "Bring it back"
    submit_label = "Bring the cluster back"
    intro = "It stays paused until somebody resumes it."
    success_message = "The cluster is back. It is still paused."

    def check_state(self) -> None:
        """Refuse one that is not archived."""
        if self.object.archived_at is None:
            raise Conflict("This cluster is not archived.")

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Bring it back."""
        removing.restore(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return cluster_url(self.object)
