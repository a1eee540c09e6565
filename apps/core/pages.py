"""Generic pages. They fail closed: a page without a scoped queryset of its own does not start.

The order in every request: sign-in → 404 (scope) → 403 (permission) → 409 (state) → 400 (input) → act.
Nothing is changed by GET. Refusals are `core.errors`; `portal.errors` draws them.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.cache import patch_vary_headers
from django.views.generic import View

from apps.core import hooks
from apps.core.actor import Actor
from apps.core.errors import NotAllowed, NotVisible
from apps.core.permissions import may
from apps.core.querysets import ScopedQuerySet


@dataclass(frozen=True, slots=True)
class Crumb:
    """One step of the breadcrumbs; the last one has no URL."""

    label: str
    url: str | None = None


class SeeOther(HttpResponseRedirect):
    """Redirect after a POST: the browser follows with GET (RFC 9110, 303)."""

    status_code = 303


def assert_scoped(queryset: Any, where: str) -> ScopedQuerySet[Any]:
    """Return `queryset` if it says who sees its rows. Raises ImproperlyConfigured otherwise."""
    if isinstance(queryset, models.Manager):
        queryset = queryset.all()
    if not isinstance(queryset, ScopedQuerySet):
        raise ImproperlyConfigured(f"{where} needs a ScopedQuerySet, not {type(queryset).__name__}")
    if type(queryset).visible_to is ScopedQuerySet.visible_to:
        raise ImproperlyConfigured(f"{where}: {type(queryset).__name__} does not define visible_to()")
    return queryset


def redirect_to_sign_in(request: HttpRequest, *, has_page: bool = False) -> HttpResponse:
    """Send a visitor to sign in and back; a fragment request makes the whole page go there.

    `has_page`: the address of a form answers GET, too, so that the person comes back to the form.
    """
    if request.method in ("GET", "HEAD") and not getattr(request, "htmx", False):
        back = request.get_full_path()
    else:
        htmx = getattr(request, "htmx", None)
        here = request.get_full_path() if has_page else "/"
        back = (getattr(htmx, "current_url_abs_path", None) if htmx else None) or here
        messages.info(request, "Your session has ended. Sign in again; nothing was changed.")
    url = f"{settings.LOGIN_URL}?{urlencode({'next': back})}"
    if getattr(request, "htmx", False):
        return HttpResponse(status=401, headers={"HX-Redirect": url})
    return HttpResponseRedirect(url) if request.method in ("GET", "HEAD") else SeeOther(url)


class PageView(View):
    """A page for signed-in people.

    `permission` is asked for `scope_object()`; None there means "anywhere at all". A page that reads no tenant rows
    through `queryset` (it composes selectors that take the user, say) states so in `scope_free`.
    """

    title: str = ""
    permission: str | None = None
    template_name: str = ""
    queryset: Any = None
    scope_free: str = ""
    #: For an HTMX request this template is drawn instead of the whole page: "core/list.html#list" names a partial.
    htmx_template: str = ""

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        """Return the view function. Raises ImproperlyConfigured for a page without a scope."""
        source = initkwargs.get("queryset", inspect.getattr_static(cls, "queryset", None))
        own = cls.get_base_queryset is not PageView.get_base_queryset
        if source is None and not own and not (initkwargs.get("scope_free") or cls.scope_free):
            raise ImproperlyConfigured(
                f"{cls.__module__}.{cls.__qualname__} has no queryset: give it one, or say in"
                " scope_free why it needs none"
            )
        if isinstance(source, models.QuerySet | models.Manager):
            assert_scoped(source, cls.__qualname__)
        return super().as_view(**initkwargs)

    def get_base_queryset(self) -> ScopedQuerySet[Any]:
        """Return all rows of the page's kind, before scoping: `queryset`, a queryset, manager or function."""
        source = inspect.getattr_static(self, "queryset", None)
        if isinstance(source, staticmethod):
            source = source.__func__
        if inspect.isfunction(source):
            source = source(self) if inspect.signature(source).parameters else source()
        return assert_scoped(source, type(self).__qualname__).all()

    def get_queryset(self) -> ScopedQuerySet[Any]:
        """Return the rows that this person may see."""
        return assert_scoped(self.get_base_queryset(), type(self).__qualname__).visible_to(self.request.user)

    def scope_object(self) -> Any:
        """Return the object that `permission` is asked for; None: anywhere."""
        return None

    def prepare(self) -> None:
        """Load what the page is about. Raises NotVisible."""

    def check_permission(self) -> None:
        """Raise NotAllowed where the person lacks `permission`."""
        if self.permission is not None and not may(self.request.user, self.permission, self.scope_object()):
            raise NotAllowed(rule=self.permission)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Ask for sign-in, load, ask for permission, then do what the method says."""
        if not request.user.is_authenticated:
            return redirect_to_sign_in(request, has_page="get" in self.http_method_names and hasattr(self, "get"))
        self.prepare()
        self.check_permission()
        response = self.answer(request, *args, **kwargs)
        if not response.has_header("Cache-Control"):
            # What one person saw must not come out of a cache for the next one at the same browser.
            response["Cache-Control"] = "no-store, private"
        return response

    def answer(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Do what the method says, once the person has been let in."""
        return super().dispatch(request, *args, **kwargs)

    @property
    def actor(self) -> Actor:
        """Who acts in this request."""
        # Only asked for behind the sign-in check, where the user is a person with a uid.
        user: Any = self.request.user
        return Actor.of(user)

    def breadcrumbs(self) -> list[Crumb]:
        """Return the steps above this page (the page itself is added by the layout)."""
        return []

    def get_title(self) -> str:
        """Return the page's title."""
        return self.title

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Return what the template sees; extend it with `super().get_context(**extra)`."""
        return {"view": self, "title": self.get_title(), "breadcrumbs": self.breadcrumbs(), **extra}

    def get_template(self) -> str:
        """Return the template, or the fragment's for a fragment request."""
        htmx = getattr(self.request, "htmx", None)
        if self.htmx_template and htmx and not htmx.boosted and not htmx.history_restore_request:
            return self.htmx_template
        return self.template_name

    def page(self, *, status: int = 200, **extra: Any) -> HttpResponse:
        """Draw the page."""
        if not self.template_name:
            raise ImproperlyConfigured(f"{type(self).__qualname__} has no template_name")
        response = TemplateResponse(self.request, self.get_template(), self.get_context(**extra), status=status)
        patch_vary_headers(response, ["HX-Request"])
        return response

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show the page."""
        return self.page()


class ObjectMixin(PageView):
    """Loads one visible row from the URL: by uid (`…_uid` or `uid`), or by slug with `lookup = "slug"`."""

    lookup = "uid"
    url_kwarg: str = ""
    object: Any = None

    def get_lookup_value(self) -> Any:
        """Return the key in the URL. Raises ImproperlyConfigured where the URL has none or several."""
        if self.url_kwarg:
            return self.kwargs[self.url_kwarg]
        found = [key for key in self.kwargs if key == self.lookup or key.endswith(f"_{self.lookup}")]
        if len(found) != 1:
            raise ImproperlyConfigured(f"{type(self).__qualname__}: name the URL's key in url_kwarg")
        return self.kwargs[found[0]]

    def get_object(self) -> Any:
        """Return the row. Raises NotVisible, whether it is missing or foreign."""
        row = self.get_queryset().filter(**{self.lookup: self.get_lookup_value()}).first()
        if row is None:
            raise NotVisible
        return row

    def prepare(self) -> None:
        """Load the row."""
        self.object = self.get_object()

    def scope_object(self) -> Any:
        """Ask permissions for the row."""
        return self.object

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the row as `object`."""
        return super().get_context(object=self.object, **extra)


class DetailView(ObjectMixin):
    """A page about one row. Its second tab, `?history` at the same address, shows what was recorded about the row.

    Whoever may open the page may open the tab, by the same checks; what of it a person sees is for the audit room.
    """

    #: Off where the page is no home of its row: a file, a printed form, an event of the trail itself.
    history = True

    def get_title(self) -> str:
        """Return the title, by default the row's own name."""
        return self.title or str(self.object)

    def has_history(self) -> bool:
        """Whether the page offers the tab: rows without a uid are no object of events."""
        return self.history and isinstance(getattr(self.object, "uid", None), uuid.UUID)

    def answer(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show the tab where it is asked for, else the page."""
        if request.method in ("GET", "HEAD") and "history" in request.GET and self.has_history():
            return hooks.history_page(self)
        return super().answer(request, *args, **kwargs)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the address of the page whose tabs are drawn below the title."""
        return super().get_context(**{"tabs_of": self.request.path if self.has_history() else "", **extra})
