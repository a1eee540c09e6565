"""Pages of policies: read by everybody, published by platform admins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import OuterRef, Subquery
from django.urls import reverse

from apps.approvals import deciders, engine, policies, policy_help, ports, rehearsal, selectors, wording
from apps.approvals.forms import PolicyForm, PreviewForm, RehearsalForm
from apps.approvals.models import Policy, PolicyVersion
from apps.approvals.tables import PolicyTable
from apps.core.errors import Invalid, NotVisible
from apps.core.permissions import may
from apps.core.views import CreateView, Crumb, DetailView, ListView, LiveView, ObjectMixin


def _policies() -> Any:
    newest = PolicyVersion.objects.filter(policy=OuterRef("pk")).order_by("-number")
    return Policy.objects.annotate(
        newest_number=Subquery(newest.values("number")[:1]), newest_at=Subquery(newest.values("published_at")[:1])
    )


class PolicyList(ListView):
    """The rules everybody is judged by."""

    title = "Policies"
    intro = "Who is asked for what. Requests keep the version that was in force when they were submitted."
    queryset = staticmethod(_policies)
    table_class = PolicyTable
    exportable = False
    empty_title = "No policy is published"
    empty_text = "Nothing can be requested before a platform admin publishes the rules for it."
    empty_icon = "scale"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer a new policy to who may publish."""
        if not may(self.request.user, "approvals.policy.publish"):
            return []
        published = set(Policy.objects.values_list("slug", flat=True))
        create = reverse("approvals:policy-create")
        # What a room needs a policy for and has none: without it nobody can ask.
        missing = [one for one in ports.starting_policies() if one.slug not in published]
        return [
            *((f"Start with “{one.name}”", f"{create}?start={one.slug}") for one in missing),
            ("New policy", create),
        ]


class PolicyDetail(DetailView):
    """A policy in sentences, version by version."""

    queryset = Policy.objects
    lookup = "slug"
    template_name = "approvals/policy_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the list."""
        return [Crumb("Policies", reverse("approvals:policy-list"))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the version asked for (by default the newest), in sentences and as data."""
        versions = list(
            PolicyVersion.objects.filter(policy=self.object)
            .select_related("policy", "published_by")
            .order_by("-number")
        )
        number = self.kwargs.get("number")
        version = next((v for v in versions if number in (None, v.number)), None)
        if version is None:
            raise NotVisible
        rules = deciders.rules_of(version)
        return super().get_context(
            version=version,
            versions=versions,
            newest=version.pk == versions[0].pk,
            automatic=[(rule.name, wording.automatic_text(rule)) for rule in rules.automatic],
            stages=[(stage.name, wording.stage_text(stage)) for stage in rules.stages],
            more=wording.rules_text(rules, self.object.subject_type),
            body=wording.body_text(version.body),
            kind=ports.label_of(self.object.subject_type),
            facts=[(name, ports.meaning_of(name)) for name in rules.facts()],
            preview_form=PreviewForm(user=self.request.user, initial={"facts": facts_example(rules)}),
            may_publish=may(self.request.user, "approvals.policy.publish"),
            **extra,
        )


def facts_example(rules: engine.PolicyRules) -> str:
    """Return lines for the facts a policy asks about, to fill in."""
    return "\n".join(f"{name} = " for name in rules.facts())


class _PolicyForm(CreateView):
    """Publishing: rules as text, checked line by line, tried with facts before."""

    form_class = PolicyForm
    permission = "approvals.policy.publish"
    template_name = "approvals/policy_form.html"
    submit_label = "Publish"
    scope_free = "reads no tenant rows"

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the list."""
        return [Crumb("Policies", reverse("approvals:policy-list"))]

    def perform(self, form: Any) -> str:
        """Publish."""
        data = form.cleaned_data
        version = policies.publish_policy(
            self.slug_of(data),
            data["name"],
            self.subject_type_of(data),
            policies.read_text(data["body"], self.subject_type_of(data)),
            actor=self.actor,
            expected_version=self.expected_version,
        )
        return reverse("approvals:policy-detail", kwargs={"slug": version.policy.slug})

    def slug_of(self, data: Mapping[str, Any]) -> str:
        """Return the policy's short name."""
        return str(data["slug"])

    def subject_type_of(self, data: Mapping[str, Any]) -> str:
        """Return the kind of request it is for."""
        return str(data["subject_type"])

    success_message = "Published. It applies to requests submitted from now on."

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the preview and the known facts."""
        return super().get_context(
            preview_form=PreviewForm(user=self.request.user),
            known_facts=ports.known_facts(),
            roles=deciders.deciding_roles(),
            reviewers=deciders.reviewing_roles(),
            terms=[(kind, ports.known_terms(kind)) for kind in ports.subject_types() if ports.known_terms(kind)],
            examples=policy_help.EXAMPLES,
            **extra,
        )


class PolicyCreate(_PolicyForm):
    """A new policy."""

    title = "New policy"
    intro = "Each publication is a version that never changes. Open requests keep theirs."

    def get_initial(self) -> dict[str, Any]:
        """Start from rules that a room proposes (`?start=`), or from nothing."""
        wanted = self.request.GET.get("start", "")
        start = next((one for one in ports.starting_policies() if one.slug == wanted), None)
        if start is None:
            return super().get_initial()
        return {
            "slug": start.slug,
            "name": start.name,
            "subject_type": start.subject_type,
            "body": wording.body_text(start.body),
        }

    def perform(self, form: Any) -> str:
        """Publish the first version; a short name in use is a mistake, not a next version."""
        if Policy.objects.filter(slug=form.cleaned_data["slug"]).exists():
            raise Invalid({"slug": "A policy with this short name exists. Open it to publish its next version."})
        return super().perform(form)


class PolicyPublish(_PolicyForm, ObjectMixin):
    """The next version of a policy."""

    queryset = Policy.objects
    lookup = "slug"
    intro = "This becomes the version that new requests are judged by. Open requests keep theirs."

    def scope_object(self) -> Any:
        """A policy belongs to the installation."""
        return None

    def get_title(self) -> str:
        """Name the policy."""
        return f"Publish: {self.object}"

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the policy."""
        here = reverse("approvals:policy-detail", kwargs={"slug": self.object.slug})
        return [*super().breadcrumbs(), Crumb(str(self.object), here)]

    def get_form_kwargs(self) -> dict[str, Any]:
        """Short name and kind cannot change."""
        return {"fixed": True}

    def get_initial(self) -> dict[str, Any]:
        """Start from the newest version."""
        newest = selectors.newest(self.object.slug)
        return {
            "slug": self.object.slug,
            "name": self.object.name,
            "subject_type": self.object.subject_type,
            "body": wording.body_text(newest.body),
        }

    def slug_of(self, data: Mapping[str, Any]) -> str:
        """The policy of the address, whatever the form says."""
        return str(self.object.slug)

    def subject_type_of(self, data: Mapping[str, Any]) -> str:
        """The policy's own kind."""
        return str(self.object.subject_type)


class PolicyPreview(LiveView):
    """What rules would ask for, given facts; changes nothing."""

    form_class = PreviewForm
    template_name = "approvals/policy_preview.html"
    scope_free = "reads rules that everybody may read; units by visible_to"

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the units in scope."""
        return {"user": self.request.user}

    def compute(self, form: Any) -> Mapping[str, Any]:
        """Read the rules and apply them."""
        data = form.cleaned_data
        if not data.get("body", "").strip():
            return {"empty": True}
        if form.errors:
            texts = [str(text) for found in form.errors.values() for text in found]
            return {"problems": texts, "where": "These facts cannot be read yet"}
        try:
            rules = engine.parse_text(
                data["body"], roles=deciders.deciding_roles(), reviewers=deciders.reviewing_roles()
            )[1]
        except engine.PolicyError as error:
            return {"problems": [str(fault) for fault in error.faults], "where": "These rules cannot be read yet"}
        unit = data.get("unit")
        preview = selectors.preview_rules(rules, data.get("facts") or {}, unit_id=unit.pk if unit else None)
        labels = [ports.meaning_of(name).label for name in preview.missing_facts]
        return {"preview": preview, "missing": labels, "unit": unit}


class PolicyRehearsal(LiveView):
    """What rules would have asked for of the last requests of a kind, beside what happened; changes nothing."""

    form_class = RehearsalForm
    template_name = "approvals/policy_rehearsal.html"
    scope_free = "reads past requests by visible_to"

    def compute(self, form: Any) -> Mapping[str, Any]:
        """Read the rules and evaluate them on stored facts."""
        data = form.cleaned_data
        kind = data.get("subject_type", "")
        if not data.get("body", "").strip() or not kind:
            return {"empty": True}
        names = policies.known_names(kind)
        try:
            rules = engine.parse_text(
                data["body"], roles=names["roles"] or [], reviewers=names["reviewers"], terms=names["terms"]
            )[1]
        except engine.PolicyError as error:
            return {"problems": [str(fault) for fault in error.faults]}
        return {"rehearsal": rehearsal.rehearse(rules, kind, self.request.user), "kind": ports.label_of(kind)}
