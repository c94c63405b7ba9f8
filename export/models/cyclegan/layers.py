"""What the generators and the discriminator of this family share: their normalisations and their initial weights.

As in pytorch-CycleGAN-and-pix2pix (junyanz).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

# Name → the layer after a convolution with so many maps. Instance norm has no weights and no running statistics.
NORMS: Mapping[str, Callable[[int], nn.Module]] = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d}


def norm_layer(norm: str) -> tuple[Callable[[int], nn.Module], bool]:
    """The layer of NORMS, and whether a convolution before it has a bias: batch norm has its own.

    Raises ValueError for an unknown name.
    """
    if norm not in NORMS:
        raise ValueError(f"norm: got {norm!r}, expected one of {', '.join(NORMS)}")
    return NORMS[norm], norm != "batch"


def initialise(module: nn.Module) -> None:
    """Draw a layer's weights: N(0, 0.02) for convolutions, N(1, 0.02) for batch norm; biases are 0. For nn.Module.apply."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
