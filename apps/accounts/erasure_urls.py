"""The address of erasing a person."""

from django.urls import path

from apps.accounts import erasure_views as views

urlpatterns = [path("people/<uuid:user_uid>/erase/", views.UserErase.as_view(), name="user-erase")]
