"""Forms of the metering room."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings

from apps.clusters.models import Cluster
from apps.core.forms import CommonsForm, UtcDateTimeField


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
