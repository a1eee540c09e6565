"""Tables and filters of registries, their models and what they changed."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2 as tables
from django.db.models import Q
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.catalogue.choices import RegistryFindingKind, RegistryKind
from apps.catalogue.models import Registry, RegistryFinding, RegistryModel
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import CommonsTable, QuantityColumn, StatusColumn, TimeColumn, UidLinkColumn

_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
STATE_TONES = {"reading": "positive", "failing": "critical", "waiting": "info", "off": "neutral"}
STATE_WORDS = {"reading": "Read", "failing": "Cannot be read", "waiting": "Not read yet", "off": "Switched off"}
FINDING_TONES = {"open": "caution", "noted": "neutral"}
FINDING_WORDS = {"open": "Open", "noted": "Noted"}


class RegistryTable(CommonsTable):
    """Registries by name."""

    name = UidLinkColumn("catalogue:registry-detail", kwarg="registry_uid", verbose_name="Registry")
    state = StatusColumn(tones=STATE_TONES, labels=STATE_WORDS, verbose_name="State")
    kind = tables.Column(verbose_name="Kind", attrs=_WIDE)
    base_url = tables.Column(verbose_name="Address", attrs={"cell": {"class": "wrap-anywhere d-none d-lg-table-cell"}})
    models_count = QuantityColumn(unit=None, verbose_name="Models")
    unowned_count = QuantityColumn(unit=None, verbose_name="Without owner", attrs=_WIDE)
    findings_count = QuantityColumn(unit=None, verbose_name="Open findings")
    polled_at = TimeColumn(verbose_name="Last read", attrs=_WIDE)
    failing_since = TimeColumn(verbose_name="Failing since")

    class Meta(CommonsTable.Meta):
        model = Registry
        fields = (
            "name", "state", "kind", "base_url", "models_count", "unowned_count", "findings_count", "polled_at",
            "failing_since",
        )  # fmt: skip
        order_by = ("name",)
        caption = "Registries"


class RegistryFilter(CommonsFilterSet):
    """Search and kind."""

    search = SearchFilter(columns=["name", "slug", "base_url"])
    kind = django_filters.ChoiceFilter(choices=RegistryKind.choices, label="Kind", empty_label="All")

    class Meta:
        model = Registry
        fields: list[str] = []


class EntryTable(CommonsTable):
    """Registered models as last seen."""

    name = tables.Column(verbose_name="Name there", attrs={"cell": {"class": "wrap-anywhere"}})
    registry = tables.Column(accessor="registry__name", verbose_name="Registry", attrs=_WIDE)
    model = tables.Column(accessor="model__name", verbose_name="Model here", empty_values=())
    team = tables.Column(accessor="model__team__name", verbose_name="Team", attrs=_WIDE)
    versions_count = QuantityColumn(unit=None, verbose_name="Versions")
    aliases = tables.Column(accessor="seen__aliases", verbose_name="Aliases", orderable=False, attrs=_WIDE)
    state = tables.Column(accessor="gone_at", verbose_name="State there", empty_values=(), orderable=False)
    last_seen_at = TimeColumn(verbose_name="Last seen", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = RegistryModel
        fields = ("name", "registry", "model", "team", "versions_count", "aliases", "state", "last_seen_at")
        order_by = ("name",)
        caption = "Registered models"

    def __init__(self, *args: Any, may_assign: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.may_assign = may_assign

    def render_model(self, record: RegistryModel) -> SafeString | str:
        """Lead to the model, or to giving it an owner."""
        if record.model is not None:
            url = reverse("catalogue:model-detail", kwargs={"model_uid": record.model.uid})
            return format_html('<a href="{}">{}</a>', url, record.model.name)
        if self.may_assign and record.gone_at is None:
            url = reverse("catalogue:registry-model-assign", kwargs={"entry_uid": record.uid})
            return format_html('<a class="btn btn-sm" href="{}">Give it an owner</a>', url)
        return "nobody owns it"

    def value_model(self, record: RegistryModel) -> str:
        """Export the short name."""
        return record.model.slug if record.model is not None else ""

    def render_aliases(self, value: dict[str, str]) -> str:
        """Write alias → version."""
        return ", ".join(f"{alias} → {version}" for alias, version in sorted(value.items()))

    def value_aliases(self, value: dict[str, str]) -> str:
        """Export the same."""
        return self.render_aliases(value)

    def render_state(self, record: RegistryModel) -> str:
        """Deleted, archived, or why it is not imported."""
        if record.gone_at is not None:
            return "deleted"
        if record.problem:
            return f"not imported: {record.problem}"
        return str(record.seen.get("state") or "there").lower()

    def value_state(self, record: RegistryModel) -> str:
        """Export the same."""
        return self.render_state(record)


class EntryFilter(CommonsFilterSet):
    """Search, registry, without owner, gone."""

    search = SearchFilter(columns=["name", "foreign_id", "model__name"])
    registry = django_filters.ModelChoiceFilter(
        queryset=Registry.objects.none(), to_field_name="slug", empty_label="All"
    )
    unowned = django_filters.BooleanFilter(field_name="model", lookup_expr="isnull", label="Without owner")
    gone = django_filters.BooleanFilter(field_name="gone_at", lookup_expr="isnull", exclude=True, label="Deleted there")

    class Meta:
        model = RegistryModel
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filters["registry"].queryset = Registry.objects.visible_to(self.request.user).order_by("name")


class FindingTable(CommonsTable):
    """What registries changed."""

    found_at = TimeColumn(verbose_name="Found")
    kind = tables.Column(verbose_name="What")
    about = tables.Column(accessor="registry_model__name", verbose_name="About", orderable=False)
    before = tables.Column(verbose_name="Before", orderable=False, attrs={"cell": {"class": "wrap-anywhere"}})
    after = tables.Column(
        verbose_name="Now", orderable=False, attrs={"cell": {"class": "wrap-anywhere"}}, empty_values=()
    )
    registry = tables.Column(accessor="registry__name", verbose_name="Registry", attrs=_WIDE)
    state = StatusColumn(tones=FINDING_TONES, labels=FINDING_WORDS, verbose_name="State")
    note = tables.Column(verbose_name="Note", orderable=False, attrs=_WIDE, empty_values=())

    class Meta(CommonsTable.Meta):
        model = RegistryFinding
        fields = ("found_at", "kind", "about", "before", "after", "state", "note", "registry")
        order_by = ("-found_at",)
        caption = "What registries changed"

    def render_about(self, record: RegistryFinding) -> SafeString | str:
        """Name the model and version, with the way to the one here."""
        words = about(record)
        if record.registry_version is not None and (here := record.registry_version.model_version) is not None:
            url = reverse("catalogue:version-detail", kwargs={"version_uid": here.uid})
        elif record.registry_model is not None and record.registry_model.model is not None:
            url = reverse("catalogue:model-detail", kwargs={"model_uid": record.registry_model.model.uid})
        else:
            return words
        return format_html('<a href="{}">{}</a>', url, words)

    def value_about(self, record: RegistryFinding) -> str:
        """Export the names."""
        return about(record)

    def render_kind(self, record: RegistryFinding) -> str:
        """Name what happened, and to which tag or alias."""
        return record.get_kind_display() + (f": {record.key}" if record.key else "")

    def value_kind(self, record: RegistryFinding) -> str:
        """Export the same."""
        return self.render_kind(record)

    def render_after(self, value: str) -> str:
        """Write what is there now."""
        return value or "nothing"

    def value_after(self, value: str) -> str:
        """Export it."""
        return value

    def render_note(self, record: RegistryFinding) -> SafeString | str:
        """Who noted it, or the way to do so."""
        if record.acknowledged_at is not None:
            return f"{record.note} ({record.acknowledged_by})"
        url = reverse("catalogue:registry-finding-acknowledge", kwargs={"finding_uid": record.uid})
        markup = '<a class="btn btn-sm" href="{}">Take note<span class="visually-hidden"> of {}</span></a>'
        return format_html(markup, url, about(record))

    def value_note(self, record: RegistryFinding) -> str:
        """Export the note."""
        return record.note


def about(record: RegistryFinding) -> str:
    """Name what a finding is about, as the registry calls it."""
    name = record.registry_model.name if record.registry_model is not None else str(record.registry)
    if record.registry_version is None:
        return name
    said = record.registry_version.seen.get("tags", {}).get("name")
    return f"{name} {said or record.registry_version.foreign_version}"


class FindingFilter(CommonsFilterSet):
    """Search, kind, open."""

    search = SearchFilter(columns=["registry_model__name", "key", "before", "after"])
    kind = django_filters.ChoiceFilter(choices=RegistryFindingKind.choices, label="What", empty_label="All")
    registry = django_filters.CharFilter(field_name="registry__slug", label="Registry")
    open = django_filters.BooleanFilter(method="only_open", label="Open")

    class Meta:
        model = RegistryFinding
        fields: list[str] = []

    def only_open(self, queryset: Any, name: str, value: bool) -> Any:
        """Keep open ones, or those that were noted."""
        return queryset.filter(Q(acknowledged_at__isnull=value))
