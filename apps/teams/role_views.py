"""Pages of roles: who holds which, giving and revoking them, and why a person may do something."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.querysets import UserQuerySet
from apps.accounts.step_up import StepUpMixin
from apps.core.errors import Conflict, NotAllowed
from apps.core.permissions import may, reach
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from apps.teams import actions, selectors
from apps.teams.choices import Role
from apps.teams.filters import GrantFilter
from apps.teams.forms import ExtendForm, GrantForm, ReasonForm, WhyForm, person_by_email, place_of
from apps.teams.models import RoleGrant, Team, Unit
from apps.teams.querysets import RoleGrantQuerySet
from apps.teams.tables import GrantTable

MANAGE = "teams.grant.manage"


class GrantList(ListView):
    """Every role in force."""

    title = "Roles"
    intro = "Who holds which role, and where. A role counts from the moment it is given until it expires or is revoked."
    permission = "teams.grant.view"
    table_class = GrantTable
    filterset_class = GrantFilter
    empty_title = "Nobody holds a role"

    def get_base_queryset(self) -> RoleGrantQuerySet:
        """Return the roles in force with what a row shows."""
        return RoleGrant.objects.in_force().select_related("user", "unit", "team", "granted_by")

    def get_table_kwargs(self) -> dict[str, Any]:
        """Leave the buttons out for those who may only look."""
        return {} if may(self.request.user, MANAGE) else {"exclude": ("actions",)}

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer a new role to those who may give one."""
        return [("Give a role", reverse("teams:grant-create"))] if may(self.request.user, MANAGE) else []


class GrantCreate(StepUpMixin, CreateView):
    """Gives a role."""

    title = "Give a role"
    permission = MANAGE
    queryset = RoleGrant.objects.all()
    form_class = GrantForm
    submit_label = "Give role"
    success_message = "The role is given."

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return [Crumb("Roles", reverse("teams:grant-list"))]

    def get_initial(self) -> dict[str, Any]:
        """Take person and place from the address."""
        return {"user": self.request.GET.get("user", ""), "scope": self.request.GET.get("scope", "")}

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the places the person sees."""
        return _places(self.request.user)

    def perform(self, form: Any) -> str:
        """Give it."""
        data = form.cleaned_data
        place = place_of(data["scope"], **_places(self.request.user))
        given = actions.grant_role(
            person_by_email(data["user"]),
            data["role"],
            unit_id=place.pk if isinstance(place, Unit) else None,
            team_id=place.pk if isinstance(place, Team) else None,
            starts_at=data["starts_at"],
            expires_at=data["expires_at"],
            reason=data["reason"],
            actor=self.actor,
        )
        return reverse("accounts:user-detail", kwargs={"user_uid": given.user.uid})


class GrantRevoke(StepUpMixin, ActionView):
    """Takes a role away."""

    title = "Revoke role"
    queryset = RoleGrant.objects.select_related("user", "unit", "team")
    permission = MANAGE
    form_class = ReasonForm
    submit_label = "Revoke"
    danger = True
    success_message = "The role is revoked; it counts for nothing from now on."

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return [Crumb("Roles", reverse("teams:grant-list"))]

    def check_state(self) -> None:
        """A revoked role cannot be revoked."""
        if self.object.revoked_at is not None:
            raise Conflict("This role is revoked already.", current={"status": "revoked"})

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Name person, role and place."""
        given: RoleGrant = self.object
        intro = f"{given.user.display_name}: {Role(given.role).label}, {given.scope_name}."
        return super().get_context(**{"intro": intro, **extra})

    def perform(self, form: Any) -> str:
        """Revoke it."""
        given = actions.revoke_role(self.object.pk, reason=form.cleaned_data["reason"], actor=self.actor)
        return reverse("accounts:user-detail", kwargs={"user_uid": given.user.uid})


class GrantExtend(GrantRevoke):
    """Lets a role end at another time."""

    title = "Extend role"
    form_class = ExtendForm
    submit_label = "Save"
    danger = False
    success_message = "The role ends at another time now."

    def get_initial(self) -> dict[str, Any]:
        """Show when it ends now."""
        return {"expires_at": self.object.expires_at}

    def check_state(self) -> None:
        """What has ended, or a group gives, is not extended."""
        super().check_state()
        if self.object.mapping_id is not None:
            raise Conflict("A directory group gives this role: it lasts as long as the person is in the group.")

    def check_permission(self) -> None:
        """Nobody extends their own role."""
        super().check_permission()
        if self.object.user_id == self.request.user.pk:
            raise NotAllowed("Nobody extends their own role: ask another platform admin.", rule="not_oneself")

    def perform(self, form: Any) -> str:
        """Extend it."""
        data = form.cleaned_data
        given = actions.extend_role(
            self.object.pk, expires_at=data["expires_at"], reason=data["reason"], actor=self.actor
        )
        return reverse("accounts:user-detail", kwargs={"user_uid": given.user.uid})


class Why(DetailView):
    """Why may this person do that? One's own answer, or anybody's for those who may view roles."""

    template_name = "teams/why.html"

    def get_base_queryset(self) -> UserQuerySet:
        """Return all persons."""
        return User.objects.get_queryset()

    def get_queryset(self) -> UserQuerySet:
        """Return oneself, or everybody for those who see all roles."""
        everybody = reach(self.request.user, "teams.grant.view").everywhere
        persons = self.get_base_queryset()
        return persons if everybody else persons.filter(pk=self.request.user.pk or 0)

    def get_title(self) -> str:
        """Return the question."""
        return f"What may {self.object.display_name} do?"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the question and its answer."""
        places = _places(self.request.user)
        form = WhyForm(self.request.GET or None, **places)
        answer, place = None, None
        if form.is_bound and form.is_valid():
            place = place_of(form.cleaned_data["place"], **places)
            answer = selectors.explain(self.object, form.cleaned_data["permission"], place)
        return super().get_context(
            form=form,
            answer=answer,
            place=place,
            grants=selectors.grants_of(self.object),
            memberships=selectors.memberships_of(self.object),
            **extra,
        )


def _places(user: Any) -> dict[str, Any]:
    return {
        "units": Unit.objects.visible_to(user).filter(archived_at__isnull=True).order_by("name", "pk"),
        "teams": Team.objects.visible_to(user).filter(archived_at__isnull=True).order_by("name", "pk"),
    }
