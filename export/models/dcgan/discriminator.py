"""DCGAN's discriminator: strided convolutions, a mirror image of the generator. recipes.py trains the generator against it.

Paper: Radford et al. 2015 (arXiv 1511.06434), with the kernels of pytorch/examples. Layers without batch norm have a bias,
which pytorch/examples leaves out: a critic without any bias always gives 0 for a grey picture.
"""

from __future__ import annotations

from torch import Tensor, nn

from export.networks.discriminators import (
    DiscriminatorOutput,
    constrain_weights,
    convolution,
    initialise_gaussian,
    minibatch_layer,
)


class Discriminator(nn.Module):
    """[N, C, size, size] float32 in [-1, 1] → DiscriminatorOutput.

    size: a power of two from 32. classes: outputs of the class head; 0 for no such head. width: maps after
    the first layer. norm: one of networks.discriminators.NORMS. minibatch_kernels: of minibatch discrimination; 0 for none.
    """

    def __init__(
        self, *, size: int, channels: int, classes: int, width: int, norm: str, minibatch_kernels: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for _ in range(size.bit_length() - 4):  # down to 4×4
            layers += [*convolution(width, 2 * width, 4, norm, stride=2), nn.LeakyReLU(0.2, inplace=True)]
            width *= 2
        self.main = nn.Sequential(*layers, nn.Flatten())
        self.minibatch, features = minibatch_layer(width * 4 * 4, minibatch_kernels)
        self.source = nn.Linear(features, 1)  # the paper's 4×4 convolution, on 4×4 maps
        self.category = nn.Linear(width * 4 * 4, classes) if classes else None
        initialise_gaussian(self)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)
        constrain_weights(self, norm)

    def forward(self, image: Tensor) -> DiscriminatorOutput:
        features = self.main(image)
        logits = self.source(self.minibatch(features)).flatten()
        if self.category is None:
            return DiscriminatorOutput(logits, features)
        return DiscriminatorOutput(logits, features, self.category(features))
