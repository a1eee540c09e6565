"""Reviews after emergencies, and standard changes that were lost."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django import forms
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.approvals import deciders, emergencies, ports, selectors, standing
from apps.approvals.choices import ReviewOutcome
from apps.approvals.models import Decision, EmergencyReview, Grant, StandardLoss
from apps.core import clock
from apps.core.errors import Conflict, NotAllowed
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.forms import CommonsForm
from apps.core.permissions import may
from apps.core.tables import AgeColumn, CommonsTable, TimeColumn, UidLinkColumn
from apps.core.templatetags.commons import status_badge
from apps.core.views import ActionView, Crumb, DetailView, ListView

_WIDE = {"cell": {"class": "d-none d-lg-table-cell"}}


def _teams(request: Any) -> Any:
    return selectors.visible_teams(request.user)


def review_state(row: EmergencyReview) -> tuple[str, str, str]:
    """Return (status, words, tone) of a review now."""
    if row.closed_at is not None:
        justified = row.outcome == ReviewOutcome.JUSTIFIED
        return str(row.outcome), str(row.get_outcome_display()), "positive" if justified else "critical"
    if row.due_at <= clock.now():
        return "overdue", "Overdue", "critical"
    return "open", "To be reviewed", "caution"


class ReviewTable(CommonsTable):
    """Reviews after emergencies."""

    title = UidLinkColumn(
        "approvals:review-detail", kwarg="review_uid", accessor="request__title", verbose_name="Emergency"
    )
    state = tables.Column(empty_values=(), orderable=False, verbose_name="Review")
    team = tables.Column(accessor="request__team__name", verbose_name="Team", default="The platform")
    kind = tables.Column(accessor="request__subject_type", verbose_name="Kind", attrs=_WIDE)
    since = AgeColumn(accessor="created_at", verbose_name="In force since")
    due_at = TimeColumn(verbose_name="Review until")
    closed_by = tables.Column(accessor="closed_by__display_name", verbose_name="Reviewed by", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = EmergencyReview
        fields = ("title", "state", "team", "kind", "since", "due_at", "closed_by")
        order_by = "due_at"
        caption = "Reviews after emergencies"

    def render_kind(self, value: str) -> str:
        """Write the kind in words."""
        return ports.label_of(value)

    def render_state(self, record: EmergencyReview) -> SafeString:
        """Say where the review stands."""
        return status_badge(*review_state(record))

    def value_state(self, record: EmergencyReview) -> str:
        """Export the word."""
        return review_state(record)[1]


class ReviewFilter(CommonsFilterSet):
    """Text, team, and whether the review is open."""

    search = SearchFilter(columns=["request__title"])
    state = django_filters.ChoiceFilter(
        label="Review", method="by_state", empty_label="All",
        choices=[("open", "To be reviewed"), ("overdue", "Overdue"), ("closed", "Closed")],
    )  # fmt: skip
    team = django_filters.ModelChoiceFilter(
        label="Team", field_name="request__team", queryset=_teams, to_field_name="slug", empty_label="All"
    )

    class Meta:
        model = EmergencyReview
        fields: tuple[str, ...] = ()

    def by_state(self, queryset: Any, name: str, value: str) -> Any:
        """Keep the open ones, those of them that are late, or the closed ones."""
        if value == "closed":
            return queryset.filter(closed_at__isnull=False)
        return queryset.open().filter(due_at__lte=clock.now()) if value == "overdue" else queryset.open()


def _reviews() -> Any:
    return EmergencyReview.objects.select_related(
        "request__team", "request__unit", "request__requester", "request__policy_version__policy", "closed_by"
    )


class ReviewList(ListView):
    """Reviews after emergencies, open ones to be closed."""

    title = "Emergency reviews"
    intro = (
        "Every emergency is looked at afterwards. Until then the team's next normal request, whatever it is about, is"
        " refused."
    )
    queryset = staticmethod(_reviews)
    table_class = ReviewTable
    filterset_class = ReviewFilter
    empty_title = "No emergency so far"
    empty_text = "When somebody breaks the glass, its review appears here."
    empty_icon = "shield-lock"


class _ReviewPage(DetailView):
    """A page about one review."""

    queryset = staticmethod(_reviews)
    url_kwarg = "review_uid"

    def scope_object(self) -> Any:
        """A review belongs where its request does."""
        return self.object.request

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the list."""
        return [Crumb("Emergency reviews", reverse("approvals:review-list"))]


class ReviewDetail(_ReviewPage):
    """One emergency: why, who approved, how long it held, and what the review found."""

    template_name = "approvals/review_detail.html"

    def get_title(self) -> str:
        """Name the emergency."""
        return f"Review: {self.object.request}"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add who took part, and whether this person may close it."""
        request, user = self.object.request, self.request.user
        rule = ""
        if self.object.closed_at is None and may(user, emergencies.CLOSE_PERMISSION, request):
            rule = emergencies.why_not_close(user.pk, request)  # type: ignore[arg-type]  # a person behind sign-in
        decisions = Decision.objects.filter(request=request).select_related("actor", "on_behalf_of", "stage")
        status, words, tone = review_state(self.object)
        return super().get_context(
            state={"status": status, "label": words, "tone": tone},
            approval=request,
            kind=ports.label_of(request.subject_type),
            subject_url=ports.get_subject(request.subject_type).url(request.subject_uid),
            decisions=list(decisions.order_by("decided_at", "pk")),
            grant=Grant.objects.visible_to(user).filter(request=request).first(),
            may_close=not rule and self.object.closed_at is None and may(user, emergencies.CLOSE_PERMISSION, request),
            why_not=rule,
            reviewers=deciders.role_label(emergencies.terms_of(request).review_role),
            **extra,
        )


class ReviewForm(CommonsForm):
    """What the review found."""

    outcome = forms.ChoiceField(
        label="Was it justified?",
        choices=[(str(one), one.label) for one in (ReviewOutcome.JUSTIFIED, ReviewOutcome.NOT_JUSTIFIED)],
        widget=forms.RadioSelect,
        error_messages={"required": "Choose whether the emergency was justified."},
    )
    findings = forms.CharField(
        label="Findings",
        max_length=emergencies.FINDINGS_LIMIT,
        widget=forms.Textarea(attrs={"rows": 6}),
        help_text="What happened, whether the usual way would have done, and what follows from it. Kept for good.",
        error_messages={"required": "Write what happened and what follows from it."},
    )


class ReviewClose(_ReviewPage, ActionView):
    """Closes a review with findings."""

    form_class = ReviewForm
    template_name = "core/action.html"
    permission = emergencies.CLOSE_PERMISSION
    submit_label = "Close the review"
    intro = "Normal requests of this team are accepted again. Findings cannot be changed afterwards."
    success_message = "The review is closed; everybody who took part is told."

    def get_title(self) -> str:
        """Name the emergency."""
        return f"Close review: {self.object.request}"

    def here(self) -> str:
        """Return the path of the review's page."""
        return reverse("approvals:review-detail", kwargs={"review_uid": self.object.uid})

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the review."""
        return [*super().breadcrumbs(), Crumb(str(self.object.request), self.here())]

    def check_permission(self) -> None:
        """Ask for the permission, and for the rule that may keep this person from it."""
        super().check_permission()
        user: Any = self.request.user
        if rule := emergencies.why_not_close(user.pk, self.object.request):
            raise NotAllowed(f"You cannot close this review: {rule}", rule=rule)

    def check_state(self) -> None:
        """A closed review stays closed."""
        if self.object.closed_at is not None:
            raise Conflict("This review is closed already.", current={"version": self.object.version})

    def perform(self, form: Any) -> str:
        """Close it."""
        data = form.cleaned_data
        emergencies.close_review(
            self.object.uid, data["outcome"], data["findings"], actor=self.actor,
            expected_version=self.expected_version,
        )  # fmt: skip
        return self.here()


class LossTable(CommonsTable):
    """Standard changes that teams have lost."""

    rule = tables.Column(verbose_name="Standard change")
    policy = tables.Column(accessor="policy__name", verbose_name="Policy")
    team = tables.Column(accessor="team__name", verbose_name="Team", default="The platform")
    state = tables.Column(empty_values=(), orderable=False, verbose_name="Status")
    lost_at = AgeColumn(verbose_name="Lost")
    why = tables.Column(verbose_name="What failed")
    change = UidLinkColumn(
        "approvals:request-detail", kwarg="request_uid", target="request", accessor="request__title",
        verbose_name="Change", attrs=_WIDE,
    )  # fmt: skip
    restored = tables.Column(accessor="restored_reason", verbose_name="Restored because", attrs=_WIDE)
    give_back = tables.Column(empty_values=(), orderable=False, verbose_name="Actions", exclude_from_export=True)

    class Meta(CommonsTable.Meta):
        model = StandardLoss
        fields = ("rule", "policy", "team", "state", "lost_at", "why", "change", "restored", "give_back")
        order_by = "-lost_at"
        caption = "Lost standard changes"

    def render_state(self, record: StandardLoss) -> SafeString:
        """Say whether it is lost still."""
        if record.restored_at is None:
            return status_badge("lost", "Lost", "caution")
        return status_badge("restored", "Restored", "positive")

    def value_state(self, record: StandardLoss) -> str:
        """Export the word."""
        return "Lost" if record.restored_at is None else "Restored"

    def render_give_back(self, record: StandardLoss) -> SafeString | str:
        """Offer to restore it, to who holds the permission; the page then says what else may stand in the way."""
        user = self.request.user
        if record.restored_at is not None or not may(user, standing.RESTORE_PERMISSION, record.request):
            return ""
        url = reverse("approvals:standard-restore", kwargs={"loss_uid": record.uid})
        return format_html('<a href="{}">Restore<span class="visually-hidden"> {}</span></a>', url, record.rule)


class LossFilter(CommonsFilterSet):
    """Text, team, and whether it is lost still."""

    search = SearchFilter(columns=["rule", "why", "policy__name"])
    state = django_filters.ChoiceFilter(
        label="Status", method="by_state", empty_label="All", choices=[("lost", "Lost"), ("restored", "Restored")]
    )
    team = django_filters.ModelChoiceFilter(label="Team", queryset=_teams, to_field_name="slug", empty_label="All")

    class Meta:
        model = StandardLoss
        fields: tuple[str, ...] = ()

    def by_state(self, queryset: Any, name: str, value: str) -> Any:
        """Keep what is lost, or what was restored."""
        return queryset.in_force() if value == "lost" else queryset.filter(restored_at__isnull=False)


class LossList(ListView):
    """Standard changes that teams have lost after a failure."""

    title = "Standard changes"
    intro = (
        "A pre-approved standard change that failed is decided by people again, for that team, until compliance or a "
        "platform admin restores it with a reason."
    )
    queryset = StandardLoss.objects.select_related("policy", "team", "request__team", "request__unit")
    table_class = LossTable
    filterset_class = LossFilter
    empty_title = "No standard change was lost"
    empty_text = "When a pre-approved change fails, the team that lost it appears here."
    empty_icon = "circle-check"


class RestoreForm(CommonsForm):
    """What makes it safe again."""

    reason = forms.CharField(
        label="Reason",
        max_length=standing.REASON_LIMIT,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=f"What makes it safe again? At least {standing.REASON_LENGTH} characters.",
        error_messages={"required": "Say what makes it safe again."},
    )


class LossRestore(ActionView):
    """Gives a team its standard change back."""

    queryset = StandardLoss.objects.select_related("policy", "team", "request__team", "request__unit")
    url_kwarg = "loss_uid"
    form_class = RestoreForm
    permission = standing.RESTORE_PERMISSION
    title = "Restore standard change"
    submit_label = "Restore"
    success_message = "The standard change counts again from the team's next request on."

    def scope_object(self) -> Any:
        """It belongs where the failed change does."""
        return self.object.request

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the list."""
        return [Crumb("Standard changes", reverse("approvals:standard-list"))]

    def check_permission(self) -> None:
        """Ask for the permission, and keep out the failed change's own side."""
        super().check_permission()
        if rule := standing.why_not_restore(self.request.user, self.object):
            raise NotAllowed(rule, rule=standing.RESTORE_PERMISSION)

    def check_state(self) -> None:
        """What is restored stays so."""
        if self.object.restored_at is not None:
            raise Conflict("This standard change is restored already.", current={"version": self.object.version})

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say what was lost, and why."""
        row = self.object
        intro = f"“{row.rule}” of {row.policy}, lost by {row.team or 'the platform'}: {row.why}"
        return super().get_context(**{"intro": intro, **extra})

    def perform(self, form: Any) -> str:
        """Restore it."""
        standing.restore(
            self.object.uid, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return reverse("approvals:standard-list")
