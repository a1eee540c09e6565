"""Forms of the metering room."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings

from apps.clusters.models import Cluster
from apps.core.forms import CommonsForm, UtcDateTimeField
from apps.metering.choices import POLLED, SourceKind


class RetryForm(CommonsForm):
    """Which hours to read again."""

    start = UtcDateTimeField(label="From", help_text="The open hours from here on are read again.")
    end = UtcDateTimeField(label="Until")

    def clean(self) -> dict[str, Any]:
        """Refuse a reversed time."""
        data = super().clean() or {}
        if data.get("start") and data.get("end") and data["end"] <= data["start"]:
            self.add_error("end", "The end must lie after the beginning.")
        return data


class EndSourceForm(CommonsForm):
    """When a source stops being the one of record."""

    at = UtcDateTimeField(label="Ends at", help_text="Rounded down to the full hour; another source can follow then.")


class SourceForm(CommonsForm):
    """Register a source of record."""

    cluster = forms.ModelChoiceField(queryset=Cluster.objects.none(), label="Cluster")
    kind = forms.ChoiceField(choices=[(kind.value, kind.label) for kind in POLLED], label="Kind")
    name = forms.CharField(max_length=120, label="Name", help_text="As pages name it, for example “Prometheus DC1”.")
    url = forms.CharField(max_length=300, label="Address", help_text="http:// or https://, without a path of the API.")
    token = forms.CharField(
        max_length=4000,
        required=False,
        label="Bearer token",
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Only if the server asks for one; stored encrypted and never shown again.",
    )
    cluster_filter = forms.CharField(
        max_length=200,
        required=False,
        label="Label matcher",
        help_text='Prometheus only, where one server holds several clusters: cluster="dc1".',
    )
    valid_from = UtcDateTimeField(label="From", help_text="Hours from here on are read; history is filled backwards.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["cluster"]
        if isinstance(field, forms.ModelChoiceField):
            field.queryset = Cluster.objects.order_by("name", "pk")

    def clean_cluster_filter(self) -> str:
        """Take one or more label matchers, nothing that could leave the braces."""
        text = str(self.cleaned_data["cluster_filter"]).strip()
        if "{" in text or "}" in text or (text and "=" not in text):
            raise forms.ValidationError('Write label matchers without braces, such as cluster="dc1".')
        return text

    def options(self) -> dict[str, object]:
        """Return the source's options."""
        text = self.cleaned_data.get("cluster_filter")
        return {"cluster_filter": text} if text and self.cleaned_data["kind"] == SourceKind.PROMETHEUS else {}


class ImportForm(CommonsForm):
    """Upload a file of usage intervals."""

    cluster = forms.ModelChoiceField(queryset=Cluster.objects.none(), label="Cluster", to_field_name="slug")
    file = forms.FileField(label="CSV file", help_text="A header line, then one interval a line.")
    source_name = forms.CharField(
        max_length=120,
        required=False,
        label="Name of the source",
        help_text="Files under one name belong together. Empty: Imported usage.",
    )
    epoch = UtcDateTimeField(
        required=False, label="Numbers count from", help_text="Only where start and end are seconds after this moment."
    )
    strict = forms.BooleanField(
        required=False,
        label="Refuse the whole file where a row is wrong",
        help_text="Otherwise the good rows are taken.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["cluster"]
        if isinstance(field, forms.ModelChoiceField):
            field.queryset = Cluster.objects.order_by("name", "pk")

    def clean_file(self) -> Any:
        """Refuse what is larger than the installation takes."""
        file = self.cleaned_data["file"]
        if file.size > settings.COMMONS_IMPORT_MAX_BYTES:
            megabytes = settings.COMMONS_IMPORT_MAX_BYTES // (1024 * 1024)
            raise forms.ValidationError(
                f"The file is larger than {megabytes} MiB. Split it by time, or use manage.py import_usage."
            )
        return file
