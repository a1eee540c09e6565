"""Pages that change something: form, refusal, redirect. GET never changes anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.forms import CommonsForm
from apps.core.pages import ObjectMixin, PageView, SeeOther


class FormMixin(PageView):
    """Form, refusals and redirect of pages that change something."""

    form_class: type[CommonsForm] = CommonsForm
    template_name = "core/action.html"
    submit_label = "Save"
    #: Says in a sentence what will happen; shown above the form.
    intro = ""
    #: Draws the button as one that takes something away.
    danger = False
    success_message = ""
    #: A template with what the action is about, shown between intro and form (it sees the page's context).
    summary_template = ""
    object: Any = None

    def get_initial(self) -> dict[str, Any]:
        """Return what the form shows first."""
        return {}

    def get_form_kwargs(self) -> dict[str, Any]:
        """Return further arguments of the form's class."""
        return {}

    def get_form(self, data: Any = None, files: Any = None) -> Any:
        """Return the form, with the version of the row as the person sees it now."""
        initial = {"version": getattr(self.object, "version", None), **self.get_initial()}
        return self.form_class(data, files, initial=initial, **self.get_form_kwargs())

    def check_state(self) -> None:
        """Raise Conflict where the row's status does not take this action (asked again by the action under lock)."""

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Call the action with `form.cleaned_data`, `self.actor`, `self.expected_version`; return where to go next."""
        raise ImproperlyConfigured(f"{type(self).__qualname__} has no perform()")

    @property
    def expected_version(self) -> int | None:
        """The version that the person saw when the form was drawn."""
        return self._form.expected_version if self._form is not None else None

    _form: Any = None

    def cancel_url(self) -> str:
        """Return where *Cancel* leads: the last step of the breadcrumbs."""
        return next((crumb.url for crumb in reversed(self.breadcrumbs()) if crumb.url), "/")

    def get_success_message(self) -> str:
        """Return what the next page says, or nothing."""
        return self.success_message

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add form, labels and where to go back."""
        return super().get_context(
            **{
                "form": self._form,
                "intro": self.intro,
                "submit_label": self.submit_label,
                "danger": self.danger,
                "summary_template": self.summary_template,
                "cancel_url": self.cancel_url(),
                **extra,
            }
        )

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show the form or the question; where the state does not take the action, say so (409)."""
        try:
            self.check_state()
        except Conflict as conflict:
            self._form = self.get_form()
            return self.page(status=409, conflict=conflict, blocked=True)
        self._form = self.get_form()
        return self.page()

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Run the action; a refusal shows the form again with what was typed."""
        self._form = form = self.get_form(request.POST, request.FILES)
        try:
            self.check_state()
            if not form.is_valid():
                return self.page(status=400)
            result = self.perform(form)
        except Invalid as invalid:
            form.add_invalid(invalid)
            return self.page(status=400)
        except Conflict as conflict:
            return self.conflict(conflict)
        if text := self.get_success_message():
            messages.success(request, text)
        if isinstance(result, HttpResponseBase):
            return result
        if getattr(request, "htmx", False):
            return HttpResponse(status=204, headers={"HX-Redirect": result})
        return SeeOther(result)

    def conflict(self, conflict: Conflict) -> HttpResponseBase:
        """Show how the row stands now, with the typed input kept and the newer version in the form."""
        try:
            self.prepare()
        except NotVisible:
            # It left the person's scope, or exists no more: then there is nothing to show beside the message.
            self.object = None
            raise
        version = getattr(self.object, "version", None)
        if version is not None and self._form is not None and "version" in self._form.fields:
            data = self._form.data.copy()
            data[self._form.add_prefix("version")] = str(version)
            self._form.data = data
        return self.page(status=409, conflict=conflict)


class ActionView(ObjectMixin, FormMixin):
    """One action on one row: GET asks (a form or a confirmation), POST runs it."""

    submit_label = "Confirm"


class CreateView(FormMixin):
    """An action that makes something new: no row to load; `permission` is asked for `scope_object()`."""

    submit_label = "Create"


class LiveView(PageView):
    """A fragment worked out from a half-filled form, by POST without changing anything: estimates, previews.

    Put `{% include "components/live.html" with url=… id="estimate" only %}` into the form: it posts the whole form
    400 ms after the last change and shows what comes back. `form_class` may be invalid half of the time: `compute`
    gets the form after validation and returns the template's context.
    """

    form_class: type[CommonsForm] = CommonsForm
    http_method_names = ["post", "head", "options"]

    def get_form_kwargs(self) -> dict[str, Any]:
        """Return further arguments of the form's class."""
        return {}

    def compute(self, form: Any) -> Mapping[str, Any]:
        """Return the fragment's context; `form.cleaned_data` holds the fields that are valid so far."""
        raise ImproperlyConfigured(f"{type(self).__qualname__} has no compute()")

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer with the fragment, always 200: an incomplete form is the normal case here."""
        form = self.form_class(request.POST, **self.get_form_kwargs())
        form.is_valid()
        try:
            return self.page(form=form, **self.compute(form))
        except Invalid as invalid:
            return self.page(form=form, invalid=invalid)


__all__ = ["ActionView", "CreateView", "FormMixin", "LiveView"]
