"""Tests every family: its module and its bundles do what its SPEC says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import get_args

import numpy as np
import onnx
import pytest
import torch

from export import families
from export.build.compare import difference, peak
from export.build.graph import example, free_axes
from runtime import bundle as bundles
from runtime import tasks
from runtime.backends import open_engine
from runtime.bundle import Bundle
from runtime.sides import side_of
from runtime.tensors import Precision
from tests.export.lively import lively

pytestmark = pytest.mark.cpu

TINY_TILE = 48
ELEMENTS = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}
WEIGHTS = {
    "float32": onnx.TensorProto.FLOAT,
    "float16": onnx.TensorProto.FLOAT16,
    "bfloat16": onnx.TensorProto.BFLOAT16,
}
TinyBundle = Callable[[str, Precision], Bundle]

every_generator = pytest.mark.parametrize("model", families.names())
every_precision = pytest.mark.parametrize("precision", WEIGHTS)


@every_generator
def test_the_module_gives_what_its_signature_says(model: str) -> None:
    spec = families.get(model)
    signature, module = spec.signature(spec.tiny), spec.module(spec.tiny).eval()
    height, width = (side_of(signature, count * side_of(signature, 1)) for count in (3, 5))
    sizes = {"N": 2, "H": height, "W": width, "SH": height * signature.scale, "SW": width * signature.scale}
    with torch.inference_mode():
        output = module(*example(signature, batch=2, height=height, width=width))
    (output_spec,) = signature.outputs
    assert tuple(output.shape) == tuple(
        sizes[axis] if isinstance(axis, str) else axis for axis in output_spec.shape
    )
    assert str(output.dtype).removeprefix("torch.") == output_spec.dtype
    assert set(get_args(Precision)) >= spec.tolerances.keys() >= set(WEIGHTS)


@every_generator
def test_a_sample_does_not_depend_on_its_batch(model: str) -> None:
    spec = families.get(model)
    module, signature = lively(spec), spec.signature(spec.tiny)
    inputs = example(signature, batch=3, height=side_of(signature, 8), width=side_of(signature, 12))
    with torch.inference_mode():
        together = module(*inputs)
        alone = torch.cat([module(*(x[i : i + 1] for x in inputs)) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)  # float32, summed in another order


@every_generator
@every_precision
def test_the_graph_is_narrow_inside_and_wide_at_its_ends(
    model: str, precision: Precision, tiny_bundle: TinyBundle
) -> None:
    spec = families.get(model)
    signature = spec.signature(spec.tiny)
    graph = onnx.load(tiny_bundle(model, precision).onnx).graph
    ends = {value.name: value.type.tensor_type for value in (*graph.input, *graph.output)}
    specs = (*signature.inputs, *signature.outputs)
    assert list(ends) == [spec.name for spec in specs]
    for end in specs:
        axes = tuple(dim.dim_param or dim.dim_value for dim in ends[end.name].shape.dim)
        assert (axes, ends[end.name].elem_type) == (end.shape, ELEMENTS[end.dtype])
    weights = {tensor.data_type for tensor in graph.initializer if np.prod(tensor.dims) > 8}
    assert weights == {WEIGHTS[precision]}
    assert not {"ConvTranspose", "BatchNormalization", "ScatterND"} & {node.op_type for node in graph.node}


@every_generator
@every_precision
def test_the_bundle_says_what_was_measured(model: str, precision: Precision, tiny_bundle: TinyBundle) -> None:
    spec = families.get(model)
    bundle = bundles.load(tiny_bundle(model, precision).path)
    manifest, tolerance = bundle.manifest, spec.tolerances[precision]
    assert manifest.precision == precision
    assert manifest.error["psnr_db"] >= tolerance.psnr_db
    assert manifest.error["max_abs"] <= tolerance.max_abs
    assert set(manifest.files) == {"model.onnx", "report.json", "preview.png"}
    assert manifest.class_names == tuple(f"class{i}" for i in range(manifest.classes))
    assert manifest.weights["source"] == f"{model}.safetensors"
    report = json.loads((bundle.path / "report.json").read_text())
    executed = {engine["backend"]: engine["executed"] for engine in report["verified"]}
    assert executed.get("torch", precision) == precision
    assert len(executed) > 1 or precision == "float32"
    batches = {
        next(iter(row["inputs"].values()))[0] for engine in report["verified"] for row in engine["rows"]
    }
    assert len(batches) > 1
    items = tasks.items_of(manifest)
    shapes = [
        next(iter(row["inputs"].values())) for engine in report["verified"][:1] for row in engine["rows"]
    ]
    if items == "tiles":
        assert manifest.tile_sizes == (TINY_TILE,)
        assert report["tiles"]["close"]["psnr_db"] >= 60
        assert [1, manifest.inputs[0].shape[1], TINY_TILE, TINY_TILE] in shapes
    if items == "whole":
        assert report["whole"]["max_px"] == manifest.max_whole_px > 0
    if items != "samples":
        least = side_of(manifest, 1)
        assert [1, manifest.inputs[0].shape[1], least, least] in shapes


@every_generator
def test_the_engine_computes_what_torch_does(model: str, tiny_bundle: TinyBundle) -> None:
    """Sizes and batches that the build itself did not try."""
    spec = families.get(model)
    signature, module = spec.signature(spec.tiny), lively(spec)
    engine, _ = open_engine(tiny_bundle(model, "float32"))
    sizes = [
        tuple(side_of(signature, count * signature.size_multiple) for count in counts)
        for counts in ((1, 9), (2, 1), (50, 20))
    ]
    for batch, (height, width) in zip(
        (1, 2, 7), sizes if free_axes(signature) else [(1, 1)] * 3, strict=True
    ):
        inputs = example(signature, batch=min(batch, engine.max_batch), height=height, width=width, seed=9)
        named = {spec.name: x.numpy() for spec, x in zip(signature.inputs, inputs, strict=True)}
        with torch.inference_mode():
            # The checkpoint holds float16, so the truth does as well.
            expected = rounded(module)(*inputs).numpy()
        (output_spec,) = signature.outputs
        error = difference(engine.run(named)[output_spec.name], expected, peak=peak(output_spec))
        assert error.within(spec.tolerances["float32"]), error
    engine.close()


def rounded(module: torch.nn.Module) -> torch.nn.Module:
    return module.half().float()
