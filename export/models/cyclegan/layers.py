"""What the generators and the discriminator of this family share: their normalisations and their initial weights.

As in pytorch-CycleGAN-and-pix2pix (junyanz).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PictureNorm(nn.Module):
    """A batch norm's tensors, with the mean and variance of each picture instead of the running ones.

    pytorch-CycleGAN-and-pix2pix translates so, a picture at a time, where it is not given `--eval`. [N, maps, H, W] → the same.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(maps)), nn.Parameter(torch.zeros(maps))
        self.register_buffer("running_mean", torch.zeros(maps))
        self.register_buffer("running_var", torch.ones(maps))

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.weight, bias=self.bias)


# Name → the layer after a convolution with so many maps. Instance norm has no weights and no running statistics.
NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "instance": nn.InstanceNorm2d,
    "batch": nn.BatchNorm2d,
    "picture": PictureNorm,
}


def norm_layer(norm: str) -> tuple[Callable[[int], nn.Module], bool]:
    """The layer of NORMS, and whether a convolution before it has a bias: the others have their own.

    Raises ValueError for an unknown name.
    """
    if norm not in NORMS:
        raise ValueError(f"norm: got {norm!r}, expected one of {', '.join(NORMS)}")
    return NORMS[norm], norm == "instance"


def initialise(module: nn.Module) -> None:
    """Draw a layer's weights: N(0, 0.02) for convolutions, N(1, 0.02) for batch norm; biases are 0. For nn.Module.apply."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
