"""PATCH, paths and filters of SCIM, without a database: requests as the large directories send them, and properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.scim_errors import ScimError
from apps.accounts.scim_filter import ENTERPRISE, Filter, compare, matches, parse_filter, parse_path
from apps.accounts.scim_patch import GroupDocument, normalised, operations, patch_group, patch_user

USER = {
    "userName": "ada@example.com",
    "active": True,
    "name": {"givenName": "First", "familyName": "Last"},
    "emails": [{"type": "work", "value": "ada@example.com", "primary": True}],
}


def patched(*steps: dict[str, Any], user: dict[str, Any] = USER) -> dict[str, Any]:
    return patch_user(user, operations({"Operations": list(steps)}))


@pytest.mark.requirement("scim-1.3")
@pytest.mark.parametrize(
    ("step", "key", "value"),
    [
        # Entra ID without its flag: a capital and a truth value as text.
        ({"op": "Replace", "path": "active", "value": "False"}, "active", False),
        # Okta: no path.
        ({"op": "replace", "value": {"active": False}}, "active", False),
        # Entra ID: a single value in a list.
        ({"op": "Add", "path": "title", "value": [{"$ref": None, "value": "Lead"}]}, "title", "Lead"),
        ({"op": "Replace", "path": "ACTIVE", "value": False}, "active", False),
        ({"op": "replace", "path": f"{ENTERPRISE}:employeeNumber", "value": "7"}, ENTERPRISE, {"employeeNumber": "7"}),
        ({"op": "replace", "value": {f"{ENTERPRISE}:employeeNumber": "7"}}, ENTERPRISE, {"employeeNumber": "7"}),
        ({"op": "add", "value": {ENTERPRISE: {"department": "D"}}}, ENTERPRISE, {"department": "D"}),
        ({"op": "add", "path": f"{ENTERPRISE}:manager", "value": "12"}, ENTERPRISE, {"manager": {"value": "12"}}),
        ({"op": "replace", "value": {"name.givenName": "New"}}, "name", {"givenName": "New", "familyName": "Last"}),
        (
            {"op": "replace", "path": "name.givenName", "value": "New"},
            "name",
            {"givenName": "New", "familyName": "Last"},
        ),
        ({"op": "add", "path": "name", "value": {"givenName": "N"}}, "name", {"givenName": "N", "familyName": "Last"}),
        ({"op": "replace", "path": "name", "value": {"givenName": "N"}}, "name", {"givenName": "N"}),
        (
            {"op": "Replace", "path": 'emails[type eq "work"].value', "value": "new@example.com"},
            "emails",
            [{"type": "work", "value": "new@example.com", "primary": True}],
        ),
        # A filter that meets nothing yet makes the element, as Entra ID expects.
        (
            {"op": "Add", "path": 'phoneNumbers[type eq "mobile"].value', "value": "1"},
            "phoneNumbers",
            [{"type": "mobile", "value": "1"}],
        ),
        (
            {"op": "add", "path": "emails", "value": [{"type": "home", "value": "h@example.com", "primary": "True"}]},
            "emails",
            [
                {"type": "work", "value": "ada@example.com", "primary": False},
                {"type": "home", "value": "h@example.com", "primary": True},
            ],
        ),
        ({"op": "add", "path": "emails", "value": USER["emails"]}, "emails", USER["emails"]),
        ({"op": "remove", "path": 'emails[type eq "work"]'}, "emails", None),
        ({"op": "Remove", "path": "emails", "value": [{"value": "ada@example.com"}]}, "emails", None),
        ({"op": "remove", "path": "name.givenName"}, "name", {"familyName": "Last"}),
        ({"op": "replace", "path": "title", "value": None}, "title", None),
        ({"op": "replace", "value": {"id": "x", "schemas": [], "password": "secret", "title": "T"}}, "title", "T"),
        ({"op": "add", "path": "password", "value": "secret"}, "password", None),
    ],
)
def test_what_directories_send_changes_what_they_mean(step: dict[str, Any], key: str, value: Any) -> None:
    result = patched(step)
    assert result.get(key) == value
    others = {name for name in USER if name != key}
    assert {name: result[name] for name in others} == {name: USER[name] for name in others}, "nothing else changes"
    assert USER["active"] is True, "the document given stays as it was"


@pytest.mark.requirement("scim-1.5")
@pytest.mark.parametrize(
    ("step", "scim_type"),
    [
        ({"op": "move", "path": "a"}, "invalidSyntax"),
        ({"op": "remove"}, "noTarget"),
        ({"op": "replace", "path": "active", "value": "perhaps"}, "invalidValue"),
        ({"op": "replace", "path": "active[", "value": True}, "invalidPath"),
        ({"op": "replace", "path": "emails.value", "value": "x"}, "invalidPath"),
        ({"op": "replace", "path": "id", "value": "x"}, "mutability"),
        ({"op": "add", "path": "groups", "value": []}, "mutability"),
        ({"op": "add", "path": "title"}, "invalidValue"),
        ({"op": "add", "value": "x"}, "invalidValue"),
        ({"op": "replace", "path": 'emails[type co "w" or primary eq true].value', "value": "x"}, None),
        ({"op": "replace", "path": 'phoneNumbers[type co "w"].value', "value": "x"}, "noTarget"),
    ],
)
def test_what_cannot_be_meant_is_refused(step: dict[str, Any], scim_type: str | None) -> None:
    if scim_type is None:
        assert patched(step)["emails"][0]["value"] == "x"
        return
    with pytest.raises(ScimError) as refusal:
        patched(step)
    assert (refusal.value.status, refusal.value.scim_type) == (400, scim_type)


@pytest.mark.requirement("scim-4.1")
def test_group_dialects_add_and_remove_exactly_the_named_members() -> None:
    group = GroupDocument("Leads", members={"a", "b", "c", "d"})
    steps: list[dict[str, Any]] = [
        {"op": "Remove", "path": "members", "value": [{"value": "A"}]},  # Entra ID without its flag
        {"op": "remove", "path": 'members[value eq "b"]'},
        {"op": "remove", "path": 'members[value eq "c" or value eq "x"]'},
        {"op": "add", "path": "members", "value": [{"$ref": None, "value": "z"}, {"value": "d", "display": "D"}]},
        {"op": "replace", "value": {"id": "1", "displayName": "Team leads"}},  # Okta
        {"op": "Replace", "path": "externalId", "value": "42"},
    ]
    found = patch_group(group, operations({"Operations": steps}))
    assert found == GroupDocument("Team leads", "42", {"d", "z"})
    assert group.members == {"a", "b", "c", "d"}
    emptied = patch_group(group, operations({"Operations": [{"op": "remove", "path": "members"}]}))
    assert emptied.members == set()


_IDS = st.sampled_from(["a", "b", "c", "d", "e"])
_STEP = st.tuples(st.sampled_from(["add", "replace", "remove", "remove_each", "no_path", "clear"]), st.sets(_IDS))


@pytest.mark.requirement("scim-4.1")
@given(start=st.sets(_IDS), steps=st.lists(_STEP, max_size=12))
def test_any_sequence_of_patches_equals_the_same_steps_on_a_set(
    start: set[str], steps: list[tuple[str, set[str]]]
) -> None:
    model: set[str] = set(start)
    sent: list[dict[str, Any]] = []
    for kind, ids in steps:
        value = [{"value": one.upper()} for one in sorted(ids)]
        if kind == "add":
            model |= ids
            sent.append({"op": "Add", "path": "members", "value": value})
        elif kind == "replace":
            model = set(ids)
            sent.append({"op": "replace", "path": "members", "value": value})
        elif kind == "remove" and ids:
            model -= ids
            sent.append({"op": "Remove", "path": "members", "value": value})
        elif kind == "remove_each":
            model -= ids
            sent += [{"op": "remove", "path": f'members[value eq "{one}"]'} for one in sorted(ids)]
        elif kind == "no_path":
            model |= ids
            sent.append({"op": "add", "value": {"members": value}})
        elif kind == "clear":
            model = set()
            sent.append({"op": "remove", "path": "members"})
    result = GroupDocument("G", members=set(start))
    if sent:
        result = patch_group(result, operations({"Operations": sent}))
    assert result.members == model
    one_by_one = GroupDocument("G", members=set(start))
    for step in sent:
        one_by_one = patch_group(one_by_one, operations({"Operations": [step]}))
    assert one_by_one == result, "one request with many steps does what many requests do"


_WORDS = st.text("abc", min_size=1, max_size=3)
_SIMPLE = st.sampled_from(["title", "nickName", "userType", "locale"])


@pytest.mark.requirement("scim-1.3")
@given(steps=st.lists(st.tuples(st.sampled_from(["add", "Replace", "remove", "bare"]), _SIMPLE, _WORDS), max_size=15))
def test_single_values_behave_as_a_plain_dictionary(steps: list[tuple[str, str, str]]) -> None:
    model: dict[str, Any] = dict(USER)
    document: dict[str, Any] = dict(USER)
    for op, name, word in steps:
        if op == "remove":
            model.pop(name, None)
            step: dict[str, Any] = {"op": op, "path": name.upper()}
        else:
            model[name] = word
            step = {"op": "replace", "value": {name: word}} if op == "bare" else {"op": op, "path": name, "value": word}
        document = patched(step, user=document)
    assert document == model
    assert normalised(document) == document, "replacing with what is there changes nothing"


@pytest.mark.requirement("scim-1.4")
@pytest.mark.parametrize(
    ("text", "element", "expected"),
    [
        ('type eq "WORK"', {"type": "work"}, True),
        ('type eq "work" and primary eq true', {"type": "work", "primary": "True"}, True),
        ('type eq "home" or (value sw "a" and not (value ew "z"))', {"type": "work", "value": "abc"}, True),
        ('type ne "work"', {"type": "work"}, False),
        ("display pr", {"type": "work"}, False),
        ('value co "\\u0062"', {"value": "abc"}, True),
        ("primary eq false", {}, False),
    ],
)
def test_filters_are_read_as_the_standard_says(text: str, element: dict[str, Any], expected: bool) -> None:
    assert matches(parse_filter(text), element) is expected


@pytest.mark.requirement("scim-1.5")
@pytest.mark.parametrize(
    "text", ["", "a", "a eq", "a eq b", 'a like "b"', '(a eq "b"', 'a eq "b" and', "a[b", 'a eq "\\ud800"',
             'a eq "\\u0000"', "(" * 30 + 'a eq "b"' + ")" * 30, 'a eq "b" c', 'a eq "' + "x" * 3000 + '"'],
)  # fmt: skip
def test_filters_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ScimError) as refusal:
        parse_filter(text)
    assert refusal.value.scim_type == "invalidFilter"


@pytest.mark.requirement("scim-1.5")
@given(text=st.text(st.sampled_from(list('ae[]().: "\\eqandornotpr12truefalse-')), max_size=40))
def test_whatever_is_sent_as_filter_or_path_is_read_or_refused(text: str) -> None:
    for parse in (parse_filter, parse_path):
        status = 0
        try:
            parse(text)
        except ScimError as error:
            status = error.status
        assert status in (0, 400)


_ATOMS = st.builds(
    lambda name, value: (f'{name} eq "{value}"', (name, value)), st.sampled_from("ab"), st.sampled_from("xy")
)


def _evaluate(tree: Any, element: dict[str, str]) -> bool:
    kind = tree[0]
    if kind == "atom":
        return bool(element.get(tree[1][0]) == tree[1][1])
    if kind == "not":
        return not _evaluate(tree[1], element)
    left, right = _evaluate(tree[1], element), _evaluate(tree[2], element)
    return (left and right) if kind == "and" else (left or right)


_TREES = st.recursive(
    st.builds(lambda atom: (atom[0], ("atom", atom[1])), _ATOMS),
    lambda inner: st.one_of(
        st.builds(lambda one: (f"not ({one[0]})", ("not", one[1])), inner),
        st.builds(lambda a, b: (f"({a[0]}) and ({b[0]})", ("and", a[1], b[1])), inner, inner),
        st.builds(lambda a, b: (f"({a[0]}) or ({b[0]})", ("or", a[1], b[1])), inner, inner),
    ),
    max_leaves=6,
)


@pytest.mark.requirement("scim-1.4")
@given(tree=_TREES, element=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")))
def test_any_filter_equals_its_plain_logic(tree: Any, element: dict[str, str]) -> None:
    parsed: Filter = parse_filter(tree[0])
    assert matches(parsed, element) is _evaluate(tree[1], element)


@pytest.mark.requirement("scim-1.4")
def test_and_binds_before_or() -> None:
    found = parse_filter('a eq "x" or a eq "y" and b eq "x"')
    assert matches(found, {"a": "x", "b": "y"})
    assert compare(3, "gt", 2)
    assert not compare("b", "lt", "a")
