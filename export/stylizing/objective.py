"""What style transfer minimises: `Objective`, and the layers of VGG19 that it looks at (`choose_layers`).

Gatys et al. 2015 (arXiv 1508.06576): two pictures have the same content if their features agree, and the same style if the
Gram matrices of their features do. export/stylize.py makes the objective, optimisation.py minimises it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from export.networks.features import LayerFeatures, Vgg19File, gram
from export.training import losses
from runtime.errors import InvalidInput

# The paper's layers, each after its activation.
CONTENT = "conv4_2"
STYLE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")


@dataclass(frozen=True)
class Layers:
    """content: the layer whose features are compared. style: those whose Gram matrices are, from shallow to deep.

    left_out: the paper's layers that the file of VGG19 lacks.
    """

    content: str
    style: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def least_px(self) -> int:
        """The least side of a picture: the deepest layer sees two pixels a side, which reflection padding needs."""
        return int(2 ** max(int(name[4]) for name in (self.content, *self.style)))


@dataclass(frozen=True)
class Weights:
    """Of each loss. alpha: content. beta: style. total_variation: of the smoothness. Raises InvalidInput."""

    alpha: float
    beta: float
    total_variation: float = 0.0

    def __post_init__(self) -> None:
        if not self.alpha and not self.beta:
            raise InvalidInput("alpha", "and --beta are both 0, so there is nothing to look like; raise one")


def choose_layers(file: Vgg19File) -> Layers:
    """The paper's layers as far as `file` holds them; in place of the content's, its deepest."""
    left_out = file.missing((CONTENT, *STYLE))
    content = file.names[-1] if CONTENT in left_out else CONTENT
    return Layers(content, tuple(name for name in STYLE if name not in left_out), left_out)


class Objective:
    """Measures how far pictures are from the content of one picture and the style of another.

    network: gives the features of all `layers`. content, style: [1, 3, H, W] float32 in [0, 1], of any sizes.

    The style's loss is the paper's: (1/4N²M²) Σ (G − A)² of each layer (`gram` has the division), averaged over the layers. The
    content's is the mean squared difference of the features, where the paper has half its sum, so that neither depends on
    the size of the pictures. (The authors' code and PyTorch's tutorial divide the style's by N² once more, which all but
    ignores deep layers.)
    """

    def __init__(
        self, network: LayerFeatures, layers: Layers, content: Tensor, style: Tensor, weights: Weights
    ) -> None:
        self.network, self.layers, self.weights = network, layers, weights
        with torch.no_grad():
            self.features = network(content)[layers.content]
            maps = network(style)
            self.grams = {name: gram(maps[name]) for name in layers.style}

    def __call__(self, picture: Tensor) -> dict[str, Tensor]:
        """Each loss times its weight, as a scalar, by name; those with a weight of 0 are left out."""
        weights, maps = self.weights, self.network(picture)
        terms = {}
        if weights.alpha:
            terms["content"] = weights.alpha * F.mse_loss(maps[self.layers.content], self.features)
        if weights.beta:
            grams = [gram(maps[name]) for name in self.grams]
            terms["style"] = weights.beta * losses.style(grams, self.grams.values()) / (4 * len(grams))
        if weights.total_variation:
            terms["variation"] = weights.total_variation * losses.total_variation(picture)
        return terms
