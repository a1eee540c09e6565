"""Pages: notifications, their settings, and the mail that went out."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse

from apps.core.permissions import may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView, PageView
from apps.notifications import actions, selectors
from apps.notifications.choices import MAIL_TRANSITIONS
from apps.notifications.events import MAIL_EXPORTED
from apps.notifications.filters import MailFilter, NotificationFilter
from apps.notifications.forms import PreferencesForm
from apps.notifications.models import MailPreference, Notification, SentMail
from apps.notifications.tables import MailTable, NotificationTable, OwnMailTable

#: htmx stops polling on this status.
STOP_POLLING = 286


class Bell(PageView):
    """The bell with its count, asked for every minute."""

    queryset = Notification.objects.all()
    title = "Notifications"
    template_name = "notifications/bell.html"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Stop asking where the session has ended: a poll must never throw a half-typed form away."""
        if not request.user.is_authenticated:
            return HttpResponse(status=STOP_POLLING)
        return super().dispatch(request, *args, **kwargs)


class NotificationList(ListView):
    """A person's own news."""

    queryset = Notification.objects.all()
    title = "Notifications"
    table_class = NotificationTable
    filterset_class = NotificationFilter
    template_name = "notifications/list.html"
    empty_icon = "bell"
    empty_title = "Nothing has happened yet"
    empty_text = "Here you will find what waits for you and what became of your requests."

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add whether anything is unread."""
        return super().get_context(unread=selectors.unread_count(self.request.user), **extra)


class _Crumbs(PageView):
    def breadcrumbs(self) -> list[Crumb]:
        """Start from the list of notifications."""
        return [Crumb("Notifications", reverse("notifications:list"))]


class Open(_Crumbs, ActionView):
    """Mark as read and go to what it is about."""

    queryset = Notification.objects.all()
    title = "Open notification"
    submit_label = "Mark as read and open"

    def perform(self, form: Any) -> str:
        """Mark, then lead there."""
        row = actions.mark_read(self.object.uid, actor=self.actor)
        return row.path or reverse("notifications:list")


class MarkRead(_Crumbs, ActionView):
    """Mark one as read."""

    queryset = Notification.objects.all()
    title = "Mark as read"
    submit_label = "Mark as read"

    def perform(self, form: Any) -> str:
        """Mark it."""
        actions.mark_read(self.object.uid, actor=self.actor)
        return reverse("notifications:list")


class MarkAllRead(_Crumbs, CreateView):
    """Mark everything as read."""

    queryset = Notification.objects.all()
    title = "Mark everything as read"
    submit_label = "Mark everything as read"

    def perform(self, form: Any) -> str:
        """Mark them."""
        actions.mark_all_read(actor=self.actor)
        return reverse("notifications:list")


class Settings(_Crumbs, CreateView):
    """What comes by mail."""

    queryset = MailPreference.objects.all()
    title = "Notification settings"
    intro = "The portal shows you everything. Choose what comes by mail as well; what touches your account always does."
    form_class = PreferencesForm
    submit_label = "Save"
    success_message = "Your settings are saved."

    def get_form_kwargs(self) -> dict[str, Any]:
        """Hand over the groups."""
        return {"groups": selectors.mail_groups()}

    def get_initial(self) -> dict[str, Any]:
        """Show what is in force."""
        return dict(selectors.wishes(self.request.user))

    def perform(self, form: Any) -> str:
        """Store the choices."""
        actions.set_preferences(form.wishes, actor=self.actor)
        return reverse("notifications:settings")


class OwnMailList(_Crumbs, ListView):
    """The mail that the person was sent: in the demo the way to read it."""

    queryset = SentMail.objects.all()
    title = "Mail you were sent"
    table_class = OwnMailTable
    filterset_class = MailFilter
    empty_icon = "mail"
    empty_title = "No mail yet"
    empty_text = "Mail about what waits for you and what became of your requests will be listed here."

    def get_queryset(self) -> Any:
        """Own mail only, whatever else the role may see."""
        return SentMail.objects.visible_to(self.request.user).to(self.request.user)


class MailList(_Crumbs, ListView):
    """All mail that left the portal, for those who run it."""

    queryset = SentMail.objects.all()
    permission = "notifications.outbox.view"
    title = "Sent mail"
    intro = "Every mail the portal made, to whom, and what became of it."
    table_class = MailTable
    filterset_class = MailFilter
    export_event = MAIL_EXPORTED
    empty_icon = "mail"
    empty_title = "No mail yet"


class MailDetail(_Crumbs, DetailView):
    """One mail."""

    queryset = SentMail.objects.select_related("user")
    template_name = "notifications/mail_detail.html"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add whether it may be sent again."""
        mail = self.object
        can_retry = MAIL_TRANSITIONS.can(mail.status, "retry") and may(self.request.user, actions.RETRY_PERMISSION)
        return super().get_context(mail=mail, can_retry=can_retry, **extra)


class MailRetry(_Crumbs, ActionView):
    """Send a failed mail once more."""

    queryset = SentMail.objects.all()
    permission = actions.RETRY_PERMISSION
    title = "Send again"
    intro = "The mail goes out once more. If it has arrived after all, the person gets it twice."
    submit_label = "Send again"
    success_message = "The mail is queued again."

    def check_state(self) -> None:
        """Refuse what is on its way or was sent."""
        MAIL_TRANSITIONS.next(self.object.status, "retry")

    def perform(self, form: Any) -> str:
        """Queue it."""
        mail = actions.retry_mail(self.object.uid, actor=self.actor)
        return reverse("notifications:mail-detail", kwargs={"mail_uid": mail.uid})
