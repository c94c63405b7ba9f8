"""Exports a torch module as a checked ONNX graph (`write_graph`), and makes random inputs for it (`example`).

The graph's inputs, outputs and free axes have the names that the signature gives them. pipeline.py and the benchmarks call it.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from export.families.spec import Signature
from runtime.sides import side_of
from runtime.tensors import TensorSpec

# ONNX has convolutions in bfloat16 since opset 22.
OPSET = 22
# Sizes of the free axes while the graph is traced: at least these, and so many of the network's least sides. One would be
# taken for a constant by the tracer.
TRACED = {"N": 2, "H": 12, "W": 20}
TRACED_SIDES = {"H": 2, "W": 3}


def example(
    signature: Signature, *, batch: int, height: int = 1, width: int = 1, seed: int = 0
) -> tuple[Tensor, ...]:
    """Random inputs, one tensor for each of the signature's.

    Floats are uniform in their range, or standard normal where they have none; labels are uniform in their range.
    height, width: in pixels, used by inputs whose height and width vary.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = {"N": batch, "H": height, "W": width}
    return tuple(
        _random_input(spec, [sizes[a] if isinstance(a, str) else a for a in spec.shape], generator)
        for spec in signature.inputs
    )


def _random_input(spec: TensorSpec, shape: list[int], generator: torch.Generator) -> Tensor:
    if spec.dtype == "int64":
        assert spec.range is not None, f"{spec.name}: whole numbers need a range"
        return torch.randint(int(spec.range[0]), int(spec.range[1]) + 1, shape, generator=generator)
    if spec.range is None:
        return torch.randn(shape, generator=generator)
    low, high = spec.range
    return torch.rand(shape, generator=generator) * (high - low) + low


def free_axes(signature: Signature) -> set[str]:
    """The names of the inputs' axes that vary, except the batch: {"H", "W"} for pictures, empty for samples."""
    return {axis for spec in signature.inputs for axis in spec.shape if isinstance(axis, str)} - {"N"}


def write_graph(module: nn.Module, signature: Signature, path: Path) -> onnx.ModelProto:
    """Export `module` with torch's dynamo exporter, check the graph and write it to `path`. Returns the graph.

    Raises onnx.checker.ValidationError where the graph breaks the ONNX standard.
    """
    height, width = (
        side_of(signature, max(TRACED[axis], count * side_of(signature, 1)))
        for axis, count in TRACED_SIDES.items()
    )
    inputs = example(signature, batch=TRACED["N"], height=height, width=width)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            dynamic_shapes=_dynamic_shapes(module, signature),
            optimize=True,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter always returns its program"
    model = program.model_proto
    _name_axes(model, signature)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return model


def _dynamic_shapes(module: nn.Module, signature: Signature) -> tuple[Any, ...]:
    """Per input: axis number → its dimension. A size that must be a multiple of m is m times a dimension."""
    multiple = signature.size_multiple
    least = side_of(signature, 1) // multiple
    dims = {"N": torch.export.Dim("N", min=1)}
    for axis in free_axes(signature):
        dim = torch.export.Dim(axis, min=least)
        dims[axis] = dim * multiple if multiple > 1 else dim
    shapes = tuple(
        {i: dims[a] for i, a in enumerate(spec.shape) if isinstance(a, str)} for spec in signature.inputs
    )
    takes_varargs = type(module).forward.__code__.co_flags & 0x04
    return (shapes,) if takes_varargs else shapes


def _name_axes(model: onnx.ModelProto, signature: Signature) -> None:
    """Name the axes of the graph's inputs and outputs as the signature does, in place of the tracer's expressions."""
    ends = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
    for value in (*model.graph.input, *model.graph.output):
        for dim, axis in zip(value.type.tensor_type.shape.dim, ends[value.name].shape, strict=True):
            if isinstance(axis, str):
                dim.dim_param = axis
            else:
                dim.dim_value = axis
    del model.graph.value_info[:]  # they have the tracer's names; every reader infers its own


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress lines and deprecation warnings; errors still raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loggers = [
            logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
        ]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
