"""The generators that benchmarks.gpu runs: their inputs, operation counts, float32 outputs and bundles."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from export.build.precision import at_precision
from export.build.rewrite import rewrite
from export.families.spec import Signature, Spec
from runtime import tasks
from runtime.bundle import Bundle, Writer, load
from runtime.manifest import Manifest
from runtime.tensors import Array, Precision, TensorSpec

OUTPUT_DEVIATION = 0.3
# The tile of an upscaler's bundle. Engines are opened with the tile of the case that they are timed on.
TILE_PX = 192


@dataclass(frozen=True)
class Case:
    """The inputs of one measurement: `batch` items. side_px: height and width of the input images; 0 for samples."""

    batch: int
    side_px: int = 0

    def __str__(self) -> str:
        return f"{self.batch}×{self.side_px}²" if self.side_px else f"{self.batch} samples"


@dataclass(frozen=True)
class Model:
    """A generator with random weights. module: float32, eval mode, on the CPU."""

    name: str
    spec: Spec
    module: nn.Module
    signature: Signature

    @classmethod
    def make(cls, name: str, spec: Spec, config: Any) -> Model:
        torch.manual_seed(0)
        model = cls(name, spec, spec.module(config), spec.signature(config))
        model.spread()
        return model

    def spread(self) -> None:
        """Scale the last layer so that outputs fill their range, as a trained network's do: near 0 any error looks small."""
        inputs = self.inputs(Case(8, 16))
        with torch.no_grad():
            for layer in self.module.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.momentum = 1.0
            self.module.train()(*inputs)
            self.module.eval()
            last = [
                layer for layer in self.module.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
            ][-1]
            last.weight.mul_(OUTPUT_DEVIATION / self.module(*inputs).std())

    def inputs(self, case: Case, seed: int = 0) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        sizes = {"N": case.batch, "H": case.side_px, "W": case.side_px}
        return tuple(
            _random_input(
                spec, [sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape], generator
            )
            for spec in self.signature.inputs
        )

    def flop(self, case: Case) -> int:
        """Floating-point operations of one run; a multiply-add counts as two."""
        module = copy.deepcopy(self.module).to("meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(*(x.to("meta") for x in self.inputs(case)))
        return counter.get_total_flops()

    def reference(self, inputs: tuple[Tensor, ...], device: torch.device) -> Array:
        """The output for `inputs` in float32 torch on `device`; the caller has turned off TF32 (gpu.full_float32)."""
        with torch.inference_mode():
            return self.module.to(device)(*(x.to(device) for x in inputs)).cpu().numpy()


def manifest(model: Model, precision: Precision, case: Case) -> Manifest:
    signature = model.signature
    return Manifest(
        name=f"{model.name}-{precision}",
        task=model.spec.task,
        precision=precision,
        inputs=signature.inputs,
        outputs=signature.outputs,
        scale=signature.scale,
        size_multiple=signature.size_multiple,
        least_side_px=signature.least_side_px,
        padding=signature.padding,
        tile_sizes=(case.side_px,) if case.side_px else (),
        latent_size=signature.latent_size,
        classes=signature.classes,
    )


def _random_input(spec: TensorSpec, shape: list[int], generator: torch.Generator) -> Tensor:
    if spec.dtype == "int64":
        return torch.randint(int((spec.range or (0, 1))[1]) + 1, shape, generator=generator)
    distribution = torch.randn if spec.range is None else torch.rand
    return distribution(shape, generator=generator)


def write(folder: Path, model: Model, precision: Precision) -> Bundle:
    """The model's bundle in `folder`, written there on the first call."""
    source = tasks.get(model.spec.task).source
    wanted = manifest(model, precision, Case(1, side_px=TILE_PX if source == "picture" else 0))
    path = folder / wanted.name
    if path.exists():
        return load(path)
    from export.build.graph import write_graph  # needs onnx, which a machine that only runs torch may lack

    fixed = None if source == "picture" else model.inputs(Case(1))
    module = at_precision(rewrite(model.module.cpu(), fixed), precision)
    with Writer(folder, wanted.name) as writer:
        write_graph(module, model.signature, writer.path / "model.onnx")
        return writer.commit(wanted)
