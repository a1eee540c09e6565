"""Addresses of sessions."""

from django.urls import path

from apps.accounts import session_views

urlpatterns = [
    path("account/seen/", session_views.SessionSeen.as_view(), name="session-seen"),
    path("account/sessions/<uuid:session_uid>/close/", session_views.SessionClose.as_view(), name="session-close"),
    path("people/sessions/", session_views.SessionList.as_view(), name="session-list"),
    path("people/sessions/<uuid:session_uid>/end/", session_views.SessionEnd.as_view(), name="session-end"),
    path("people/<uuid:user_uid>/sessions/end/", session_views.UserSessionsEnd.as_view(), name="user-sessions-end"),
]
