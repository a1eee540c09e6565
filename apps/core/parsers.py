"""Parsers of the REST API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework import parsers
from rest_framework.exceptions import ParseError


class JSONParser(parsers.JSONParser):
    """JSON, where a body of brackets without end is a fault of the sender's and not of ours."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        """Return the body. Raises ParseError for what is no JSON, or nested too deep."""
        try:
            found = super().parse(stream, media_type, parser_context)
            check_text(found)
        except RecursionError as error:
            raise ParseError("The body is nested too deep.") from error
        return found


def check_text(value: Any) -> None:
    """Refuse text that no database keeps: half of a surrogate pair, or the character NUL. Raises ParseError."""
    if isinstance(value, str):
        if "\x00" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ParseError("The body holds text that is no Unicode text: a lone surrogate, or the character NUL.")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            check_text(key)
            check_text(inner)
    elif isinstance(value, list):
        for inner in value:
            check_text(inner)
