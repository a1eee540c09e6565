"""How fields stand in the OpenAPI description where drf-spectacular cannot tell: null through a relation, months."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import FieldDoesNotExist
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

MONTH = {"type": "string", "pattern": r"^\d{4}-(0[1-9]|1[0-2])$"}


def may_be_null(field: Any) -> bool:
    """Whether a read field can be null: some column or relation on the way to its value is nullable."""
    model = getattr(getattr(field.parent, "Meta", None), "model", None)
    names = [*getattr(field, "source_attrs", [])]
    if isinstance(field, serializers.SlugRelatedField):
        names.append(field.slug_field)
    for name in names:
        if model is None:
            return False
        try:
            column = model._meta.get_field(name)
        except FieldDoesNotExist:
            return False
        # The other side of a one-to-one need not be there.
        if getattr(column, "null", False) or (column.one_to_one and column.auto_created):
            return True
        model = column.related_model
    return False


class CommonsAutoSchema(AutoSchema):
    """Fields as they are answered."""

    def _get_serializer_field_meta(self, field: Any, direction: str) -> dict[str, Any]:
        meta: dict[str, Any] = super()._get_serializer_field_meta(field, direction)  # type: ignore[no-untyped-call]  # untyped there
        if direction == "response" and not isinstance(field, serializers.ManyRelatedField) and may_be_null(field):
            meta["nullable"] = True
        return meta

    def _map_serializer_field(self, field: Any, direction: str, bypass_extensions: bool = False) -> Any:
        if isinstance(field, serializers.DateField) and getattr(field, "format", None) == "%Y-%m":
            meta = self._get_serializer_field_meta(field, direction)
            shown: Any = {**MONTH, "type": ["string", "null"]} if meta.pop("nullable", False) else dict(MONTH)
            return {**shown, **meta}
        return super()._map_serializer_field(field, direction, bypass_extensions)  # type: ignore[no-untyped-call]  # untyped there
