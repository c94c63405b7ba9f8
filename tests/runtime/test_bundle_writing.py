"""Writing bundles: atomically, whatever builds at the same time or is killed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.bundle import (
    GRAPH,
    Bundle,
    Writer,
    discover,
    load,
)
from runtime.errors import BundleError
from runtime.manifest import EngineFile
from tests.runtime.tiny_bundles import ROOT, manifest, onnx_file, write


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
