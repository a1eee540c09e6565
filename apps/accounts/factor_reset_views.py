"""Pages on which administrators remove the second factors of others, and a second person agrees."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.accounts import factor_resets, second_step, step_up
from apps.accounts.admin_views import OnUser, user_url
from apps.accounts.factor_tables import FactorResetTable
from apps.accounts.forms import ReasonForm
from apps.accounts.models import FactorReset
from apps.accounts.step_up import StepUpMixin
from apps.core.errors import Conflict
from apps.core.views import ActionView, Crumb, ListView


class ResetReasonForm(ReasonForm):
    """Why somebody's factors are removed: more than auditors read it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Say who reads it."""
        super().__init__(*args, **kwargs)
        self.fields["reason"].help_text = "Whoever has to agree reads it, and auditors do: kept beside the audit event."


class UserFactorsReset(StepUpMixin, OnUser):
    """Removes all factors of somebody who lost theirs, or proposes it where a second person has to agree."""

    form_class = ResetReasonForm
    danger = True

    @property
    def why_second(self) -> str:
        """Why a second person has to agree, or ""."""
        return factor_resets.why_second(self.object, self.actor)

    def get_title(self) -> str:
        """Say what the button does."""
        return "Propose to reset second factors" if self.why_second else "Reset second factors"

    def check_state(self) -> None:
        """There must be something to reset, and no proposal waiting."""
        if not second_step.needed(self.object):
            raise Conflict("This person has no second factor.", current={"status": "none"})
        if self.why_second and FactorReset.objects.waiting().filter(user=self.object).exists():
            raise Conflict("A proposal waits for a second person already.", current={"status": "waiting"})

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say what follows, and who has to agree."""
        why = self.why_second
        said = (
            "Make sure by another way that it is this person who asks: afterwards, whoever knows their password gets in"
            " without a second factor. They are signed out everywhere and told by mail."
        )
        if why:
            said += (
                f" {why} So another platform admin or compliance has to agree within {factor_resets.WAITS.days} days."
            )
        label = "Propose" if why else "Reset second factors"
        return super().get_context(**{"intro": said, "submit_label": label, **extra})

    _proposed = False

    def get_success_message(self) -> str:
        """Say whether it is done or waits."""
        if self._proposed:
            return "It is proposed: those who can agree are told, and the person."
        return "The second factors are removed. The person can set new ones up after signing in."

    def perform(self, form: Any) -> str:
        """Reset them, or propose it."""
        self._proposed = bool(self.why_second)
        act = factor_resets.propose_reset if self._proposed else factor_resets.reset_factors
        reason, proved = form.cleaned_data["reason"], step_up.proved_at(self.request)
        act(self.object.pk, reason, actor=self.actor, proved_at=proved)
        return user_url(self.object)


class FactorResetList(ListView):
    """Proposals to remove second factors."""

    title = "Resets of second factors"
    intro = "One person proposes to remove the factors of somebody who lost theirs, another one agrees."
    queryset = FactorReset.objects.select_related("user", "proposed_by", "decided_by")
    permission = factor_resets.CONFIRM
    table_class = FactorResetTable
    empty_title = "Nobody's second factors were reset"


class _OnReset(ActionView):
    """Base of the decisions on a proposal."""

    queryset = FactorReset.objects.select_related("user", "proposed_by")
    permission = factor_resets.CONFIRM
    url_kwarg = "reset_uid"
    summary_template = "accounts/factor_reset_summary.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return [Crumb("Resets of second factors", reverse("accounts:factor-reset-list"))]

    def check_state(self) -> None:
        """Only what waits is decided."""
        if not self.object.is_waiting:
            raise Conflict("This proposal waits no more.", current={"status": self.object.shown_status})

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add whether who proposed it knows the password, too."""
        row: FactorReset = self.object
        at = row.user.password_set_at if row.user.password_set_by_id == row.proposed_by_id else None
        return super().get_context(reset=row, password_set_at=at, **extra)


class FactorResetConfirm(StepUpMixin, _OnReset):
    """Agrees: the factors are removed."""

    title = "Agree to reset second factors"
    intro = "Ask the person by a way of your own (by telephone, in person) whether they want this."
    submit_label = "Remove the second factors"
    danger = True
    success_message = "The second factors are removed. The person is signed out everywhere and told by mail."

    def check_state(self) -> None:
        """Say before the button why this person cannot agree."""
        super().check_state()
        if why := factor_resets.confirm_bar(self.object, self.actor):
            raise Conflict(why, current={"status": "waiting"})

    def perform(self, form: Any) -> str:
        """Remove them."""
        factor_resets.confirm_reset(self.object.pk, actor=self.actor, proved_at=step_up.proved_at(self.request))
        return reverse("accounts:factor-reset-list")


class FactorResetEnd(_OnReset):
    """Refuses somebody's proposal, or withdraws one's own."""

    form_class = ReasonForm
    submit_label = "Leave the factors as they are"
    success_message = "The second factors stay as they are."

    def get_title(self) -> str:
        """Say which it is."""
        own = self.object.proposed_by_id == self.actor.user_id
        return "Withdraw the proposal" if own else "Refuse to reset second factors"

    def perform(self, form: Any) -> str:
        """End it."""
        factor_resets.end_reset(self.object.pk, form.cleaned_data["reason"], actor=self.actor)
        return reverse("accounts:factor-reset-list")
