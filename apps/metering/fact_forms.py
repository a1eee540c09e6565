"""Forms of rules and claims."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.clusters.models import Cluster
from apps.core.forms import CommonsForm, UtcDateTimeField, WholeNumberField
from apps.metering.rules import MAX_PARTS
from apps.quotas.choices import Environment
from apps.teams.models import Team


class RuleForm(CommonsForm):
    """What a unit of a resource is of a GPU."""

    resource = forms.CharField(
        max_length=120, label="Resource", help_text="As nodes name it, such as nvidia.com/mig-3g.40gb."
    )
    gpu_model = forms.CharField(
        max_length=120, required=False, label="GPU model", help_text="As the nodes' label says. Empty: every model."
    )
    numerator = WholeNumberField(label="Parts held by a unit", min_value=1, max_value=MAX_PARTS, initial=1)
    denominator = WholeNumberField(label="Parts of a whole GPU", min_value=1, max_value=MAX_PARTS, initial=1)
    valid_from = UtcDateTimeField(
        label="From", help_text="The current hour or a later one; rounded down to the full hour. Never back."
    )
    note = forms.CharField(max_length=300, required=False, label="Note", help_text="Where the share is written down.")


class RuleEndForm(CommonsForm):
    """When a rule ends."""

    valid_from = UtcDateTimeField(label="Ends at", help_text="The current hour or a later one.")


class ClaimForm(CommonsForm):
    """Whose a namespace is, and since when."""

    cluster = forms.ModelChoiceField(queryset=Cluster.objects.none(), label="Cluster", to_field_name="slug")
    namespace = forms.CharField(max_length=120, label="Namespace")
    team = forms.ModelChoiceField(
        queryset=Team.objects.none(),
        label="Team",
        to_field_name="slug",
        help_text="Pays for the namespace from then on. Offered are the teams that you may claim for.",
    )
    environment = forms.ChoiceField(
        choices=[("", "Not said"), *Environment.choices], required=False, label="Environment"
    )
    valid_from = UtcDateTimeField(
        label="From", help_text="Hours of open months from here on move to the team; closed months do not change."
    )
    reason = forms.CharField(max_length=300, label="Why it is the team's", widget=forms.Textarea(attrs={"rows": 3}))

    def __init__(self, *args: Any, teams: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, queryset in (("cluster", Cluster.objects.order_by("name", "pk")), ("team", teams)):
            field = self.fields[name]
            if isinstance(field, forms.ModelChoiceField):
                field.queryset = queryset


class ClaimEndForm(CommonsForm):
    """When a claim ends."""

    at = UtcDateTimeField(label="Ends at", help_text="Rounded down to the full hour; open hours after it are nobody's.")
    reason = forms.CharField(max_length=300, required=False, label="Why")


class ClaimWithdrawForm(CommonsForm):
    """Why a claim is taken back."""

    reason = forms.CharField(max_length=300, required=False, label="Why")
