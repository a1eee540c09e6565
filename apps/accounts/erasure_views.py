"""The page on which a person is erased for good."""

from __future__ import annotations

from typing import Any

from django import forms
from django.urls import reverse

from apps.accounts import erasing
from apps.accounts.models import User
from apps.accounts.step_up import StepUpMixin
from apps.core.errors import Conflict
from apps.core.forms import CommonsForm
from apps.core.permissions import INSTALLATION
from apps.core.views import ActionView, Crumb


class ErasureForm(CommonsForm):
    """The person's address, typed, and why."""

    confirmation = forms.CharField(
        label="E-mail address of the person",
        max_length=254,
        help_text="Typed once more, to be sure that it is the right person.",
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
    )
    reason = forms.CharField(
        label="Reason",
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="The request or the ground, such as its number. It is kept: leave the person's name out.",
    )


class UserErase(StepUpMixin, ActionView):
    """Erases a person: asked for with the address typed, and a fresh proof of who asks."""

    queryset = User.objects.all()
    permission = erasing.PERMISSION
    form_class = ErasureForm
    summary_template = "accounts/erasure_summary.html"
    title = "Erase this person for good"
    intro = "Nobody can bring back what goes. Where the person comes back, a new account is made."
    submit_label = "Erase for good"
    danger = True
    success_message = "The person is erased. The audit trail can be verified as before."

    def scope_object(self) -> Any:
        """Accounts are everybody's."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the person."""
        url = reverse("accounts:user-detail", kwargs={"user_uid": self.object.uid})
        return [Crumb("People", reverse("accounts:user-list")), Crumb(self.object.display_name, url)]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what goes and what stays."""
        return super().get_context(goes=erasing.GOES, stays=erasing.STAYS, **extra)

    def check_state(self) -> None:
        """Say what stands in the way before anything is typed."""
        if why := erasing.obstacle(self.object, self.request.user.pk):
            raise Conflict(why, current={"status": "kept"})

    def perform(self, form: Any) -> str:
        """Erase, and show what is left."""
        data = form.cleaned_data
        done = erasing.erase_user(self.object.pk, data["confirmation"], data["reason"], actor=self.actor)
        return reverse("accounts:user-detail", kwargs={"user_uid": done.user.uid})
