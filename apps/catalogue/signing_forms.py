"""Forms of signatures and of the keys that they are verified with; actions say what is wrong."""

from __future__ import annotations

from typing import Any

from django import forms

from apps.catalogue import signatures, signing_keys
from apps.core import clock
from apps.core.forms import CommonsForm, UtcDateTimeField
from apps.teams.models import Team


def signature_fields() -> dict[str, forms.Field]:
    """Return what a signature is typed into, beside what all evidence has."""

    def area(rows: int) -> forms.Textarea:
        return forms.Textarea(attrs={"rows": rows, "class": "font-monospace", "spellcheck": "false"})

    return {
        "signature": forms.CharField(
            required=False, max_length=2 * signatures.MAX_SIGNATURE, widget=area(4),
            help_text="Base64. Over the manifest as it is downloaded from the version's page (cosign sign-blob,"
            " openssl dgst -sha256 -sign), or over the payload below.",
        ),
        "signed_payload": forms.CharField(
            required=False, max_length=2 * signatures.MAX_PAYLOAD, widget=area(4), strip=False,
            help_text="Where a cosign payload was signed: its base64, or the text itself. Its docker-manifest-digest"
            " is the version's digest.",
        ),
        "envelope": forms.CharField(
            required=False, max_length=2 * signatures.MAX_PAYLOAD, widget=area(6), label="Or a DSSE envelope",
            help_text="JSON with payloadType, payload and signatures; an in-toto statement whose subject is the"
            " version's digest.",
        ),
    }  # fmt: skip


class SigningKeyForm(CommonsForm):
    """Register a public key."""

    name = forms.CharField(max_length=100, help_text="Such as “Fraud models release key 2027”.")
    holder = forms.CharField(
        max_length=300, label="Who holds the private key", help_text="Such as “Release pipeline of Fraud, in the HSM”."
    )
    public_key = forms.CharField(
        max_length=10_000, widget=forms.Textarea(attrs={"rows": 7, "class": "font-monospace", "spellcheck": "false"}),
        help_text="PEM: ECDSA on P-256 (cosign's), Ed25519, or RSA of at least 2,048 bits. Compare its fingerprint"
        " with the holder by another way than the one it came by.",
    )  # fmt: skip
    rsa_padding = forms.ChoiceField(
        choices=[("pss", "PSS"), ("pkcs1v15", "PKCS #1 v1.5")], required=False, label="Padding of an RSA key",
        help_text="Counts for RSA only.",
    )  # fmt: skip
    teams = forms.ModelMultipleChoiceField(
        queryset=Team.objects.none(), label="For models of", widget=forms.SelectMultiple(attrs={"size": 6})
    )
    valid_from = UtcDateTimeField(required=False, label="Valid from", help_text="Leave empty for now.")
    expires_at = UtcDateTimeField(label="Valid until", help_text="Within three years.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["teams"].queryset = Team.objects.order_by("name")  # type: ignore[attr-defined]  # a model field

    def clean(self) -> dict[str, Any]:
        """Judge every field that can be read by itself, so that all that is wrong is told at once."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        given = {name: data[name] for name in ("name", "holder", "public_key", "expires_at") if data.get(name)}
        at = clock.now()
        if "valid_from" not in self.errors:
            given["valid_from"] = data.get("valid_from") or at
        errors, _read = signing_keys.judge(given | {"pss": data.get("rsa_padding") != "pkcs1v15"}, at)
        for field, text in errors.items():
            if field not in self.errors:
                self.add_error(field, text)
        return data

    def clean_public_key(self) -> str:
        """Send a private key that was pasted by mistake into no page again."""
        text = str(self.cleaned_data["public_key"])
        if signatures.is_private(text):
            typed: Any = self.data
            self.data = typed = typed.copy()
            typed[self.add_prefix("public_key")] = ""
            raise forms.ValidationError(signatures.PRIVATE)
        return text


class KeyRevocationForm(CommonsForm):
    """Take a key out of use."""

    void_from = UtcDateTimeField(
        required=False, label="In other hands since",
        help_text="What came in from then on counts no more. Leave empty where the key was only replaced: what it"
        " signed keeps counting.",
    )  # fmt: skip
    reason = forms.CharField(
        max_length=2000, widget=forms.Textarea(attrs={"rows": 3}), help_text="Kept with the change."
    )
