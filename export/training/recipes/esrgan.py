"""ESRGAN, first stage: the generator alone, trained for PSNR.

Paper: Wang et al. 2018 (arXiv 1809.00219): L1 on bicubic ×S pairs, flips and quarter turns, Adam. For hours of one
CPU instead of days of GPUs the learning rate is a short warm-up and one cosine, and the tail starts as bilinear
interpolation, which spares the steps that learning to copy the input would take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.generators.esrgan import RRDBNet
from export.training import data
from export.training.metrics import psnr_y_db
from export.training.recipe import Options, Source, Stateful, Trainer
from runtime.errors import InvalidInput


@dataclass(frozen=True)
class PsnrOptions(Options):
    """patch_px: side of the low-resolution crops; lr: the peak, reached after `warmup` of the run (a fraction)."""

    steps: int = 10000
    batch: int = 8
    patch_px: int = 32
    lr: float = 5e-4
    warmup: float = 0.01


class PsnrTrainer(Trainer):
    """L1 between the upscaled crops and the true ones."""

    options = PsnrOptions

    def __init__(self, generator: nn.Module, config: Any, options: PsnrOptions, source: Source) -> None:
        if config.in_channels != 3 or config.out_channels != 3:
            raise InvalidInput("set", "in_channels and out_channels: this recipe trains on RGB, expected 3")
        self.scale, self.settings = config.scale, options
        self.pairs = data.read_pairs(source.data, config.scale, options.patch_px)
        self.held_out = read_held_out(source.validation, config.scale) if source.validation else {}
        start_as_bilinear(cast(RRDBNet, generator))
        self.generator = generator
        self.optimizer = torch.optim.Adam(generator.parameters(), lr=options.lr)

    def step(self, progress: float) -> Mapping[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * warm_cosine(progress, self.settings.warmup)
        low, high = data.random_patches(self.pairs, self.settings.batch, self.settings.patch_px, self.scale)
        loss = F.l1_loss(self.generator(low), high)  # both [N, 3, S·patch, S·patch] float32
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"l1": loss.detach()}

    def parts(self) -> Mapping[str, Stateful]:
        return {"generator": self.generator, "optimizer": self.optimizer}

    def inputs(self) -> tuple[Tensor, ...]:
        return (data.random_patches(self.pairs, self.settings.batch, self.settings.patch_px, self.scale)[0],)

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        """Columns: the input (nearest neighbour), the output, the truth."""
        low, high = data.random_patches(self.pairs, 6, self.settings.patch_px, self.scale)
        nearest = F.interpolate(low, scale_factor=self.scale, mode="nearest")
        rows = torch.stack((nearest, generator(low), high), dim=1)  # [N, 3 columns, 3, H, W]
        return data.as_grid(rows.flatten(0, 1), columns=3)

    @torch.inference_mode()
    def validate(self, generator: nn.Module) -> Mapping[str, float]:
        figures = [
            psnr_y_db(data.as_picture(generator(data.as_floats(pair.low[None]))[0]), truth(pair), self.scale)
            for pair in self.held_out.values()
        ]
        return {"psnr_y_db": float(np.mean(figures))} if figures else {}


def truth(pair: data.Pair) -> np.ndarray:
    return pair.high.permute(1, 2, 0).numpy()  # [H, W, 3] uint8


def read_held_out(folder: Path, scale: int) -> dict[str, data.Pair]:
    """Set5's layout: `HR/NAME.png`, and its reductions in `LR_bicubic/X<scale>/NAMEx<scale>.png`."""
    pairs = {}
    for path in data.pictures_under(folder / "HR", "validate"):
        low = data.pictures_under(folder / "LR_bicubic" / f"X{scale}", "validate")
        match = [other for other in low if other.stem in (path.stem, f"{path.stem}x{scale}")]
        if not match:
            raise InvalidInput("validate", f"no reduction of {path.name}, expected {path.stem}x{scale}.png")
        small = data.read_picture(match[0])
        height, width = (side * scale for side in small.shape[:2])
        pairs[path.stem] = data.Pair(
            data.planes(data.read_picture(path)[:height, :width]), data.planes(small)
        )
    return pairs


def warm_cosine(progress: float, warmup: float) -> float:
    """The learning rate's share of its peak: a line up for `warmup` of the run, then a half cosine down to 0."""
    if progress < warmup:
        return (progress + 1e-3 * warmup) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / (1 - warmup))


@torch.no_grad()
def start_as_bilinear(generator: RRDBNet) -> None:
    """Let three channels carry the picture, interpolated, past the trunk to the output.

    Nearest ×2 and then (1, 2, 1)/4 along both axes is bilinear ×2. The picture is positive, so the leaky ReLUs let
    it through. The other channels, and all that the trunk adds, are free to learn the difference.
    """
    if generator.unshuffle > 1:
        return
    tent = torch.tensor([1.0, 2.0, 1.0]) / 4
    spread, same = torch.outer(tent, tent), torch.zeros(3, 3)
    same[1, 1] = 1.0
    carry(generator.conv_first, same)
    for name in generator.ups:
        carry(cast(nn.Conv2d, generator.get_submodule(name)), spread)
    carry(generator.conv_hr, same)
    carry(generator.conv_last, same)
    silence(generator.conv_body)


def carry(conv: nn.Conv2d, kernel: Tensor) -> None:
    """Make `conv`'s first three outputs its first three inputs, each filtered by `kernel` [3, 3]."""
    silence(conv)
    for channel in range(3):
        conv.weight[channel, channel] = kernel


def silence(conv: nn.Conv2d) -> None:
    """Make `conv`'s first three outputs 0."""
    conv.weight[:3] = 0.0
    if conv.bias is not None:
        conv.bias[:3] = 0.0


TRAINER = PsnrTrainer
