"""The ways to run a bundle when its engine fails, with the real CPU backends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime import backends, bundle
from runtime.backends.openvino_backend import OpenVINOEngine
from runtime.errors import BundleError
from runtime.tensors import Precision
from runtime.ways import ways
from tests.runtime import graphs

IMAGE = {"image": np.full((1, 3, 8, 8), 0.5, np.float32)}


def labels(path: Path, backend: str = "auto") -> list[str]:
    made = graphs.write_bundle(path, graphs.upscaler(), graphs.upscale_manifest())
    engine, _ = backends.open_engine(made, device="CPU")
    return [way.label for way in ways(engine, backend=backend)]


def test_a_fresh_engine_comes_first_and_then_the_next_backend(tmp_path: Path) -> None:
    assert labels(tmp_path) == ["a fresh engine", "onnxruntime instead of openvino"]


def test_a_backend_that_was_chosen_by_name_is_not_left(tmp_path: Path) -> None:
    assert labels(tmp_path, backend="openvino") == ["a fresh engine"]


def test_each_way_opens_an_engine_that_computes_the_same(tmp_path: Path) -> None:
    made = graphs.write_bundle(tmp_path, graphs.upscaler(), graphs.upscale_manifest())
    engine, _ = backends.open_engine(made, device="CPU")
    expected = engine.run(IMAGE)
    for way in ways(engine):
        opened = way.open()
        for name, array in opened.run(IMAGE).items():
            np.testing.assert_allclose(array, expected[name], atol=1e-5)  # float32 against float32
        opened.close()


@pytest.mark.parametrize("narrow", ["bfloat16", "float16"])
def test_a_narrow_engine_can_be_opened_wider(tmp_path: Path, narrow: Precision) -> None:
    made = graphs.write_bundle(tmp_path, graphs.upscaler(), graphs.upscale_manifest())
    engine = OpenVINOEngine(made, min_precision=narrow, asked=narrow)
    if engine.precision != narrow:
        pytest.skip(f"this CPU does not compute in {narrow}")
    wider = ways(engine, min_precision=narrow)[1]
    assert wider.label == f"float32 instead of {narrow}"
    assert wider.open().precision == "float32"


def test_a_bundle_whose_files_changed_meanwhile_is_not_opened(tmp_path: Path) -> None:
    made = graphs.write_bundle(tmp_path, graphs.upscaler(), graphs.upscale_manifest())
    engine, _ = backends.open_engine(bundle.load(made.path), device="CPU")
    again = ways(engine)[0]
    graphs.write_bundle(tmp_path, graphs.upscaler(), graphs.upscale_manifest(halo=4))
    with pytest.raises(BundleError, match="reload the models"):
        again.open()
