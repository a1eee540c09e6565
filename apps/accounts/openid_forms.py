"""Forms of identity providers."""

from __future__ import annotations

import re
from typing import Any

from django import forms

from apps.core.forms import CommonsForm


class ProviderForm(CommonsForm):
    """A provider's settings; the stored secret is never shown."""

    name = forms.CharField(max_length=100, help_text="As people know it: “Sign in at …” stands on the sign-in page.")
    issuer = forms.CharField(
        max_length=300,
        help_text="Exactly as the provider states it, such as https://id.example.com/realms/staff.",
        widget=forms.URLInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    client_id = forms.CharField(
        label="Client id", max_length=300, widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"})
    )
    client_secret = forms.CharField(
        label="Client secret",
        max_length=1000,
        required=False,
        help_text="Stored encrypted and never shown again. Leave it empty for a public client.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    extra_scopes = forms.CharField(
        label="Further scopes", max_length=1000, required=False,
        help_text="Besides openid, profile and email; separated by spaces. Many providers need one for groups.",
    )  # fmt: skip
    groups_claim = forms.CharField(
        label="Claim with the groups", max_length=60, required=False, initial="groups",
        help_text="Where tokens name a person's groups; “realm_access.roles” looks into objects. Empty: not read.",
    )  # fmt: skip
    mail_domains = forms.CharField(
        label="Mail domains", max_length=5000, required=False,
        help_text="An account is made or connected only for a verified address in one of these. Empty: any domain that"
        " the provider verified.",
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false"}),
    )  # fmt: skip
    just_in_time = forms.BooleanField(
        label="Make accounts at the first sign-in", required=False, initial=True,
        help_text="Off: only who has an account here already, or got one by SCIM, can sign in.",
    )  # fmt: skip
    links_by_mail = forms.BooleanField(
        label="Connect existing accounts by address", required=False,
        help_text="Whoever proves an address at the provider gets into the account here that has it. Switch it on only"
        " for a provider in which nobody can take somebody else's address. Each person is told by mail.",
    )  # fmt: skip
    second_factor_there = forms.BooleanField(
        label="Demand a second factor at the provider", required=False,
        help_text="Who gave none there is refused. The provider has to say so in the amr or acr claim.",
    )  # fmt: skip

    def values(self) -> dict[str, Any]:
        """Return what the actions take."""
        data = {name: value for name, value in self.cleaned_data.items() if name != "version"}
        for name in ("extra_scopes", "mail_domains"):
            data[name] = [item for item in re.split(r"[\s,;]+", data[name]) if item]
        return data


class ProviderEditForm(ProviderForm):
    """The same for a provider that exists: an empty secret leaves the stored one."""

    field_order = tuple(ProviderForm.base_fields)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["client_secret"].label = "New client secret"
        self.fields["client_secret"].help_text = "Leave it empty to keep the stored one."
