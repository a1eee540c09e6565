"""Every generic page, in one place to import from: `pages` shows, `lists` lists, `form_pages` change."""

from apps.core.form_pages import ActionView, CreateView, FormMixin, LiveView
from apps.core.lists import ListView
from apps.core.pages import (
    Crumb,
    DetailView,
    ObjectMixin,
    PageView,
    SeeOther,
    assert_scoped,
    redirect_to_sign_in,
)

__all__ = [
    "ActionView",
    "CreateView",
    "Crumb",
    "DetailView",
    "FormMixin",
    "ListView",
    "LiveView",
    "ObjectMixin",
    "PageView",
    "SeeOther",
    "assert_scoped",
    "redirect_to_sign_in",
]
