"""Pages of the keys that signatures over manifests are verified with: list, register, look at, revoke."""

from __future__ import annotations

from typing import Any

import django_tables2 as tables
from django.urls import reverse

from apps.catalogue import signing_keys
from apps.catalogue.models import Evidence, SigningKey
from apps.catalogue.signing_forms import KeyRevocationForm, SigningKeyForm
from apps.catalogue.signing_models import VIEW
from apps.core import clock
from apps.core.permissions import INSTALLATION, may
from apps.core.tables import CommonsTable, TimeColumn, UidLinkColumn
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView

_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}


def list_crumb() -> Crumb:
    """Return the way back to the list."""
    return Crumb("Signing keys", reverse("catalogue:signing-key-list"))


def url_of(row: SigningKey) -> str:
    """Return a key's page."""
    return reverse("catalogue:signing-key-detail", kwargs={"key_uid": row.uid})


class SigningKeyTable(CommonsTable):
    """Keys."""

    name = UidLinkColumn("catalogue:signing-key-detail", kwarg="key_uid", verbose_name="Key")
    algorithm = tables.Column(verbose_name="Algorithm", attrs=_WIDE)
    valid_from = TimeColumn(verbose_name="Valid from", attrs=_WIDE)
    expires_at = TimeColumn(verbose_name="Valid until")
    revoked_at = TimeColumn(verbose_name="Revoked", default="–", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = SigningKey
        fields = ("name", "algorithm", "valid_from", "expires_at", "revoked_at")
        order_by = ("name",)
        caption = "Signing keys"


class _OfInstallation:
    """Keys belong to the installation."""

    def scope_object(self) -> Any:
        """Ask permissions for the installation."""
        return INSTALLATION


class SigningKeyList(_OfInstallation, ListView):
    """Public keys that compliance registered."""

    title = "Signing keys"
    intro = (
        "Public keys that signatures over a version's manifest are verified with, each for the models of some teams."
    )
    permission = VIEW
    queryset = SigningKey.objects.all()
    table_class = SigningKeyTable
    exportable = False
    empty_title = "No keys yet"
    empty_text = "Register a team's public key, so that its signatures count as evidence once they are verified."
    empty_icon = "key"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Registering one."""
        if may(self.request.user, signing_keys.MANAGE, INSTALLATION):
            return [("Register a key", reverse("catalogue:signing-key-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        found = self.get_page_actions()
        return found[0] if found else None


class SigningKeyCreate(_OfInstallation, CreateView):
    """Register a public key."""

    title = "Register a signing key"
    intro = "It verifies signatures over the manifests of these teams' models. The private key never comes here."
    permission = signing_keys.MANAGE
    queryset = SigningKey.objects.all()
    form_class = SigningKeyForm

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def perform(self, form: Any) -> str:
        """Register it."""
        data = form.cleaned_data
        row = signing_keys.register_key(
            data["name"], data["public_key"], data["holder"], data["expires_at"], [one.pk for one in data["teams"]],
            actor=self.actor, valid_from=data["valid_from"], pss=data["rsa_padding"] != "pkcs1v15",
        )  # fmt: skip
        return url_of(row)


class SigningKeyDetail(_OfInstallation, DetailView):
    """One key, and what was verified with it."""

    queryset = SigningKey.objects.select_related("registered_by", "revoked_by")
    permission = VIEW
    url_kwarg = "key_uid"
    template_name = "catalogue/signing_key_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add its standing and the latest signatures."""
        row: SigningKey = self.object
        recent = Evidence.objects.visible_to(self.request.user).filter(signing_key=row)
        return super().get_context(
            why_not=row.why_not(clock.now()),
            teams=list(row.teams.order_by("name")),
            recent=list(recent.select_related("model_version__model").order_by("-pk")[:20]),
            may_revoke=may(self.request.user, signing_keys.MANAGE, INSTALLATION),
            **extra,
        )


class SigningKeyRevoke(_OfInstallation, ActionView):
    """Take a key out of use."""

    title = "Revoke the key"
    intro = "Nothing is verified with it from now on, for ever."
    queryset = SigningKey.objects.all()
    permission = signing_keys.MANAGE
    url_kwarg = "key_uid"
    form_class = KeyRevocationForm
    submit_label = "Revoke it"
    danger = True
    success_message = "Revoked."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the key."""
        return [list_crumb(), Crumb(self.object.name, url_of(self.object))]

    def perform(self, form: Any) -> str:
        """Revoke it."""
        data = form.cleaned_data
        signing_keys.revoke_key(
            self.object.pk, data["reason"], actor=self.actor, void_from=data["void_from"],
            expected_version=self.expected_version,
        )  # fmt: skip
        return url_of(self.object)
