"""Pages about how long the trail is kept: floors, holds, months of age, proposals to purge; and the reconciliations."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.http import HttpResponseBase
from django.urls import reverse

from apps.audit import keeping, selectors
from apps.audit.choices import NEXT, ProposalStatus
from apps.audit.models import Floor, Hold, Purge, ReconciliationRun, RetentionProposal
from apps.audit.querysets import HoldQuerySet, ReconciliationQuerySet, RetentionProposalQuerySet
from apps.audit.reads import note_read
from apps.core.errors import Conflict, NotAllowed
from apps.core.forms import CommonsForm, UtcDateTimeField
from apps.core.permissions import INSTALLATION, may
from apps.core.views import ActionView, CreateView, Crumb, PageView

SHOWN = 50
VIEW = "audit.hold.view"


class _Installation(PageView):
    """The trail is everybody's: a permission for one unit does not count here."""

    def scope_object(self) -> Any:
        """Ask for the whole installation."""
        return INSTALLATION


class Retention(_Installation):
    """How long events are kept, what keeps them longer, and what may go."""

    title = "Retention of the audit trail"
    permission = VIEW
    template_name = "audit/retention.html"

    def get_base_queryset(self) -> HoldQuerySet:
        """Return all holds."""
        return Hold.objects.all()

    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show the page and note that it was read."""
        response = super().get(request, *args, **kwargs)
        note_read(request, self.actor)
        return response

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add floors, months, proposals with the names of today, and holds."""
        # Behind the sign-in check: a person with a uid.
        user: Any = self.request.user
        in_force = list(Hold.objects.visible_to(user).in_force().order_by("-placed_at")[:SHOWN])
        proposals = list(RetentionProposal.objects.visible_to(user)[:SHOWN])
        people = [str(one) for row in proposals for one in (row.proposed_by, row.decided_by) if one]
        names = selectors.names_of([*people, *(hold.actor_id for hold in in_force if hold.actor_id)])
        approve, propose = (may(user, name, INSTALLATION) for name in (keeping.APPROVE, keeping.PROPOSE))
        return super().get_context(
            floors=Floor.objects.order_by("regime", "-id").distinct("regime"),
            floor_months=keeping.floor_months(),
            months=keeping.months_of_age(),
            purges=list(Purge.objects.order_by("-month")[:SHOWN]),
            proposals=[
                {
                    "row": row,
                    "by": names.get(str(row.proposed_by), str(row.proposed_by)),
                    "decided": names.get(str(row.decided_by), "") if row.decided_by else "",
                    "may_decide": approve and row.status == ProposalStatus.OPEN and row.proposed_by != user.uid,
                    "may_withdraw": propose and ProposalStatus.WITHDRAWN in NEXT[row.status],
                }
                for row in proposals
            ],
            holds=[(hold, names.get(hold.actor_id, hold.actor_id)) for hold in in_force],
            may_propose=propose,
            may_hold=may(user, keeping.HOLD, INSTALLATION),
            **extra,
        )


def _crumbs() -> list[Crumb]:
    return [Crumb("Retention", reverse("audit:retention"))]


class ReasonForm(CommonsForm):
    """Why."""

    reason = forms.CharField(
        label="Reason", max_length=1000, widget=forms.Textarea(attrs={"rows": 3}), help_text="For the audit trail."
    )


class ProposeForm(ReasonForm):
    """Which month, and why."""

    month = forms.ChoiceField(label="Month", help_text="Only months that nothing keeps any more are offered.")
    field_order = ("month", "reason")

    def __init__(self, *args: Any, months: list[keeping.Month], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        free = [one.month for one in months if not one.obstacle]
        self.fields["month"].choices = [(f"{month:%Y-%m-%d}", f"{month:%B %Y}") for month in free]  # type: ignore[attr-defined]  # a ChoiceField


class PurgePropose(_Installation, CreateView):
    """Proposes to remove a month's events."""

    title = "Propose to purge a month"
    intro = (
        "Events and notes of the month would be removed for good once a second person agrees. Their links stay, so the"
        " trail can be verified as before."
    )
    permission = keeping.PROPOSE
    form_class = ProposeForm
    submit_label = "Propose"
    success_message = "Proposed. Compliance has been told that it waits for a decision."

    def get_base_queryset(self) -> RetentionProposalQuerySet:
        """Return all proposals."""
        return RetentionProposal.objects.all()

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the months of age."""
        return {"months": keeping.months_of_age()}

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back."""
        return _crumbs()

    def perform(self, form: Any) -> str:
        """Propose it."""
        month = forms.DateField().to_python(form.cleaned_data["month"])
        assert month is not None  # noqa: S101 (the field's choices are dates)
        keeping.propose_purge(month, form.cleaned_data["reason"], actor=self.actor)
        return reverse("audit:retention")


class _OnProposal(_Installation, ActionView):
    """Base of the decisions on a proposal."""

    form_class: type[CommonsForm] = ReasonForm
    to = ""

    def get_base_queryset(self) -> RetentionProposalQuerySet:
        """Return all proposals."""
        return RetentionProposal.objects.all()

    def scope_object(self) -> Any:
        """Ask for the whole installation."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back."""
        return _crumbs()

    def check_state(self) -> None:
        """A proposal goes its way once."""
        if self.to not in NEXT[self.object.status]:
            raise Conflict(
                f"This proposal stands at: {self.object.get_status_display()}.", current={"status": self.object.status}
            )


class PurgeApprove(_OnProposal):
    """Approves as the second person."""

    title = "Approve the purge"
    intro = (
        "The portal then removes the month's events and notes for good, within the hour. Nobody can bring them back."
    )
    permission = keeping.APPROVE
    submit_label = "Approve: remove for good"
    danger = True
    success_message = "Approved. The month is purged within the hour."
    to = ProposalStatus.APPROVED

    def check_permission(self) -> None:
        """Nobody approves what they proposed."""
        super().check_permission()
        if self.object.proposed_by == self.request.user.uid:  # type: ignore[union-attr]  # behind the sign-in check
            raise NotAllowed("Whoever proposed it does not approve it.", rule="two_persons")

    def perform(self, form: Any) -> str:
        """Approve it."""
        keeping.approve_purge(
            self.object.pk,
            actor=self.actor,
            reason=form.cleaned_data["reason"],
            expected_version=self.expected_version,
        )
        return reverse("audit:retention")


class PurgeReject(_OnProposal):
    """Rejects a proposal."""

    title = "Reject the purge"
    intro = "The month stays. It can be proposed again."
    permission = keeping.APPROVE
    submit_label = "Reject"
    success_message = "Rejected: the month stays."
    to = ProposalStatus.REJECTED

    def perform(self, form: Any) -> str:
        """Reject it."""
        keeping.reject_purge(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return reverse("audit:retention")


class PurgeWithdraw(_OnProposal):
    """Withdraws a proposal."""

    title = "Withdraw the proposal"
    intro = "The month stays. It can be proposed again."
    permission = keeping.PROPOSE
    submit_label = "Withdraw"
    success_message = "Withdrawn: the month stays."
    to = ProposalStatus.WITHDRAWN

    def perform(self, form: Any) -> str:
        """Withdraw it."""
        keeping.withdraw_purge(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return reverse("audit:retention")


class HoldForm(CommonsForm):
    """What a hold keeps. Empty fields match everything."""

    matter = forms.CharField(
        label="Matter", max_length=200, help_text="Such as a case number. Kept for good: leave names of persons out."
    )
    person = forms.EmailField(
        label="Person", required=False, help_text="E-mail address: events of what this person did. Empty: of anybody."
    )
    object_uid = forms.UUIDField(
        label="Object", required=False, help_text="The uid of one row, as the audit trail shows it. Empty: any."
    )
    since = UtcDateTimeField(label="From", required=False, help_text="Events from then on. Empty: from the beginning.")
    until = UtcDateTimeField(label="Until", required=False, help_text="Events before then. Empty: without an end.")
    reason = forms.CharField(
        label="Reason", required=False, max_length=1000, widget=forms.Textarea(attrs={"rows": 3}),
        help_text="For the audit trail.",
    )  # fmt: skip

    def clean_person(self) -> Any:
        """Return the person's uid, or None."""
        address = self.cleaned_data["person"]
        if not address:
            return None
        persons: Any = get_user_model()
        found = persons.objects.filter(email__iexact=address).values_list("uid", flat=True).first()
        if found is None:
            raise forms.ValidationError("Nobody has an account with this address.")
        return found


class HoldPlace(_Installation, CreateView):
    """Places a legal hold."""

    title = "Place a legal hold"
    intro = "While it is in force no month is purged with an event that it matches, and nobody whom it names is erased."
    permission = keeping.HOLD
    form_class = HoldForm
    submit_label = "Place the hold"
    success_message = "The hold is in force."

    def get_base_queryset(self) -> HoldQuerySet:
        """Return all holds."""
        return Hold.objects.all()

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back."""
        return _crumbs()

    def perform(self, form: Any) -> str:
        """Place it."""
        data = form.cleaned_data
        keeping.place_hold(
            data["matter"],
            actor=self.actor,
            person_uid=data["person"],
            object_uid=data["object_uid"],
            since=data["since"],
            until=data["until"],
            reason=data["reason"],
        )
        return reverse("audit:retention")


class HoldRelease(_Installation, ActionView):
    """Releases a legal hold."""

    intro = "What it kept may then be purged by two persons' decision, and the person it names may be erased."
    permission = keeping.HOLD
    form_class = ReasonForm
    submit_label = "Release"
    danger = True
    success_message = "The hold is released."

    def get_base_queryset(self) -> HoldQuerySet:
        """Return all holds."""
        return Hold.objects.all()

    def scope_object(self) -> Any:
        """Ask for the whole installation."""
        return INSTALLATION

    def get_title(self) -> str:
        """Name the matter."""
        return f"Release the hold “{self.object.matter}”"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back."""
        return _crumbs()

    def perform(self, form: Any) -> str:
        """Release it."""
        keeping.release_hold(self.object.uid, form.cleaned_data["reason"], actor=self.actor)
        return reverse("audit:retention")


class Reconciliation(_Installation):
    """Whether rows were changed past the portal."""

    title = "Changes without an event"
    permission = "audit.event.view"
    template_name = "audit/reconciliation.html"

    def get_base_queryset(self) -> ReconciliationQuerySet:
        """Return all runs."""
        return ReconciliationRun.objects.all()

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the trail."""
        return [Crumb("Audit trail", reverse("audit:event-list"))]

    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show the page and note that it was read."""
        response = super().get(request, *args, **kwargs)
        note_read(request, self.actor)
        return response

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the last runs, and those that found something however long ago."""
        runs = self.get_queryset()
        return super().get_context(
            runs=list(runs[:SHOWN]),
            found=list(runs.filter(unexplained__gt=0)[:SHOWN]),
            **extra,
        )
