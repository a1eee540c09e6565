"""Addresses of the rates room."""

from django.urls import path

from apps.rates import views

app_name = "rates"
urlpatterns = [
    path("rates/cards/", views.CardList.as_view(), name="card-list"),
    path("rates/cards/new/", views.CardCreate.as_view(), name="card-create"),
    path("rates/cards/<uuid:card_uid>/", views.CardDetail.as_view(), name="card-detail"),
]
