"""Pages of placement rules: read by everybody, set by compliance."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.core.errors import Conflict
from apps.core.permissions import may
from apps.core.views import ActionView, CreateView, Crumb, ListView
from apps.deployments import placement_rules
from apps.deployments.forms import ReasonForm, RuleForm
from apps.deployments.models import PlacementRule
from apps.deployments.tables import RULES_EXPORTED, RuleFilter, RuleTable


def _rules_crumb() -> Crumb:
    return Crumb("Placement rules", reverse("deployments:rule-list"))


class RuleList(ListView):
    """The placement rules, those that ended included."""

    title = "Placement rules"
    intro = "Where data of a class may be processed. A release that breaks a rule is refused, with the rule."
    queryset = PlacementRule.objects.all()
    table_class = RuleTable
    filterset_class = RuleFilter
    export_event = RULES_EXPORTED
    empty_title = "No placement rules"
    empty_text = "Until compliance adds one, every class may run on every cluster."
    empty_icon = "map-pin"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Adding, to compliance."""
        if may(self.request.user, placement_rules.PUBLISH, None):
            return [("Add a rule", reverse("deployments:rule-add"))]
        return []

    def get_table_kwargs(self) -> dict[str, Any]:
        """Ending, to compliance."""
        return {} if may(self.request.user, placement_rules.PUBLISH, None) else {"exclude": ("end",)}


class RuleAdd(CreateView):
    """Add a rule from now on."""

    title = "Add a placement rule"
    intro = "It holds from now on for every new release. What serves already stays, and shows where it breaks the rule."
    permission = placement_rules.PUBLISH
    queryset = PlacementRule.objects.all()
    form_class = RuleForm
    submit_label = "Add the rule"
    success_message = "The rule is in force."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the rules."""
        return [_rules_crumb()]

    def perform(self, form: Any) -> str:
        """Add it."""
        data = form.cleaned_data
        placement_rules.add_rule(
            data["data_class"], data["location"], data["jurisdictions"].split(","), data["text"], data["citation"],
            data["reason"], actor=self.actor,
        )  # fmt: skip
        return reverse("deployments:rule-list")


class RuleEnd(ActionView):
    """End a rule."""

    title = "End the placement rule"
    intro = "From now on it refuses nothing any more. It stays on record with its dates."
    permission = placement_rules.PUBLISH
    queryset = PlacementRule.objects.all()
    url_kwarg = "rule_uid"
    form_class = ReasonForm
    submit_label = "End it"
    danger = True
    success_message = "The rule has ended."
    object: PlacementRule

    def scope_object(self) -> Any:
        """A rule belongs to the installation."""
        return None

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the rules."""
        return [_rules_crumb()]

    def check_state(self) -> None:
        """It ends once."""
        if self.object.valid.upper is not None:
            raise Conflict("This rule has ended.", current={"version": self.object.version})

    def perform(self, form: Any) -> str:
        """End it."""
        placement_rules.end_rule(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return reverse("deployments:rule-list")
