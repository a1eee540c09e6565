"""The portal's addresses plus pages made for tests of the generic ones."""

from __future__ import annotations

from typing import Any, ClassVar

import django_filters
import django_tables2 as tables
from django import forms
from django.urls import include, path
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter

from apps.audit.events import TRAIL_EXPORTED
from apps.core.api import CommonsViewSet
from apps.core.errors import Conflict, Invalid
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.forms import CommonsForm
from apps.core.tables import CommonsTable, StatusColumn, TimeColumn
from apps.core.views import ActionView, CreateView, DetailView, ListView, PageView
from apps.teams.models import Team
from portal import urls as portal_urls

handler400 = portal_urls.handler400
handler403 = portal_urls.handler403
handler404 = portal_urls.handler404
handler500 = portal_urls.handler500


class TeamTable(CommonsTable):
    """Teams."""

    name = tables.Column()
    slug = tables.Column()
    kind = StatusColumn(accessor="slug", verbose_name="Kind")
    updated_at = TimeColumn()

    class Meta(CommonsTable.Meta):
        model = Team
        fields = ("name", "slug", "kind", "updated_at")
        order_by = ("name",)


class TeamFilter(CommonsFilterSet):
    """By text and colour."""

    search = SearchFilter(columns=["name", "slug"])
    colour = django_filters.NumberFilter()

    class Meta:
        model = Team
        fields: ClassVar[list[str]] = []


class TeamList(ListView):
    """A list."""

    queryset = Team.objects.all()
    title = "Sample teams"
    table_class = TeamTable
    filterset_class = TeamFilter
    export_event = TRAIL_EXPORTED
    empty_title = "No team yet"


class TeamDetail(DetailView):
    """A row by slug, for those who manage members of it."""

    queryset = Team.objects.all()
    lookup = "slug"
    permission = "teams.member.manage"
    template_name = "core/action.html"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Draw without a form."""
        return super().get_context(blocked=True, **extra)


class RenameForm(CommonsForm):
    """A name."""

    name = forms.CharField(max_length=30, help_text="Shown everywhere.")


class Rename(ActionView):
    """An action with every refusal."""

    queryset = Team.objects.all()
    lookup = "slug"
    permission = "teams.member.manage"
    form_class = RenameForm
    title = "Rename"
    success_message = "It has a new name."
    ran: ClassVar[list[str]] = []

    def check_state(self) -> None:
        """An archived team keeps its name."""
        if self.object.archived_at is not None:
            raise Conflict("It is archived.", current={"status": "archived"})

    def perform(self, form: Any) -> str:
        """Rename, unless the name is taken or the row moved on."""
        name = form.cleaned_data["name"]
        if name == "taken":
            raise Invalid({"name": "Another team has this name.", "": "Nothing was changed.", "other": "elsewhere"})
        team = Team.objects.locked(self.object.pk, expected_version=self.expected_version)
        self.ran.append(name)
        team.name = name
        team.bump("name")
        return "/words/"


class Broken(PageView):
    """Fails in a way nobody foresaw."""

    scope_free = "fails before it reads anything"

    def get(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Fail."""
        raise RuntimeError("inner secret")


class Make(CreateView):
    """Makes nothing."""

    scope_free = "a form alone"
    form_class = RenameForm
    title = "Make"

    def perform(self, form: Any) -> str:
        """Lead on."""
        return "/words/"


class TeamSerializer(serializers.ModelSerializer[Team]):
    """A team."""

    class Meta:
        model = Team
        fields = ("uid", "name", "slug")


class NameSerializer(serializers.Serializer[Any]):
    """The body of an action."""

    name = serializers.CharField(max_length=5)


class TeamViewSet(CommonsViewSet):
    """Teams."""

    queryset = Team.objects.all()
    serializer_class = TeamSerializer
    permissions: ClassVar[dict[str, str]] = {"rename": "teams.member.manage"}

    @action(detail=True, methods=["post"])
    def rename(self, request: Request, uid: Any = None) -> Response:
        """Refuse in every way."""
        team = self.get_object()
        name = self.read_input(NameSerializer)["name"]
        if name == "stale":
            raise Conflict("It moved on.", current={"version": 7})
        if name == "bad":
            raise Invalid({"name": "Not this one."})
        if name == "crash":
            raise RuntimeError("inner secret")
        return self.answer(team)


router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("sample-teams", TeamViewSet, basename="sample-team")

urlpatterns = [
    path("sample/", TeamList.as_view(), name="sample-list"),
    path("sample/broken/", Broken.as_view(), name="sample-broken"),
    path("sample/make/", Make.as_view(), name="sample-make"),
    path("sample/<slug:slug>/", TeamDetail.as_view(), name="sample-detail"),
    path("sample/<slug:slug>/rename/", Rename.as_view(), name="sample-rename"),
    path("api/v1/", include((router.urls, "sample"))),
    *portal_urls.urlpatterns,
]
