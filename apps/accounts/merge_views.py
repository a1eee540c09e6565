"""The page that merges an account into another of the same person."""

from __future__ import annotations

from typing import Any

from django import forms
from django.urls import reverse

from apps.accounts import merging
from apps.accounts.models import User
from apps.accounts.step_up import StepUpMixin
from apps.core.errors import Conflict, NotAllowed
from apps.core.forms import CommonsForm
from apps.core.views import ActionView, Crumb


class MergeForm(CommonsForm):
    """Into which account, and why."""

    into = forms.EmailField(
        label="Into the account", max_length=254, help_text="E-mail address of the account that stays."
    )
    reason = forms.CharField(
        label="Reason", max_length=500, widget=forms.Textarea(attrs={"rows": 2}), help_text="For the audit trail."
    )


class UserMerge(StepUpMixin, ActionView):
    """Merges an account into another."""

    title = "Merge into another account"
    intro = (
        "For one person with two accounts. Roles, memberships and sign-in identities move to the account that stays;"
        " this one is switched off for good. What either did keeps its author, and both count as one person wherever a"
        " second one is asked for. This cannot be undone."
    )
    queryset = User.objects.all()
    permission = "accounts.user.manage"
    form_class = MergeForm
    submit_label = "Merge"
    danger = True
    success_message = "The accounts are merged."

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the person."""
        url = reverse("accounts:user-detail", kwargs={"user_uid": self.object.uid})
        return [Crumb("People", reverse("accounts:user-list")), Crumb(self.object.display_name, url)]

    def check_permission(self) -> None:
        """Nobody merges their own account."""
        super().check_permission()
        if self.object.pk == self.request.user.pk:
            raise NotAllowed("Ask another platform admin to do this for you.", rule="not_oneself")

    def check_state(self) -> None:
        """A merged account is not merged again."""
        if self.object.merged_into_id is not None:
            raise Conflict("This account is merged already.", current={"status": "merged"})

    def perform(self, form: Any) -> str:
        """Merge it."""
        data = form.cleaned_data
        into = User.objects.get_queryset().filter(email__iexact=data["into"]).values_list("pk", flat=True).first() or 0
        stays = merging.merge(self.object.pk, into, data["reason"], actor=self.actor)
        return reverse("accounts:user-detail", kwargs={"user_uid": stays.uid})
