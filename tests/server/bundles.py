"""Bundles made in milliseconds without torch, with just enough for a server to start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime.bundle import Bundle, Writer
from runtime.manifest import Manifest
from runtime.tensors import TensorSpec

SCALE, LATENT, SIDE, CLASSES = 4, 6, 8, 3


def write_upscaler(folder: Path, name: str = "upscaler") -> Bundle:
    """A 3×3 convolution with random weights, then each pixel four times: a seam would show."""
    weights = np.random.default_rng(1).normal(size=(3, 3, 3, 3)).astype(np.float32) / 5
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["mixed"], pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["mixed", "", "scales"], ["upscaled"], mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric"),
    ]  # fmt: skip
    constants = {"weights": weights, "scales": np.array([1, 1, SCALE, SCALE], np.float32)}
    image = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
    upscaled = TensorSpec("upscaled", "float32", ("N", 3, "SH", "SW"), (0.0, 1.0))
    manifest = Manifest(name, "upscale", "float32", (image,), (upscaled,), SCALE, 1, (32,), 4)
    return _write(folder, manifest, nodes, constants)


def write_enlarger(folder: Path, name: str = "enlarger") -> Bundle:
    """Each pixel four times along a side, in tiles as large as real models have: what it costs is the pipeline."""
    node = helper.make_node("Resize", ["image", "", "scales"], ["upscaled"], mode="nearest", nearest_mode="floor",
                            coordinate_transformation_mode="asymmetric")  # fmt: skip
    image = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
    upscaled = TensorSpec("upscaled", "float32", ("N", 3, "SH", "SW"), (0.0, 1.0))
    manifest = Manifest(name, "upscale", "float32", (image,), (upscaled,), SCALE, 1, (192, 96), 16)
    return _write(folder, manifest, [node], {"scales": np.array([1, 1, SCALE, SCALE], np.float32)})


def write_translator(folder: Path, name: str = "translator", max_whole_px: int = 10_000) -> Bundle:
    """The picture less its own mean, by channel: a network that must see it whole; the answer has the same size."""
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["image", "mean"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["translated"]),
    ]
    image = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
    translated = TensorSpec("translated", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
    manifest = Manifest(
        name, "translate", "float32", (image,), (translated,), tiled=False, max_whole_px=max_whole_px
    )
    return _write(folder, manifest, nodes, {"axes": np.array([2, 3], np.int64)})


def write_generator(
    folder: Path, name: str = "generator", classes: int = CLASSES, side: int = SIDE
) -> Bundle:
    """tanh of a mix of the latent and the class's own offset."""
    random = np.random.default_rng(2)
    constants = {
        "mix": random.normal(size=(LATENT, 3 * side * side)).astype(np.float32) / 3,
        "offsets": random.normal(size=(classes, 3 * side * side)).astype(np.float32),
        "shape": np.array([-1, 3, side, side], np.int64),
    }
    nodes = [
        helper.make_node("MatMul", ["latent", "mix"], ["mixed"]),
        helper.make_node("Gather", ["offsets", "label"], ["offset"]),
        helper.make_node("Add", ["mixed", "offset"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["raw"]),
        helper.make_node("Tanh", ["raw"], ["sample"]),
    ]
    manifest = Manifest(
        name,
        "generate",
        "float32",
        (
            TensorSpec("latent", "float32", ("N", LATENT)),
            TensorSpec("label", "int64", ("N",), (0, classes - 1)),
        ),
        (TensorSpec("sample", "float32", ("N", 3, side, side), (-1.0, 1.0)),),
        latent_size=LATENT,
        classes=classes,
        class_names=tuple(f"class{label}" for label in range(classes)),
    )
    return _write(folder, manifest, nodes, constants)


def _write(folder: Path, manifest: Manifest, nodes: list[Any], constants: dict[str, Any]) -> Bundle:
    graph = helper.make_graph(
        nodes,
        manifest.name,
        [_value(spec) for spec in manifest.inputs],
        [_value(spec) for spec in manifest.outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    with Writer(folder, manifest.name) as writer:
        onnx.save(model, writer.path / "model.onnx")
        return writer.commit(manifest)


def _value(spec: TensorSpec) -> Any:
    kind = TensorProto.FLOAT if spec.dtype == "float32" else TensorProto.INT64
    return helper.make_tensor_value_info(spec.name, kind, spec.shape)
