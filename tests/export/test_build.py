"""Tests of `python -m export.build`: what it writes, what it refuses, and what a failed or killed build leaves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result
from torch import nn

from export import families
from export.build import command, engines
from export.build.staging import staging
from export.families.spec import Signature, Tolerance
from runtime import bundle as bundles
from runtime.bundle import Bundle
from runtime.errors import BackendUnavailable, BundleError
from runtime.tensors import Precision

TinyBundle = Callable[[str, Precision], Bundle]
TINY = ("--weights", "random:0", "--set", "latent_size=8", "--set", "width=4", "--set", "size=32")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command.main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), f"--model: is missing; expected one of {', '.join(families.names())}"),
        (("--model", "esrgn"), "did you mean 'esrgan'?"),
        (("--model", "../esrgan"), "--model: got '../esrgan'"),
        (("--model", "dcgan", "--weights", "/nowhere.pth"), "--weights: no file at /nowhere.pth"),
        (("--model", "dcgan", "--weights", "random:x"), "random:SEED"),
        (("--model", "dcgan", "--weights", "random:²"), "random:SEED"),
        (("--model", "dcgan", "--weights", f"random:{10**30}"), "at most 18 digits"),
        (
            ("--model", "esrgan", "--weights", "random:0", "--set", "blocks=-1"),
            "blocks: got -1, expected 1 or more",
        ),
        (("--model", "dcgan", "--weights", __file__), "cannot be read"),
        (("--model", "dcgan", *TINY, "--set", "blocks=1"), "--set: got 'blocks', expected one of size"),
        (("--model", "dcgan", *TINY, "--set", "channels"), "expected KEY=VALUE"),
        (("--model", "dcgan", *TINY, "--set", "width=many"), "--set: width is given twice"),
        (("--model", "dcgan", *TINY, "--set", "channels=two"), "got 'two', expected int"),
        (("--model", "dcgan", *TINY, "--set", "channels=2"), "channels: got 2, expected 1 or 3"),
        (("--model", "dcgan", *TINY, "--scale", "2"), "--scale: got 2, but this generator has no scale"),
        (
            ("--model", "esrgan", "--weights", "random:0", "--scale", "5"),
            "scale: got 5, expected one of [1, 2, 3, 4, 8]",
        ),
        (("--model", "dcgan", *TINY, "--fp16", "--bf16"), "got float16 and bfloat16, expected one of them"),
        (("--model", "dcgan", *TINY, "--target", "coreml"), "--target: got 'coreml', expected one of onnx"),
        (
            ("--model", "dcgan", *TINY, "--tile", "64"),
            "--tile: got 64, but dcgan runs on samples; this option is for those on tiles",
        ),
        (("--model", "dcgan", *TINY, "--halo", "8"), "--halo: got 8, but dcgan runs on samples"),
        (
            ("--model", "dcgan", *TINY, "--max-whole-px", "9"),
            "--max-whole-px: got 9, but dcgan runs on samples",
        ),
        (("--model", "dcgan", *TINY, "--classes", "a,b"), "--classes: got 2 names, but dcgan has no classes"),
        (
            ("--model", "acgan", "--weights", "random:0", "--set", "classes=3", "--classes", "a,b,b"),
            "--classes: got 3 names, 2 of them different; expected 3, one for each class",
        ),
        (("--model", "dcgan", *TINY, "--name", "../up"), "--name: got '../up'"),
        (("--model", "dcgan", *TINY, "--name", ".hidden"), "--name: got '.hidden'"),
        (("--model", "dcgan", *TINY, "--output", __file__), "cannot be written to"),
        (("--model", "dcgan", "--tile", "wide"), "'wide' is not a valid integer"),
    ],
)
def test_bad_options_are_named_without_a_traceback(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    given = arguments if "--output" in arguments else (*arguments, "--output", str(tmp_path / "out"))
    result = run(*given)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_target_that_cannot_be_made_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "runtime.backends.tensorrt_library.missing",
        lambda library: f"{library}'s libraries are not installed",
    )
    result = run("--model", "dcgan", *TINY, "--target", "tensorrt", "--output", tmp_path)
    assert result.exit_code == 1
    assert "--target tensorrt cannot be made here: tensorrt's libraries are not installed" in result.output
    assert engines.resolve(())[0] == ("onnx", "openvino")
    with pytest.raises(BackendUnavailable):
        engines.resolve(("onnx", "tensorrt-rtx"))


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = run(
        "--model",
        "esrgan",
        "--weights",
        "random:7",
        "--scale",
        2,
        "--bf16",
        "--dry-run",
        "--output",
        tmp_path / "b",
    )
    assert result.exit_code == 0
    for said in ("scale=2", "random:7", "bfloat16", str(tmp_path / "b" / "esrgan-x2"), "nothing was written"):
        assert said in result.output
    assert not (tmp_path / "b").exists()


def test_a_precision_without_a_tolerance_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = families.get("dcgan")
    names: tuple[Precision, ...] = ("float32", "bfloat16")
    known = {precision: spec.tolerances[precision] for precision in names}
    monkeypatch.setattr("export.models.dcgan.generator.SPEC", replace(spec, tolerances=known))
    result = run("--model", "dcgan", *TINY, "--fp16", "--output", tmp_path / "b")
    assert result.exit_code == 2
    assert (
        "got float16, but the SPEC of dcgan has no tolerance for it (it has float32, bfloat16)"
        in result.output
    )
    assert "[2/8]" not in result.output
    assert not (tmp_path / "b").exists()
    monkeypatch.setattr(command, "native_precisions", lambda targets: ("float16", "bfloat16", "float32"))
    fastest = run("--model", "dcgan", *TINY, "--fastest", "--dry-run", "--output", tmp_path / "b")
    assert fastest.exit_code == 0, fastest.output
    assert "precision:     bfloat16" in fastest.output


def test_class_names_on_the_command_line_replace_those_of_the_checkpoint(tmp_path: Path) -> None:
    names = [f"kind {number}" for number in range(10)]
    result = run("--model", "acgan", "--classes", ", ".join(names), "--dry-run", "--output", tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert f"classes:       {', '.join(names)}" in result.output
    assert "Sneaker" not in result.output


def test_list_names_every_generator() -> None:
    result = run("--list")
    assert result.exit_code == 0
    assert all(name in result.output for name in families.names())
    assert "features=64 blocks=23" in result.output


@pytest.fixture
def built(tiny_bundle: TinyBundle, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Options of a build that takes its graph from a tiny bundle, because tracing it again costs seconds."""
    whole = tiny_bundle("dcgan", "float32")

    def copy_graph(_module: nn.Module, _signature: Signature, path: Path) -> onnx.ModelProto:
        shutil.copy(whole.onnx, path)
        return onnx.load(path)

    monkeypatch.setattr("export.build.pipeline.write_graph", copy_graph)
    weights = whole.path.parent.parent / whole.manifest.weights["source"]
    return ("--model", "dcgan", "--weights", str(weights), "--target", "onnx")


def demand(monkeypatch: pytest.MonkeyPatch, *precisions: Precision) -> None:
    """Make the tolerance at these precisions one that nothing keeps."""
    spec = families.get("dcgan")
    strict = dict.fromkeys(precisions, Tolerance(999.0, 0.0, "nothing is as good"))
    monkeypatch.setattr(
        "export.models.dcgan.generator.SPEC", replace(spec, tolerances={**spec.tolerances, **strict})
    )


def test_a_build_beyond_its_tolerance_leaves_the_bundle_that_was_there(
    built: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (*built, "--output", tmp_path, "--name", "mine")
    assert run(*arguments).exit_code == 0
    before = bundles.load(tmp_path / "mine").manifest
    demand(monkeypatch, "float32")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "too far from float32 torch" in result.output
    assert "must reach 999 dB and 0 (nothing is as good)" in result.output
    assert bundles.load(tmp_path / "mine").manifest == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_bundle_that_is_replaced_is_announced_and_may_be_kept(
    built: tuple[str, ...], tmp_path: Path
) -> None:
    first = run(*built, "--output", tmp_path, "--name", "mine")
    assert first.exit_code == 0
    assert "will be replaced" not in first.output
    before = bundles.load(tmp_path / "mine").manifest
    said = r"a bundle built 20\d\d-\d\d-\d\d \d\d:\d\d in float32 from dcgan\.safetensors"
    rehearsed = run(*built, "--output", tmp_path, "--name", "mine", "--dry-run")
    assert re.search(rf"replaces: +{said}", rehearsed.output)
    kept = run(*built, "--output", tmp_path, "--name", "mine", "--keep-existing")
    assert kept.exit_code == 2
    assert re.search(rf"--keep-existing: .*mine exists: {said}", kept.output)
    assert bundles.load(tmp_path / "mine").manifest == before
    again = run(*built, "--output", tmp_path, "--name", "mine")
    assert again.exit_code == 0
    assert re.search(rf"NOTE: .*mine will be replaced: {said}", again.output)
    assert again.output.index("will be replaced") < again.output.index("[3/8]")
    other = run(*built, "--output", tmp_path, "--name", "other", "--keep-existing", "--dry-run")
    assert other.exit_code == 0


def test_a_folder_that_is_no_bundle_is_never_replaced(built: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"a photo")
    result = run(*built, "--output", tmp_path, "--name", "photos")
    assert result.exit_code == 2
    assert "--name:" in result.output
    assert "photos exists and is no bundle" in result.output
    assert (tmp_path / "photos" / "one.jpg").read_bytes() == b"a photo"


def test_fastest_falls_back_to_float32_with_a_warning(
    built: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demand(monkeypatch, "bfloat16")
    monkeypatch.setattr(command, "native_precisions", lambda targets: ("bfloat16", "float32"))
    result = run(*built, "--output", tmp_path, "--fastest")
    assert result.exit_code == 0, result.output
    assert "building float32 instead" in result.output
    assert bundles.load(tmp_path / "dcgan").manifest.precision == "float32"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_build_leaves_nothing_a_server_takes(number: signal.Signals, tmp_path: Path) -> None:
    """Killed in the middle; the next build of the same name clears what SIGKILL left."""
    script = (
        "import os, sys; from pathlib import Path; from export.build.staging import staging\n"
        f"with staging(Path({str(tmp_path)!r}), 'dcgan') as writer:\n"
        "    (writer.path / 'model.onnx').write_bytes(b'half')\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    import time; time.sleep(60)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script], timeout=60, check=False, env={**os.environ, "PYTHONPATH": "."}
    )
    assert killed.returncode in (128 + number, -number)
    with pytest.raises(BundleError):
        bundles.discover(tmp_path)
    with staging(tmp_path, "dcgan") as writer, staging(tmp_path, "dcgan") as living:
        assert set(tmp_path.iterdir()) == {writer.path, living.path}  # the dead one is gone
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("model", families.names())
def test_tensorrt_rtx_compiles_without_a_gpu(
    model: str, precision: Precision, tiny_bundle: TinyBundle, tmp_path: Path
) -> None:
    if engines.missing("tensorrt-rtx"):
        pytest.skip("TensorRT-RTX is not installed")
    bundle = tiny_bundle(model, precision)
    (tmp_path / "model.onnx").write_bytes(bundle.onnx.read_bytes())
    engine = engines.compile_engine("tensorrt-rtx", tmp_path, bundle.manifest)
    assert engine is not None
    assert (tmp_path / engine.path).stat().st_size > 10_000
    assert engine.onnx_sha256 == bundle.manifest.files["model.onnx"].sha256
