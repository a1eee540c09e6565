"""Base of the filter forms above lists (django-filter) and the filters that several rooms need."""

from __future__ import annotations

from typing import Any

import django_filters
from django import forms
from django.db.models import Q, QuerySet


class YesNoAll(django_filters.widgets.BooleanWidget):
    """Yes, no, or both: "unknown" would be a state of the rows."""

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        forms.Select.__init__(self, attrs, (("", "All"), ("true", "Yes"), ("false", "No")))


class AllYesNo(forms.NullBooleanSelect):
    """Yes, no, or no filter: Django's own word for the latter, "Unknown", reads like a value."""

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        super().__init__(attrs)
        self.choices = [("unknown", "All"), ("true", "Yes"), ("false", "No")]


class CommonsFilterSet(django_filters.FilterSet):
    """A filter set whose unknown values are errors shown beside the field, never silently dropped.

    `self.request` is set by the list page: use it to scope the choices of `ModelChoiceFilter` with `visible_to`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for one in self.filters.values():
            if isinstance(one, django_filters.BooleanFilter):
                one.extra.setdefault("widget", AllYesNo)
            elif isinstance(one, django_filters.BooleanFilter):
                one.extra.setdefault("widget", YesNoAll)

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Filter; an invalid form shows nothing rather than everything."""
        return super().filter_queryset(queryset) if self.form.is_valid() else queryset.none()


class SearchFilter(django_filters.CharFilter):
    """Case-insensitive substring search over several columns: `SearchFilter(columns=["name", "slug"])`."""

    def __init__(self, *, columns: list[str], label: str = "Search", **kwargs: Any) -> None:
        kwargs.setdefault("widget", forms.TextInput(attrs={"type": "search", "autocomplete": "off"}))
        super().__init__(label=label, max_length=200, **kwargs)
        self.columns = columns

    def filter(self, qs: QuerySet[Any], value: Any) -> QuerySet[Any]:
        """Keep the rows in which any column contains the text."""
        if not value:
            return qs
        condition = Q()
        for column in self.columns:
            condition |= Q(**{f"{column}__icontains": value})
        return qs.filter(condition)


class DateFromFilter(django_filters.DateFilter):
    """Rows at or after the start of a day (UTC)."""

    def __init__(self, *, field_name: str, label: str = "From", **kwargs: Any) -> None:
        kwargs.setdefault("widget", forms.DateInput(attrs={"type": "date"}))
        super().__init__(field_name=field_name, lookup_expr="date__gte", label=label, **kwargs)


class DateUntilFilter(django_filters.DateFilter):
    """Rows up to and including a day (UTC)."""

    def __init__(self, *, field_name: str, label: str = "Until", **kwargs: Any) -> None:
        kwargs.setdefault("widget", forms.DateInput(attrs={"type": "date"}))
        super().__init__(field_name=field_name, lookup_expr="date__lte", label=label, **kwargs)


__all__ = ["AllYesNo", "CommonsFilterSet", "DateFromFilter", "DateUntilFilter", "SearchFilter"]
