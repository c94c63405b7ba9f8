"""The contract of an engine, one suite over every backend that can run on this machine."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import backends
from runtime.backends import cpu_features
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import EngineError
from runtime.tensors import Precision, TaskName
from tests.runtime import graphs

pytestmark = pytest.mark.cpu

# Summation order, and 11 or 8 bits of significand through two convolutions of values around 1.
TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}
# Every backend on every kind of device it has, from the list itself.
BACKENDS = [
    pytest.param(name, device, id=f"{name}-{device}", marks=() if device == "CPU" else pytest.mark.gpu)
    for name, device in backends.PREFERENCE
]
ROOT = Path(__file__).resolve().parents[2]
GREY = (replace(graphs.upscale_manifest().outputs[0], shape=("N", 1, "SH", "SW")),)
PRECISIONS: list[Precision] = ["float32", "float16", "bfloat16"]


def make_bundle(folder: Path, task: TaskName, precision: Precision) -> Bundle:
    if task == "upscale":
        return graphs.write_bundle(folder, graphs.upscaler(precision), graphs.upscale_manifest(precision))
    return graphs.write_bundle(folder, graphs.sampler(precision), graphs.sample_manifest(precision))


def open_or_skip(bundle: Bundle, backend: str, device: str) -> Engine:
    reason = backends.load(backend).unavailable(bundle, device)
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
    return backends.load(backend).open_engine(bundle, device)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize(("backend", "device"), BACKENDS, scope="module")


@pytest.fixture(scope="module")
def upscaler(backend: str, device: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_or_skip(
        make_bundle(tmp_path_factory.mktemp("bundles"), "upscale", "float32"), backend, device
    )
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def sampler(backend: str, device: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_or_skip(
        make_bundle(tmp_path_factory.mktemp("bundles"), "generate", "float32"), backend, device
    )
    yield engine
    engine.close()


def check(engine: Engine, batch: int, height: int = 0, width: int = 0, seed: int = 0) -> None:
    inputs = graphs.draw(engine.manifest, batch, height, width, seed)
    (spec,) = engine.manifest.outputs
    output = engine.run(inputs)[spec.name]
    expected = graphs.reference(engine.manifest, inputs)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, expected, rtol=0, atol=TOLERANCES[engine.precision])


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (7, 5), (33, 16), (64, 48)])
def test_an_image_of_any_size_equals_the_reference(upscaler: Engine, size: tuple[int, int]) -> None:
    for batch in {1, upscaler.max_batch}:
        check(upscaler, batch, *size)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 64])
def test_a_batch_of_any_length_equals_the_reference(sampler: Engine, batch: int) -> None:
    check(sampler, batch)


def test_a_sample_is_the_same_in_any_batch(sampler: Engine) -> None:
    inputs = graphs.draw(sampler.manifest, 7)
    together = sampler.run(inputs)["sample"]
    for i in range(7):
        alone = sampler.run({name: array[i : i + 1] for name, array in inputs.items()})["sample"]
        np.testing.assert_allclose(alone, together[i : i + 1], rtol=0, atol=1e-5)


def test_outputs_belong_to_the_caller(upscaler: Engine) -> None:
    first = upscaler.run(graphs.draw(upscaler.manifest, 1, 16, 16, seed=1))["upscaled"]
    kept = first.copy()
    for seed in range(2, 5):
        upscaler.run(graphs.draw(upscaler.manifest, 1, 16, 16, seed=seed))
    np.testing.assert_array_equal(first, kept)
    assert first.flags.writeable


def test_many_threads_get_their_own_answers(upscaler: Engine, sampler: Engine) -> None:
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(check, upscaler, 1, 4 + i % 5, 16, i) for i in range(16)]
        jobs += [pool.submit(check, sampler, 1 + i % 4, 0, 0, i) for i in range(16)]
    for job in jobs:
        job.result()


def test_inputs_that_are_not_contiguous_are_taken(upscaler: Engine) -> None:
    image = graphs.draw(upscaler.manifest, 1, 12, 10)["image"].transpose(0, 1, 3, 2)
    expected = graphs.reference(upscaler.manifest, {"image": image})
    np.testing.assert_allclose(upscaler.run({"image": image})["upscaled"], expected, rtol=0, atol=1e-5)


def test_warm_up_runs_every_fixed_shape(
    upscaler: Engine, sampler: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if type(upscaler).warm_up is not Engine.warm_up:
        pytest.skip("it has a warm-up of its own, and tests of it (test_tensorrt_backend.py)")
    (tile,) = upscaler.manifest.tile_sizes
    assert shapes_run(upscaler, monkeypatch) == [(n, 3, tile, tile) for n in upscaler.batch_sizes]
    assert shapes_run(sampler, monkeypatch) == [(n, graphs.LATENT) for n in sampler.batch_sizes]


def shapes_run(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the first input that a warm-up runs."""
    run, shapes = engine.run, []

    def record(inputs: dict[str, graphs.Array]) -> dict[str, graphs.Array]:
        shapes.append(inputs[engine.manifest.inputs[0].name].shape)
        return run(inputs)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run", record)
        engine.warm_up()
    return shapes


def test_pictures_that_must_be_seen_whole_run_in_any_size_one_at_a_time(
    tmp_path: Path, backend: str, device: str
) -> None:
    manifest = graphs.upscale_manifest(tiled=False, tile_sizes=(), halo=0, max_whole_px=64 * 64)
    bundle = graphs.write_bundle(tmp_path, graphs.upscaler(), manifest)
    engine = open_or_skip(bundle, backend, device)
    assert engine.batch_sizes == (1,)
    engine.warm_up()
    for height, width in ((64, 64), (1, 1), (16, 128), (33, 20)):
        check(engine, 1, height, width)
    engine.close()


def test_a_closed_engine_refuses_to_run(tmp_path: Path, backend: str, device: str) -> None:
    engine = open_or_skip(make_bundle(tmp_path, "upscale", "float32"), backend, device)
    check(engine, 1, 4, 4)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="tiny-upscaler: the engine is closed"):
        check(engine, 1, 4, 4)


def test_a_bundle_of_a_native_precision_runs_in_it(tmp_path: Path, backend: str, device: str) -> None:
    precisions = backends.load(backend).native_precisions(device)
    assert (not precisions) or "float32" in precisions
    for precision in precisions:
        engine = open_or_skip(make_bundle(tmp_path / precision, "upscale", precision), backend, device)
        if cpu_features.IMITATE not in os.environ:  # an imitated CPU has what the real one may lack
            assert engine.precision == precision
        engine.close()


def test_packages_are_those_that_the_project_installs(backend: str, device: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    named = {re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in lines}
    module = backends.load(backend)
    assert backend == module.NAME
    assert set(module.PACKAGES) & named


def test_targets_are_compiled_or_need_no_compiling(tmp_path: Path, backend: str, device: str) -> None:
    module = backends.load(backend)
    bundle = make_bundle(tmp_path, "upscale", "float16")
    assert module.TARGETS
    for target in module.TARGETS:
        if (reason := module.cannot_make(target)) is not None:
            assert "pip install" in reason or "GPU" in reason
            continue
        compiled = module.compile_engine(target, bundle.onnx, bundle.manifest)
        if compiled is not None:
            content, entry = compiled
            assert len(content) > 1000
            assert entry.onnx_sha256 == bundle.manifest.files["model.onnx"].sha256


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"picture": np.zeros((1, 3, 8, 8), np.float32)}, r"got inputs \['picture'\], expected \['image'\]"),
        ({}, "got inputs"),
        ({"image": np.zeros((1, 3, 8, 8))}, r"float64\[1, 3, 8, 8\], expected float32"),
        ({"image": np.zeros((1, 4, 8, 8), np.float32)}, r"float32\[1, 4, 8, 8\], expected float32\['N', 3"),
        ({"image": np.zeros((3, 8, 8), np.float32)}, r"float32\[3, 8, 8\]"),
        ({"image": np.zeros((0, 3, 8, 8), np.float32)}, r"float32\[0, 3, 8, 8\]"),
        ({"image": np.zeros((1, 3, 8, 0), np.float32)}, r"float32\[1, 3, 8, 0\]"),
        ({"image": np.zeros((1000, 3, 1, 1), np.float32)}, "batch lengths .* at most"),
    ],
)
def test_inputs_of_another_shape_or_dtype_are_refused_by_name(
    upscaler: Engine, inputs: dict[str, graphs.Array], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        upscaler.run(inputs)


def test_inputs_of_different_lengths_are_refused(sampler: Engine) -> None:
    inputs = graphs.draw(sampler.manifest, 2) | {"label": np.zeros(3, np.int64)}
    with pytest.raises(EngineError, match="batch lengths"):
        sampler.run(inputs)


def test_outputs_that_are_not_finite_are_an_error(upscaler: Engine) -> None:
    with pytest.raises(EngineError, match="NaN or infinity"):
        upscaler.run({"image": np.full((1, 3, 8, 8), np.nan, np.float32)})
    check(upscaler, 1, 8, 8)


@pytest.mark.parametrize("changes", [{"scale": 3}, {"task": "translate", "outputs": GREY}])
def test_an_output_that_the_manifest_does_not_describe_never_comes_out(
    tmp_path: Path, backend: str, device: str, changes: dict[str, Any]
) -> None:
    bundle = graphs.write_bundle(tmp_path, graphs.upscaler(), replace(graphs.upscale_manifest(), **changes))
    engine = open_or_skip(bundle, backend, device)
    try:
        with pytest.raises(EngineError, match=r"output '\w+' is .* build the bundle again"):
            engine.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    finally:
        engine.close()


@pytest.mark.parametrize("task", ["upscale", "generate"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_is_near_the_reference_and_reported(
    tmp_path: Path, backend: str, device: str, task: TaskName, precision: Precision
) -> None:
    engine = open_or_skip(make_bundle(tmp_path, task, precision), backend, device)
    if precision == "float32":
        assert engine.precision == "float32"
    atol = TOLERANCES[precision]
    inputs = graphs.draw(engine.manifest, 1, 16, 16)
    output = next(iter(engine.run(inputs).values()))
    np.testing.assert_allclose(output, graphs.reference(engine.manifest, inputs), rtol=0, atol=atol)
    engine.close()


@pytest.mark.gpu
def test_tensorrt_launches_a_cuda_graph_for_a_fixed_shape(tmp_path: Path) -> None:
    from runtime.backends.tensorrt_backend import TensorRTEngine

    engine = open_or_skip(make_bundle(tmp_path, "upscale", "float16"), "tensorrt", "cuda:0")
    assert isinstance(engine, TensorRTEngine)
    engine.warm_up()
    before = engine.graph_launches
    check(engine, 1, 16, 16)
    if engine.library == "tensorrt":
        assert engine.graph_launches == before + 1
    engine.close()
