"""Parsing an allocation API's answer row by row: the same as json.loads, wherever the pieces are cut."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.metering.source_stream import BadAnswer, Rows, checked, many_rows

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
sets = st.lists(st.none() | st.dictionaries(st.text(max_size=10), values, max_size=4), max_size=4)


def cut(raw: bytes, size: int) -> list[bytes]:
    return [raw[at : at + size] for at in range(0, len(raw), size)]


@pytest.mark.requirement("metering-sources-4.4")
@given(sets, st.integers(1, 40), st.booleans(), st.booleans())
def test_same_as_json_wherever_it_is_cut(data: Any, size: int, ascii_only: bool, spaced: bool) -> None:
    document = {"status": "success", "data": data, "code": 200, "message": "ü”"}
    separators = (" ,\n ", " : ") if spaced else (",", ":")
    rows = Rows(cut(json.dumps(document, ensure_ascii=ascii_only, separators=separators).encode(), size))
    found = list(checked(rows))
    assert found == [(index, key, row) for index, one in enumerate(data) for key, row in (one or {}).items()]
    assert rows.sets == len(data)
    assert rows.head == {"status": "success", "code": 200, "message": "ü”"}


@pytest.mark.requirement("metering-sources-4.4")
@given(st.dictionaries(st.text(max_size=5), values, max_size=4), st.data())
def test_a_cut_answer_is_never_taken_for_a_whole_one(data: Any, choose: Any) -> None:
    raw = json.dumps({"code": 200, "data": data}).encode()
    length = choose.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(BadAnswer):
        list(checked(Rows([raw[:length]])))


@pytest.mark.requirement("metering-sources-1.10")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html><body>Sign in</body></html>", "not JSON"),
        (b"", "not JSON"),
        (b'{"code":200}', "holds no data"),
        (b'{"code":500,"message":"ETL not ready"}', "ETL not ready"),
        (b'{"code":200,"data":[1]}', "no map"),
        (b'{"code":200,"data":{}} trailing', "after its end"),
        (b'{"code":200,"data":{"a":"\xff"}}', "UTF-8"),
        (b'{"code":200,"data":{"a":' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_answer_is_said_so(body: bytes, said: str) -> None:
    with pytest.raises(BadAnswer, match=said):
        list(checked(Rows([body])))


def test_the_collector_is_on_again_afterwards() -> None:
    def fail() -> None:
        with many_rows():
            assert not gc.isenabled()
            list(checked(Rows([b"no"])))

    assert gc.isenabled()
    with pytest.raises(BadAnswer):
        fail()
    assert gc.isenabled()
