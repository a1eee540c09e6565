"""Pages of accounts of programs and their tokens."""

from __future__ import annotations

from typing import Any

import django_tables2 as tables
from django.http import HttpResponseBase
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from apps.accounts.models import ApiToken
from apps.accounts.step_up import StepUpMixin
from apps.core.errors import Conflict, NotVisible
from apps.core.permissions import INSTALLATION, may
from apps.core.tables import AgeColumn, CommonsTable, StatusColumn, UidLinkColumn
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from apps.teams import scope, service_actions, service_rules, service_selectors
from apps.teams.forms import ReasonForm
from apps.teams.models import ServiceAccount, Team
from apps.teams.querysets import ServiceAccountQuerySet
from apps.teams.service_forms import RotateForm, ServiceAccountForm, ServiceRoleForm, ServiceTokenForm

VIEW = "teams.service.view"
MANAGE = service_actions.MANAGE


class ServiceTable(CommonsTable):
    """One account a row."""

    name = UidLinkColumn(
        "teams:service-detail", kwarg="account_uid", accessor="user__display_name", verbose_name="Program"
    )
    team = tables.Column(accessor="team__name", verbose_name="Kept by", default="the platform")
    purpose = tables.Column(orderable=False, attrs={"cell": {"class": "d-none d-md-table-cell"}})
    state = StatusColumn(
        accessor="user__is_active",
        verbose_name="State",
        tones={"True": "positive", "False": "neutral"},
        labels={"True": "In use", "False": "Ended"},
    )
    created_at = AgeColumn(verbose_name="Made", attrs={"cell": {"class": "d-none d-md-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = ServiceAccount
        fields = ("name", "team", "purpose", "state", "created_at")
        order_by = ("-state", "name")
        caption = "Service accounts"


class ServiceList(ListView):
    """Every account of a program that the person sees."""

    title = "Service accounts"
    intro = "Programs that use the API under a name of their own: narrow, expiring tokens, and never a decision."
    permission = VIEW
    table_class = ServiceTable
    exportable = False
    empty_title = "No service account yet"
    empty_text = "Make one when a pipeline or a job is to use the API."
    empty_icon = "key"

    def get_base_queryset(self) -> ServiceAccountQuerySet:
        """Return all accounts with what a row shows."""
        return ServiceAccount.objects.select_related("user", "team")

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer a new one to those who may make one."""
        return [("New service account", reverse("teams:service-create"))] if may(self.request.user, MANAGE) else []


def _crumbs() -> list[Crumb]:
    return [Crumb("Service accounts", reverse("teams:service-list"))]


class ServiceCreate(StepUpMixin, CreateView):
    """Makes an account."""

    title = "New service account"
    permission = MANAGE
    queryset = ServiceAccount.objects.all()
    form_class = ServiceAccountForm
    submit_label = "Make account"
    success_message = "The account is made. Make a token for it."

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return _crumbs()

    def get_initial(self) -> dict[str, Any]:
        """Take the team from the address."""
        return {"team": self.request.GET.get("team", "")}

    def teams(self) -> Any:
        """Return the teams for which the person may keep programs."""
        mine = scope.of(self.request.user).team_filter(MANAGE, field="")
        return Team.objects.visible_to(self.request.user).filter(mine, archived_at__isnull=True).order_by("name", "pk")

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer those teams, and the platform to those who keep its programs."""
        return {"teams": self.teams(), "platform": may(self.request.user, MANAGE, INSTALLATION)}

    def perform(self, form: Any) -> str:
        """Make it."""
        data = form.cleaned_data
        team = self.teams().filter(slug=data["team"]).first() if data["team"] else None
        if data["team"] and team is None:
            raise NotVisible
        account = service_actions.create_service_account(
            data["name"], data["purpose"], data["role"], team_id=team.pk if team else None, actor=self.actor
        )
        return service_selectors.account_path(account)


class ServiceDetail(DetailView):
    """One account with its tokens."""

    queryset = ServiceAccount.objects.select_related("user", "team", "made_by")
    permission = VIEW
    template_name = "teams/service_detail.html"

    def get_title(self) -> str:
        """Return the program's name."""
        return str(self.object.user)

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return _crumbs()

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add role, tokens and what may be done."""
        role = service_actions.role_of(self.object)
        in_use = self.object.ended_at is None and self.object.user.is_active
        return super().get_context(
            role=service_selectors.role_names([self.object])[self.object.pk],
            permissions=sorted(service_rules.permissions_of(role)),
            keys=service_selectors.keys_of(self.object),
            in_use=in_use,
            may_manage=in_use and _manages(self.request.user, self.object),
            **extra,
        )


def _manages(user: Any, account: ServiceAccount) -> bool:
    return may(user, MANAGE, account if account.team_id is not None else INSTALLATION)


class _OnAccount(ActionView):
    """Base of the actions on one account."""

    queryset = ServiceAccount.objects.select_related("user", "team")
    permission = MANAGE
    url_kwarg = "account_uid"

    def scope_object(self) -> Any:
        """Ask for the account's team; for the platform's programs, for the installation."""
        return self.object if self.object.team_id is not None else INSTALLATION

    def check_state(self) -> None:
        """One that has ended takes nothing any more."""
        if self.object.ended_at is not None or not self.object.user.is_active:
            raise Conflict("This account has ended.", current={"status": "ended"})

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the account."""
        return [*_crumbs(), Crumb(str(self.object.user), service_selectors.account_path(self.object))]

    def show_secret(self, token: ApiToken, secret: str) -> HttpResponseBase:
        """Answer with the page that shows the secret, once: a redirect would have to store it."""
        self.template_name = "accounts/secret.html"
        self.title = f"New token of {self.object.user}"
        return self.page(
            secret=secret,
            heading="API token",
            explanation=f"Copy it now: it is not stored and cannot be shown again. It is valid until"
            f" {token.expires_at:%Y-%m-%d %H:%M} UTC.",
            usage=f"Authorization: Bearer {secret}",
            back_url=service_selectors.account_path(self.object),
        )


class ServiceRole(StepUpMixin, _OnAccount):
    """Gives another role."""

    title = "Change role"
    form_class = ServiceRoleForm
    submit_label = "Change role"
    success_message = "The role counts from now on, for tokens in use as well."

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the roles that programs may have there."""
        return {"roles": service_rules.roles_for(self.object.team)}

    def get_initial(self) -> dict[str, Any]:
        """Show the present one."""
        return {"role": service_actions.role_of(self.object)}

    def perform(self, form: Any) -> str:
        """Change it."""
        data = form.cleaned_data
        account = service_actions.set_service_role(
            self.object.pk, data["role"], data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return service_selectors.account_path(account)


class ServiceEnd(_OnAccount):
    """Ends an account."""

    title = "End service account"
    intro = "Its tokens stop working at once and its role counts for nothing. What it did stays on record."
    form_class = ReasonForm
    submit_label = "End account"
    danger = True
    success_message = "The account has ended; the next call with one of its tokens is refused."

    def perform(self, form: Any) -> str:
        """End it."""
        account = service_actions.end_service_account(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return service_selectors.account_path(account)


@method_decorator(never_cache, name="dispatch")
class ServiceTokenCreate(StepUpMixin, _OnAccount):
    """Makes a token and shows its secret, once."""

    title = "New token"
    intro = "Whoever has it acts as this program. Keep it where the program reads it, and nowhere else."
    form_class = ServiceTokenForm
    submit_label = "Make token"

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer what the account may do and the person may hand on."""
        possible = service_rules.permissions_of(service_actions.role_of(self.object))
        return {"held": service_selectors.may_carry(self.request.user, self.object, possible)}

    def perform(self, form: Any) -> HttpResponseBase:
        """Make it."""
        data = form.cleaned_data
        token, secret = service_actions.create_service_token(
            self.object.pk,
            data["name"],
            data["expires_at"],
            data["access"] == "read",
            actor=self.actor,
            permissions=form.limit(),
        )
        return self.show_secret(token, secret)


class _OnToken(_OnAccount):
    """Base of the actions on one token of an account."""

    token: ApiToken

    def prepare(self) -> None:
        """Load the account, then the token among its own."""
        super().prepare()
        found = ApiToken.objects.filter(user=self.object.user, uid=self.kwargs["token_uid"]).first()
        if found is None:
            raise NotVisible
        self.token = found

    def check_state(self) -> None:
        """One that is over takes nothing any more."""
        super().check_state()
        if not ApiToken.objects.usable().filter(pk=self.token.pk).exists():
            raise Conflict("This token is over already.", current={"status": "over"})

    def get_initial(self) -> dict[str, Any]:
        """The account's version says nothing about the token."""
        return {"version": None}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Name the token."""
        return super().get_context(**{"intro": f"“{self.token.name}” ({self.token.prefix}…)", **extra})


@method_decorator(never_cache, name="dispatch")
class ServiceTokenRotate(StepUpMixin, _OnToken):
    """Makes a token that takes another one's place."""

    title = "Rotate token"
    form_class = RotateForm
    submit_label = "Rotate"

    def perform(self, form: Any) -> HttpResponseBase:
        """Rotate it."""
        data = form.cleaned_data
        token, secret = service_actions.rotate_service_token(
            self.token.pk, data["overlap_days"], expires_at=data["expires_at"], actor=self.actor
        )
        return self.show_secret(token, secret)


class ServiceTokenRevoke(_OnToken):
    """Revokes a token."""

    title = "Revoke token"
    submit_label = "Revoke"
    danger = True
    success_message = "The token is revoked: the next call with it is refused."

    def perform(self, form: Any) -> str:
        """Revoke it."""
        service_actions.revoke_service_token(self.token.pk, actor=self.actor)
        return service_selectors.account_path(self.object)
