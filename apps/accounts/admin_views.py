"""Pages on which platform admins keep the accounts."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponseBase
from django.urls import reverse

from apps.accounts import actions, factor_resets, impersonation
from apps.accounts.choices import FactorKind, UserKind
from apps.accounts.filters import UserFilter
from apps.accounts.forms import ReasonForm, UserForm
from apps.accounts.models import User
from apps.accounts.step_up import StepUpMixin
from apps.accounts.tables import UserTable
from apps.core.errors import Conflict, NotAllowed
from apps.core.forms import CommonsForm
from apps.core.permissions import INSTALLATION, may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from portal.panels import panels_for

MANAGE = "accounts.user.manage"
SESSIONS = "accounts.session.manage"


class UserList(ListView):
    """Everybody with an account."""

    title = "People"
    intro = "Who can sign in. Roles decide what they may do; they are given on a person's page."
    queryset = User.objects.all()
    permission = "accounts.user.view"
    table_class = UserTable
    filterset_class = UserFilter

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer a new account and the open sessions to those who may."""
        user = self.request.user
        found = [("New account", reverse("accounts:user-create"))] if may(user, MANAGE) else []
        found += [("Open sessions", reverse("accounts:session-list"))] if may(user, SESSIONS) else []
        resets = may(user, "accounts.factor.confirm", INSTALLATION)
        return found + ([("Resets of second factors", reverse("accounts:factor-reset-list"))] if resets else [])


class UserDetail(DetailView):
    """One person's account, with what other rooms say about them."""

    queryset = User.objects.all()
    permission = "accounts.user.view"
    template_name = "accounts/user_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return [Crumb("People", reverse("accounts:user-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what may be done, and the panels."""
        # Nothing can be done any more to an account that was merged into another, or whose person was erased.
        over = self.object.merged_into_id is not None or self.object.erased_at is not None
        manage = may(self.request.user, MANAGE, self.object) and self.object.pk != self.request.user.pk and not over
        return super().get_context(
            may_manage=manage,
            is_person=self.object.kind == UserKind.PERSON,
            may_see_as=impersonation.bar(User.objects.get(pk=self.request.user.pk or 0), self.object) == "",
            may_end_sessions=may(self.request.user, SESSIONS),
            open_sessions=self.object.sessions.all().open().count(),
            factors=self.object.second_factors.in_use().exclude(kind=FactorKind.RECOVERY).count(),
            usable_tokens=self.object.api_tokens.usable().count(),
            panels=panels_for("person", self.request, self.object),
            **extra,
        )


class UserCreate(CreateView):
    """Makes an account and shows its initial password, once."""

    title = "New account"
    intro = "The person gets an initial password from you and chooses their own at the first sign-in."
    permission = MANAGE
    scope_free = "makes a new account; reads no rows"
    form_class = UserForm
    submit_label = "Make account"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return [Crumb("People", reverse("accounts:user-list"))]

    def perform(self, form: Any) -> HttpResponseBase:
        """Make it and answer with the page that shows the password."""
        user, initial = actions.create_user(
            form.cleaned_data["email"], form.cleaned_data["display_name"], actor=self.actor
        )
        return _show_password(self, user, initial)


class OnUser(ActionView):
    """Base of the actions on somebody else's account."""

    queryset = User.objects.all()
    permission = MANAGE
    form_class: type[CommonsForm] = ReasonForm

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the person."""
        return [Crumb("People", reverse("accounts:user-list")), Crumb(self.object.display_name, user_url(self.object))]

    def check_permission(self) -> None:
        """Nobody does this to their own account."""
        super().check_permission()
        if self.object.pk == self.request.user.pk:
            raise NotAllowed("Ask another platform admin to do this for you.", rule="not_oneself")


class UserDeactivate(OnUser):
    """Switches an account off."""

    title = "Switch account off"
    intro = (
        "The person is signed out at once, their API tokens are revoked, and none of their roles counts any more."
        " Nothing they did is removed."
    )
    submit_label = "Switch off"
    danger = True
    success_message = "The account is switched off."

    def check_state(self) -> None:
        """An account that is off cannot be switched off."""
        if not self.object.is_active:
            raise Conflict("This account is switched off already.", current={"status": "deactivated"})

    def perform(self, form: Any) -> str:
        """Switch it off."""
        return user_url(actions.deactivate_user(self.object.pk, form.cleaned_data["reason"], actor=self.actor))


class UserReactivate(OnUser):
    """Switches an account on again."""

    title = "Switch account on again"
    intro = "Roles and memberships that are still in force count again. Sessions and tokens stay closed."
    submit_label = "Switch on"
    success_message = "The account is in use again."

    def check_state(self) -> None:
        """An account in use cannot be switched on."""
        if self.object.is_active:
            raise Conflict("This account is in use already.", current={"status": "active"})

    def perform(self, form: Any) -> str:
        """Switch it on."""
        return user_url(actions.reactivate_user(self.object.pk, form.cleaned_data["reason"], actor=self.actor))


class UserPasswordReset(StepUpMixin, OnUser):
    """Sets a new initial password and shows it, once."""

    title = "Set a new initial password"
    intro = (
        "For somebody who has lost theirs. All their sessions end; they choose their own password at the next sign-in."
    )
    form_class = CommonsForm
    submit_label = "Set password"

    def check_state(self) -> None:
        """Say before the button where another admin has to do this."""
        if why := factor_resets.bar_on_password(self.object, self.actor):
            raise Conflict(why, current={"status": "factors_reset"})

    def perform(self, form: Any) -> HttpResponseBase:
        """Set it and answer with the page that shows it."""
        user, initial = actions.reset_password(self.object.pk, actor=self.actor)
        return _show_password(self, user, initial)


def _show_password(view: Any, user: User, initial: str) -> HttpResponseBase:
    view.template_name = "accounts/secret.html"
    view.title = f"Initial password of {user.display_name}"
    response: HttpResponseBase = view.page(
        secret=initial,
        heading="Initial password",
        explanation=f"Hand it over by a way you trust: it is not stored and cannot be shown again. {user.email}"
        " signs in with it and then chooses a new one.",
        back_url=user_url(user),
    )
    return response


def user_url(user: User) -> str:
    """Return the person's page."""
    return reverse("accounts:user-detail", kwargs={"user_uid": user.uid})
