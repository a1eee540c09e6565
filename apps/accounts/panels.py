"""The accounts room's entries in the navigation, and what it adds to the page of a provider."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.accounts.choices import UserKind
from apps.accounts.models import ExternalIdentity, IdentityProvider, User
from apps.core.permissions import INSTALLATION, may
from portal.panels import nav, panel

nav("People", "accounts:user-list", icon="users", order=30, permission="accounts.user.view", group="Governance")
nav(
    "Identity providers",
    "accounts:provider-list",
    icon="key",
    order=32,
    permission="accounts.provider.view",
    group="Governance",
)


@panel(page="provider", order=20, permission="accounts.provider.view")
def provisioning(request: HttpRequest, provider: IdentityProvider) -> dict[str, Any]:
    """Say what the provider's directory keeps here."""
    kept = ExternalIdentity.objects.filter(provider=provider, provisioned=True)
    return {
        "template": "accounts/panels/provisioning.html",
        "provider": provider,
        "kept": kept.count(),
        "groups": provider.groups.count(),
        "held": provider.held_since,
    }


@panel(page="person", order=20, permission="accounts.provider.view")
def identities(request: HttpRequest, person: User) -> dict[str, Any] | None:
    """Say where the person signs in."""
    rows = list(ExternalIdentity.objects.filter(user=person).select_related("provider").order_by("provider__name"))
    if not rows:
        return None
    manage = may(request.user, "accounts.provider.manage", INSTALLATION)
    return {"template": "accounts/panels/identities.html", "rows": rows, "may_manage": manage}


@panel(page="person", order=900, permission="accounts.user.erase")
def erasure(request: HttpRequest, person: User) -> dict[str, Any] | None:
    """Say whether the person was erased, and offer it; a program has nothing personal."""
    if person.kind != UserKind.PERSON:
        return None
    return {"template": "accounts/panels/erasure.html", "person": person}
