"""Texts as cards and results keep them: one kind of line end, no control characters. Pure."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\u0085\u2028\u2029\ufeff\ufffe\uffff\x80-\x9f]")


def clean_text(raw: object) -> str:
    """Return text with one kind of line end, without trailing blanks and control characters other than tab."""
    text = str(raw).replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROL.sub("", text)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def clean_line(raw: object) -> str:
    """Return text in one line."""
    return " ".join(clean_text(raw).split())
