"""Addresses of group roles."""

from django.urls import path

from apps.teams import mapping_views

_ONE = "roles/groups/<uuid:mapping_uid>"
urlpatterns = [
    path("roles/groups/", mapping_views.MappingList.as_view(), name="mapping-list"),
    path("roles/groups/new/", mapping_views.MappingCreate.as_view(), name="mapping-create"),
    path(f"{_ONE}/", mapping_views.MappingDetail.as_view(), name="mapping-detail"),
    path(f"{_ONE}/end/", mapping_views.MappingEnd.as_view(), name="mapping-end"),
    path(f"{_ONE}/people/<uuid:user_uid>/restore/", mapping_views.MappingRestore.as_view(), name="mapping-restore"),
]
