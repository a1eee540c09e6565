"""Rules to start from: offered while nothing is published, valid as they stand, in force only once published."""

from __future__ import annotations

import json

import pytest
from django.urls import reverse

from apps.approvals import deciders, engine, ports
from apps.approvals.models import Policy
from tests.factories import Company, client_for


@pytest.mark.requirement("change-requests-1.9")
@pytest.mark.parametrize("slug", ["quota", "change"])
def test_proposed_rules_are_offered_read_and_published(company: Company, slug: str) -> None:
    """One click leads to the form with the rules in it; published as they stand they are the policy."""
    admin = client_for(company.admin)
    listed = admin.get(reverse("approvals:policy-list"))
    start = f"{reverse('approvals:policy-create')}?start={slug}"
    assert start in listed.content.decode()
    assert not Policy.objects.filter(slug=slug).exists()
    form = admin.get(start).context["form"]
    assert form.initial["slug"] == slug
    answer = admin.post(start, {key: form.initial[key] for key in ("slug", "name", "subject_type", "body")})
    assert answer.status_code == 303, answer.content.decode()[:2000]
    assert Policy.objects.filter(slug=slug, versions__isnull=False).exists()
    assert start not in admin.get(reverse("approvals:policy-list")).content.decode()


def test_who_may_not_publish_is_offered_nothing(company: Company) -> None:
    """Others read the list as before."""
    assert "?start=" not in client_for(company.vp).get(reverse("approvals:policy-list")).content.decode()


def test_proposed_rules_are_valid_whatever_else_changes() -> None:
    """The engine takes them, and every fact that they name is known."""
    known = set(ports.known_facts())
    for policy in ports.starting_policies():
        rules = engine.parse_text(json.dumps(policy.body), roles=deciders.deciding_roles())[1]
        assert set(rules.facts()) <= known, policy.slug
