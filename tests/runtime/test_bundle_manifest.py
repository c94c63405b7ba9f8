"""Manifests that are not as they should be: each is a BundleError that names the field."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bundle import (
    GRAPH,
    MANIFEST,
    load,
    parse_manifest,
)
from runtime.errors import BundleError
from runtime.manifest import EngineFile, Manifest
from tests.runtime.tiny_bundles import manifest, write


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        '"format"',
        "{}",
        '{"format": "1"}',
        '{"format": true}',
        '{"format": 1.0}',
        '{"format": 2}',
        "[" * 100_000,
        '{"format": ' * 50_000,
        "\ufeff{}",
    ],
)
def test_a_malformed_manifest_is_a_bundle_error(text: str) -> None:
    with pytest.raises(BundleError):
        parse_manifest(text)


@pytest.mark.parametrize("format", [1, 3, 0, -2, True, 2.0, "2", None])
def test_a_manifest_of_another_format_is_refused_and_the_message_says_what_to_do(format: object) -> None:
    raw = json.loads(manifest().to_json())
    assert parse_manifest(json.dumps(raw)) == manifest()
    with pytest.raises(BundleError, match="this version reads 2; build the bundle again"):
        parse_manifest(json.dumps(raw | {"format": format}))


def test_a_manifest_that_is_no_text_is_a_bundle_error(tmp_path: Path) -> None:
    bundle = write(tmp_path)
    (bundle.path / MANIFEST).write_bytes(b"\xff\xfe{\0}\0")
    with pytest.raises(BundleError, match="utf-8"):
        load(bundle.path)


def test_an_unknown_field_is_named() -> None:
    raw = json.loads(manifest().to_json()) | {"colour": 1}
    with pytest.raises(BundleError, match="colour"):
        parse_manifest(json.dumps(raw))


@pytest.mark.parametrize("name", ["name", "task", "precision", "inputs", "outputs"])
def test_a_missing_field_is_named(name: str) -> None:
    raw = json.loads(manifest().to_json())
    del raw[name]
    with pytest.raises(BundleError, match=name):
        parse_manifest(json.dumps(raw))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", 5),
        ("task", "banana"),
        ("task", ["upscale"]),
        ("precision", "float64"),
        ("inputs", []),
        ("inputs", [{}]),
        ("inputs", {"name": "image"}),
        ("inputs", [["image", "float32"]]),
        ("inputs", [{"name": "image", "dtype": "float16", "shape": ["N"], "range": None}]),
        ("inputs", [{"name": "image", "dtype": "float32", "shape": [1.5], "range": None}]),
        ("inputs", [{"name": "image", "dtype": "float32", "shape": "NCHW", "range": None}]),
        ("inputs", [{"name": "image", "dtype": "float32", "shape": ["N"], "range": [0]}]),
        ("inputs", [{"name": "image", "dtype": "float32", "shape": ["N"], "range": [0, "1"]}]),
        ("outputs", []),
        ("scale", 0),
        ("scale", "4"),
        ("scale", True),
        ("size_multiple", 0),
        ("size_multiple", 2.0),
        ("least_side_px", 0),
        ("least_side_px", "8"),
        ("padding", "zero"),
        ("tile_sizes", "64"),
        ("tile_sizes", [0]),
        ("tile_sizes", [-64]),
        ("tile_sizes", [16]),
        ("tile_sizes", 64),
        ("halo", -1),
        ("halo", 32),
        ("latent_size", -1),
        ("classes", -1),
        ("class_names", ["one"]),
        ("class_names", "ab"),
        ("error", []),
        ("error", {"psnr_db": "high"}),
        ("engines", [{"path": "x"}]),
        ("engines", [{name: [] for name in EngineFile.__dataclass_fields__}]),
        ("weights", {"source": 1}),
        ("weights", None),
        ("tools", "torch"),
        ("files", []),
        ("files", {GRAPH: "abc"}),
        ("files", {GRAPH: {"sha256": "abc"}}),
        ("files", {GRAPH: {"sha256": "abc", "bytes": "7"}}),
        ("files", {GRAPH: {"sha256": "abc", "bytes": 7, "mode": 1}}),
    ],
)
def test_a_field_with_an_impossible_value_is_named(name: str, value: object) -> None:
    raw = json.loads(manifest().to_json()) | {name: value}
    with pytest.raises(BundleError, match="tile_sizes" if name == "halo" and value == 32 else name):
        parse_manifest(json.dumps(raw))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "files",
            {GRAPH: {"sha256": "a", "bytes": "7"}},
            "files.model.onnx.bytes: got '7', input should be a",
        ),
        ("files", {GRAPH: {"sha256": "a"}}, "files.model.onnx.bytes: field required"),
        ("task", "paint", "task: got 'paint', input should be 'upscale', 'translate' or 'generate'"),
        ("tile_sizes", [64, 1.5], "tile_sizes.1: got 1.5, input should be a valid integer"),
    ],
)
def test_the_message_says_where_what_came_and_what_was_expected(
    name: str, value: object, message: str
) -> None:
    raw = json.loads(manifest().to_json()) | {name: value}
    with pytest.raises(BundleError, match=re.escape(message)) as refused:
        parse_manifest(json.dumps(raw))
    assert "build the bundle again" in str(refused.value)


def test_a_tile_that_is_no_multiple_of_the_size_rule_is_refused() -> None:
    with pytest.raises(BundleError, match="tile_sizes"):
        parse_manifest(manifest(size_multiple=2, tile_sizes=(63,)).to_json())


def test_a_tile_below_the_least_side_is_refused() -> None:
    with pytest.raises(BundleError, match="tile_sizes"):
        parse_manifest(manifest(least_side_px=65, tile_sizes=(64,)).to_json())


def test_a_bundle_that_says_nothing_of_a_least_side_has_none_and_repeats_edges() -> None:
    raw = json.loads(manifest().to_json())
    del raw["least_side_px"], raw["padding"]
    read = parse_manifest(json.dumps(raw))
    assert (read.least_side_px, read.padding) == (1, "edge")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(Manifest.__dataclass_fields__)), json_values)
def test_any_value_in_a_field_loads_or_is_a_bundle_error(name: str, value: object) -> None:
    raw = json.loads(manifest().to_json()) | {name: value}
    try:
        parsed = parse_manifest(json.dumps(raw))
    except BundleError:
        return
    parsed.to_json()
