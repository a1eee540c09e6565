"""Model cards: the schema, what regimes ask for, and the way to a Hugging Face card and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from apps.catalogue import cards, cards_hf
from apps.core.canonical import canonical_bytes
from apps.core.errors import Invalid

_text = st.text(max_size=60)
_heading = st.sampled_from(
    ["# Top", "## Direct Use", "## Something else", "\\# x", "\\\\## Direct Use", "\\## Uses", "---", "#", "    # c",
     "## Model Description ##", "- a: b", "```", "yes", "1.0", "{{x}}", "&a *a"]
)  # fmt: skip
_paragraphs = st.lists(st.one_of(_text, _heading), max_size=5).map("\n".join)
_number = st.decimals(min_value=-(10**6), max_value=10**6, allow_nan=False, places=9).map(lambda d: f"{d:f}")


@st.composite
def _result(draw: Any, index: int) -> dict[str, Any]:
    row: dict[str, Any] = {"metric": f"m{index} {draw(_text)}"[:90], "value": draw(_number)}
    if draw(st.booleans()):
        row |= {"low": row["value"], "high": row["value"]}
    if draw(st.booleans()):
        row |= {"comparison": draw(st.sampled_from(["ge", "at most", "≥"])), "threshold": draw(_number)}
    for name in ("slice", "dataset", "dataset_revision"):
        if draw(st.booleans()):
            row[name] = draw(st.one_of(_text, st.just("not stated"), st.just("not-stated")))
    if draw(st.booleans()):
        row["samples"] = draw(st.integers(1, 2**52))
    return row


@st.composite
def _raw_card(draw: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    for field in cards.FIELDS:
        if not draw(st.booleans()):
            continue
        if field.kind is cards.Kind.LINE:
            raw[field.key] = draw(st.one_of(_text, _heading))
        elif field.kind is cards.Kind.TEXT:
            raw[field.key] = draw(_paragraphs)
        elif field.kind is cards.Kind.LIST:
            raw[field.key] = draw(
                st.lists(st.one_of(_text, st.sampled_from(["no", "1", "null", "2020-01-01"])), max_size=3)
            )
        elif field.kind is cards.Kind.DATASETS:
            names = draw(st.lists(_text.map(lambda t: f"d{t}"), max_size=3))
            raw[field.key] = [{"name": n, "revision": draw(_text), "sensitive": draw(st.booleans())} for n in names]
        elif field.kind is cards.Kind.RESULTS:
            raw[field.key] = [draw(_result(i)) for i in range(draw(st.integers(0, 3)))]
        else:
            raw[field.key] = draw(
                st.sampled_from(["a: 1\nlicense: mit\n", "co2_eq_emissions:\n  emissions: 0.5", "x: [1, 2]"])
            )
    return raw


@pytest.mark.requirement("evidence-1.3")
@given(_raw_card())
@settings(max_examples=60)
def test_a_card_comes_back_from_its_hugging_face_form(raw: dict[str, Any]) -> None:
    try:
        body = cards.clean(raw)
    except Invalid:
        assume(False)
        return
    canonical_bytes(body)
    assert cards.clean(body) == body
    assert cards_hf.read(cards_hf.write(body)) == body


@pytest.mark.requirement("evidence-1.3")
def test_a_usual_hugging_face_card_is_read() -> None:
    text = """---
language: [en, no]
license: apache-2.0
base_model: example/base
datasets: [example/claims]
co2_eq_emissions: {emissions: 12.5}
model-index:
- name: fraud
  results:
  - task: {type: text-classification}
    dataset: {type: example/claims, name: Claims, revision: abc}
    metrics: [{type: auroc, value: 0.93}, {type: f1, value: '0.81'}]
---
# Model Card for Fraud

Scores claims.

## Uses

### Direct Use

Handlers look at high scores.

## Our own heading

Kept where it stands.
"""
    body = cards_hf.read(text)
    assert body["name"] == "Fraud"
    assert body["base_model"] == ["example/base"]
    assert body["language"] == ["en", "no"]
    assert body["overview"] == "Scores claims."
    assert body["uses_direct"].endswith("## Our own heading\n\nKept where it stands.")
    assert [row["value"] for row in body["results"]] == ["0.93", "0.81"]
    assert body["results"][0]["dataset_revision"] == "abc"
    assert "co2_eq_emissions" in body["extra"]
    assert "co2_eq_emissions:" in cards_hf.write(body)


@pytest.mark.requirement("evidence-1.3")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("---\na: &x [1]\nb: *x\n---\n", "aliases"),
        ("---\n- one\n---\n", "mapping"),
        ("---\na: 1\n", "never ends"),
        ("---\na: " + "[" * 40 + "]" * 40 + "\n---\n", "nested"),
        ("---\na: !!python/object/apply:os.system [x]\n---\n", "not YAML"),
        ("x" * (cards_hf.MAX_BYTES + 1), "KiB"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_what_is_no_card_is_refused_with_the_reason(text: str | bytes, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        cards_hf.read(text)
    assert says in " ".join(refused.value.errors["card"])


@pytest.mark.requirement("evidence-1.2")
def test_what_a_regime_asks_for_and_the_card_leaves_empty_is_named() -> None:
    regimes = [("gdpr", "GDPR", ["logic", "human_review"]), ("hipaa", "HIPAA", ["security"])]
    body = cards.clean({"name": "Fraud", "overview": "Scores.", "logic": "Weighs the amount most."})
    found = [(one.regime, one.key) for one in cards.missing(body, regimes)]
    assert found == [
        ("", "uses_direct"), ("", "uses_out_of_scope"), ("", "limitations"), ("gdpr", "human_review"),
        ("hipaa", "security"),
    ]  # fmt: skip
    assert cards.asked_by("logic", regimes) == ["GDPR"]


@pytest.mark.requirement("evidence-1.4")
def test_revisions_differ_field_by_field() -> None:
    before = cards.clean({"name": "Fraud", "tags": ["a"], "contact": "Risk office"})
    after = cards.clean({"name": "Fraud", "tags": ["a", "b"], "overview": "New."})
    assert [(one.key, one.kind) for one in cards.differences(before, after)] == [
        ("overview", "added"), ("tags", "changed"), ("contact", "removed"),
    ]  # fmt: skip


@pytest.mark.requirement("evidence-1.1")
@pytest.mark.parametrize(
    "raw",
    [
        {"unheard_of": "x"},
        {"overview": ["a"]},
        {"tags": {"a": 1}},
        {"datasets": [{"revision": "1"}]},
        {"results": [{"metric": "auc", "value": 0.9}]},
        {"overview": "x" * (cards.TEXT_LIMIT + 1)},
        {"extra": "a: ["},
        {"schema": 2},
    ],
)
def test_a_card_that_does_not_fit_the_schema_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        cards.clean(raw)


def test_datasets_as_lines() -> None:
    rows = cards.parse_datasets("claims | r1 | s3://x | yes | 2019 to 2023\nplain")
    assert rows == [
        {"name": "claims", "revision": "r1", "link": "s3://x", "description": "2019 to 2023", "sensitive": True},
        {"name": "plain"},
    ]
    assert cards.parse_datasets(cards.datasets_text(rows)) == rows
