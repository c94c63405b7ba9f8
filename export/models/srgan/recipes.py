"""SRGAN's recipes, which `python -m export.training` finds in RECIPES. There are two stages: the generator alone, by mean
square error, and then against a discriminator, for pictures that look natural.

Paper: Ledig et al. 2016 (arXiv 1609.04802), section 3.2. Both stages have batches of 16 crops of 96 px and Adam with β1 0.9.
First stage: mean square error in [-1, 1], a million steps at 1e-4. Second stage, from its weights: content loss in VGG19's
features after the activation + mean square error + 1e-3 · adversarial, 100,000 steps at 1e-4 and as many at 1e-5. The
paper's own SRGAN-VGG54 leaves the mean square error out (`--set pixel=0`); SRGAN-VGG22 has the shallower features
(`--set feature_net=vgg19-conv2_2`). The moving average is not in the paper.
The compact recipes take minutes of a CPU: a small network, a warm-up and one cosine, and a start as bilinear interpolation
(bilinear.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from torch.nn import functional as F

from export.models.srgan.bilinear import start_as_bilinear
from export.models.srgan.discriminator import Discriminator
from export.models.srgan.generator import SPEC
from export.networks.discriminators import DiscriminatorOutput
from export.training import losses
from export.training.recipe import NEEDED, Batch, LossTerms, Recipe
from export.training.restoration import CropGanOptions, CropGanTrainer, PixelOptions, PixelTrainer, unit


@dataclass(frozen=True)
class FirstOptions(PixelOptions):
    """PixelOptions, with the paper's crops and loss."""

    patch_px: int = 24
    loss: str = "mse"


@dataclass(frozen=True)
class GanOptions(CropGanOptions):
    """content: weight of the loss in features, which are multiplied by feature_scale."""

    patch_px: int = 24
    adversarial: float = 1e-3
    content: float = 1.0
    feature_scale: float = 1 / 12.75


class FirstTrainer(PixelTrainer):
    """First stage: the generator alone."""

    spec = SPEC
    beginnings = MappingProxyType({"bilinear": start_as_bilinear})


class GanTrainer(CropGanTrainer):
    """Second stage: content, pixel and adversarial losses."""

    spec, discriminator_of, activated = SPEC, Discriminator, True

    def generator_extras(self, batch: Batch, fake: DiscriminatorOutput) -> LossTerms:
        assert batch.fake is not None
        output, settings = batch.fake.float(), self.settings
        pictures, truth = (unit(values, self.out_range) for values in (output, batch.real))
        content = losses.content(self.net, pictures, truth, settings.feature_scale)
        return {
            "content": settings.content * content,
            "pixel": settings.pixel * F.mse_loss(output, batch.real),
        }


COMPACT_NET = {"features": 32, "blocks": 5}
RECIPES = {
    "compact": Recipe(
        "first stage on a CPU: 5 blocks of 32 maps, batch 8 of 96 px, mean absolute error, from 10 minutes on",
        FirstTrainer,
        FirstOptions(
            steps=10_000, batch=8, lr=5e-4, schedule="cosine", warmup=0.02, loss="l1", beginning="bilinear"
        ),
        COMPACT_NET,
    ),
    "compact-gan": Recipe(
        "second stage on a CPU, from the first: a narrow discriminator, shallow VGG features",
        GanTrainer,
        GanOptions(
            steps=2000,
            batch=4,
            lr=1e-4,
            schedule="cosine",
            warmup=0.02,
            discriminator_width=16,
            feature_net="vgg-normalised-conv3_1",
            feature_scale=0.1,
        ),
        start=NEEDED,
    ),
    "mse": Recipe(
        "the paper's first stage, SRResNet: 16 blocks of 64 maps, batch 16 of 96 px, a million steps",
        FirstTrainer,
        FirstOptions(steps=1_000_000, batch=16, lr=1e-4),
    ),
    "gan": Recipe(
        "the paper's second stage, SRGAN: VGG19 conv5_4, batch 16 of 96 px, 200,000 steps",
        GanTrainer,
        GanOptions(steps=200_000, batch=16, lr=1e-4, schedule="tenth", halve_at="0.5"),
        start=NEEDED,
    ),
}
