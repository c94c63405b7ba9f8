"""Trains upscalers on crops of pictures: what the recipes of all such families share.

CropTrainer has the data, the picture of samples and the validation; PixelTrainer trains by L1 or mean square error alone;
CropGanTrainer against a discriminator. A family's recipes.py subclasses them and names its SPEC and its networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export import data
from export.evaluation.metrics import psnr_y_db
from export.families.spec import Spec
from export.networks import features
from export.training import losses
from export.training.adversarial import AdversarialOptions, AdversarialTrainer, adam
from export.training.machine import Machine
from export.training.recipe import Batch, LossTerms, Source, Stateful, Trainer, TrainingOptions
from runtime.errors import InvalidInput

SAMPLE_CROPS = 6  # in a picture of samples
PREVIEW_CROPS, PREVIEW_COLUMNS = 24, 8  # columns hold input and original in turn
PIXEL_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": losses.pixel, "mse": F.mse_loss}


@dataclass(frozen=True)
class PixelOptions(TrainingOptions):
    """patch_px: side of the low-resolution crops. cache_gib: memory for decoded pictures. loss: "l1" or "mse".

    beginning: the initial weights: "random", or one of the trainer's `beginnings`.
    """

    patch_px: int = 32
    cache_gib: float = 8.0
    loss: str = "l1"
    beginning: str = "random"


@dataclass(frozen=True)
class PhotoOptions(PixelOptions, data.DegradationOptions):
    """PixelOptions, with inputs that are made worse as photographs are (export/data/degradation.py)."""


@dataclass(frozen=True)
class CropGanOptions(AdversarialOptions):
    """patch_px: side of the low-resolution crops; the discriminator says of which number patch_px · scale is a multiple.

    cache_gib: memory for decoded pictures. pixel: weight of the loss in pixels. feature_net: of the loss in features, one of
    `features.NETS`.
    """

    patch_px: int = 32
    cache_gib: float = 8.0
    beta1: float = 0.9
    pixel: float = 1.0
    feature_net: str = features.DEFAULT


class CropTrainer(Trainer):
    """RGB crops to train on, held-out pictures to measure on, and the picture of samples.

    Pictures are float32 in [0, 1] everywhere but in a batch, where they are in the ranges of the generator's signature.
    spec: of the family; a subclass sets it.
    """

    spec: Spec
    settings: Any

    def read(self, config: Any, options: Any, source: Source, machine: Machine) -> None:
        """Read the crops and the held-out pictures. A trainer calls it once, in its constructor. Raises InvalidInput."""
        signature = self.spec.signature(config)
        (image,), (upscaled,) = signature.inputs, signature.outputs
        if image.shape[1] != 3 or upscaled.shape[1] != 3:
            raise InvalidInput(
                "set", "in_channels and out_channels: expected 3 for both, since this recipe trains on RGB"
            )
        assert image.range is not None
        assert upscaled.range is not None
        self.in_range, self.out_range = image.range, upscaled.range
        self.size_multiple, self.scale = signature.size_multiple, signature.scale
        self.seed, self.rows = source.seed, machine.rows(options.batch)
        degrades = isinstance(options, data.DegradationOptions)
        self.crops = data.Crops(
            source.data,
            scale=self.scale,
            patch_px=options.patch_px,
            cache_gib=options.cache_gib,
            reduction=options.reduction(self.scale) if degrades else None,
        )
        self.skipped = self.crops.skipped
        self.held_out = data.read_held_out(source.validation, self.scale) if source.validation else {}
        side_px = options.patch_px * self.scale
        self.dataset = f"{len(self.crops.names):,} pictures from {source.data}, {self.crops.sizes}, in crops of {side_px} px"
        if source.validation:
            self.dataset += f"; validated on {len(self.held_out)} from {source.validation}"

    def batch(self, number: int) -> Batch:
        """inputs: low [N, 3, H, W]; real: high [N, 3, S·H, S·W]; float32 in the generator's ranges."""
        random = data.generator(self.seed, number)
        low, high = self.crops.batch(random, self.settings.batch, part=self.rows)
        return Batch(within(high, self.out_range), (within(low, self.in_range),))

    def upscaled(self, generator: nn.Module, low: Tensor) -> Tensor:
        """[N, 3, H, W] → [N, 3, S·H, S·W] on the CPU, both float32 in [0, 1]."""
        height, width = low.shape[2:]
        padding = (0, -width % self.size_multiple, 0, -height % self.size_multiple)
        padded = F.pad(low, padding, mode="replicate") if any(padding) else low
        output = generator(within(padded, self.in_range).to(self.machine.device)).cpu()
        return unit(output, self.out_range)[..., : height * self.scale, : width * self.scale]

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        """A picture with columns for the input (enlarged), the output and the original. It shows the same crops each time."""
        low, high = self.crops.batch(data.generator(self.seed + 1, 0), SAMPLE_CROPS)
        nearest = F.interpolate(low, scale_factor=self.scale, mode="nearest")
        rows = torch.stack((nearest, self.upscaled(generator, low), high), dim=1)  # [N, 3 columns, 3, H, W]
        return data.as_grid(rows.flatten(0, 1), columns=3)

    def preview(self) -> np.ndarray | None:
        """The run's first degraded crops, each enlarged and beside its original."""
        if not isinstance(self.settings, data.DegradationOptions):
            return None
        low, high = self.crops.batch(data.generator(self.seed, 0), PREVIEW_CROPS)
        nearest = F.interpolate(low, scale_factor=self.scale, mode="nearest")
        return data.as_grid(torch.stack((nearest, high), dim=1).flatten(0, 1), columns=PREVIEW_COLUMNS)

    @torch.inference_mode()
    def validate(self, generator: nn.Module) -> Mapping[str, float]:
        figures = []
        for pair in self.held_out.values():
            output = data.as_picture(self.upscaled(generator, data.as_floats(pair.low[None]))[0])
            figures.append(psnr_y_db(output, pair.high.permute(1, 2, 0).numpy(), self.scale))
        return {"psnr_y_db": float(np.mean(figures))} if figures else {}


class PixelTrainer(CropTrainer):
    """Trains the generator alone, by the difference between the upscaled crops and the originals.

    beginnings: ways to initialise a generator that has no trained weights, by name: functions that change its weights.
    """

    settings: PixelOptions
    beginnings: Mapping[str, Callable[[Any], None]] = MappingProxyType({})

    def __init__(
        self, generator: nn.Module, config: Any, options: PixelOptions, source: Source, machine: Machine
    ) -> None:
        if options.loss not in PIXEL_LOSSES:
            raise InvalidInput("loss", f"got {options.loss!r}, expected one of {', '.join(PIXEL_LOSSES)}")
        beginnings = ("random", *self.beginnings)
        if options.beginning not in beginnings:
            raise InvalidInput("beginning", f"got {options.beginning!r}, expected {' or '.join(beginnings)}")
        self.settings, self.machine, self.generator = options, machine, generator
        self.parallel_generator = machine.parallel(generator)
        self.read(config, options, source, machine)
        if options.beginning in self.beginnings and not source.pretrained:
            self.beginnings[options.beginning](generator)
        self.optimizer = adam(generator, options)

    def generator_step(self, batch: Batch) -> LossTerms:
        with self.machine.autocast():
            output = self.parallel_generator(*batch.inputs).float()
            loss = PIXEL_LOSSES[self.settings.loss](output, batch.real)
        self.machine.step(self.optimizer, loss)
        return {self.settings.loss: loss.detach()}

    def optimizers(self) -> Mapping[str, Any]:
        return {"optimizer": self.optimizer}

    def parts(self) -> Mapping[str, Stateful]:
        return {"generator": self.generator, "optimizer": self.optimizer}


class CropGanTrainer(AdversarialTrainer, CropTrainer):
    """Trains the generator against a discriminator, with losses in pixels and in a network's features.

    discriminator_of: the discriminator's class. activated: whether the features are those after the activation. A subclass
    sets both, and gives the losses in `generator_extras`.
    """

    settings: Any
    discriminator_of: type[nn.Module]
    activated: bool

    def __init__(
        self, generator: nn.Module, config: Any, options: CropGanOptions, source: Source, machine: Machine
    ) -> None:
        net = features.load(options.feature_net, source.vgg19, activated=self.activated)
        self.net = machine.place(net)
        self.read(config, options, source, machine)
        discriminator = self.discriminator_of(
            side_px=options.patch_px * config.scale,
            width=options.discriminator_width,
            norm=options.discriminator_norm,
            minibatch_kernels=options.minibatch_kernels,
        )
        self.set_up(generator, discriminator, options, machine)


def within(pictures: Tensor, limits: tuple[float, float]) -> Tensor:
    """`pictures` in [0, 1], in the range `limits` (black, white) instead."""
    black, white = limits
    return pictures if limits == (0.0, 1.0) else pictures * (white - black) + black


def unit(pictures: Tensor, limits: tuple[float, float]) -> Tensor:
    """`pictures` in the range `limits` (black, white), in [0, 1] instead."""
    black, white = limits
    return pictures if limits == (0.0, 1.0) else (pictures - black) / (white - black)
