"""Forms of models, versions, sources, uploads and stores. What is wrong is told by the actions, next to the field."""

from __future__ import annotations

import json
from typing import Any

from django import forms

from apps.catalogue import stores, version_actions
from apps.catalogue.choices import ActAnnex, ActRole, RiskTier, Scheme, SourceKind
from apps.catalogue.models import Model, ModelVersion, Regime
from apps.core.forms import CommonsForm, UtcDateTimeField
from apps.quotas.choices import DataClass
from apps.teams.models import Team

_CLASSES_HELP = "Everything it reads or was trained on. The most sensitive one decides what is asked for."


class ModelForm(CommonsForm):
    """What is said of a model."""

    name = forms.CharField(max_length=200, help_text="As people call it: “Card fraud scoring”.")
    purpose = forms.CharField(
        max_length=4000, widget=forms.Textarea(attrs={"rows": 4}),
        help_text="What it decides or suggests, for whom, and what happens with its answer. Reviewers read this first.",
    )  # fmt: skip
    data_classes = forms.MultipleChoiceField(
        label="Data classes", choices=DataClass.choices, required=False, widget=forms.CheckboxSelectMultiple,
        help_text=_CLASSES_HELP,
    )  # fmt: skip
    risk_tier = forms.ChoiceField(
        label="Risk tier (EU AI Act)", choices=RiskTier.choices, required=False,
        help_text="Leave it open until somebody has classified the model; approval asks for it.",
    )  # fmt: skip
    act_annex = forms.ChoiceField(
        label="Why it is high-risk", choices=ActAnnex.choices, required=False,
        help_text="The duties of the two annexes begin at different dates.",
    )  # fmt: skip
    act_role = forms.ChoiceField(
        label="Our role under the Act", choices=ActRole.choices, required=False,
        help_text="Provider: we made it or had it made. Deployer: we use somebody else's.",
    )  # fmt: skip
    solely_automated = forms.BooleanField(
        required=False, label="Decides about people without a person in between",
        help_text="A decision with legal or similar effect, taken by the model alone (GDPR Art. 22).",
    )  # fmt: skip
    extra_regimes = forms.MultipleChoiceField(
        label="Regimes to apply besides", required=False, widget=forms.CheckboxSelectMultiple,
        help_text="What applies by data class and risk tier does so anyway: add what a contract or a decision of the "
        "company asks for besides.",
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["extra_regimes"]
        if isinstance(field, forms.MultipleChoiceField):
            field.choices = list(Regime.objects.order_by("name").values_list("code", "name"))


class NewModelForm(ModelForm):
    """Register a model."""

    team = forms.ModelChoiceField(
        queryset=Team.objects.none(), to_field_name="slug", help_text="Owns the model and answers for it."
    )
    slug = forms.CharField(
        label="Short name", max_length=60, required=False,
        help_text="Part of addresses and of names in clusters: card-fraud. Left empty, it follows the name.",
    )  # fmt: skip

    field_order = ["team", "name", "slug", "purpose"]

    def __init__(self, *args: Any, teams: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["team"]
        if isinstance(field, forms.ModelChoiceField):
            field.queryset = teams


class ReasonForm(CommonsForm):
    """Why."""

    reason = forms.CharField(
        max_length=2000, widget=forms.Textarea(attrs={"rows": 3}), help_text="Kept with the change."
    )


class VersionForm(CommonsForm):
    """A draft. The place of its files is chosen once, when it is made."""

    label = forms.CharField(max_length=60, help_text="What people call it: 1.4.0. Never used twice for a model.")
    store: Any = forms.ModelChoiceField(
        queryset=None, required=False, to_field_name="slug", empty_label="None yet",
        help_text="Where the portal reads the files to hash them.",
    )  # fmt: skip
    location = forms.CharField(
        max_length=1000, required=False, help_text="Within the store, as clusters will load it: s3://models/fraud/v7."
    )
    revision = forms.CharField(
        max_length=128, required=False,
        help_text="OCI: the digest, sha256:… Hugging Face: the full commit. Names that can be moved are not taken.",
    )  # fmt: skip
    model_format = forms.CharField(label="Format", max_length=60, required=False, help_text="onnx, pytorch, vllm …")
    runtime = forms.CharField(max_length=120, required=False, help_text="The cluster's ServingRuntime by name, if any.")
    image = forms.CharField(
        label="Serving image", max_length=500, required=False, help_text="By digest: registry.example.com/name@sha256:…"
    )
    arguments = forms.CharField(
        required=False, max_length=100_000, widget=forms.Textarea(attrs={"rows": 4}), strip=False,
        help_text="One a line, as the serving container gets them.",
    )  # fmt: skip
    environment = forms.CharField(
        label="Environment variables", required=False, max_length=100_000, widget=forms.Textarea(attrs={"rows": 4}),
        help_text="NAME=value, one a line. No secrets: everybody who may read the version reads them.",
    )  # fmt: skip
    parameters = forms.CharField(
        label="Training parameters", required=False, max_length=70_000, widget=forms.Textarea(attrs={"rows": 4}),
        help_text='A JSON object, noted beside the version: {"epochs": 3}. Not part of what is approved.',
    )  # fmt: skip
    explainer_uri = forms.CharField(
        label="Explainer: files",
        max_length=1000,
        required=False,
        help_text="Where an explainer is loaded from, if any.",
    )
    explainer_image = forms.CharField(label="Explainer: image", max_length=500, required=False, help_text="By digest.")
    explainer_format = forms.CharField(label="Explainer: format", max_length=60, required=False)
    data_classes = forms.MultipleChoiceField(
        label="Data classes of its own", choices=DataClass.choices, required=False, widget=forms.CheckboxSelectMultiple,
        help_text="Besides the model's and what it inherits from what it was made from.",
    )  # fmt: skip
    card: Any = forms.ModelChoiceField(
        queryset=None, required=False, to_field_name="number", empty_label="None",
        help_text="The revision of the model's card that is sealed with it.",
    )  # fmt: skip
    trained_at = UtcDateTimeField(
        label="Trained", required=False, help_text="When training ended: drift counts from there."
    )

    def __init__(self, *args: Any, model: Model, scheme: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The stubs know plain fields only.
        fields: dict[str, Any] = self.fields
        fields["store"].queryset = version_actions.usable_stores(model.team).filter(scheme=scheme)
        fields["card"].queryset = model.cards.order_by("-number")
        fields["card"].label_from_instance = _card_label
        if scheme == Scheme.UPLOAD:
            for name in ("store", "location", "revision"):
                del self.fields[name]
        elif scheme in (Scheme.S3, Scheme.PVC):
            del self.fields["revision"]

    def clean_arguments(self) -> list[str]:
        """Return one argument per line."""
        return [
            line for line in (line.rstrip("\r") for line in self.cleaned_data["arguments"].split("\n")) if line.strip()
        ]

    def clean_environment(self) -> dict[str, str]:
        """Return the variables."""
        found: dict[str, str] = {}
        for line in self.cleaned_data["environment"].splitlines():
            if line.strip():
                name, separator, value = line.partition("=")
                if not separator:
                    raise forms.ValidationError(f"{line.strip()[:60]}: write NAME=value.")
                found[name.strip()] = value
        return found

    def clean_parameters(self) -> dict[str, Any]:
        """Return the parameters."""
        text = self.cleaned_data["parameters"].strip()
        try:
            found = json.loads(text) if text else {}
        except ValueError as error:
            raise forms.ValidationError("This is not JSON.") from error
        if not isinstance(found, dict):
            raise forms.ValidationError('A JSON object: {"name": value}.')
        return found

    def values(self) -> dict[str, Any]:
        """Return what the actions take."""
        data = {name: value for name, value in self.cleaned_data.items() if name not in ("version", "scheme")}
        if "store" in data:
            store = data.pop("store")
            data["store_id"] = store.pk if store else None
        card = data.pop("card", None)
        data["card_id"] = card.pk if card else None
        data["explainer"] = {
            "storage_uri": data.pop("explainer_uri"),
            "image": data.pop("explainer_image"),
            "format": data.pop("explainer_format"),
        }
        return data


def _card_label(card: Any) -> str:
    return f"Revision {card.number}" + (f": {card.note}" if card.note else "")


def version_initial(version: ModelVersion) -> dict[str, Any]:
    """Return what the form of a draft shows first."""
    return {
        "label": version.label,
        "store": version.store.slug if version.store else None,
        "location": version.location,
        "revision": version.revision,
        "model_format": version.model_format,
        "runtime": version.runtime,
        "image": version.image,
        "arguments": "\n".join(version.arguments),
        "environment": "\n".join(f"{name}={value}" for name, value in version.environment.items()),
        "parameters": json.dumps(version.parameters, indent=2, ensure_ascii=False) if version.parameters else "",
        "explainer_uri": version.explainer.get("storage_uri", ""),
        "explainer_image": version.explainer.get("image", ""),
        "explainer_format": version.explainer.get("format", ""),
        "data_classes": version.data_classes,
        "card": version.card.number if version.card else None,
        "trained_at": version.trained_at,
    }


class SourceForm(CommonsForm):
    """One thing that a version was made from."""

    kind = forms.ChoiceField(choices=SourceKind.choices, help_text="An adapter is loaded together with the model.")
    source_version = forms.CharField(
        label="Version here", max_length=130, required=False,
        help_text="Where it is in this catalogue: the model's short name and the label, card-fraud 1.3.0, or a digest."
        " Its data classes are inherited.",
    )  # fmt: skip
    name = forms.CharField(
        max_length=300, required=False, help_text="Elsewhere: what it is called where it comes from."
    )
    revision = forms.CharField(
        max_length=200, required=False, help_text="A commit, a version of the dataset, a run's id."
    )
    uri = forms.CharField(
        label="URI", max_length=1000, required=False, help_text="Where it lies; of an adapter: where clusters load it."
    )
    digest = forms.CharField(label="SHA-256", max_length=64, required=False, help_text="Where it is known.")
    data_classes = forms.MultipleChoiceField(
        label="Data classes in it", choices=DataClass.choices, required=False, widget=forms.CheckboxSelectMultiple,
        help_text="They are inherited by this version, and by whatever is made from it.",
    )  # fmt: skip


class MultipleFiles(forms.ClearableFileInput):
    """A field that takes several files at once."""

    allow_multiple_selected = True


class FilesField(forms.FileField):
    """Several files; each one checked as a single one would be."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", MultipleFiles())
        super().__init__(**kwargs)

    def clean(self, data: Any, initial: Any = None) -> Any:
        """Return the list of files."""
        given = data if isinstance(data, list | tuple) else [data]
        if not given and self.required:
            raise forms.ValidationError(self.error_messages["required"], code="required")
        return [super(FilesField, self).clean(one, initial) for one in given]


class UploadForm(CommonsForm):
    """Files for a draft."""

    files: Any = FilesField(
        label="Files", help_text="Several at once. A file of the same path is replaced.",
        error_messages={"required": "Choose at least one file."},
    )  # fmt: skip
    folder = forms.CharField(
        max_length=300, required=False, help_text="Where they go within the version: weights. Empty: at the top."
    )


class NoteForm(CommonsForm):
    """Nothing but the version of the row."""


class StoreForm(CommonsForm):
    """A store. Credentials go in and are never shown."""

    name = forms.CharField(max_length=200, help_text="As people choose it: “Models, Frankfurt”.")
    endpoint = forms.CharField(
        label="Address", max_length=300,
        help_text="https://… of the service, registry or hub. Of a volume: its claim, as in COMMONS_MODEL_MOUNTS.",
    )  # fmt: skip
    prefix: Any = forms.CharField(
        max_length=300, required=False,
        help_text="Versions may lie below this only: bucket and folder, repository's beginning. S3 needs the bucket.",
    )  # fmt: skip
    region = forms.CharField(
        max_length=60, required=False, help_text="S3: eu-central-1. Empty: us-east-1, which most servers take."
    )
    ca_certificate = forms.CharField(
        label="CA certificate", required=False, max_length=100_000, widget=forms.Textarea(attrs={"rows": 4}),
        help_text="PEM, where the service's certificate is signed by your own authority.",
    )  # fmt: skip
    teams = forms.ModelMultipleChoiceField(
        queryset=Team.objects.none(), required=False, to_field_name="slug",
        help_text="Who may use it. None chosen: every team.",
    )  # fmt: skip
    takes_copies = forms.BooleanField(
        required=False, label="Takes copies of uploaded files",
        help_text="The portal writes approved, uploaded versions below “sha256/” there, for clusters to load. The"
        " credentials have to let it list, write and read; nobody else should write there.",
    )  # fmt: skip

    def __init__(self, *args: Any, scheme: str, has_credentials: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["teams"]
        if isinstance(field, forms.ModelMultipleChoiceField):
            field.queryset = Team.objects.filter(archived_at__isnull=True).order_by("name", "pk")
        self.scheme = scheme
        for name in stores.CREDENTIALS.get(scheme, ()):
            self.fields[f"credential_{name}"] = forms.CharField(
                label=name.replace("_", " ").capitalize(), required=False, max_length=4000, strip=True,
                widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
                help_text="Left empty, the one that is stored stays." if has_credentials else "",
            )  # fmt: skip
        if has_credentials:
            self.fields["forget_credentials"] = forms.BooleanField(
                required=False, label="Forget the stored credentials", help_text="For a store that needs none any more."
            )
        if scheme != Scheme.S3:
            del self.fields["region"]
            del self.fields["takes_copies"]
        if scheme == Scheme.PVC:
            del self.fields["ca_certificate"]

    def credentials(self) -> dict[str, str] | None:
        """Return what was typed; None: leave what is stored."""
        data = self.cleaned_data
        given = {name: data.get(f"credential_{name}", "") for name in stores.CREDENTIALS.get(self.scheme, ())}
        if any(given.values()):
            return given
        return {} if data.get("forget_credentials") else None

    def add_invalid(self, error: Any) -> None:
        """Put what is wrong with the credentials beside the first of them."""
        first = next((name for name in self.fields if name.startswith("credential_")), "")
        if first and "credentials" in error.errors:
            error.errors[first] = error.errors.pop("credentials")
        super().add_invalid(error)
