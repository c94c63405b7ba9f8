"""A copy of pytorch/examples' TransformerNet for the tests of the family `style`, written from its paper and public code.

It uses nothing of export/, so that the tests compare two independent implementations of names and layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvLayer(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.reflection_pad = nn.ReflectionPad2d(kernel // 2)
        self.conv2d = nn.Conv2d(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2d(self.reflection_pad(x))


class UpsampleConvLayer(ConvLayer):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, mode="nearest", scale_factor=2))


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(channels, channels, 3, 1)
        self.in1 = nn.InstanceNorm2d(channels, affine=True)
        self.conv2 = ConvLayer(channels, channels, 3, 1)
        self.in2 = nn.InstanceNorm2d(channels, affine=True)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.in1(self.conv1(x)))
        return self.in2(self.conv2(out)) + x


class FastNeuralStyle(nn.Module):
    """[N, 3, H, W] float32 in [0, 255] → the same shape. The public files have width 32 and 5 blocks."""

    def __init__(self, width: int = 32, blocks: int = 5) -> None:
        super().__init__()
        self.conv1 = ConvLayer(3, width, 9, 1)
        self.in1 = nn.InstanceNorm2d(width, affine=True)
        self.conv2 = ConvLayer(width, 2 * width, 3, 2)
        self.in2 = nn.InstanceNorm2d(2 * width, affine=True)
        self.conv3 = ConvLayer(2 * width, 4 * width, 3, 2)
        self.in3 = nn.InstanceNorm2d(4 * width, affine=True)
        self.res = [f"res{number}" for number in range(1, blocks + 1)]
        for name in self.res:
            setattr(self, name, ResidualBlock(4 * width))
        self.deconv1 = UpsampleConvLayer(4 * width, 2 * width, 3, 1)
        self.in4 = nn.InstanceNorm2d(2 * width, affine=True)
        self.deconv2 = UpsampleConvLayer(2 * width, width, 3, 1)
        self.in5 = nn.InstanceNorm2d(width, affine=True)
        self.deconv3 = ConvLayer(width, 3, 9, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.in1(self.conv1(x)))
        y = self.relu(self.in2(self.conv2(y)))
        y = self.relu(self.in3(self.conv3(y)))
        for name in self.res:
            y = getattr(self, name)(y)
        y = self.relu(self.in4(self.deconv1(y)))
        y = self.relu(self.in5(self.deconv2(y)))
        return self.deconv3(y)


def trained(width: int, blocks: int, seed: int = 0) -> FastNeuralStyle:
    """A network with random weights in which every parameter counts, norms' included. In eval mode."""
    torch.manual_seed(seed)
    network = FastNeuralStyle(width, blocks).eval()
    for layer in network.modules():
        if isinstance(layer, nn.InstanceNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.0, 0.2)
    return network


def of_old(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict as PyTorch 0.3 wrote it, with the norms' running statistics, which the network never used."""
    norms = [key for key in state if key.rpartition(".")[0].rpartition(".")[2].startswith("in")]
    weights = [key for key in norms if key.endswith(".weight")]
    statistics = {
        key.replace("weight", name): torch.rand_like(state[key])
        for key in weights
        for name in ("running_mean", "running_var")
    }
    return state | statistics
