"""Pages of units, teams and membership. What a team has and costs stands on its overview in the reports room."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.accounts.models import User
from apps.core.errors import NotVisible
from apps.core.permissions import may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, PageView
from apps.teams import actions, change_views, selectors
from apps.teams.forms import MemberForm, TeamForm, UnitForm, person_by_email
from apps.teams.models import RoleGrant, Team, Unit
from portal.panels import panels_for

MANAGE_UNITS = "teams.unit.manage"
MANAGE_MEMBERS = "teams.member.manage"


def unit_url(unit: Unit) -> str:
    """Return the address of a unit's page."""
    return reverse("teams:unit-detail", kwargs={"unit_slug": unit.slug})


def members_url(team: Team) -> str:
    """Return the address of a team's people."""
    return reverse("teams:member-list", kwargs={"team_slug": team.slug})


def unit_crumbs(unit: Unit, user: Any) -> list[Crumb]:
    """Return the way from the top to a unit, as far as the person may see it."""
    ancestors = Unit.objects.visible_to(user).filter(pk__in=unit.path).exclude(pk=unit.pk)
    by_id = {ancestor.pk: ancestor for ancestor in ancestors}
    above = [by_id[pk] for pk in unit.path if pk in by_id]
    return [Crumb("Units", reverse("teams:unit-list")), *(Crumb(one.name, unit_url(one)) for one in above)]


class UnitTree(PageView):
    """The tree of units with their teams."""

    title = "Units and teams"
    permission = "teams.unit.view"
    template_name = "teams/unit_tree.html"
    queryset = Unit.objects.all()

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the tree."""
        return super().get_context(
            nodes=selectors.unit_tree(self.request.user), may_manage=may(self.request.user, MANAGE_UNITS), **extra
        )


class UnitDetail(DetailView):
    """One unit: what lies in it, and who holds a role for it."""

    queryset = Unit.objects.all()
    lookup = "slug"
    permission = "teams.unit.view"
    template_name = "teams/unit_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way from the top."""
        return unit_crumbs(self.object, self.request.user)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add sub-units, teams and roles."""
        unit, user = self.object, self.request.user
        children = Unit.objects.visible_to(user).filter(parent=unit, archived_at__isnull=True).order_by("name", "pk")
        grants = RoleGrant.objects.in_force().filter(unit__in=unit.path).select_related("user", "unit")
        return super().get_context(
            children=list(children),
            teams=selectors.teams_with_members(user, unit),
            grants=list(grants.order_by("role", "user__display_name", "pk")),
            may_manage=may(user, MANAGE_UNITS, unit),
            planned=_planned(user, unit),
            archived=selectors.archived_in(user, unit),
            panels=panels_for("unit", self.request, unit),
            **extra,
        )


class UnitCreate(CreateView):
    """Makes a unit."""

    title = "New unit"
    permission = MANAGE_UNITS
    queryset = Unit.objects.all()
    form_class = UnitForm
    submit_label = "Make unit"
    success_message = "The unit is made."

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the tree."""
        return [Crumb("Units", reverse("teams:unit-list"))]

    def get_initial(self) -> dict[str, Any]:
        """Take the parent from the address."""
        return {"parent": self.request.GET.get("parent", "")}

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the units the person sees."""
        return {"units": self.get_queryset().filter(archived_at__isnull=True).order_by("name", "pk")}

    def perform(self, form: Any) -> str:
        """Make it."""
        data = form.cleaned_data
        parent: Unit | None = data["parent"]
        unit = actions.create_unit(
            data["name"], data["slug"], parent.pk if parent else None, data["cost_centre"], actor=self.actor
        )
        return unit_url(unit)


class TeamCreate(ActionView):
    """Makes a team in a unit."""

    queryset = Unit.objects.filter(archived_at__isnull=True)
    lookup = "slug"
    title = "New team"
    permission = MANAGE_UNITS
    form_class = TeamForm
    submit_label = "Make team"
    success_message = "The team is made. Add its people, and give somebody the role of team lead."

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way to the unit."""
        return [*unit_crumbs(self.object, self.request.user), Crumb(self.object.name, unit_url(self.object))]

    def get_initial(self) -> dict[str, Any]:
        """Propose the unit's cost centre; a new row has no version of its own."""
        return {"cost_centre": self.object.cost_centre, "version": None}

    def perform(self, form: Any) -> str:
        """Make it."""
        data = form.cleaned_data
        team = actions.create_team(data["name"], data["slug"], self.object.pk, data["cost_centre"], actor=self.actor)
        return members_url(team)


class MemberList(DetailView):
    """The people of a team."""

    queryset = Team.objects.filter(archived_at__isnull=True)
    lookup = "slug"
    permission = "teams.team.view"
    template_name = "teams/member_list.html"

    def get_title(self) -> str:
        """Return the team's name with what the page holds."""
        return f"People of {self.object.name}"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the team's overview."""
        return [Crumb(self.object.name, reverse("reports:team", kwargs={"team_slug": self.object.slug}))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the people."""
        return super().get_context(
            team=self.object,
            people=selectors.people_of(self.object),
            coming=selectors.coming_to(self.object),
            may_manage=may(self.request.user, MANAGE_MEMBERS, self.object),
            may_change=may(self.request.user, MANAGE_UNITS, self.object),
            planned=_planned(self.request.user, self.object),
            **extra,
        )


class _OnTeam(ActionView):
    """Base of the actions on a team's people."""

    queryset = Team.objects.filter(archived_at__isnull=True)
    lookup = "slug"
    permission = MANAGE_MEMBERS

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back to the people."""
        return [Crumb(f"People of {self.object.name}", members_url(self.object))]

    def get_initial(self) -> dict[str, Any]:
        """Membership does not change the team's row: its version says nothing here."""
        return {"version": None}


class MemberAdd(_OnTeam):
    """Adds a person."""

    title = "Add a member"
    intro = "Members see what the team has and costs, use it, and may not decide about what the team asks for."
    form_class = MemberForm
    submit_label = "Add"
    success_message = "The person is added to the team."

    def perform(self, form: Any) -> str:
        """Add them."""
        data = form.cleaned_data
        actions.add_member(
            self.object.pk, person_by_email(data["user"]), since=data["since"], until=data["until"], actor=self.actor
        )
        return members_url(self.object)


class MemberRemove(_OnTeam):
    """Ends a membership."""

    title = "Take off the team"
    submit_label = "Take off the team"
    danger = True
    success_message = "The membership has ended."
    url_kwarg = "team_slug"

    def prepare(self) -> None:
        """Load the team and the person."""
        super().prepare()
        found = next(
            (one.user for one in selectors.people_of(self.object) if one.user.uid == self.kwargs["user_uid"]), None
        )
        person = found or User.objects.filter(uid=self.kwargs["user_uid"], memberships__team=self.object).first()
        if person is None:
            raise NotVisible
        self.person = person

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Name the person."""
        intro = (
            f"{self.person.display_name} loses access to what {self.object.name} holds, from now on."
            " Nothing they did is removed."
        )
        return super().get_context(**{"intro": intro, **extra})

    def perform(self, form: Any) -> str:
        """End it."""
        actions.remove_member(self.object.pk, self.person.pk, actor=self.actor)
        return members_url(self.object)


def _planned(user: Any, subject: Unit | Team) -> tuple[Any, str] | None:
    """Return the change that waits for a unit or team, with what it does in words."""
    change = change_views.planned_for(user, subject)
    return (change, change_views.sentence(change)) if change is not None else None
