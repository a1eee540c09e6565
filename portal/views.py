"""Pages of the shell itself: a plain start page, the words, and the style page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings

from apps.core.errors import NotVisible
from apps.core.permissions import may
from apps.core.templatetags.words import WORDS
from apps.core.views import Crumb, LiveView, PageView
from portal import style
from portal.navigation import groups_for
from portal.panels import panels_for


class Start(PageView):
    """The plain start page where no room brings a home of its own: everything the person can open."""

    scope_free = "lists what the navigation already shows to this person"
    title = "Welcome"
    template_name = "portal/start.html"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the navigation's groups and the panels of the home page."""
        return super().get_context(
            groups=groups_for(self.request), panels=panels_for("home", self.request, None), **extra
        )


class Words(PageView):
    """What the portal's words mean."""

    scope_free = "explains words; reads no rows"
    title = "Words"
    template_name = "portal/words.html"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the words, in their order."""
        return super().get_context(words=sorted(WORDS.items(), key=lambda pair: pair[0].lower()), **extra)


class _StylePage(PageView):
    """Open to platform admins, and in the demo to everybody signed in; for others it does not exist."""

    scope_free = "shows made-up sample values; reads no rows"

    def prepare(self) -> None:
        """Hide the page from those who have no use for it."""
        if not settings.COMMONS_DEMO and not may(self.request.user, "clusters.cluster.manage"):
            raise NotVisible


class Style(_StylePage):
    """Every component in every state."""

    title = "Style"
    template_name = "portal/style.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Return the way here."""
        return [Crumb("Home", "/")]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add sample figures, tables, forms."""
        return super().get_context(**style.samples(self.request), **extra)


class StyleEstimate(_StylePage, LiveView):
    """The live fragment beside the sample form."""

    title = "Estimate"
    template_name = "portal/style_estimate.html"
    form_class = style.SampleForm

    def compute(self, form: Any) -> Mapping[str, Any]:
        """Multiply, to show the pattern."""
        return {"guaranteed": form.cleaned_data.get("guaranteed")}
