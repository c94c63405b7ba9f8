"""How TransformerNet learns the style of one picture: features of its output are compared with those of photograph and style.

Paper: Johnson et al. 2016 (arXiv 1603.08155), section 3. The content loss compares features of one layer of VGG with the
photograph's, the style loss the Gram matrices of several layers with those of the style picture (`--style`), and the total
variation keeps the output smooth. The paper's features are VGG16's; here they are VGG19's (`--vgg19`), after the activation.
The compact recipe's weights and layers are for the style-transfer VGG19 up to conv3_1, whose channels are normalised. Those of
the recipe `paper` are for torchvision's, and have not been run here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from export import data
from export.models.style.generator import RANGE, SIZE_MULTIPLE, TransformerNet
from export.models.style.objective import Perceptual, read_style
from export.networks.features import open_vgg19
from export.training.adversarial import adam, detached, total
from export.training.machine import Machine
from export.training.recipe import Batch, LossTerms, Recipe, Source, Stateful, Trainer, TrainingOptions
from runtime.errors import InvalidInput

SAMPLE_CROPS = 4  # in a picture of samples
WHITE = RANGE[1]
# The last layer's initial weights, multiplied: its output is in levels of 256 and would begin as plain grey.
OUTPUT_GAIN = 64.0


@dataclass(frozen=True)
class StyleOptions(TrainingOptions):
    """crop_px: side of the crops of photographs, a multiple of 4. cache_gib: memory for decoded pictures.

    style_px: the style picture is reduced until its shorter side is so long; 0 for its own size. How large its strokes are
    in the output follows from it. content, style, variation: weights of the losses.
    content_layer: one of VGG19's convolutions, conv1_1 … conv5_4. style_layers: some of them, separated by commas.
    """

    crop_px: int = 256
    cache_gib: float = 8.0
    style_px: int = 0
    content: float = 1.0
    style: float = 50.0
    variation: float = 100.0
    content_layer: str = "conv3_3"
    style_layers: str = "conv1_2,conv2_2,conv3_3,conv4_3"


class StyleTrainer(Trainer):
    """The perceptual losses of one style. There is no discriminator."""

    def __init__(
        self, generator: nn.Module, config: Any, options: StyleOptions, source: Source, machine: Machine
    ) -> None:
        self.settings, self.machine, self.generator = options, machine, generator
        self.seed, self.rows = source.seed, machine.rows(options.batch)
        if options.crop_px % SIZE_MULTIPLE:
            raise InvalidInput("crop_px", f"got {options.crop_px}, expected a multiple of {SIZE_MULTIPLE}")
        picture, described = read_style(source.style, options.style_px)
        style_layers = [name.strip() for name in options.style_layers.split(",")]
        layers = tuple(dict.fromkeys((*style_layers, options.content_layer)))
        net = machine.place(open_vgg19(source.vgg19).network(layers, activated=True))
        self.objective = Perceptual(net, options.content_layer, style_layers, picture.to(machine.device))
        self.crops = data.Crops(source.data, scale=1, patch_px=options.crop_px, cache_gib=options.cache_gib)
        self.skipped = self.crops.skipped
        self.dataset = (
            f"{len(self.crops.names):,} pictures from {source.data}, {self.crops.sizes}, "
            f"in crops of {options.crop_px} px; style: {described}"
        )
        if not source.pretrained:
            start_in_mid_grey(cast(TransformerNet, generator))
        self.parallel_generator = machine.parallel(generator)
        self.optimizer = adam(generator, options)

    def batch(self, number: int) -> Batch:
        """Photographs, the same as real and as inputs: [N, 3, crop, crop] float32 in [0, 255]."""
        random = data.generator(self.seed, number)
        _, photographs = self.crops.batch(random, self.settings.batch, part=self.rows)
        photographs *= WHITE
        return Batch(photographs, (photographs,))

    def generator_step(self, batch: Batch) -> LossTerms:
        with self.machine.autocast():
            output = self.parallel_generator(*batch.inputs)
            terms = self.losses(batch.real, output.float())
        self.machine.step(self.optimizer, total(terms))
        return detached(terms)

    def losses(self, photograph: Tensor, output: Tensor) -> LossTerms:
        """The weighted losses of the network's `output` for `photograph`, both [N, 3, H, W] float32 in [0, 255]."""
        terms = self.objective(photograph / WHITE, output / WHITE)
        return {name: getattr(self.settings, name) * value for name, value in terms.items()}

    def optimizers(self) -> Mapping[str, Any]:
        return {"optimizer": self.optimizer}

    def parts(self) -> Mapping[str, Stateful]:
        return {"generator": self.generator, "optimizer": self.optimizer}

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        """A picture with columns for photographs and what the network paints of them. It shows the same crops each time."""
        _, photographs = self.crops.batch(data.generator(self.seed + 1, 0), SAMPLE_CROPS)
        painted = generator(photographs.to(self.machine.device) * WHITE).cpu() / WHITE
        rows = torch.stack((photographs, painted), dim=1)  # [N, 2 columns, 3, H, W]
        return data.as_grid(rows.flatten(0, 1), columns=2)


@torch.no_grad()
def start_in_mid_grey(generator: TransformerNet) -> None:
    """Let an untrained network's output vary around mid-grey by some 20 levels of 256; at first it is black otherwise."""
    last = generator.deconv3.conv2d
    last.weight.mul_(OUTPUT_GAIN)
    assert last.bias is not None
    last.bias.fill_(WHITE / 2)


COMPACT = StyleOptions(
    steps=20_000,
    batch=1,
    lr=2e-3,
    schedule="cosine",
    warmup=0.01,
    sample_every=200,
    checkpoint_every=200,
    crop_px=96,
    style_px=400,
    content=10.0,
    style=20.0,
    variation=10.0,
    content_layer="conv3_1",
    style_layers="conv1_1,conv1_2,conv2_1,conv2_2,conv3_1",
)
RECIPES = {
    "compact": Recipe(
        "one style on a CPU: 16 features, 96 px crops, features of VGG19 up to conv3_1, half an hour",
        StyleTrainer,
        COMPACT,
        {"features": 16, "blocks": 4},
    ),
    "paper": Recipe(
        "Johnson et al.: 32 features, 5 blocks, batch 4 of 256 px, two epochs of COCO",
        StyleTrainer,
        StyleOptions(steps=41_000, batch=4, lr=1e-3),
    ),
}
