"""Forms of sources: register one, waive its failed checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms

from apps.clusters.models import Cluster
from apps.core.forms import CommonsForm, UtcDateTimeField, WholeNumberField
from apps.metering import source_options
from apps.metering.choices import POLLED
from apps.metering.models import Source
from apps.metering.selftest import TITLES
from apps.metering.source_exclusive import refusal


class SourceForm(CommonsForm):
    """Register a source of record."""

    #: Of a source that is there already; of a new one the form's own field says it.
    kind_of_source = ""
    cluster = forms.ModelChoiceField(queryset=Cluster.objects.none(), label="Cluster")
    kind = forms.ChoiceField(
        choices=[(kind.value, kind.label) for kind in POLLED],
        label="Kind",
        help_text="Prometheus (also Thanos, Mimir) tells everything. OpenCost and Kubecost only where every GPU is"
        " exclusive: they misstate MIG slices and shared GPUs.",
    )
    name = forms.CharField(max_length=120, label="Name", help_text="As pages name it, for example “Prometheus DC1”.")
    url = forms.CharField(
        max_length=300,
        label="Address",
        help_text="http:// or https://, with the path prefix if there is one, without /api/v1 or /allocation."
        " OpenCost listens on port 9003, Kubecost on 9090.",
    )
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
    gpu_resources = forms.CharField(
        max_length=500,
        required=False,
        label="GPU resources",
        help_text="Prometheus only. Resources that count as GPUs, separated by commas; empty: those of NVIDIA (MIG"
        " included), AMD and Intel. One ending in _ stands for all that begin so.",
    )
    api_cluster = forms.CharField(
        max_length=120,
        required=False,
        label="Name of the cluster there",
        help_text="OpenCost and Kubecost only, where one server holds several clusters: the name that its rows carry;"
        " several with commas.",
    )
    resolution_seconds = WholeNumberField(
        unit="s",
        min_value=source_options.RESOLUTION[0],
        max_value=source_options.RESOLUTION[1],
        required=False,
        label="Resolution",
        help_text="OpenCost and Kubecost only: how finely it looks at pods. Each edge of a pod may be off by so much."
        " Empty: 300 s, OpenCost's default; ask for 60 s where the server can.",
    )
    timeout_seconds = WholeNumberField(
        unit="s",
        min_value=source_options.TIMEOUT[0],
        max_value=source_options.TIMEOUT[1],
        required=False,
        label="Wait for an answer",
        help_text="How long the server may be silent before the hour is tried again later. Empty: 60 s.",
    )
    valid_from = UtcDateTimeField(label="From", help_text="Hours from here on are read; history is filled backwards.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["cluster"]
        if isinstance(field, forms.ModelChoiceField):
            field.queryset = Cluster.objects.order_by("name", "pk")

    def clean_cluster_filter(self) -> str:
        """Take one or more label matchers, nothing that could leave the braces."""
        try:
            return source_options.matcher(str(self.cleaned_data["cluster_filter"]))
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error

    def clean_gpu_resources(self) -> list[str]:
        """Take resource names as Kubernetes or kube-state-metrics spells them."""
        try:
            return source_options.resources(str(self.cleaned_data["gpu_resources"]).split(","))
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error

    def clean(self) -> dict[str, Any]:
        """Refuse an allocation API where a GPU is shared, beside the field that can be changed."""
        data = super().clean() or {}
        cluster, kind = data.get("cluster"), data.get("kind")
        if cluster is not None and kind and (reason := refusal(cluster.pk, kind)):
            self.add_error("kind", reason)
        return data

    def options(self) -> dict[str, object]:
        """Return the options of the kind as they are set, the empty ones, too."""
        data = self.cleaned_data
        kind = data.get("kind") or self.kind_of_source
        names = [name.strip() for name in data.get("api_cluster", "").split(",") if name.strip()]
        return {name: names if name == "clusters" else data.get(name) for name in source_options.OF_KIND.get(kind, ())}


class ChangeSourceForm(SourceForm):
    """Change a source in place: only what its kind has; its token is not shown."""

    forget_token = forms.BooleanField(
        required=False, label="Remove the stored token", help_text="Where the server asks for none any more."
    )

    def __init__(self, *args: Any, source: Source, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind_of_source = source.kind
        fields = {"api_cluster" if name == "clusters" else name for name in source_options.OF_KIND.get(source.kind, ())}
        kept = {"version", "name", "url", "token", "forget_token", *fields}
        for name in set(self.fields) - kept:
            del self.fields[name]
        self.fields["token"].help_text = "Empty: the stored one stays. A new one replaces it; it is never shown again."
        if not source.credentials:
            del self.fields["forget_token"]
            self.fields["token"].help_text = "None is stored. Only if the server asks for one; never shown again."
        self.order_fields(["name", "url", "token", "forget_token"])

    @staticmethod
    def initial_of(source: Source) -> dict[str, Any]:
        """Return what the form shows of a source."""
        options = source.options
        return {
            "name": source.name,
            "url": source.url,
            "cluster_filter": options.get("cluster_filter", ""),
            "gpu_resources": ", ".join(options.get("gpu_resources") or []),
            "api_cluster": ", ".join(options.get("clusters") or []),
            "resolution_seconds": options.get("resolution_seconds"),
            "timeout_seconds": options.get("timeout_seconds"),
        }


class WaiveForm(CommonsForm):
    """Which failed checks count as passed, why, and until when."""

    codes = forms.MultipleChoiceField(
        label="Failed checks",
        widget=forms.CheckboxSelectMultiple,
        help_text="Only these; whatever fails besides still makes the source unfit.",
    )
    reason = forms.CharField(
        max_length=500,
        label="Reason",
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Why the source may be billed from all the same. Auditors read it, with your name.",
    )
    until = UtcDateTimeField(label="Until", help_text="At most 92 days from now; it can be revoked earlier.")

    def __init__(self, *args: Any, failing: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["codes"]
        if isinstance(field, forms.MultipleChoiceField):
            field.choices = [(code, TITLES.get(code, code)) for code in failing]
