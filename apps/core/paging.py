"""Pages of the API. On its own, as REST framework imports it while it builds the classes that `apps.core.api` needs."""

from __future__ import annotations

from typing import Any

from rest_framework import pagination


class CursorPagination(pagination.CursorPagination):
    """Pages by an opaque cursor over the key, newest first: stable while rows are added. 50 rows, 200 at most."""

    ordering: Any = "-id"
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200
