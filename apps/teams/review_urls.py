"""Addresses of access reviews."""

from django.urls import path

from apps.teams import review_views

urlpatterns = [
    path("access-reviews/", review_views.ReviewList.as_view(), name="review-list"),
    path("access-reviews/new/", review_views.ReviewStart.as_view(), name="review-start"),
    path("access-reviews/<uuid:review_uid>/", review_views.ReviewDetail.as_view(), name="review-detail"),
    path("access-reviews/<uuid:review_uid>/answer/", review_views.ReviewAnswerSheet.as_view(), name="review-answer"),
]
