"""Addresses of the notifications room."""

from django.urls import path

from apps.notifications import views, webhook_urls

app_name = "notifications"
urlpatterns = [
    path("notifications/", views.NotificationList.as_view(), name="list"),
    path("notifications/bell/", views.Bell.as_view(), name="bell"),
    path("notifications/read/", views.MarkAllRead.as_view(), name="read-all"),
    path("notifications/settings/", views.Settings.as_view(), name="settings"),
    path("notifications/mail/", views.OwnMailList.as_view(), name="mail-list"),
    path("notifications/sent-mail/", views.MailList.as_view(), name="sent-mail-list"),
    path("notifications/mail/<uuid:mail_uid>/", views.MailDetail.as_view(), name="mail-detail"),
    path("notifications/mail/<uuid:mail_uid>/retry/", views.MailRetry.as_view(), name="mail-retry"),
    path("notifications/<uuid:notification_uid>/open/", views.Open.as_view(), name="open"),
    path("notifications/<uuid:notification_uid>/read/", views.MarkRead.as_view(), name="read"),
    *webhook_urls.urlpatterns,
]
