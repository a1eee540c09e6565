"""Who stands in for whom: the list, a new delegation, its end."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django import forms
from django.db.models import Q
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.accounts.models import User
from apps.approvals import deciders, delegating
from apps.approvals.models import Delegation
from apps.core import clock
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.forms import CommonsForm, UtcDateTimeField
from apps.core.permissions import INSTALLATION, may
from apps.core.tables import CommonsTable, TimeColumn
from apps.core.templatetags.commons import status_badge
from apps.core.views import ActionView, CreateView, Crumb, ListView
from apps.teams.models import RoleGrant, Unit

NOT_A_DECIDER = "Only who holds a role that decides on requests, or a platform admin, names a stand-in."


def roles_of(user: Any) -> list[str]:
    """Return the deciding roles that a person holds by grants of their own: those they can delegate."""
    held = RoleGrant.objects.in_force().filter(
        user_id=user.pk, role__in=deciders.deciding_roles(), team__isnull=True
    )  # fmt: skip
    return sorted(set(held.values_list("role", flat=True)))


def state_of(row: Delegation) -> tuple[str, str, str]:
    """Return (status, words, tone) of a delegation now."""
    at = clock.now()
    if row.revoked_at is not None:
        return "revoked", "Revoked", "neutral"
    if row.valid.upper <= at:
        return "ended", "Ended", "neutral"
    if row.valid.lower > at:
        return "planned", "Not yet", "info"
    return "in_force", "In force", "positive"


class DelegationTable(CommonsTable):
    """Delegations."""

    giver = tables.Column(accessor="giver__display_name", verbose_name="Who is away")
    delegate = tables.Column(accessor="delegate__display_name", verbose_name="Stands in")
    role = tables.Column(verbose_name="Role")
    unit = tables.Column(accessor="unit__name", verbose_name="Where", default="wherever it is held")
    start = TimeColumn(accessor="valid__lower", verbose_name="From", order_by="valid")
    end = TimeColumn(accessor="valid__upper", verbose_name="Until", orderable=False)
    state = tables.Column(empty_values=(), orderable=False, verbose_name="Status")
    reason = tables.Column(verbose_name="Reason", attrs={"cell": {"class": "d-none d-lg-table-cell"}})
    end_it = tables.Column(empty_values=(), orderable=False, verbose_name="Actions", exclude_from_export=True)

    class Meta(CommonsTable.Meta):
        model = Delegation
        fields = ("giver", "delegate", "role", "unit", "start", "end", "state", "reason", "end_it")
        order_by = "-start"
        caption = "Delegations"

    def render_role(self, value: str) -> str:
        """Write the role's name."""
        return deciders.role_label(value)

    def value_role(self, value: str) -> str:
        """Export the role's name."""
        return deciders.role_label(value)

    def render_state(self, record: Delegation) -> SafeString:
        """Say whether it counts now."""
        return status_badge(*state_of(record))

    def value_state(self, record: Delegation) -> str:
        """Export the word."""
        return state_of(record)[1]

    def render_end_it(self, record: Delegation) -> SafeString | str:
        """Offer its end to the two people concerned and to platform admins."""
        user = self.request.user
        ended = state_of(record)[0] in ("revoked", "ended")
        if ended or not may_end(user, record):
            return ""
        url = reverse("approvals:delegation-revoke", kwargs={"delegation_uid": record.uid})
        hidden = f" the delegation from {record.giver} to {record.delegate}"
        return format_html('<a href="{}">End<span class="visually-hidden">{}</span></a>', url, hidden)


def may_end(user: Any, row: Delegation) -> bool:
    """Whether a person may end a delegation."""
    return user.pk in (row.giver_id, row.delegate_id) or may(user, delegating.ADMIN_PERMISSION, INSTALLATION)


class DelegationFilter(CommonsFilterSet):
    """Person, role, and whether it counts."""

    search = SearchFilter(columns=["giver__display_name", "delegate__display_name", "reason"])
    role = django_filters.ChoiceFilter(label="Role", empty_label="All")
    state = django_filters.ChoiceFilter(
        label="Status", method="by_state", empty_label="All",
        choices=[("in_force", "In force"), ("planned", "Not yet"), ("over", "Ended or revoked")],
    )  # fmt: skip

    class Meta:
        model = Delegation
        fields: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filters["role"].extra["choices"] = [(r, deciders.role_label(r)) for r in deciders.deciding_roles()]

    def by_state(self, queryset: Any, name: str, value: str) -> Any:
        """Keep what counts now, later, or no more."""
        at = clock.now()
        if value == "over":
            return queryset.filter(Q(revoked_at__isnull=False) | Q(valid__fully_lt=(at, None)))
        if value == "planned":
            return queryset.filter(revoked_at__isnull=True, valid__startswith__gt=at)
        return queryset.in_force(at)


class DelegationList(ListView):
    """Who stands in for whom."""

    title = "Delegations"
    intro = (
        "Who may decide for whom, and until when. A stand-in decides under both names, takes the seats of both, and "
        "never decides what either of them may not."
    )
    queryset = Delegation.objects.select_related("giver", "delegate", "unit")
    table_class = DelegationTable
    filterset_class = DelegationFilter
    empty_title = "Nobody stands in for anybody"
    empty_text = "Before you are away, name who decides for you; it ends by itself."
    empty_icon = "users"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer a new one to who has something to delegate."""
        user = self.request.user
        if roles_of(user) or may(user, delegating.ADMIN_PERMISSION, INSTALLATION):
            return [("Name a stand-in", reverse("approvals:delegation-create"))]
        return []


class DelegationForm(CommonsForm):
    """Who stands in for whom, in which role, where, from when until when, and why."""

    giver = forms.EmailField(label="Who is away", help_text="E-mail address of the person who is stood in for.")
    delegate = forms.EmailField(label="Who stands in", help_text="E-mail address. They need no role of their own.")
    role = forms.ChoiceField(label="Role", help_text="Only this role passes, and nobody can pass it on.")
    unit = forms.ModelChoiceField(
        Unit.objects.none(), required=False, label="Only for", empty_label="Everything the role covers",
        to_field_name="slug", help_text="Requests paid by this unit or one below it.",
    )  # fmt: skip
    start = UtcDateTimeField(required=False, label="From", help_text="Empty: from now on.")
    end = UtcDateTimeField(label="Until", help_text=f"At most {delegating.MAX_DAYS} days. It ends by itself.")
    reason = forms.CharField(
        label="Reason", max_length=delegating.REASON_LIMIT, widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Whoever reads a decision made for another wants to know.",
    )  # fmt: skip

    def __init__(self, *args: Any, user: Any, admin: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        roles = deciders.deciding_roles() if admin else roles_of(user)
        role, unit = self.fields["role"], self.fields["unit"]
        if isinstance(role, forms.ChoiceField) and isinstance(unit, forms.ModelChoiceField):
            role.choices = [(name, deciders.role_label(name)) for name in roles]
            unit.queryset = Unit.objects.visible_to(user).order_by("name")
        if not admin:
            del self.fields["giver"]


class DelegationCreate(CreateView):
    """Names a stand-in: for oneself, or (platform admins) for somebody who is away already."""

    title = "Name a stand-in"
    intro = (
        "For the time you name, the person may decide requests in your role, under both names. What you may not decide "
        "(your own requests, your own work) they may not decide for you, either."
    )
    form_class = DelegationForm
    queryset = Delegation.objects
    submit_label = "Name"
    success_message = "The delegation is recorded; both people are told."

    @property
    def is_admin(self) -> bool:
        """Whether the person may do this for others."""
        return may(self.request.user, delegating.ADMIN_PERMISSION, INSTALLATION)

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the list."""
        return [Crumb("Delegations", reverse("approvals:delegation-list"))]

    def check_permission(self) -> None:
        """Let who has a role to delegate, and platform admins."""
        super().check_permission()
        if not self.is_admin and not roles_of(self.request.user):
            raise NotAllowed(NOT_A_DECIDER, rule="own role")

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the person's own roles; admins name whose."""
        return {"user": self.request.user, "admin": self.is_admin}

    def get_initial(self) -> dict[str, Any]:
        """An admin starts with themself, too."""
        return {"giver": getattr(self.request.user, "email", "")}

    def perform(self, form: Any) -> str:
        """Create it."""
        data = form.cleaned_data
        user: Any = self.request.user
        giver_id = person(data["giver"], "giver") if "giver" in data else user.pk
        unit = data.get("unit")
        delegating.create(
            giver_id,
            person(data["delegate"], "delegate"),
            data["role"],
            actor=self.actor,
            start=data.get("start"),
            end=data["end"],
            unit_id=unit.pk if unit is not None else None,
            reason=data["reason"],
        )
        return reverse("approvals:delegation-list")


def person(email: str, field: str) -> int:
    """Return the key of the active person with this address. Raises Invalid for the field where there is none."""
    found = User.objects.active().filter(email__iexact=email).values_list("pk", flat=True).first()
    if found is None:
        raise Invalid({field: "No active person has this e-mail address."})
    return int(found)


class DelegationRevoke(ActionView):
    """Ends a delegation now."""

    queryset = Delegation.objects.select_related("giver", "delegate", "unit")
    url_kwarg = "delegation_uid"
    title = "End delegation"
    submit_label = "End it now"
    danger = True
    success_message = "The delegation has ended. What was decided under it stands."

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the list."""
        return [Crumb("Delegations", reverse("approvals:delegation-list"))]

    def check_permission(self) -> None:
        """Let the two people concerned, and platform admins."""
        if not may_end(self.request.user, self.object):
            raise NotAllowed("Only the two people concerned, or a platform admin, can end it.", rule="own role")

    def check_state(self) -> None:
        """What has ended cannot be ended."""
        if state_of(self.object)[0] in ("revoked", "ended"):
            raise Conflict("This delegation has ended already.", current={"version": self.object.version})

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Name people and role."""
        row = self.object
        intro = f"{row.delegate} stands in for {row.giver} as {deciders.role_label(row.role)}. Reason: {row.reason}"
        return super().get_context(**{"intro": intro, **extra})

    def perform(self, form: Any) -> str:
        """End it."""
        delegating.revoke(self.object.uid, actor=self.actor, expected_version=self.expected_version)
        return reverse("approvals:delegation-list")
