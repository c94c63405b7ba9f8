"""Bundles: read back unchanged, refused if a file was altered, and found in their folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.bundle import (
    GRAPH,
    MANIFEST,
    Bundle,
    discover,
    file_info,
    load,
    parse_manifest,
)
from runtime.errors import BundleError
from runtime.manifest import EngineFile, FileInfo, Manifest
from runtime.tensors import TensorSpec
from tests.runtime.tiny_bundles import A_GRAPH, edit, onnx_file, write

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
