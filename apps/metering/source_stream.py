"""Parses the answer of an allocation API row by row, so that a big answer stays small in memory. Pure.

The answer is `{"code": 200, "data": [ {key: row, …}, null, … ]}` (reference cost C1), members in any order, or with
one map instead of the list (assets). Only one row and the piece at hand are held as text.
"""

from __future__ import annotations

import codecs
import gc
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"
_AFTER_NUMBER = frozenset(",]}" + _SPACE)
#: A row larger than this is no row of an allocation.
MAX_ROW = 16 * 1024 * 1024


@contextmanager
def many_rows() -> Iterator[None]:
    """Pause the collector of cycles while hundreds of thousands of rows without any are made.

    It would walk through all of them again and again: half of the time of a big answer.
    """
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


class BadAnswer(ValueError):
    """The bytes are no answer of an allocation API; the message says where it went wrong."""


class Rows:
    """Iterates over (set, key, row) of an answer given in pieces of bytes; `sets` counts the sets seen so far.

    `head` holds the other members of the answer ("code", "message", …) once all is read. Raises BadAnswer.
    """

    #: Reads one value; who needs exact numbers gives one that parses them as Decimal.
    decoder = _DECODER

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text = ""
        self._at = 0
        self._ended = False
        self.sets = 0
        self.head: dict[str, Any] = {}
        self.found = False

    def __iter__(self) -> Iterator[tuple[int, str, Any]]:
        try:
            yield from self._answer()
        except UnicodeDecodeError as error:
            raise BadAnswer("the answer is not JSON: it is no UTF-8 text") from error
        except RecursionError as error:
            raise BadAnswer("the answer is nested too deeply") from error

    # ------------------------------------------------------------ grammar

    def _answer(self) -> Iterator[tuple[int, str, Any]]:
        self._expect("{")
        if self._peek() == "}":
            self._expect("}")
            return
        while True:
            name = self._string()
            self._expect(":")
            if name == "data":
                self.found = True
                yield from self._data()
            else:
                self.head[name] = self._value()
            if not self._more("}"):
                break
        if self._peek():
            raise BadAnswer("the answer goes on after its end")

    def _data(self) -> Iterator[tuple[int, str, Any]]:
        first = self._peek()
        if first == "[":
            self._expect("[")
            if self._peek() == "]":
                self._expect("]")
                return
            while True:
                yield from self._set()
                if not self._more("]"):
                    return
        yield from self._set()

    def _set(self) -> Iterator[tuple[int, str, Any]]:
        index = self.sets
        if self._peek() != "{":
            if self._value() is not None:
                raise BadAnswer("a set is no map of rows")
            self.sets += 1
            return
        self.sets += 1
        self._expect("{")
        if self._peek() == "}":
            self._expect("}")
            return
        while True:
            key = self._string()
            self._expect(":")
            yield index, key, self._value()
            if not self._more("}"):
                return

    # ------------------------------------------------------------ text

    def _fill(self) -> bool:
        """Get another piece; False where there is none."""
        if self._ended:
            return False
        if self._at:
            self._text, self._at = self._text[self._at :], 0
        if len(self._text) > MAX_ROW:
            raise BadAnswer("a row of the answer is larger than 16 MiB")
        piece = next(self._pieces, None)
        if piece is None:
            self._text += self._decode(b"", True)
            self._ended = True
        else:
            self._text += self._decode(piece)
        return True

    def _peek(self) -> str:
        """Return the next character that is no space, "" at the end."""
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self._at = at
            if at < len(text):
                return text[at]
            if not self._fill():
                return ""

    def _expect(self, character: str) -> None:
        found = self._peek()
        if found != character:
            raise BadAnswer(f"the answer is not JSON: “{character}” was to come, not “{found or 'its end'}”")
        self._at += 1

    def _more(self, end: str) -> bool:
        """Step over a comma (True) or the end of a list or map (False)."""
        found = self._peek()
        if found == ",":
            self._at += 1
            return True
        self._expect(end)
        return False

    def _string(self) -> str:
        found = self._value()
        if not isinstance(found, str):
            raise BadAnswer("the answer is not JSON: a name was to come")
        return found

    def _value(self) -> Any:
        if not self._peek():
            raise BadAnswer("the answer ends in the middle")
        while True:
            try:
                value, end = self.decoder.raw_decode(self._text, self._at)
            except ValueError as error:
                # Cut in the middle, or wrong: more text tells.
                if not self._fill():
                    raise BadAnswer("the answer is not JSON, or ends in the middle") from error
                continue
            # A number may go on in the next piece: it has ended only where something that is no part of one follows.
            if isinstance(value, int | float) and self._text[end : end + 1] not in _AFTER_NUMBER and self._fill():
                continue
            self._at = end
            return value


def checked(rows: Rows) -> Iterator[tuple[int, str, Any]]:
    """Yield the rows of an answer, and make sure at its end that it was a success with data. Raises BadAnswer."""
    yield from rows
    code = rows.head.get("code")
    if code != 200:
        raise BadAnswer(str(rows.head.get("message") or "no success")[:2000])
    if not rows.found:
        raise BadAnswer("the answer holds no data")
