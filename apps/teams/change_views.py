"""Pages on which platform admins rename, move, archive and restore units and teams."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.core.errors import Conflict
from apps.core.forms import CommonsForm
from apps.core.views import ActionView, Crumb
from apps.teams import changes, moving
from apps.teams.change_forms import ArchiveForm, ChangeTeamForm, ChangeUnitForm, wish_fields
from apps.teams.changes import MANAGE, Wish
from apps.teams.choices import ChangeStatus
from apps.teams.forms import ReasonForm
from apps.teams.models import PlannedChange, Team, Unit


def planned_for(user: Any, subject: Team | Unit) -> PlannedChange | None:
    """Return the change that waits for a unit or team, where the person may see it."""
    kind = {"team": subject} if isinstance(subject, Team) else {"unit": subject}
    found = PlannedChange.objects.visible_to(user).filter(status=ChangeStatus.PLANNED, **kind)
    return found.select_related("new_unit", "made_by").first()


def sentence(change: PlannedChange) -> str:
    """Return what a change does, in words."""
    parts = []
    if change.archive:
        parts.append("archived")
    if change.new_name:
        parts.append(f"called {change.new_name}")
    if change.new_unit is not None:
        parts.append(f"moved to {change.new_unit.name}")
    if change.to_top:
        parts.append("moved to the top")
    if change.new_cost_centre is not None:
        parts.append(f"paid by {change.new_cost_centre or 'no cost centre of its own'}")
    return ", ".join(parts)


class _OnSubject(ActionView):
    """Base of the actions on a unit or team."""

    permission = MANAGE
    lookup = "slug"
    form_class: type[CommonsForm] = ReasonForm

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back."""
        unit = self.object.unit if isinstance(self.object, Team) else self.object
        way = reverse("teams:unit-detail", kwargs={"unit_slug": unit.slug})
        crumbs = [Crumb("Units", reverse("teams:unit-list")), Crumb(unit.name, way)]
        if isinstance(self.object, Team) and self.object.archived_at is None:
            crumbs.append(Crumb(f"People of {self.object.name}", changes.subject_path(self.object)))
        return crumbs

    def after(self) -> str:
        """Return where to go next: an archived team has no page of its people."""
        if isinstance(self.object, Team):
            team = Team.objects.select_related("unit").get(pk=self.object.pk)
            if team.archived_at is not None:
                return reverse("teams:unit-detail", kwargs={"unit_slug": team.unit.slug})
            return changes.subject_path(team)
        return changes.subject_path(self.object)

    def change(self, wish: Wish, form: Any) -> PlannedChange:
        """Ask for a change of the row that the page is about."""
        ask = changes.change_team if isinstance(self.object, Team) else changes.change_unit
        self.made = ask(
            self.object.pk,
            wish,
            form.cleaned_data["reason"],
            effective_at=form.cleaned_data["effective_at"],
            expected_version=self.expected_version,
            actor=self.actor,
        )
        return self.made

    made: PlannedChange | None = None

    def get_success_message(self) -> str:
        """Say whether it is done or waits."""
        if self.made is not None and self.made.status == ChangeStatus.PLANNED:
            return f"It is planned for {self.made.effective_at:%Y-%m-%d %H:%M} UTC."
        return self.success_message

    def check_state(self) -> None:
        """What is archived, or has a change waiting, takes no other."""
        if self.object.archived_at is not None:
            raise Conflict("This is archived: restore it first.", current={"status": "archived"})
        kind = {"team": self.object} if isinstance(self.object, Team) else {"unit": self.object}
        if PlannedChange.objects.filter(status=ChangeStatus.PLANNED, **kind).exists():
            raise Conflict("A change of this is planned already: cancel it first.", current={"status": "planned"})


class _Change(_OnSubject):
    """Name, cost centre and place."""

    submit_label = "Save"
    success_message = "It is changed."

    def get_title(self) -> str:
        """Name what is changed."""
        return f"Change {self.object.name}"

    def get_initial(self) -> dict[str, Any]:
        """Show how it is."""
        return wish_fields(self.object)

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the units it could move to."""
        units = Unit.objects.visible_to(self.request.user).filter(archived_at__isnull=True)
        if isinstance(self.object, Unit):
            units = units.exclude(path__contains=[self.object.pk])
        return {"units": units.order_by("name", "pk")}

    def perform(self, form: Any) -> str:
        """Change it."""
        data = form.cleaned_data
        goal: Unit | None = data["unit"]
        self.change(Wish(data["name"], data["cost_centre"], goal.pk if goal else None, goal is None), form)
        return self.after()


class UnitChange(_Change):
    """Changes a unit."""

    queryset = Unit.objects.select_related("parent")
    form_class = ChangeUnitForm
    intro = (
        "What lies below moves along. Owners above see it from that moment; hours before stay with who owned them, and"
        " what was asked for before is still decided where it was asked."
    )


class TeamChange(_Change):
    """Changes a team."""

    queryset = Team.objects.select_related("unit")
    form_class = ChangeTeamForm
    intro = (
        "The owners of the new unit see the team and decide for it from that moment; hours before stay with the unit"
        " and the cost centre they had, and what was asked for before is still decided where it was asked."
    )


class _Archive(_OnSubject):
    """Takes out of use."""

    form_class = ArchiveForm
    submit_label = "Archive"
    danger = True
    success_message = "It is archived."
    intro = "Its roles and memberships end. Statements, facts and the audit trail stay; it can be restored."

    def get_title(self) -> str:
        """Name what is archived."""
        return f"Archive {self.object.name}"

    def check_state(self) -> None:
        """Say at once what stands in the way."""
        super().check_state()
        if standing := moving.objections(self.object):
            raise Conflict("This cannot be archived yet: " + " ".join(standing))

    def perform(self, form: Any) -> str:
        """Archive it."""
        self.change(Wish(archive=True), form)
        return self.after()


class UnitArchive(_Archive):
    """Archives a unit."""

    queryset = Unit.objects.select_related("parent")


class TeamArchive(_Archive):
    """Archives a team."""

    queryset = Team.objects.select_related("unit")


class _Restore(_OnSubject):
    """Takes into use again."""

    submit_label = "Restore"
    success_message = "It is in use again. Give its people their roles."

    def get_title(self) -> str:
        """Name what is restored."""
        return f"Restore {self.object.name}"

    def check_state(self) -> None:
        """Only what is archived is restored."""
        if self.object.archived_at is None:
            raise Conflict("This is in use already.", current={"status": "active"})

    def perform(self, form: Any) -> str:
        """Restore it."""
        changes.restore(self.object, form.cleaned_data["reason"], actor=self.actor)
        return self.after()


class UnitRestore(_Restore):
    """Restores a unit."""

    queryset = Unit.objects.select_related("parent")


class TeamRestore(_Restore):
    """Restores a team."""

    queryset = Team.objects.select_related("unit")


class ChangeCancel(ActionView):
    """Takes back a planned change."""

    title = "Cancel the planned change"
    queryset = PlannedChange.objects.select_related("team", "unit", "new_unit")
    permission = MANAGE
    form_class = ReasonForm
    submit_label = "Cancel the change"
    danger = True
    success_message = "The change is cancelled."

    @property
    def subject(self) -> Team | Unit:
        """What the change is about."""
        found: Team | Unit = self.object.team or self.object.unit
        return found

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way back."""
        return [Crumb(self.subject.name, changes.subject_path(self.subject))]

    def check_state(self) -> None:
        """Only what waits is cancelled."""
        if self.object.status != ChangeStatus.PLANNED:
            raise Conflict("This change waits no more.", current={"status": self.object.status})

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Say what would not happen."""
        intro = (
            f"{self.subject.name} would be {sentence(self.object)} on {self.object.effective_at:%Y-%m-%d %H:%M} UTC."
        )
        return super().get_context(**{"intro": intro, **extra})

    def perform(self, form: Any) -> str:
        """Cancel it."""
        changes.cancel(
            self.object.pk, form.cleaned_data["reason"], expected_version=self.expected_version, actor=self.actor
        )
        return changes.subject_path(self.subject)
