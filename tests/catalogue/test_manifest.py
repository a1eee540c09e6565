"""The manifest: one digest over everything, whatever order the rows come in; one byte more and it is another."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.catalogue import manifest
from apps.core.canonical import canonical_bytes, digest

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)


def version(**values: Any) -> Any:
    base: dict[str, Any] = {
        "model": SimpleNamespace(uid="7d0f9b7e-7c5b-4a53-9d1d-0d5f6a3a6f10"), "label": "1.4.0", "scheme": "s3",
        "location": "s3://models/fraud", "revision": "", "image": f"registry.example.com/triton@sha256:{'a' * 64}",
        "runtime": "triton", "model_format": "onnx", "arguments": ["--strict"], "environment": {"A": "1"},
        "explainer": {},
    }  # fmt: skip
    return SimpleNamespace(**(base | values))


def file(path: str = "model.onnx", size: int = 10, sha256: str = "c" * 64) -> Any:
    return SimpleNamespace(path=path, size=size, sha256=sha256)


def source(kind: str = "dataset", name: str = "payments", **values: Any) -> Any:
    return SimpleNamespace(**({"kind": kind, "name": name, "revision": "7", "uri": "", "digest": ""} | values))


CARD = SimpleNamespace(number=3, digest="d" * 64)
FILES = st.dictionaries(TEXT, st.tuples(st.integers(0, 2**60), HEX), min_size=1, max_size=5)


def built(**values: Any) -> bytes:
    given_values: dict[str, Any] = {
        "files": [file()],
        "sources": [source()],
        "card": CARD,
        "classification": ["health"],
    }
    given_values |= {key: values.pop(key) for key in list(values) if key in given_values}
    return manifest.build(version(**values), **given_values)


@pytest.mark.requirement("catalogue-2.1")
@given(
    FILES, st.lists(st.tuples(st.sampled_from(["dataset", "base_model", "adapter"]), TEXT), max_size=4), st.randoms()
)
def test_rows_in_any_order_give_the_same_bytes(files: Any, sources: Any, random: Any) -> None:
    rows = [file(path, size, sha256) for path, (size, sha256) in files.items()]
    things = [source(kind, name) for kind, name in sources]
    first = built(files=rows, sources=things)
    random.shuffle(rows)
    random.shuffle(things)
    assert built(files=rows, sources=things) == first
    found = manifest.parse(first)
    assert [one.path for one in found.files] == sorted(files)
    assert {one.path: (one.size, one.sha256) for one in found.files} == files
    assert found.digest == digest(first)
    assert found.raw == first
    assert len(found.adapters) == sum(kind == "adapter" for kind, _ in sources)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))] or [path]
    if isinstance(value, list):
        return [leaf for index, item in enumerate(value) for leaf in leaves(item, (*path, index))] or [path]
    return [path]


def changed_at(body: Any, path: tuple[Any, ...]) -> Any:
    copied = copy.deepcopy(body)
    at = copied
    for step in path[:-1]:
        at = at[step]
    before = at[path[-1]]
    if isinstance(before, str):
        at[path[-1]] = before + "x"
    elif isinstance(before, int):
        at[path[-1]] = before + 1
    else:
        at[path[-1]] = {"x": "y"} if isinstance(before, dict) else ["x"]
    return copied


@pytest.mark.requirement("catalogue-2.1")
@given(FILES, TEXT, TEXT, st.integers(0, 10_000))
def test_every_leaf_counts(files: Any, label: str, argument: str, choice: int) -> None:
    raw = built(files=[file(path, *rest) for path, rest in files.items()], label=label, arguments=[argument],
                sources=[source(), source("adapter", "lora", uri="s3://models/lora")])  # fmt: skip
    body = json.loads(raw)
    paths = leaves(body)
    path = paths[choice % len(paths)]
    assert digest(canonical_bytes(changed_at(body, path))) != digest(raw), path


@pytest.mark.requirement("catalogue-2.1")
@given(st.integers(0, 100_000), st.integers(1, 255))
def test_one_byte_of_the_manifest_changed_is_another_digest_or_no_manifest(place: int, mask: int) -> None:
    raw = bytearray(built())
    raw[place % len(raw)] ^= mask
    try:
        found = manifest.parse(bytes(raw))
    except manifest.Malformed:
        return
    assert found.digest != digest(built())


@pytest.mark.requirement("catalogue-2.1")
@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b"null", b'{"v":2}', b"\xff", built().replace(b'"v":1', b'"v":2'), built() + b" ",
     json.dumps(json.loads(built())).encode(), built().replace(b'"arguments":["--strict"]', b'"arguments":[1]')],
)  # fmt: skip
def test_only_what_build_wrote_is_read(raw: bytes) -> None:
    with pytest.raises(manifest.Malformed):
        manifest.parse(raw)


@pytest.mark.requirement("catalogue-2.2")
def test_a_file_without_digest_makes_no_manifest() -> None:
    with pytest.raises(ValueError, match=r"no SHA-256 is known of model\.onnx"):
        built(files=[file(sha256="")])
    with pytest.raises(ValueError, match="same path"):
        built(files=[file(), file(size=11)])


@pytest.mark.requirement("catalogue-2.5")
@pytest.mark.parametrize(
    ("values", "uri", "bound"),
    [
        ({"scheme": "s3", "location": "s3://models/fraud"}, "s3://models/fraud", "name"),
        ({"scheme": "pvc", "location": "pvc://models/fraud"}, "pvc://models/fraud", "name"),
        (
            {"scheme": "hf", "location": "hf://example/fraud", "revision": "c" * 40},
            f"hf://example/fraud:{'c' * 40}",
            "name",
        ),
        (
            {"scheme": "oci", "location": "oci://registry.example.com/m", "revision": f"sha256:{'b' * 64}"},
            f"oci://registry.example.com/m@sha256:{'b' * 64}",
            "bytes",
        ),
    ],
)
def test_what_a_cluster_may_load(values: Any, uri: str, bound: str) -> None:
    found = manifest.parse(built(**values))
    assert found.storage_uri == uri
    assert manifest.model_uris(found) == [uri]
    assert manifest.bound_by(found) == bound


@pytest.mark.requirement("catalogue-2.5")
def test_adapters_and_explainer_are_loaded_too() -> None:
    by_digest = f"oci://registry.example.com/m@sha256:{'b' * 64}"
    found = manifest.parse(
        built(
            scheme="oci", location="oci://registry.example.com/m", revision=f"sha256:{'b' * 64}",
            explainer={"storage_uri": "s3://models/explainer", "image": f"r.example.com/e@sha256:{'e' * 64}"},
            sources=[source("adapter", "lora", uri=f"oci://registry.example.com/lora@sha256:{'f' * 64}")],
        )
    )  # fmt: skip
    assert manifest.model_uris(found) == sorted(
        [by_digest, "s3://models/explainer", f"oci://registry.example.com/lora@sha256:{'f' * 64}"]
    )
    # The explainer's files are named, not fixed.
    assert manifest.bound_by(found) == "name"
    assert manifest.images(found) == sorted(
        [
            f"r.example.com/e@sha256:{'e' * 64}", f"registry.example.com/lora@sha256:{'f' * 64}",
            f"registry.example.com/m@sha256:{'b' * 64}", f"registry.example.com/triton@sha256:{'a' * 64}",
        ]
    )  # fmt: skip


@pytest.mark.requirement("catalogue-2.5")
def test_uploaded_files_are_fetched_by_the_manifests_digest() -> None:
    found = manifest.parse(built(scheme="upload", location=""))
    assert manifest.model_uris(found) == [f"gpu-commons://sha256/{found.digest}"]
