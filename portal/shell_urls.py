"""The shell's own pages. They stand after those of the rooms, so that a room's home page wins over the plain one."""

from django.urls import path

from portal import views

urlpatterns = [
    path("", views.Start.as_view(), name="start"),
    path("style/", views.Style.as_view(), name="style"),
    path("style/estimate/", views.StyleEstimate.as_view(), name="style-estimate"),
    path("words/", views.Words.as_view(), name="words"),
]
