"""Bundles: written atomically, read back unchanged, and refused if a file was altered."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.bundle import (
    GRAPH,
    MANIFEST,
    Bundle,
    Writer,
    discover,
    file_info,
    load,
    parse_manifest,
)
from runtime.errors import BundleError
from runtime.manifest import EngineFile, FileInfo, Manifest
from runtime.tensors import TensorSpec

ROOT = Path(__file__).resolve().parents[2]
IMAGE = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0, 1))
UPSCALED = TensorSpec("upscaled", "float32", ("N", 3, "SH", "SW"), (0, 1))


def onnx_file(text: bytes) -> bytes:
    """The simplest ONNX file: a model with nothing but its producer's name."""
    model = onnx.ModelProto(producer_name=text.decode())
    return model.SerializeToString()


A_GRAPH = onnx_file(b"a graph")


def manifest(name: str = "tiny", **given_fields: Any) -> Manifest:
    return Manifest(
        **{
            "name": name,
            "task": "upscale",
            "precision": "float32",
            "inputs": (IMAGE,),
            "outputs": (UPSCALED,),
            "scale": 4,
            "tile_sizes": (64, 128),
            "halo": 8,
            **given_fields,
        }
    )


def write(parent: Path, name: str = "tiny", graph: bytes = A_GRAPH, **given_fields: Any) -> Bundle:
    with Writer(parent, name) as writer:
        (writer.path / GRAPH).write_bytes(graph)
        (writer.path / "engines").mkdir()
        (writer.path / "engines" / "one.plan").write_bytes(b"a plan")
        return writer.commit(manifest(**{"name": name, **given_fields}))


def edit(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest by hand."""
    path = bundle.path / MANIFEST
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


# Round trips.


def test_a_committed_bundle_loads_with_the_same_content(tmp_path: Path) -> None:
    written = write(tmp_path)
    assert load(tmp_path / "tiny") == written
    assert written.onnx.read_bytes() == A_GRAPH
    assert set(written.manifest.files) == {GRAPH, "engines/one.plan"}
    assert written.manifest.files[GRAPH] == file_info(written.onnx)
    assert written.manifest.files[GRAPH].bytes == len(A_GRAPH)


def test_the_version_is_the_hash_of_the_manifest(tmp_path: Path) -> None:
    written = write(tmp_path)
    digest = file_info(written.path / MANIFEST).sha256
    assert written.version == load(written.path).version == digest[:12]


def test_the_version_follows_the_content(tmp_path: Path) -> None:
    versions = [write(tmp_path, graph=onnx_file(text)).version for text in (b"old", b"new", b"old")]
    assert versions[0] == versions[2] != versions[1]
    assert write(tmp_path, halo=4).version not in versions


texts = st.text(max_size=12)
sizes = st.integers(1, 10_000)
LATENT_SIZE, CLASSES = 100, 3
latents = st.builds(
    TensorSpec,
    name=texts,
    dtype=st.just("float32"),
    shape=st.tuples(texts, st.just(LATENT_SIZE)),
    range=st.none() | st.tuples(*[st.floats(allow_nan=False)] * 2),
)
labels = st.builds(
    TensorSpec,
    name=texts,
    dtype=st.just("int64"),
    shape=st.tuples(texts),
    range=st.just((0.0, CLASSES - 1.0)),
)
pictures = st.builds(
    TensorSpec,
    name=texts,
    dtype=st.just("float32"),
    shape=st.tuples(texts, sizes, sizes, sizes),
    range=st.tuples(st.floats(-9, 0), st.floats(0.5, 9)),
)
manifests = st.builds(
    Manifest,
    name=st.text("name-x4 é名", min_size=1).filter(str.strip),
    task=st.just("generate"),
    precision=st.sampled_from(["float32", "float16", "bfloat16", "int8"]),
    inputs=st.tuples(latents, labels) | st.tuples(labels, latents),
    outputs=st.tuples(pictures),
    scale=sizes,
    latent_size=st.just(LATENT_SIZE),
    classes=st.just(CLASSES),
    class_names=st.just(()) | st.tuples(texts, texts, texts),
    error=st.dictionaries(texts, st.floats(allow_nan=False), max_size=2),
    engines=st.lists(st.builds(EngineFile, *[texts] * 6), max_size=2).map(tuple),
    weights=st.dictionaries(texts, texts, max_size=2),
    tools=st.dictionaries(texts, texts, max_size=2),
    files=st.dictionaries(texts, st.builds(FileInfo, texts, st.integers(0, 2**40)), max_size=2),
)


@given(manifests)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_a_manifest_survives_json(written: Manifest) -> None:
    assert parse_manifest(written.to_json()) == written


def test_unlisted_files_are_ignored(tmp_path: Path) -> None:
    bundle = write(tmp_path)
    (bundle.path / "notes.txt").write_text("by hand")
    assert "notes.txt" not in load(bundle.path).manifest.files


# Bundles that were touched.


def remove_graph(bundle: Bundle) -> None:
    bundle.onnx.unlink()


def flip_a_bit(bundle: Bundle) -> None:
    bundle.onnx.write_bytes(bytes([bundle.onnx.read_bytes()[0] ^ 1]) + bundle.onnx.read_bytes()[1:])


def append(bundle: Bundle) -> None:
    bundle.onnx.write_bytes(bundle.onnx.read_bytes() + b"\0")


def cut(bundle: Bundle) -> None:
    bundle.onnx.write_bytes(b"")


def graph_as_link(bundle: Bundle) -> None:
    shutil.move(bundle.onnx, bundle.path.parent / "elsewhere.onnx")
    bundle.onnx.symlink_to(bundle.path.parent / "elsewhere.onnx")


def folder_as_link(bundle: Bundle) -> None:
    shutil.move(bundle.path / "engines", bundle.path.parent / "elsewhere")
    (bundle.path / "engines").symlink_to(bundle.path.parent / "elsewhere")


def graph_as_folder(bundle: Bundle) -> None:
    bundle.onnx.unlink()
    bundle.onnx.mkdir()


def graph_as_pipe(bundle: Bundle) -> None:
    bundle.onnx.unlink()
    os.mkfifo(bundle.onnx)


def unlisted_graph(bundle: Bundle) -> None:
    edit(bundle, lambda raw: raw["files"].pop(GRAPH))


def unlisted_engine(bundle: Bundle) -> None:
    engine = dict.fromkeys(EngineFile.__dataclass_fields__, "x")
    edit(bundle, lambda raw: raw["engines"].append(engine))


def no_manifest(bundle: Bundle) -> None:
    (bundle.path / MANIFEST).unlink()


def no_folder(bundle: Bundle) -> None:
    shutil.rmtree(bundle.path)


@pytest.mark.parametrize(
    "touch",
    [
        remove_graph,
        flip_a_bit,
        append,
        cut,
        graph_as_link,
        folder_as_link,
        graph_as_folder,
        graph_as_pipe,
        unlisted_graph,
        unlisted_engine,
        no_manifest,
        no_folder,
    ],
)
def test_an_altered_bundle_is_refused(tmp_path: Path, touch: Callable[[Bundle], None]) -> None:
    bundle = write(tmp_path)
    touch(bundle)
    with pytest.raises(BundleError) as refused:
        load(bundle.path)
    assert str(bundle.path) in str(refused.value)


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "/etc/hostname",
        "engines/../../outside",
        "..",
        ".",
        "",
        "a\0b",
        "x" * 5000,
        "engines",
        "//tmp/x",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    bundle = write(tmp_path)
    (tmp_path / "outside").write_bytes(A_GRAPH)
    edit(bundle, lambda raw: raw["files"].update({path: raw["files"][GRAPH]}))
    with pytest.raises(BundleError):
        load(bundle.path)


def test_a_bundle_behind_a_link_is_served(tmp_path: Path) -> None:
    write(tmp_path / "store")
    (tmp_path / "bundles").symlink_to(tmp_path / "store")
    assert [bundle.manifest.name for bundle in discover(tmp_path / "bundles")] == ["tiny"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", [GRAPH, MANIFEST])
def test_a_file_that_may_not_be_read_is_a_bundle_error(tmp_path: Path, name: str) -> None:
    bundle = write(tmp_path)
    (bundle.path / name).chmod(0)
    with pytest.raises(BundleError):
        load(bundle.path)


# Manifests that are not as they should be.


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


# Folders of bundles.


def test_discover_sorts_bundles_by_name_and_skips_other_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write(tmp_path, name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    write(tmp_path, "c").path.rename(tmp_path / ".c.part")
    assert [bundle.manifest.name for bundle in discover(tmp_path)] == ["a", "b"]


def test_discover_refuses_an_empty_or_missing_folder_and_says_what_to_do(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing", Path(__file__)):
        with pytest.raises(BundleError, match=r"export\.build"):
            discover(folder)


def test_discover_refuses_two_bundles_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, "one")
    for folder in ("two", "three"):
        edit(write(tmp_path, folder), lambda raw: raw.update(name="tiny"))
    with pytest.raises(BundleError, match="tiny"):
        discover(tmp_path)


def test_discover_refuses_an_altered_bundle(tmp_path: Path) -> None:
    write(tmp_path, "one")
    cut(write(tmp_path, "two"))
    with pytest.raises(BundleError, match="two"):
        discover(tmp_path)


# Writing.


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/a", "../a", "a/"])
def test_a_name_that_is_no_plain_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError):
        Writer(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_left_without_a_commit_leaves_nothing(tmp_path: Path) -> None:
    with Writer(tmp_path, "tiny") as writer:
        (writer.path / GRAPH).write_bytes(onnx_file(b"x"))
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_leaves_the_old_bundle(tmp_path: Path) -> None:
    before = write(tmp_path)
    with pytest.raises(FileNotFoundError), Writer(tmp_path, "tiny") as writer:
        shutil.copy(tmp_path / "missing", writer.path / GRAPH)
    assert load(before.path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    "given_fields",
    [
        {"tile_sizes": (16,)},
        {"engines": (EngineFile("none.plan", "tensorrt", "11", "8.9", "x", "y"),)},
        {"scale": 0},
    ],
)
def test_a_bundle_that_a_server_would_refuse_replaces_none(
    tmp_path: Path, given_fields: dict[str, Any]
) -> None:
    before = write(tmp_path)
    with pytest.raises(BundleError):
        write(tmp_path, graph=onnx_file(b"new"), **given_fields)
    assert load(before.path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_bundle_without_a_graph_or_with_a_link_in_it_is_not_committed(tmp_path: Path) -> None:
    with pytest.raises(BundleError), Writer(tmp_path, "tiny") as writer:
        writer.commit(manifest())
    with Writer(tmp_path, "tiny") as writer:
        (writer.path / GRAPH).symlink_to(Path(__file__))
        with pytest.raises(BundleError):
            writer.commit(manifest())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", [False, True])
def test_a_second_commit_does_not_bring_the_old_bundle_back(tmp_path: Path, existing: bool) -> None:
    if existing:
        write(tmp_path, graph=onnx_file(b"old"))
    with Writer(tmp_path, "tiny") as writer:
        (writer.path / GRAPH).write_bytes(onnx_file(b"new"))
        writer.commit(manifest())
        with pytest.raises(BundleError):
            writer.commit(manifest())
    assert load(tmp_path / "tiny").onnx.read_bytes() == onnx_file(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_new_bundle_replaces_every_file_of_the_old_one(tmp_path: Path) -> None:
    old = write(tmp_path, graph=onnx_file(b"old"))
    (old.path / "left-over").write_text("of the old one")
    write(tmp_path, graph=onnx_file(b"new"), halo=4)
    new = load(tmp_path / "tiny")
    assert (new.onnx.read_bytes(), new.manifest.halo) == (onnx_file(b"new"), 4)
    assert not (new.path / "left-over").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_bundles_are_readable_by_a_server_of_another_user(tmp_path: Path) -> None:
    assert write(tmp_path).path.stat().st_mode & 0o755 == 0o755


def test_two_concurrent_builds_of_one_name_both_succeed(tmp_path: Path) -> None:
    with Writer(tmp_path, "tiny") as first, Writer(tmp_path, "tiny") as second:
        for writer in (first, second):
            (writer.path / GRAPH).write_bytes(onnx_file(b"graph"))
            writer.commit(manifest())
    assert load(tmp_path / "tiny").manifest.name == "tiny"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_reader_never_sees_half_a_bundle_while_builds_swap_it(tmp_path: Path) -> None:
    write(tmp_path, graph=onnx_file(b"0" * 4096), halo=0)
    stop, errors, seen = threading.Event(), [], set()

    def read() -> None:
        try:
            while not stop.is_set():
                (bundle,) = discover(tmp_path)
                seen.add((bundle.manifest.halo, bundle.manifest.files[GRAPH].sha256))
        except BaseException as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    written = [write(tmp_path, graph=onnx_file(b"%d" % halo * 4096), halo=halo) for halo in [*range(10)] * 8]
    stop.set()
    reader.join(60)
    assert not errors
    assert seen <= {(bundle.manifest.halo, bundle.manifest.files[GRAPH].sha256) for bundle in written}
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


KILLED = """
import os, signal
from pathlib import Path
from runtime import bundle

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

setattr({where}, {name!r}, die)
with bundle.Writer(Path({parent!r}), "tiny") as writer:
    (writer.path / bundle.GRAPH).write_bytes(b"\\x12\\x03new")
    writer.commit(bundle.parse_manifest({text!r}))
"""


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("bundle", "file_info"),
        ("os", "fsync"),
        ("Path", "replace"),
        ("Path", "rename"),
        ("bundle", "_exchange"),
        ("bundle.shutil", "rmtree"),
    ],
)
@pytest.mark.parametrize("existing", [False, True])
def test_a_killed_build_leaves_nothing_that_a_server_takes(
    tmp_path: Path, where: str, name: str, existing: bool
) -> None:
    """Killed at each step of a commit, nothing can clean up; then the old bundle is served, or the whole new one."""
    if existing:
        write(tmp_path, graph=onnx_file(b"old"))
    code = KILLED.format(text=manifest().to_json(), where=where, name=name, parent=str(tmp_path))
    built = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60)
    killed = built.returncode == -signal.SIGKILL
    assert killed or (name == "_exchange" and not existing)
    visible = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    if name == "rmtree" or not killed:
        assert [bundle.onnx.read_bytes() for bundle in discover(tmp_path)] == [onnx_file(b"new")]
    elif existing:
        assert [bundle.onnx.read_bytes() for bundle in discover(tmp_path)] == [onnx_file(b"old")]
    else:
        assert visible == []
    write(tmp_path, graph=onnx_file(b"newer"))
    assert [bundle.onnx.read_bytes() for bundle in discover(tmp_path)] == [onnx_file(b"newer")]


def test_a_bundle_is_replaced_without_an_atomic_swap_of_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, graph=onnx_file(b"old"))
    monkeypatch.setattr("runtime.bundle.ctypes.CDLL", lambda *args, **options: object())
    write(tmp_path, graph=onnx_file(b"new"))
    assert load(tmp_path / "tiny").onnx.read_bytes() == onnx_file(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_bundle_can_be_used_before_it_is_committed(tmp_path: Path) -> None:
    with Writer(tmp_path, "tiny") as writer:
        (writer.path / GRAPH).write_bytes(onnx_file(b"graph"))
        staged = Bundle(writer.path, manifest())
        assert staged.onnx.read_bytes() == onnx_file(b"graph")
        committed = writer.commit(replace(staged.manifest, error={"psnr_db": 71.5}))
    assert committed.manifest.error == {"psnr_db": 71.5}
