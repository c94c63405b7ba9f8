"""What a style network minimises: how far its output is from a photograph's content and from a style (`Perceptual`).

Johnson et al. 2016 (arXiv 1603.08155), section 3.2. recipes.py trains with it, compare.py measures pictures by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from export import data
from export.networks.features import LayerFeatures, gram
from export.training import losses
from export.training.recipe import LossTerms
from runtime.errors import InvalidInput

LEAST_PX = 32  # of the style picture's sides: less has no style to speak of


class Perceptual:
    """The losses of pictures against a photograph and a style.

    net: gives the features of all the layers that are named. content_layer: whose features are compared with the photograph's.
    style_layers: whose Gram matrices are compared with those of `style`, [1, 3, H, W] float32 in [0, 1].
    """

    def __init__(
        self, net: LayerFeatures, content_layer: str, style_layers: Sequence[str], style: Tensor
    ) -> None:
        self.net, self.content_layer = net, content_layer
        with torch.no_grad():
            maps = net(style)
            self.grams = {name: gram(maps[name]) for name in style_layers}

    def __call__(self, photograph: Tensor, output: Tensor) -> LossTerms:
        """content, style and variation, scalars without weights. Both pictures are [N, 3, H, W] float32, nominally in [0, 1]."""
        with torch.no_grad():
            wanted = self.net(photograph)[self.content_layer].float()
        maps = {name: value.float() for name, value in self.net(output).items()}
        return {
            "content": F.mse_loss(maps[self.content_layer], wanted),
            "style": losses.style([gram(maps[name]) for name in self.grams], self.grams.values()),
            "variation": losses.total_variation(output),
        }


def read_style(path: Path | None, shorter_px: int) -> tuple[Tensor, str]:
    """The style picture, [1, 3, H, W] float32 in [0, 1], and a description of it.

    shorter_px: it is reduced until its shorter side is so long; 0 for its own size. Raises InvalidInput.
    """
    if path is None:
        raise InvalidInput("style", "is missing; give the picture whose style is learned: --style PICTURE")
    if not path.is_file():
        raise InvalidInput("style", f"no file at {path}, expected the picture whose style is learned")
    try:
        image = data.read_picture(path, shorter_px=shorter_px or None)
    except InvalidInput as error:
        raise InvalidInput("style", error.problem) from error
    height, width = image.shape[:2]
    if min(height, width) < LEAST_PX:
        raise InvalidInput("style", f"{path.name} is {width}×{height}, expected {LEAST_PX} px a side or more")
    grey = " (grey, and so will be what the network paints)" if np.ptp(image, axis=2).max() == 0 else ""
    return data.as_floats(data.planes(image)[None]), f"{path.name} at {width}×{height} px{grey}"
