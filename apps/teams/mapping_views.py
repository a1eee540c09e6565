"""Pages of group roles: which group gives which role, what a new one would do, and ending one."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponseBase
from django.urls import reverse

from apps.accounts.models import IdentityProvider, User
from apps.accounts.step_up import StepUpMixin
from apps.core.errors import Conflict, NotVisible
from apps.core.permissions import INSTALLATION, may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from apps.teams import group_roles, mapping_actions, mapping_selectors
from apps.teams.choices import Role
from apps.teams.forms import ReasonForm
from apps.teams.mapping_forms import MappingForm
from apps.teams.mapping_tables import MappingTable
from apps.teams.models import GroupMapping, Team, Unit
from apps.teams.querysets import GroupMappingQuerySet

MANAGE = "teams.mapping.manage"
VIEW = "teams.mapping.view"


class MappingList(ListView):
    """Every role that a group gives."""

    title = "Group roles"
    intro = (
        "Whoever is in one of these groups of an identity provider holds the role, from signing in or from what the"
        " directory provisions, until they leave the group."
    )
    permission = VIEW
    table_class = MappingTable
    empty_title = "No group gives a role yet"

    def scope_object(self) -> Any:
        """Ask for the whole installation."""
        return INSTALLATION

    def get_base_queryset(self) -> GroupMappingQuerySet:
        """Return the mappings in force."""
        return mapping_selectors.mappings()

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer a new one to those who may make one."""
        allowed = may(self.request.user, MANAGE, INSTALLATION)
        return [("New group role", reverse("teams:mapping-create"))] if allowed else []


class MappingCreate(StepUpMixin, CreateView):
    """Gives a role to a group: first shows what that would do, then does it."""

    title = "New group role"
    intro = "You see who would get the role before anything changes."
    permission = MANAGE
    queryset = GroupMapping.objects.all()
    form_class = MappingForm
    template_name = "teams/mapping_form.html"
    submit_label = "Preview"
    success_message = "The group gives the role from now on."

    _preview: mapping_selectors.Preview | None = None

    def scope_object(self) -> Any:
        """Ask for the whole installation."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return [Crumb("Group roles", reverse("teams:mapping-list"))]

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the providers and places the person sees."""
        user = self.request.user
        providers = IdentityProvider.objects.visible_to(user).filter(archived_at__isnull=True)
        return {
            "providers": providers.order_by("name", "pk"),
            "units": Unit.objects.visible_to(user).filter(archived_at__isnull=True).order_by("name", "pk"),
            "teams": Team.objects.visible_to(user).filter(archived_at__isnull=True).order_by("name", "pk"),
        }

    def get_success_message(self) -> str:
        """A preview is no success yet."""
        return "" if self._preview is not None else self.success_message

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the preview."""
        if self._preview is not None:
            extra = {"preview": self._preview, "submit_label": "Give the role", **extra}
        return super().get_context(**extra)

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Show what it would do; once exactly that has been seen, do it."""
        draft = form.draft()
        found = mapping_selectors.preview(mapping_actions.checked(draft), maker_id=self.actor.user_id)
        if form.cleaned_data["seen"] != found.digest:
            self._preview = found
            form.data = form.data.copy()
            form.data[form.add_prefix("seen")] = found.digest
            return self.page()
        mapping = mapping_actions.create_mapping(draft, actor=self.actor, reason=form.cleaned_data["reason"])
        return _url(mapping)


class MappingDetail(DetailView):
    """One mapping: who holds its role by it, and from whom it is kept."""

    permission = VIEW
    template_name = "teams/mapping_detail.html"

    def get_base_queryset(self) -> GroupMappingQuerySet:
        """Return all mappings, ended ones too."""
        return GroupMapping.objects.select_related("provider", "unit", "team", "made_by")

    def scope_object(self) -> Any:
        """Ask for the whole installation."""
        return INSTALLATION

    def get_title(self) -> str:
        """Return the group's name."""
        return str(self.object.group)

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the list."""
        return [Crumb("Group roles", reverse("teams:mapping-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add people, place and what may be done."""
        mapping: GroupMapping = self.object
        ids = mapping_selectors.holders(mapping)
        return super().get_context(
            role=Role(mapping.role).label,
            where=group_roles.place_of(mapping)[1],
            people=User.objects.filter(pk__in=ids).order_by("display_name", "pk"),
            withheld=mapping_selectors.withheld(mapping) if mapping.ended_at is None else [],
            may_manage=may(self.request.user, MANAGE, INSTALLATION) and mapping.ended_at is None,
            **extra,
        )


class _OnMapping(StepUpMixin, ActionView):
    """Base of the actions on a mapping."""

    permission = MANAGE
    form_class = ReasonForm
    url_kwarg = "mapping_uid"

    def get_base_queryset(self) -> GroupMappingQuerySet:
        """Return all mappings."""
        return GroupMapping.objects.select_related("provider", "unit", "team")

    def scope_object(self) -> Any:
        """Ask for the whole installation."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the mapping."""
        return [Crumb("Group roles", reverse("teams:mapping-list")), Crumb(self.object.group, _url(self.object))]

    def check_state(self) -> None:
        """An ended mapping takes nothing."""
        if self.object.ended_at is not None:
            raise Conflict("This mapping has ended already.", current={"status": "ended"})


class MappingEnd(_OnMapping):
    """Takes the role from the group."""

    title = "End group role"
    submit_label = "End it"
    danger = True
    summary_template = "teams/mapping_ending.html"
    success_message = "The group gives the role no longer."

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add who loses the role, and who keeps it."""
        mapping: GroupMapping = self.object
        role, where = Role(mapping.role).label, group_roles.place_of(mapping)[1]
        intro = f"{mapping.group} of {mapping.provider.name}: {role}, {where}."
        return super().get_context(**{"intro": intro, "ending": mapping_selectors.ending(mapping), **extra})

    def perform(self, form: Any) -> str:
        """End it."""
        mapping_actions.end_mapping(
            self.object.pk,
            actor=self.actor,
            reason=form.cleaned_data["reason"],
            expected_version=self.expected_version,
        )
        return reverse("teams:mapping-list")


class MappingRestore(_OnMapping):
    """Leaves a role that was taken away by hand to the group again."""

    title = "Let the group give the role again"
    submit_label = "Give it again"
    success_message = "The role follows the group again."
    person: User

    def prepare(self) -> None:
        """Load mapping and person. Raises NotVisible."""
        super().prepare()
        found = User.objects.visible_to(self.request.user).filter(uid=self.kwargs["user_uid"]).first()
        if found is None:
            raise NotVisible
        self.person = found

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Name the person."""
        mapping: GroupMapping = self.object
        intro = f"{self.person.display_name}: {Role(mapping.role).label}, {group_roles.place_of(mapping)[1]}."
        return super().get_context(**{"intro": intro, **extra})

    def perform(self, form: Any) -> str:
        """Leave it to the group."""
        reason = form.cleaned_data["reason"]
        mapping_actions.restore_role(self.object.pk, self.person.pk, actor=self.actor, reason=reason)
        return _url(self.object)


def _url(mapping: GroupMapping) -> str:
    return reverse("teams:mapping-detail", kwargs={"mapping_uid": mapping.uid})
