"""ESRGAN's recipes, which `python -m export.training` finds in RECIPES. There are two stages: the generator alone, for PSNR,
and then against a discriminator, for sharpness.

Paper: Wang et al. 2018 (arXiv 1809.00219), section 4.1. First stage: L1 on bicubic ×S pairs with flips and quarter turns.
Second stage, from its weights: perceptual loss before the activation + 5e-3 · relativistic average GAN + 1e-2 · L1. Both have
crops of 128 px and Adam with betas (0.9, 0.999); BasicSR has 192 px and a β2 of 0.99. The moving average is not in the paper.
The compact recipes take an hour of a CPU instead of days of GPUs: they have a warm-up and one cosine, and start as bilinear
interpolation (bilinear.py). The shipped weights of the second stage were trained with a β2 of 0.99 and detached
relativistic means.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from export.models.esrgan.bilinear import start_as_bilinear
from export.models.esrgan.discriminator import Discriminator
from export.models.esrgan.generator import SPEC
from export.networks.discriminators import DiscriminatorOutput
from export.training import losses
from export.training.recipe import NEEDED, Batch, LossTerms, Recipe
from export.training.restoration import (
    CropGanOptions,
    CropGanTrainer,
    PhotoOptions,
    PixelOptions,
    PixelTrainer,
)


@dataclass(frozen=True)
class GanOptions(CropGanOptions):
    """perceptual: weight of the loss in features."""

    objective: str = "relativistic-average"
    adversarial: float = 5e-3
    perceptual: float = 1.0
    pixel: float = 1e-2


class PsnrTrainer(PixelTrainer):
    """First stage: L1 between the upscaled crops and the originals."""

    spec = SPEC
    beginnings = MappingProxyType({"bilinear": start_as_bilinear})


class GanTrainer(CropGanTrainer):
    """Second stage: perceptual, adversarial and pixel losses."""

    spec, discriminator_of, activated = SPEC, Discriminator, False

    def generator_extras(self, batch: Batch, fake: DiscriminatorOutput) -> LossTerms:
        assert batch.fake is not None
        output = batch.fake.float()
        return {
            "perceptual": self.settings.perceptual * losses.perceptual(self.net, output, batch.real),
            "pixel": self.settings.pixel * losses.pixel(output, batch.real),
        }


PSNR = {"schedule": "halving", "halve_at": "0.2,0.4,0.6,0.8"}
# The share of plain reductions keeps the fidelity for clean pictures; a small network loses it to strong degradations.
MILDER = {
    "plain": 0.6,
    "plain_jpeg": 0.85,
    "second": 0.5,
    "blur_sigma": "0.2,1.8",
    "second_blur_sigma": "0.2,1",
    "resize_range": "0.4,1.2",
    "second_resize_range": "0.6,1.2",
    "noise": 0.5,
    "noise_sigma": "1,12",
    "second_noise_sigma": "1,8",
    "poisson": "0.05,1",
    "second_poisson": "0.05,0.6",
    "final_sinc": 0.3,
}
COMPACT_NET = {"features": 32, "blocks": 3, "growth": 16}
RECIPES = {
    "compact": Recipe(
        "first stage on a CPU: 3 blocks of 32 maps, 36 px crops, an hour or two",
        PsnrTrainer,
        PixelOptions(
            steps=10_000, batch=4, patch_px=36, lr=5e-4, schedule="cosine", warmup=0.01, beginning="bilinear"
        ),
        COMPACT_NET,
    ),
    "compact-gan": Recipe(
        "second stage on a CPU, from the first: 32 px crops, a narrow discriminator, shallow VGG features",
        GanTrainer,
        GanOptions(
            steps=2000,
            batch=4,
            lr=1e-4,
            schedule="cosine",
            warmup=0.02,
            discriminator_width=16,
            feature_net="vgg-normalised-conv3_1",
        ),
        start="shipped:esrgan",
    ),
    "compact-photo": Recipe(
        "photographs on a CPU: from the first stage, most crops reduced and saved as JPEG, the others as in photo but milder",
        PsnrTrainer,
        PhotoOptions(steps=12_000, batch=4, patch_px=36, lr=4e-4, schedule="cosine", warmup=0.02, **MILDER),  # type: ignore[arg-type]
        COMPACT_NET,
        start="shipped:esrgan",
    ),
    "photo": Recipe(
        "photographs as they are: Real-ESRGAN's blur, resizing, noise and JPEG, twice; 23 blocks, L1, a million steps",
        PsnrTrainer,
        PhotoOptions(steps=1_000_000, batch=48, patch_px=64, lr=2e-4),
        start=NEEDED,
    ),
    "psnr": Recipe(
        "the paper's first stage: 23 blocks of 64 maps, batch 16 of 128 px, a million steps",
        PsnrTrainer,
        PixelOptions(steps=1_000_000, batch=16, patch_px=32, lr=2e-4, **PSNR),  # type: ignore[arg-type]
    ),
    "gan": Recipe(
        "the paper's second stage: VGG19 conv5_4, batch 16 of 128 px, 400,000 steps",
        GanTrainer,
        GanOptions(steps=400_000, batch=16, lr=1e-4, schedule="halving", halve_at="0.125,0.25,0.5,0.75"),
        start=NEEDED,
    ),
}
