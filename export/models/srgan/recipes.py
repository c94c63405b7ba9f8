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
from typing import Any, cast

from torch import nn
from torch.nn import functional as F

from export.models.srgan.bilinear import start_as_bilinear
from export.models.srgan.discriminator import Discriminator
from export.models.srgan.generator import SPEC, SRResNet
from export.networks import features
from export.networks.discriminators import DiscriminatorOutput
from export.training import losses
from export.training.adversarial import AdversarialOptions, AdversarialTrainer
from export.training.machine import Machine
from export.training.recipe import NEEDED, Batch, LossTerms, Recipe, Source
from export.training.restoration import CropTrainer, PixelOptions, PixelTrainer, unit
from runtime.errors import InvalidInput


@dataclass(frozen=True)
class FirstOptions(PixelOptions):
    """beginning: the initial weights: "random", or "bilinear" to start as bilinear interpolation (bilinear.py)."""

    patch_px: int = 24
    loss: str = "mse"
    beginning: str = "random"


@dataclass(frozen=True)
class GanOptions(AdversarialOptions):
    """patch_px: side of the low-resolution crops; patch_px · scale must be a multiple of 16. cache_gib: memory for decoded
    pictures.

    content, pixel: weights of the losses in features and in pixels. feature_net: one of `features.NETS`, whose features,
    after the activation, are multiplied by feature_scale.
    """

    patch_px: int = 24
    cache_gib: float = 8.0
    beta1: float = 0.9
    adversarial: float = 1e-3
    content: float = 1.0
    pixel: float = 1.0
    feature_net: str = "vgg19-conv5_4"
    feature_scale: float = 1 / 12.75


class FirstTrainer(PixelTrainer):
    """First stage: the generator alone."""

    spec = SPEC

    def __init__(
        self, generator: nn.Module, config: Any, options: FirstOptions, source: Source, machine: Machine
    ) -> None:
        if options.beginning not in ("random", "bilinear"):
            raise InvalidInput("beginning", f"got {options.beginning!r}, expected random or bilinear")
        super().__init__(generator, config, options, source, machine)
        if options.beginning == "bilinear" and not source.pretrained:
            start_as_bilinear(cast(SRResNet, generator))


class GanTrainer(AdversarialTrainer, CropTrainer):
    """Second stage: content, pixel and adversarial losses."""

    spec = SPEC
    settings: GanOptions

    def __init__(
        self, generator: nn.Module, config: Any, options: GanOptions, source: Source, machine: Machine
    ) -> None:
        self.net = machine.place(features.load(options.feature_net, source.vgg19, activated=True))
        self.read(config, options, source, machine)
        discriminator = Discriminator(
            side_px=options.patch_px * config.scale,
            width=options.discriminator_width,
            norm=options.discriminator_norm,
            minibatch_kernels=options.minibatch_kernels,
        )
        self.set_up(generator, discriminator, options, machine)

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
