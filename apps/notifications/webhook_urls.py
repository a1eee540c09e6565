"""Addresses of webhooks."""

from django.urls import path

from apps.notifications import webhook_views as views

urlpatterns = [
    path("notifications/webhooks/", views.WebhookList.as_view(), name="webhook-list"),
    path("notifications/webhooks/new/", views.WebhookCreate.as_view(), name="webhook-create"),
    path("notifications/webhooks/<uuid:webhook_uid>/", views.WebhookDetail.as_view(), name="webhook-detail"),
    path("notifications/webhooks/<uuid:webhook_uid>/edit/", views.WebhookEdit.as_view(), name="webhook-edit"),
    path("notifications/webhooks/<uuid:webhook_uid>/enable/", views.WebhookEnable.as_view(), name="webhook-enable"),
    path("notifications/webhooks/<uuid:webhook_uid>/disable/", views.WebhookDisable.as_view(), name="webhook-disable"),
    path("notifications/webhooks/<uuid:webhook_uid>/secret/", views.WebhookRotate.as_view(), name="webhook-rotate"),
    path("notifications/webhooks/<uuid:webhook_uid>/test/", views.WebhookTest.as_view(), name="webhook-test"),
    path("notifications/webhook-deliveries/", views.DeliveryList.as_view(), name="webhook-delivery-list"),
    path(
        "notifications/webhook-deliveries/<uuid:delivery_uid>/",
        views.DeliveryDetail.as_view(),
        name="webhook-delivery-detail",
    ),
    path(
        "notifications/webhook-deliveries/<uuid:delivery_uid>/replay/",
        views.DeliveryReplay.as_view(),
        name="webhook-delivery-replay",
    ),
]
