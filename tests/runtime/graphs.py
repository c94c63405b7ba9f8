"""Tiny ONNX graphs of an upscaler and a generator, made without torch, with float32 references."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from runtime.bundle import Bundle, Writer
from runtime.manifest import Manifest
from runtime.tensors import Precision, TensorSpec

Array = np.ndarray[Any, Any]
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}
SCALE, CHANNELS, LATENT, CLASSES, SIDE = 2, 3, 4, 5, 8


def upscaler(precision: Precision = "float32", *, gain: float = 1.0) -> onnx.ModelProto:
    """image [N, 3, H, W] → upscaled [N, 3, 2·H, 2·W]: two convolutions and a pixel shuffle. gain: of the last one."""
    rng = np.random.default_rng(0)
    first = rng.normal(0, 0.2, (8, CHANNELS, 3, 3))
    last = rng.normal(0, 0.1 * gain, (CHANNELS * SCALE**2, 8, 3, 3))
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TYPES[precision]),
        helper.make_node("Conv", ["x", "first"], ["a"], pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("LeakyRelu", ["a"], ["b"], alpha=0.2),
        helper.make_node("Conv", ["b", "last"], ["c"], pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("DepthToSpace", ["c"], ["d"], blocksize=SCALE, mode="CRD"),
        helper.make_node("Cast", ["d"], ["upscaled"], to=TensorProto.FLOAT),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", CHANNELS, "H", "W"])]
    outputs = [helper.make_tensor_value_info("upscaled", TensorProto.FLOAT, ["N", CHANNELS, "SH", "SW"])]
    return _model(nodes, inputs, outputs, {"first": first, "last": last}, precision)


def sampler(precision: Precision = "float32") -> onnx.ModelProto:
    """latent [N, 4], label [N] int64 → sample [N, 1, 8, 8] in [-1, 1]: an embedding, a product and tanh."""
    rng = np.random.default_rng(1)
    weights = {
        "embedding": rng.normal(0, 1, (CLASSES, LATENT)),
        "weight": rng.normal(0, 0.5, (LATENT, SIDE * SIDE)),
    }
    nodes = [
        helper.make_node("Cast", ["latent"], ["x"], to=TYPES[precision]),
        helper.make_node("Gather", ["embedding", "label"], ["e"], axis=0),
        helper.make_node("Mul", ["x", "e"], ["m"]),
        helper.make_node("MatMul", ["m", "weight"], ["p"]),
        helper.make_node("Tanh", ["p"], ["t"]),
        helper.make_node("Reshape", ["t", "shape"], ["r"]),
        helper.make_node("Cast", ["r"], ["sample"], to=TensorProto.FLOAT),
    ]
    inputs = [
        helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["N", LATENT]),
        helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
    ]
    outputs = [helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])]
    return _model(nodes, inputs, outputs, weights, precision)


def cubic() -> onnx.ModelProto:
    """image [N, 3, H, W] → cubed [N, 3, 2·H, 2·W], each value to the third power, each pixel four times.

    Between -1 and 1 dark becomes middling as bright does, so a value that was not converted to that range, or not back
    from it, shows.
    """
    nodes = [
        helper.make_node("Mul", ["image", "image"], ["squared"]),
        helper.make_node("Mul", ["squared", "image"], ["power"]),
        helper.make_node("Resize", ["power", "", "scales"], ["cubed"], mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric"),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", CHANNELS, "H", "W"])]
    outputs = [helper.make_tensor_value_info("cubed", TensorProto.FLOAT, ["N", CHANNELS, "SH", "SW"])]
    scales = np.array([1, 1, SCALE, SCALE], np.float32)
    return _model(nodes, inputs, outputs, {"scales": scales}, "float32")


def cubed(image: Array) -> Array:
    """[..., H, W] in [0, 1] → what `cubic` makes of a picture, in [0, 1]: [..., 2·H, 2·W]."""
    power = (2 * image.astype(np.float64) - 1) ** 3
    answer: Array = ((power + 1) / 2).repeat(SCALE, -2).repeat(SCALE, -1)
    return answer


def cubic_manifest(**changes: Any) -> Manifest:
    image = TensorSpec("image", "float32", ("N", CHANNELS, "H", "W"), (-1.0, 1.0))
    cubed = TensorSpec("cubed", "float32", ("N", CHANNELS, "SH", "SW"), (-1.0, 1.0))
    given: dict[str, Any] = {"scale": SCALE, "tile_sizes": (16,), "halo": 2} | changes
    return Manifest("cubic", "upscale", "float32", (image,), (cubed,), **given)


def upscale_manifest(precision: Precision = "float32", **changes: Any) -> Manifest:
    image = TensorSpec("image", "float32", ("N", CHANNELS, "H", "W"), (0.0, 1.0))
    upscaled = TensorSpec("upscaled", "float32", ("N", CHANNELS, "SH", "SW"), (0.0, 1.0))
    given: dict[str, Any] = {"scale": SCALE, "tile_sizes": (16,), "halo": 2} | changes
    return Manifest("tiny-upscaler", "upscale", precision, (image,), (upscaled,), **given)


def sample_manifest(precision: Precision = "float32") -> Manifest:
    latent = TensorSpec("latent", "float32", ("N", LATENT))
    label = TensorSpec("label", "int64", ("N",), (0.0, CLASSES - 1.0))
    sample = TensorSpec("sample", "float32", ("N", 1, SIDE, SIDE), (-1.0, 1.0))
    return Manifest(
        "tiny-sampler", "generate", precision, (latent, label), (sample,), latent_size=LATENT, classes=CLASSES
    )


def write_bundle(folder: Path, model: onnx.ModelProto, manifest: Manifest) -> Bundle:
    with Writer(folder, manifest.name) as writer:
        onnx.save(model, writer.path / "model.onnx")
        return writer.commit(manifest)


def draw(manifest: Manifest, batch: int, height: int = 0, width: int = 0, seed: int = 0) -> dict[str, Array]:
    """Inputs that a bundle takes: images in [0, 1], latents, labels."""
    rng = np.random.default_rng(seed)
    if manifest.task == "upscale":
        return {"image": rng.random((batch, CHANNELS, height, width), np.float32)}
    return {
        "latent": rng.normal(size=(batch, LATENT)).astype(np.float32),
        "label": rng.integers(0, CLASSES, batch),
    }


def reference(manifest: Manifest, inputs: Mapping[str, Array]) -> Array:
    """What the float32 graph gives, by the interpreter of the onnx package."""
    model = upscaler() if manifest.task == "upscale" else sampler()
    (output,) = ReferenceEvaluator(model).run(None, dict(inputs))
    return cast(Array, output)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: Mapping[str, Array],
    precision: Precision,
) -> onnx.ModelProto:
    tensors = [_tensor(name, value, precision) for name, value in weights.items()]
    tensors.append(numpy_helper.from_array(np.array([-1, 1, SIDE, SIDE], np.int64), "shape"))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [t for t in tensors if t.name in used])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _tensor(name: str, value: Array, precision: Precision) -> onnx.TensorProto:
    # Raw bytes, as torch.onnx writes them: OpenVINO misreads bfloat16 in the list form.
    kind = helper.tensor_dtype_to_np_dtype(TYPES[precision])
    return helper.make_tensor(name, TYPES[precision], value.shape, value.astype(kind).tobytes(), raw=True)
