"""Two versions side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

from apps.catalogue import compare, selectors
from apps.catalogue.access import VIEW
from apps.catalogue.model_views import model_crumbs, models_crumb
from apps.catalogue.models import ModelVersion
from apps.catalogue.tables import class_words
from apps.core.forms import CommonsForm
from apps.core.views import Crumb, PageView
from portal.panels import panels_for

#: Differences of files that are shown; the number is always told.
SHOWN = 200


@dataclass(frozen=True, slots=True)
class Pair:
    """What the panels of other parts (card, evidence) get: the version before and the one after."""

    before: ModelVersion
    after: ModelVersion

    @property
    def scope_team_id(self) -> int:
        """Panels ask permissions for the later one's team."""
        return self.after.model.team_id


class CompareForm(CommonsForm):
    """Which two."""

    a = forms.CharField(label="This version", max_length=130, help_text="Model's short name and label, or a digest.")
    b = forms.CharField(label="with this one", max_length=130)


class Compare(PageView):
    """Files, parameters, arguments, image and sources of two versions, and what other parts compare."""

    title = "Compare versions"
    permission = VIEW
    template_name = "catalogue/compare.html"
    queryset = ModelVersion.objects.select_related("model__team", "card")

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the model, where both are of one."""
        pair = getattr(self, "pair", None)
        if pair is not None and pair.before.model_id == pair.after.model_id:
            return model_crumbs(pair.after.model)
        return [models_crumb()]

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show the comparison, or ask which two."""
        self.pair: Pair | None = None
        given = {"a": request.GET.get("a", ""), "b": request.GET.get("b", "")}
        form = CompareForm(given if any(given.values()) else None)
        if form.is_bound and form.is_valid():
            found = {name: selectors.find_version(request.user, form.cleaned_data[name]) for name in ("a", "b")}
            for name, version in found.items():
                if version is None:
                    form.add_error(name, "There is no such version, or you may not see it.")
            if (before := found["a"]) is not None and (after := found["b"]) is not None:
                self.pair = Pair(before, after)
                # Names as people know them, whatever the address held.
                names = {
                    name: f"{version.model.slug} {version.label}" for name, version in (("a", before), ("b", after))
                }
                form = CompareForm(initial=names)
                return self.page(form=form, pair=self.pair, **self._compared(self.pair))
        return self.page(form=form, pair=None)

    def _compared(self, pair: Pair) -> dict[str, Any]:
        files = [
            compare.files_of(version.files.values_list("path", "size", "sha256").order_by("path"))
            for version in (pair.before, pair.after)
        ]
        fields = [
            compare.fields_of(version, version.sources.order_by("kind", "name", "pk"))
            for version in (pair.before, pair.after)
        ]
        for found, version in zip(fields, (pair.before, pair.after), strict=True):
            shown = selectors.shown_classification(version)
            found["data classes"] = class_words(shown.classes)
            found["card"] = f"revision {version.card.number}" if version.card else "none"
        changed = compare.differences(*files)
        return {
            "file_changes": changed[:SHOWN],
            "file_change_count": len(changed),
            "same_files": len(files[0].keys() & files[1].keys()) - sum(one.kind == compare.CHANGED for one in changed),
            "field_changes": compare.differences(*fields),
            "same_digest": bool(pair.before.digest) and pair.before.digest == pair.after.digest,
            "swap_url": f"{reverse('catalogue:compare')}?a={pair.after.uid}&b={pair.before.uid}",
            "panels": panels_for("model_compare", self.request, pair),
        }
