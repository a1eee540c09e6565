"""Canonical bytes are RFC 8785's, whoever writes them."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from apps.core.canonical import canonical_bytes
from apps.core.events import plain

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["\x7f\u2028", "\ue000", "\U0001f600"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(value=_values)
def test_any_plain_data_has_the_bytes_of_the_standard(value: Any) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(plain(value))


def test_keys_are_ordered_by_utf_16_units_as_the_standard_says() -> None:
    assert canonical_bytes({"\ue000": 1, "\U0001f600": 2}).decode() == '{"\U0001f600":2,"\ue000":1}'


def test_a_number_that_could_be_rounded_and_half_a_character_are_refused() -> None:
    with pytest.raises(TypeError):
        canonical_bytes({"share": 0.1})
    with pytest.raises(ValueError, match=r"surrogate|utf-8|UTF-8"):
        canonical_bytes("\ud800")
