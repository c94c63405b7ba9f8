"""Trains one generator on pairs of pictures. recipes.py names PairTrainer; its options are PairOptions.

Isola et al. 2017 (arXiv 1611.07004): a PatchGAN judges the input and the output together, and L1 between the output and the
pair's other picture keeps them close. The paper halves the discriminator's loss, which Adam's steps hardly notice; here it
is not halved. Its noise is dropout (Config.dropout).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export import data
from export.evaluation.metrics import psnr_db
from export.models.cyclegan.discriminator import Discriminator, check_crop
from export.models.cyclegan.generator import SPEC
from export.networks.discriminators import DiscriminatorOutput
from export.training import losses
from export.training.adversarial import AdversarialOptions, AdversarialTrainer
from export.training.machine import Machine
from export.training.recipe import Batch, LossTerms, Source
from runtime.errors import InvalidInput
from runtime.sides import side_of
from runtime.tiling.padding import pad

SAMPLE_CROPS = 4  # rows in a picture of samples
DIRECTIONS = ("a-to-b", "b-to-a")


@dataclass(frozen=True)
class PairOptions(AdversarialOptions):
    """crop_px: side of the random crops. load_px: pictures are first reduced to this shorter side; 0 for none.

    cache_gib: memory for decoded pictures. direction: "a-to-b" or "b-to-a", what is translated into what.
    pixel: weight of L1. discriminator_layers: convolutions that halve the picture (discriminator.py).
    """

    batch: int = 1
    schedule: str = "linear"
    crop_px: int = 256
    load_px: int = 286
    cache_gib: float = 8.0
    direction: str = "a-to-b"
    pixel: float = 100.0
    discriminator_layers: int = 3
    discriminator_norm: str = "instance"


class WithInput(nn.Module):
    """A generator whose output comes with its input, as the discriminator sees it: [N, 3, H, W] → [N, 6, H, W]."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat((image, self.generator(image).to(image.dtype)), dim=1)


class PairTrainer(AdversarialTrainer):
    """The adversarial loss of input and output together, and L1."""

    settings: PairOptions

    def __init__(
        self, generator: nn.Module, config: Any, options: PairOptions, source: Source, machine: Machine
    ) -> None:
        self.read(config, options, source, machine)
        discriminator = Discriminator(
            channels=config.in_channels + config.out_channels,
            width=options.discriminator_width,
            layers=options.discriminator_layers,
            norm=options.discriminator_norm,
        )
        self.set_up(WithInput(generator), discriminator, options, machine)
        self.generator = generator  # what is averaged and saved

    def read(self, config: Any, options: PairOptions, source: Source, machine: Machine) -> None:
        """Read the pairs, and those to measure on. Raises InvalidInput."""
        if config.in_channels != 3 or config.out_channels != 3:
            raise InvalidInput(
                "set", "in_channels and out_channels: expected 3 for both, since this recipe trains on RGB"
            )
        if options.direction not in DIRECTIONS:
            raise InvalidInput(
                "direction", f"got {options.direction!r}, expected one of {', '.join(DIRECTIONS)}"
            )
        self.signature = SPEC.signature(config)
        if side_of(self.signature, options.crop_px) != options.crop_px:
            multiple, least = self.signature.size_multiple, side_of(self.signature, 1)
            expected = f"a multiple of {multiple}, at least {least}"
            raise InvalidInput("crop_px", f"got {options.crop_px}, expected {expected}")
        check_crop(options.crop_px, options.discriminator_layers)
        self.seed, self.rows = source.seed, machine.rows(options.batch)
        self.pairs = data.Paired(
            source.data, crop_px=options.crop_px, load_px=options.load_px, cache_gib=options.cache_gib
        )
        self.skipped = self.pairs.skipped
        self.backwards = options.direction == DIRECTIONS[1]
        self.dataset = (
            f"{source.data}, {self.pairs.about}, {options.direction}, in crops of {options.crop_px} px"
        )
        self.held_out = data.read_paired(source.validation) if source.validation else {}
        if source.validation:
            self.dataset += f"; validated on {len(self.held_out)} pairs from {source.validation}"

    def drawn(self, seed: int, number: int, count: int, part: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Random crops of what is translated and of what it should become: [N, 3, crop, crop] float32 in [-1, 1]."""
        a, b = (crops * 2 - 1 for crops in self.pairs.batch(data.generator(seed, number), count, part=part))
        return self.directed(a, b)

    def directed(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return (b, a) if self.backwards else (a, b)

    def batch(self, number: int) -> Batch:
        """inputs: [N, 3, crop, crop]; real: the input and what it should become, [N, 6, crop, crop]; in [-1, 1]."""
        image, wanted = self.drawn(self.seed, number, self.settings.batch, self.rows)
        return Batch(torch.cat((image, wanted), dim=1), (image,))

    def generator_extras(self, batch: Batch, fake: DiscriminatorOutput) -> LossTerms:
        assert batch.fake is not None
        return {"pixel": self.settings.pixel * losses.pixel(batch.fake[:, 3:].float(), batch.real[:, 3:])}

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        """A picture with columns for the input, the output and what it should be. It shows the same crops each time."""
        image, wanted = self.drawn(self.seed + 1, 0, SAMPLE_CROPS)
        output = generator(image.to(self.machine.device)).cpu()
        strips = torch.stack((image, output, wanted), dim=1)
        return data.as_grid((strips.flatten(0, 1) + 1) / 2, columns=3)

    @torch.inference_mode()
    def validate(self, generator: nn.Module) -> Mapping[str, float]:
        """PSNR in dB of translated whole pictures, and of pictures that are left as they are."""
        output_db, input_db = [], []
        for pair in self.held_out.values():
            image, wanted = (side.numpy() for side in self.directed(*pair))
            output_db.append(psnr_db(self.translated(generator, image), wanted, 0))
            input_db.append(psnr_db(image, wanted, 0))
        if not output_db:
            return {}
        return {"output_db": float(np.mean(output_db)), "input_db": float(np.mean(input_db))}

    def translated(self, generator: nn.Module, picture: np.ndarray) -> np.ndarray:
        """A whole picture through the generator: [3, H, W] uint8 → the same shape. It is padded and cut as when served."""
        height, width = picture.shape[1:]
        rows, columns = (side_of(self.signature, side) for side in (height, width))
        padded = pad(picture, rows - height, columns - width, self.signature.padding)
        image = data.as_floats(torch.from_numpy(padded)[None]) * 2 - 1
        output = (generator(image.to(self.machine.device)).cpu()[0, :, :height, :width] + 1) / 2
        return data.as_picture(output).transpose(2, 0, 1)
