"""PatchGAN: a discriminator that judges every patch of a picture for itself. The recipes train the generators against it.

Isola et al. 2017 (arXiv 1611.07004): its 70×70 form, C64-C128-C256-C512 with kernels of 4 px, LeakyReLU 0.2 and no
normalisation in the first layer; layers and names are those of pytorch-CycleGAN-and-pix2pix's NLayerDiscriminator.
"""

from __future__ import annotations

from torch import Tensor, nn

from export.models.cyclegan.layers import initialise, norm_layer
from export.networks.discriminators import DiscriminatorOutput
from runtime.errors import InvalidInput

WIDEST = 8  # times the first layer's maps


class Discriminator(nn.Module):
    """[N, channels, H, W] float32 in [-1, 1] → DiscriminatorOutput, whose logits are one for each patch: [N · patches].

    width: maps after the first layer. layers: convolutions that halve the picture; 3 of them see patches of 70 px, 1 of 16,
    2 of 34, 4 of 142. norm: one of layers.NORMS.
    """

    def __init__(self, *, channels: int, width: int, layers: int, norm: str) -> None:
        super().__init__()
        try:
            normalise, bias = norm_layer(norm)
        except ValueError as error:
            raise InvalidInput("discriminator_norm", str(error).removeprefix("norm: ")) from error
        stack: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        maps = width
        for number in range(1, layers + 1):
            wider = width * min(2**number, WIDEST)
            stride = 2 if number < layers else 1
            stack += [
                nn.Conv2d(maps, wider, 4, stride=stride, padding=1, bias=bias),
                normalise(wider),
                nn.LeakyReLU(0.2),
            ]
            maps = wider
        self.model = nn.Sequential(*stack, nn.Conv2d(maps, 1, 4, padding=1))
        self.apply(initialise)

    def forward(self, pictures: Tensor) -> DiscriminatorOutput:
        features = self.model[:-1](pictures)
        return DiscriminatorOutput(self.model[-1](features).flatten(), features.flatten(1))


def check_crop(crop_px: int, layers: int) -> None:
    """Raises InvalidInput if instance norm would see a single pixel in a discriminator of so many layers."""
    least = 3 * 2**layers
    if crop_px < least:
        raise InvalidInput(
            "crop_px",
            f"got {crop_px}, expected {least} or more for discriminator_layers={layers}",
        )
