"""The one list page: filter, table, total order, pages of 50, CSV and XLSX, fragment for HTMX."""

from __future__ import annotations

from typing import Any

import django_filters
import django_tables2
from django.core.exceptions import ImproperlyConfigured
from django.core.paginator import EmptyPage, PageNotAnInteger
from django.http import HttpRequest, HttpResponseBase
from django_tables2.data import TableQuerysetData
from django_tables2.rows import BoundRow

from apps.core import exports, hooks
from apps.core.errors import Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.middleware import after_read
from apps.core.pages import PageView
from apps.core.permissions import may

PER_PAGE = 50


class ListView(PageView):
    """A list of the rows that the person may see.

    `?export=csv` and `?export=xlsx` give the whole filtered list as a file, and each one is an audit event:
    `export_event`, declared with the payload `core.exports.Exported`.
    """

    table_class: type[django_tables2.Table]
    filterset_class: type[django_filters.FilterSet] | None = None
    template_name = "core/list.html"
    # The partial of the base template, also for templates that extend it: a child does not inherit partials.
    htmx_template = "core/list.html#list"
    per_page = PER_PAGE
    exportable = True
    export_event: EventType = exports.LIST_EXPORTED
    export_permission: str | None = None
    #: One sentence above the list: what it holds.
    intro = ""
    empty_title = "Nothing here yet"
    empty_text = ""
    empty_icon = "list"
    #: (label, url) of what a person does about an empty list.
    empty_action: tuple[str, str] | None = None

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Return the buttons beside the title, as (label, url); the first is the primary one."""
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """Return (label, url) for the empty state."""
        return self.empty_action

    def get_table_kwargs(self) -> dict[str, Any]:
        """Return further arguments of the table's class (`exclude`, `extra_columns`)."""
        return {}

    def get_filterset(self, queryset: Any) -> django_filters.FilterSet | None:
        """Return the filter set over the visible rows."""
        if self.filterset_class is None:
            return None
        return self.filterset_class(self.request.GET or None, queryset=queryset, request=self.request)

    def build(self) -> tuple[django_tables2.Table, django_filters.FilterSet | None]:
        """Return the sorted, filtered table (not cut into pages yet) and its filter set."""
        queryset = self.get_queryset()
        filterset = self.get_filterset(queryset)
        rows = filterset.qs if filterset is not None else queryset
        table = self.table_class(data=rows, **self.get_table_kwargs())
        table.request = self.request
        if sort := self.request.GET.getlist(table.prefixed_order_by_field):
            table.order_by = sort
        if isinstance(table.data, TableQuerysetData):
            table.data.data = total_order(table.data.data)
        return table, filterset

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show a page of the list, or give it as a file. Raises Invalid for another format, NotVisible past the end."""
        table, filterset = self.build()
        if self.exportable and "export" in request.GET:
            return self.export(table, request.GET["export"])
        try:
            table.paginate(page=request.GET.get("page", 1), per_page=self.per_page)
        except PageNotAnInteger as error:
            raise Invalid({"page": "The page is a whole number."}) from error
        except EmptyPage as error:
            raise NotVisible("The list has fewer pages than that.") from error
        return self.page(table=table, filterset=filterset)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the table, the filters in force and the empty state."""
        filterset = extra.get("filterset")
        return super().get_context(
            **{
                "intro": self.intro,
                "page_actions": self.get_page_actions(),
                "exportable": self.exportable,
                "filtered": filterset is not None and is_filtering(filterset),
                "empty_title": self.empty_title,
                "empty_text": self.empty_text,
                "empty_icon": self.empty_icon,
                "empty_action": self.get_empty_action(),
                **extra,
            }
        )

    def export(self, table: django_tables2.Table, kind: str) -> HttpResponseBase:
        """Give the list as a file and have it recorded once the read transaction is closed."""
        if self.export_permission and not may(self.request.user, self.export_permission, self.scope_object()):
            raise NotAllowed(rule=self.export_permission)
        if kind not in exports.FORMATS:
            raise Invalid({"export": f"Exports are {' or '.join(exports.FORMATS)}."})
        name = self.get_export_name()
        columns = [column for column in table.columns if column.visible and not column.column.exclude_from_export]
        rows = ([cell_value(row, column) for column in columns] for row in streamed(table))
        try:
            response, count = exports.export_response(name, kind, [str(column.header) for column in columns], rows)
        except exports.TooManyRows as error:
            raise Invalid({"export": str(error)}) from error
        query = self.request.GET.copy()
        query.pop("export", None)
        payload = exports.Exported(listing=name, format=kind, rows=count, query=query.urlencode())
        event, actor = self.export_event, self.actor
        after_read(self.request, lambda: hooks.record_export(event, payload, actor))
        return response

    def get_export_name(self) -> str:
        """Return the first part of the file's name: the title in small letters with dashes."""
        words = "".join(letter if letter.isalnum() else " " for letter in self.get_title().lower()).split()
        return "-".join(words) or "export"


def total_order(queryset: Any) -> Any:
    """Return the queryset with its primary key as last criterion, so that paging neither repeats nor loses a row.

    Raises ImproperlyConfigured for a grouped queryset without an order: its rows have no key of their own.
    """
    if queryset._fields is not None:
        if not queryset.ordered:
            raise ImproperlyConfigured("a list of grouped rows needs an order_by of its own")
        return queryset
    if not queryset.query.order_by and not (queryset.query.default_ordering and queryset.model._meta.ordering):
        return queryset.order_by("-pk")
    present = queryset.query.order_by or queryset.model._meta.ordering
    names = {str(term).lstrip("-") for term in present if isinstance(term, str)}
    if names & {"pk", queryset.model._meta.pk.name, "uid"}:
        return queryset
    return queryset.order_by(*present, "-pk")


def is_filtering(filterset: Any) -> bool:
    """Whether any filter of the form is set."""
    return any(value not in (None, "", []) for value in filterset.data.values()) and any(
        filterset.data.get(filterset.form.add_prefix(name)) not in (None, "") for name in filterset.form.fields
    )


def streamed(table: django_tables2.Table) -> Any:
    """Yield the bound rows of a table without keeping them: querysets in chunks, prefetches kept."""
    data = table.data.data
    source = data.iterator(chunk_size=2000) if isinstance(table.data, TableQuerysetData) else iter(data)
    for record in source:
        yield BoundRow(record, table=table)


def cell_value(row: Any, column: Any) -> Any:
    """Return what a cell exports: the column's own value, never its markup."""
    return row.get_cell_value(column.name)


__all__ = ["PER_PAGE", "ListView", "total_order"]
