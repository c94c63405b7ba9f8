"""Compares the outputs of a bundle's engines with float32 torch. pipeline.py calls `verify_all`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import nn

from export.build import photographs
from export.build.compare import NONE, Difference, difference, peak
from export.build.engines import TARGETS
from export.build.graph import example, free_axes
from export.build.load import LoadedModel
from export.build.options import BuildOptions
from export.build.reference import TorchEngine
from export.build.steps import Steps
from export.families.spec import Signature, Tolerance
from runtime import backends
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import EngineError
from runtime.sides import side_of
from runtime.tensors import Array, TensorSpec
from runtime.values import to_model

# (batch, height, width) in pixels: a single pixel, sizes smaller than the receptive field, not square, square, and a piece
# of a photograph that is large enough to show its content.
IMAGE_CASES = ((1, 1, 1), (2, 7, 5), (1, 33, 48), (2, 33, 48), (1, 64, 64), (1, 96, 128))
SAMPLE_BATCHES = (1, 3, 8)
# Seconds for the comparison with narrow arithmetic in torch: many CPUs have none, and emulate it slowly.
ARITHMETIC_S = 10.0
# Smaller inputs take about as long as inputs of this many values: a run has a fixed overhead.
OVERHEAD_VALUES = 1000


class OutOfTolerance(EngineError):
    """An engine's output lies further from float32 torch than the generator's SPEC allows."""


@dataclass(frozen=True)
class Case:
    """A batch of inputs and float32 torch's outputs for it, by the graph's tensor names."""

    inputs: dict[str, Array]
    expected: dict[str, Array]

    @property
    def batch(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def shapes(self) -> dict[str, list[int]]:
        return {name: list(array.shape) for name, array in self.inputs.items()}


@dataclass(frozen=True)
class Row:
    """How far one engine's output for one case lies from float32 torch's. shapes: of the inputs, by name."""

    shapes: dict[str, list[int]]
    difference: Difference


@dataclass
class Verified:
    """How far one engine's outputs lie from float32 torch's, a row for each case that it ran."""

    backend: str
    device: str
    precision: str
    rows: list[Row] = field(default_factory=list)

    @property
    def worst(self) -> Difference:
        return reduce(Difference.worst, (row.difference for row in self.rows), NONE)

    def report(self) -> dict[str, Any]:
        rows = [{"inputs": row.shapes, **asdict(row.difference)} for row in self.rows]
        return {"backend": self.backend, "device": self.device, "executed": self.precision, "rows": rows}


def verify_all(
    bundle: Bundle,
    serving: Engine,
    module: nn.Module,
    loaded: LoadedModel,
    options: BuildOptions,
    steps: Steps,
) -> tuple[list[Verified], dict[str, str]]:
    """Compare with float32 torch: the serving engine, the other backends of the targets, and torch at the bundle's precision.

    The last shows the errors that a GPU would make: a CPU may run a float16 or bfloat16 graph in float32. module: the
    rewritten module, at the bundle's precision. Returns a Verified for each engine, and backend → why it was not run.
    Raises OutOfTolerance at the first engine beyond the tolerance.
    """
    reference = TorchEngine(bundle, loaded.checkpoint.module)
    compared = cases(reference, loaded.signature, bundle.manifest.tile_sizes)
    verified: list[Verified] = []
    not_run: dict[str, str] = {}

    def check(engine: Engine, budget_s: float = math.inf) -> None:
        outcome = verify(engine, compared, loaded.tolerance, budget_s)
        steps.note(f"{engine.backend} in {engine.precision}: {outcome.worst} over {len(outcome.rows)} cases")
        verified.append(outcome)

    check(serving)
    if options.precision != "float32":
        check(TorchEngine(bundle, module, options.precision), ARITHMETIC_S)
    for name in dict.fromkeys(TARGETS[target] for target in options.targets):
        if name == serving.backend:
            continue
        backend = backends.load(name)
        if (reason := backend.unavailable(bundle, None)) is not None:
            not_run[name] = reason
            steps.note(f"{name}: not run here: {reason}")
            continue
        with closing(backend.open_engine(bundle, None, min_precision=options.min_precision)) as engine:
            check(engine)
    return verified, not_run


def cases(reference: Engine, signature: Signature, tile_sizes: tuple[int, ...]) -> list[Case]:
    """Batches of several sizes (photographs, or random latents and labels) with the outputs of `reference` for them."""
    return [Case(inputs, reference.run(inputs)) for inputs in _inputs(signature, tile_sizes)]


def _inputs(signature: Signature, tile_sizes: tuple[int, ...]) -> Iterator[dict[str, Array]]:
    if not free_axes(signature):
        for batch in SAMPLE_BATCHES:
            yield _named(signature, example(signature, batch=batch, seed=batch))
        return
    # Where the network's least side is longer than all of these, only this one has unequal sides.
    oblong = (1, 1, side_of(signature, 1) + 1)
    shapes = (
        (batch, *(side_of(signature, side) for side in sides)) for batch, *sides in (*IMAGE_CASES, oblong)
    )
    for batch, rows, columns in dict.fromkeys(shapes):
        yield {spec.name: _photographs(spec, batch, rows, columns) for spec in signature.inputs}
    for tile in tile_sizes:  # the shape that nearly all requests come in
        yield {spec.name: _photographs(spec, 1, tile, tile) for spec in signature.inputs}


def _named(signature: Signature, tensors: tuple[torch.Tensor, ...]) -> dict[str, Array]:
    return {spec.name: tensor.numpy() for spec, tensor in zip(signature.inputs, tensors, strict=True)}


def _photographs(spec: TensorSpec, batch: int, height: int, width: int) -> Array:
    """[N, C, H, W]: crops of the shipped pictures in turn."""
    names = photographs.NAMES
    channels = spec.shape[1]
    assert isinstance(channels, int), "channels are fixed in every signature"
    crops = [
        photographs.crop(height, width, channels=channels, name=names[i % len(names)]) for i in range(batch)
    ]
    return to_model(np.stack(crops), spec)


def verify(
    engine: Engine,
    cases: list[Case],
    tolerance: Tolerance,
    budget_s: float = math.inf,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Verified:
    """Run every case that fits the engine's batch. Raises OutOfTolerance with the figures of the case that fails.

    budget_s: cases that would probably take longer than this are left out (some types are slow). clock: seconds.
    """
    if engine.device == "CPU":
        # CPU engines run any batch; their batch sizes are only those that the scheduler should gather.
        engine.batch_sizes = tuple(sorted({*engine.batch_sizes, *(case.batch for case in cases)}))
    verified = Verified(engine.backend, engine.device, engine.precision)
    started = clock()
    seconds_per_value = 0.0
    for case in cases:
        values = sum(array.size for array in case.inputs.values())
        elapsed = clock() - started
        if case.batch > engine.max_batch or elapsed + seconds_per_value * values > budget_s:
            continue
        outputs = engine.run(case.inputs)
        seconds_per_value = (clock() - started - elapsed) / max(values, OVERHEAD_VALUES)
        worst = reduce(
            Difference.worst,
            (
                difference(outputs[spec.name], case.expected[spec.name], peak=peak(spec))
                for spec in engine.manifest.outputs
            ),
        )
        verified.rows.append(Row(case.shapes, worst))
        if not worst.within(tolerance):
            raise OutOfTolerance(_explain(engine, case.shapes, worst, tolerance))
    return verified


def _explain(engine: Engine, shapes: Mapping[str, list[int]], worst: Difference, tolerance: Tolerance) -> str:
    return (
        f"{engine.manifest.name} on {engine.backend} in {engine.precision} is too far from float32 torch for inputs "
        f"{dict(shapes)}: {worst}; a {engine.manifest.precision} bundle must reach {tolerance.psnr_db:g} dB and "
        f"{tolerance.max_abs:g} ({tolerance.reason}). Build a wider precision (--fp32), or look at the weights"
    )
