"""Tables and filters of models, versions, files and stores."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import django_filters
import django_tables2 as tables
from django.db.models import Exists, OuterRef, Q
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from apps.catalogue import selectors
from apps.catalogue.blobs import mib
from apps.catalogue.choices import RiskTier, ScanStatus, Scheme, VersionStatus
from apps.catalogue.models import Model, ModelStore, ModelVersion, VersionFile
from apps.core.filters import CommonsFilterSet, SearchFilter
from apps.core.tables import CommonsTable, QuantityColumn, StatusColumn, TimeColumn, UidLinkColumn
from apps.core.templatetags.commons import status_badge
from apps.quotas.choices import DataClass
from apps.teams.models import Team

TONES = {"sealed": "positive", "hashing": "info", "draft": "neutral", "retired": "neutral"}
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}
_WIDER = {"cell": {"class": "d-none d-lg-table-cell"}}
_CLASSES = dict(DataClass.choices)
_TIERS = {str(value): str(label) for value, label in RiskTier.choices}


def class_words(classes: Any) -> str:
    """Write data classes as people read them."""
    return ", ".join(str(_CLASSES.get(one, one)) for one in classes)


class ModelTable(CommonsTable):
    """Models by name."""

    name = UidLinkColumn("catalogue:model-detail", kwarg="model_uid", verbose_name="Model")
    team = tables.Column(accessor="team__name", verbose_name="Team")
    data_classes = tables.Column(verbose_name="Data", orderable=False, attrs=_WIDE)
    risk_tier = tables.Column(verbose_name="Risk tier", attrs=_WIDER, empty_values=(None,))
    versions_count = QuantityColumn(unit=None, verbose_name="Versions", attrs=_WIDE)
    newest_label = tables.Column(verbose_name="Newest version")
    newest_status = StatusColumn(
        tones=TONES, labels={str(k): str(v) for k, v in VersionStatus.choices}, verbose_name="State"
    )
    newest_at = TimeColumn(verbose_name="Since", attrs={"cell": {"class": "text-nowrap d-none d-xl-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = Model
        fields = (
            "name", "team", "newest_label", "newest_status", "data_classes", "risk_tier", "versions_count", "newest_at",
        )  # fmt: skip
        order_by = ("name",)
        caption = "Models"

    def render_data_classes(self, value: list[str]) -> str:
        """Write the classes."""
        return class_words(value)

    def value_data_classes(self, value: list[str]) -> str:
        """Export the same."""
        return class_words(value)

    def render_risk_tier(self, value: str) -> str:
        """Write the tier."""
        return _TIERS.get(value, value)

    def render_newest_label(self, value: str, record: Any) -> SafeString:
        """Lead to the newest version."""
        url = reverse("catalogue:version-detail", kwargs={"version_uid": record.newest_uid})
        return format_html('<a href="{}">{}</a>', url, value)

    def value_newest_label(self, value: str) -> str:
        """Export the label."""
        return value


class _CatalogueFilter(CommonsFilterSet):
    """What models and versions are both filtered by."""

    #: Path from the row to its model, with a separator.
    to_model = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = Model.objects.visible_to(self.request.user).order_by()
        self.filters["team"].queryset = Team.objects.filter(pk__in=mine.values("team")).order_by("name", "pk")


class ModelFilter(_CatalogueFilter):
    """Name, team, data class, risk tier, digest, state of the versions, approved."""

    search = SearchFilter(columns=["name", "slug", "purpose"])
    team = django_filters.ModelChoiceFilter(queryset=Team.objects.none(), empty_label="All", label="Team")
    data_class = django_filters.ChoiceFilter(
        choices=DataClass.choices, label="Data class", field_name="data_classes", lookup_expr="contains",
        method="by_class",
    )  # fmt: skip
    risk_tier = django_filters.ChoiceFilter(
        choices=[(value or "none", label) for value, label in RiskTier.choices], label="Risk tier", method="by_tier"
    )
    digest = django_filters.CharFilter(label="Digest begins with", max_length=64, method="by_digest")
    status = django_filters.ChoiceFilter(choices=VersionStatus.choices, label="Has a version", method="by_status")
    approved = django_filters.BooleanFilter(label="Approved somewhere", method="by_approval")
    archived = django_filters.BooleanFilter(
        field_name="archived_at", lookup_expr="isnull", exclude=True, label="Archived"
    )

    class Meta:
        model = Model
        fields: list[str] = []

    def by_class(self, rows: Any, name: str, value: str) -> Any:
        """Models that state the class, or have a version classified so."""
        # As a set, read once: asked model by model, ten thousand versions would be looked up one after the other.
        versions = ModelVersion.objects.filter(classification__contains=[value])
        return rows.filter(Q(data_classes__contains=[value]) | Q(pk__in=versions.values("model")))

    def by_tier(self, rows: Any, name: str, value: str) -> Any:
        """Models of a tier."""
        return rows.filter(risk_tier="" if value == "none" else value)

    def by_digest(self, rows: Any, name: str, value: str) -> Any:
        """Models with a version whose digest begins so."""
        found = ModelVersion.objects.filter(selectors.digest_begins(value)).order_by()
        return rows.filter(pk__in=found.values("model"))

    def by_status(self, rows: Any, name: str, value: str) -> Any:
        """Models that have a version in that state."""
        return rows.filter(Exists(ModelVersion.objects.filter(model=OuterRef("pk"), status=value)))

    def by_approval(self, rows: Any, name: str, value: bool) -> Any:
        """Models with a version that a grant in force covers; or without any."""
        covered = ModelVersion.objects.filter(digest__in=selectors.usable_digests()).order_by().values("model")
        return rows.filter(pk__in=covered) if value else rows.exclude(pk__in=covered)


class VersionTable(CommonsTable):
    """Versions, newest first."""

    label = UidLinkColumn("catalogue:version-detail", kwarg="version_uid", verbose_name="Version")
    model = UidLinkColumn(
        "catalogue:model-detail", kwarg="model_uid", target="model", accessor="model__name", verbose_name="Model"
    )
    team = tables.Column(accessor="model__team__name", verbose_name="Team", attrs=_WIDE)
    status = StatusColumn(tones=TONES, verbose_name="State")
    approved = tables.Column(accessor="digest", verbose_name="Approved", orderable=False, empty_values=())
    classification = tables.Column(verbose_name="Data", orderable=False, attrs=_WIDER)
    digest = tables.Column(verbose_name="Digest", orderable=False, attrs=_WIDE)
    total_bytes = tables.Column(verbose_name="Size", attrs={"cell": {"class": "figure d-none d-lg-table-cell"}})
    created_at = TimeColumn(verbose_name="Created", attrs={"cell": {"class": "text-nowrap d-none d-xl-table-cell"}})

    class Meta(CommonsTable.Meta):
        model = ModelVersion
        fields = (
            "label", "model", "team", "status", "approved", "classification", "digest", "total_bytes", "created_at",
        )  # fmt: skip
        order_by = ("-created_at",)
        caption = "Versions"

    @cached_property
    def usable(self) -> set[str]:
        """The digests among the rows shown that a grant in force covers; one statement, in an export, too."""
        rows = self.paginated_rows if hasattr(self, "page") else self.rows
        return selectors.usable_among(row.record.digest for row in rows)

    def render_approved(self, value: str) -> SafeString | str:
        """Say whether it may run somewhere now."""
        return status_badge("approved") if value in self.usable else "—"

    def value_approved(self, value: str) -> str:
        """Export the same as a word."""
        return "yes" if value in self.usable else "no"

    def render_classification(self, value: list[str]) -> str:
        """Write the classes."""
        return class_words(value)

    def value_classification(self, value: list[str]) -> str:
        """Export the same."""
        return class_words(value)

    def render_digest(self, value: str) -> SafeString:
        """Write its beginning; the whole as title."""
        return format_html('<code title="{}">{}</code>', value, value[:12])

    def value_digest(self, value: str) -> str:
        """Export all of it."""
        return value

    def render_total_bytes(self, value: int) -> str:
        """Write the size."""
        return mib(value)

    def value_total_bytes(self, value: int) -> int:
        """Export bytes."""
        return value


class VersionFilter(_CatalogueFilter):
    """Label, model, team, data class, state, digest, approved."""

    search = SearchFilter(columns=["label", "model__name", "model__slug"])
    team = django_filters.ModelChoiceFilter(
        queryset=Team.objects.none(), empty_label="All", label="Team", field_name="model__team"
    )
    status = django_filters.ChoiceFilter(choices=VersionStatus.choices, label="State", empty_label="All")
    data_class = django_filters.ChoiceFilter(choices=DataClass.choices, label="Data class", method="by_class")
    digest = django_filters.CharFilter(label="Digest begins with", max_length=64, method="by_digest")
    approved = django_filters.BooleanFilter(label="Approved somewhere", method="by_approval")

    class Meta:
        model = ModelVersion
        fields: list[str] = []

    def by_class(self, rows: Any, name: str, value: str) -> Any:
        """Versions classified so, or that say so themselves."""
        return rows.filter(Q(classification__contains=[value]) | Q(data_classes__contains=[value]))

    def by_digest(self, rows: Any, name: str, value: str) -> Any:
        """Versions whose digest begins so."""
        return rows.filter(selectors.digest_begins(value))

    def by_approval(self, rows: Any, name: str, value: bool) -> Any:
        """Versions that a grant in force covers; or that none does."""
        covered = rows.filter(digest__in=selectors.usable_digests()).exclude(digest="")
        return covered if value else rows.exclude(pk__in=covered.order_by().values("pk"))


class FileTable(CommonsTable):
    """Files of a version, by path."""

    path = tables.Column(verbose_name="Path", attrs={"cell": {"class": "wrap-anywhere"}})
    size = tables.Column(verbose_name="Size", attrs={"cell": {"class": "figure text-nowrap"}})
    sha256 = tables.Column(verbose_name="SHA-256", orderable=False)
    content_type = tables.Column(
        accessor="blob__content_type", verbose_name="Found to be", orderable=False, attrs=_WIDER
    )
    scan = StatusColumn(
        accessor="blob__scan",
        tones={"clean": "positive", "infected": "critical", "pending": "info", "off": "neutral"},
        labels={str(k): str(v) for k, v in ScanStatus.choices}, verbose_name="Virus scan", orderable=False, attrs=_WIDE,
    )  # fmt: skip
    actions = tables.Column(verbose_name="Actions", empty_values=(), orderable=False, exclude_from_export=True)

    class Meta(CommonsTable.Meta):
        model = VersionFile
        fields = ("path", "size", "sha256", "content_type", "scan", "actions")
        order_by = ("path",)
        caption = "Files"

    def __init__(self, *args: Any, may_edit: bool = False, **kwargs: Any) -> None:
        if not may_edit:
            kwargs["exclude"] = (*kwargs.get("exclude", ()), "actions")
        super().__init__(*args, **kwargs)
        self.may_edit = may_edit

    def render_size(self, value: int) -> SafeString:
        """Write the size; bytes as title."""
        return format_html('<span title="{} bytes">{}</span>', f"{value:,}", mib(value))

    def value_size(self, value: int) -> int:
        """Export bytes."""
        return value

    def render_sha256(self, value: str) -> SafeString:
        """Write the digest."""
        return format_html('<code class="wrap-anywhere">{}</code>', value)

    def value_sha256(self, value: str) -> str:
        """Export it."""
        return value

    def render_actions(self, record: VersionFile) -> SafeString | str:
        """Offer taking a copy, and taking the file away."""
        links = []
        if record.blob_id is not None:
            links.append((reverse("catalogue:file-take", kwargs={"file_uid": record.uid}), "Download", record.path))
        if self.may_edit and record.blob_id is not None:
            links.append((reverse("catalogue:file-remove", kwargs={"file_uid": record.uid}), "Remove", record.path))
        return format_html_join(
            " ", '<a class="btn btn-sm" href="{}">{}<span class="visually-hidden"> {}</span></a>', links
        )


class StoreTable(CommonsTable):
    """Stores by name."""

    name = UidLinkColumn("catalogue:store-detail", kwarg="store_uid", verbose_name="Store")
    scheme = tables.Column(verbose_name="Kind")
    endpoint = tables.Column(verbose_name="Address", attrs={"cell": {"class": "wrap-anywhere d-none d-md-table-cell"}})
    prefix = tables.Column(verbose_name="Below", attrs=_WIDE)
    versions_count = QuantityColumn(unit=None, verbose_name="Versions")
    archived_at = TimeColumn(verbose_name="Archived", attrs=_WIDER)

    class Meta(CommonsTable.Meta):
        model = ModelStore
        fields = ("name", "scheme", "endpoint", "prefix", "versions_count", "archived_at")
        order_by = ("name",)
        caption = "Stores"


class StoreFilter(CommonsFilterSet):
    """Search and kind."""

    search = SearchFilter(columns=["name", "slug", "endpoint", "prefix"])
    scheme = django_filters.ChoiceFilter(
        choices=[choice for choice in Scheme.choices if choice[0] != Scheme.UPLOAD], label="Kind", empty_label="All"
    )
    archived = django_filters.BooleanFilter(
        field_name="archived_at", lookup_expr="isnull", exclude=True, label="Archived"
    )

    class Meta:
        model = ModelStore
        fields: list[str] = []
