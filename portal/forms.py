"""How every form of the portal is drawn: our field template, Tabler's classes, errors linked to their fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import django.forms
from django.conf import settings
from django.forms import BoundField, CheckboxInput, CheckboxSelectMultiple, RadioSelect, Select
from django.forms.renderers import BaseRenderer
from django.template.backends.django import DjangoTemplates
from django.utils.functional import cached_property


class CommonsBoundField(BoundField):
    """Gives a field's widget the classes of its kind and marks it where its value was refused."""

    def build_widget_attrs(self, attrs: dict[str, Any], widget: Any = None) -> dict[str, Any]:
        """Add the class and, where there are errors, the mark; Django itself links help and errors."""
        built = super().build_widget_attrs(attrs, widget)
        used = widget or self.field.widget
        if used.is_hidden:
            return built
        kind = (
            "form-check-input"
            if isinstance(used, CheckboxInput | RadioSelect | CheckboxSelectMultiple)
            else "form-select"
            if isinstance(used, Select)
            else "form-control"
        )
        given = f"{used.attrs.get('class', '')} {built.get('class', '')}".strip()
        built["class"] = " ".join(filter(None, [kind, given, "is-invalid" if self.errors else ""]))
        return built

    @property
    def kind(self) -> str:
        """Which shape the field template takes: check, choices (a fieldset), hidden, or plain."""
        widget = self.field.widget
        if widget.is_hidden:
            return "hidden"
        if isinstance(widget, RadioSelect | CheckboxSelectMultiple):
            return "choices"
        return "check" if isinstance(widget, CheckboxInput) else "plain"

    @property
    def addon(self) -> str:
        """The unit that stands beside the input ("UTC", "GPUs", "USD")."""
        return str(getattr(self.field.widget, "addon", ""))


class CommonsFormRenderer(BaseRenderer):
    """Finds form templates in our `templates/` first, then Django's own."""

    form_template_name = "components/form_fields.html"
    field_template_name = "components/form_field.html"
    bound_field_class = CommonsBoundField

    @cached_property
    def engine(self) -> DjangoTemplates:
        """The template engine of forms, with the portal's tags built in."""
        return DjangoTemplates(
            {
                "APP_DIRS": False,
                "DIRS": [settings.BASE_DIR / "templates", Path(django.forms.__file__).parent / "templates"],
                "NAME": "commons_forms",
                "OPTIONS": {"builtins": ["apps.core.templatetags.commons"]},
            }
        )

    def get_template(self, template_name: str) -> Any:
        """Return a template of a form, field or widget."""
        return self.engine.get_template(template_name)
