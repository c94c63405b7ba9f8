"""Small copies of the public networks whose checkpoints can be read, written from their papers and public code.

They use nothing of export/, so that the tests compare two independent implementations of names and layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, 1, 1)


def lrelu() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.2, inplace=True)


class GaussianNoise(nn.Module):
    """ESRGAN+'s: only while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) * 0.1 * x.detach() if self.training else x


class OldDense(nn.Module):
    """conv1.0 … conv5.0, each with its activation behind it; ESRGAN+ adds conv1x1 and noise."""

    def __init__(self, features: int, growth: int, plus: bool) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(features, growth, 1, bias=False) if plus else None
        self.noise = GaussianNoise()
        self.conv1 = nn.Sequential(conv(features, growth), lrelu())
        self.conv2 = nn.Sequential(conv(features + growth, growth), lrelu())
        self.conv3 = nn.Sequential(conv(features + 2 * growth, growth), lrelu())
        self.conv4 = nn.Sequential(conv(features + 3 * growth, growth), lrelu())
        self.conv5 = nn.Sequential(conv(features + 4 * growth, features))

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.conv1(x)
        x2 = self.conv2(torch.cat((x, x1), 1))
        if self.conv1x1 is not None:
            x2 = x2 + self.conv1x1(x)
        x3 = self.conv3(torch.cat((x, x1, x2), 1))
        x4 = self.conv4(torch.cat((x, x1, x2, x3), 1))
        if self.conv1x1 is not None:
            x4 = x4 + x2
        x5 = self.conv5(torch.cat((x, x1, x2, x3, x4), 1))
        out = x5.mul(0.2) + x
        return self.noise(out) if self.conv1x1 is not None else out


class Dense(nn.Module):
    """conv1 … conv5 and one activation."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = conv(features, growth)
        self.conv2 = conv(features + growth, growth)
        self.conv3 = conv(features + 2 * growth, growth)
        self.conv4 = conv(features + 3 * growth, growth)
        self.conv5 = conv(features + 4 * growth, features)
        self.lrelu = lrelu()

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.lrelu(self.conv1(x))
        x2 = self.lrelu(self.conv2(torch.cat((x, x1), 1)))
        x3 = self.lrelu(self.conv3(torch.cat((x, x1, x2), 1)))
        x4 = self.lrelu(self.conv4(torch.cat((x, x1, x2, x3), 1)))
        x5 = self.conv5(torch.cat((x, x1, x2, x3, x4), 1))
        return x5 * 0.2 + x


class Residual(nn.Module):
    """Three dense blocks, called by the names of the code base."""

    def __init__(self, blocks: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, block in blocks.items():
            self.add_module(name, block)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for block in self.children():
            out = block(out)
        return out * 0.2 + x


class Shortcut(nn.Module):
    def __init__(self, sub: nn.Module) -> None:
        super().__init__()
        self.sub = sub

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sub(x)


class Old(nn.Module):
    """xinntao's first RRDBNet, and ESRGAN+: one long nn.Sequential called `model`."""

    def __init__(
        self,
        features: int,
        blocks: int,
        growth: int,
        scale: int,
        inputs: int,
        outputs: int,
        plus: bool = False,
    ) -> None:
        super().__init__()
        trunk = [
            Residual({f"RDB{number}": OldDense(features, growth, plus) for number in (1, 2, 3)})
            for _ in range(blocks)
        ]
        factors = {1: [], 2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]
        tail: list[nn.Module] = []
        for factor in factors:
            tail += [nn.Upsample(scale_factor=factor, mode="nearest"), conv(features, features), lrelu()]
        self.model = nn.Sequential(
            conv(inputs, features),
            Shortcut(nn.Sequential(*trunk, conv(features, features))),
            *tail,
            conv(features, features),
            lrelu(),
            conv(features, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class New(nn.Module):
    """xinntao's RRDBNet of 2019, ×4, and KAIR's of BSRGAN, which leaves upconv2 out at ×2."""

    def __init__(
        self, features: int, blocks: int, growth: int, scale: int, inputs: int, outputs: int
    ) -> None:
        super().__init__()
        self.scale = scale
        self.conv_first = conv(inputs, features)
        self.RRDB_trunk = nn.Sequential(
            *(
                Residual({f"RDB{number}": Dense(features, growth) for number in (1, 2, 3)})
                for _ in range(blocks)
            )
        )
        self.trunk_conv = conv(features, features)
        self.upconv1 = conv(features, features)
        if scale == 4:
            self.upconv2 = conv(features, features)
        self.HRconv = conv(features, features)
        self.conv_last = conv(features, outputs)
        self.lrelu = lrelu()

    def forward(self, x: Tensor) -> Tensor:
        fea = self.conv_first(x)
        fea = fea + self.trunk_conv(self.RRDB_trunk(fea))
        fea = self.lrelu(self.upconv1(F.interpolate(fea, scale_factor=2, mode="nearest")))
        if self.scale == 4:
            fea = self.lrelu(self.upconv2(F.interpolate(fea, scale_factor=2, mode="nearest")))
        return self.conv_last(self.lrelu(self.HRconv(fea)))


class BasicSR(nn.Module):
    """BasicSR's RRDBNet, Real-ESRGAN's and mmagic's: always ×4, with a pixel-unshuffle in front at ×2 and ×1."""

    def __init__(
        self, features: int, blocks: int, growth: int, scale: int, inputs: int, outputs: int
    ) -> None:
        super().__init__()
        self.fold = {1: 4, 2: 2, 4: 1}[scale]
        self.conv_first = conv(inputs * self.fold**2, features)
        self.body = nn.Sequential(
            *(
                Residual({f"rdb{number}": Dense(features, growth) for number in (1, 2, 3)})
                for _ in range(blocks)
            )
        )
        self.conv_body = conv(features, features)
        self.conv_up1 = conv(features, features)
        self.conv_up2 = conv(features, features)
        self.conv_hr = conv(features, features)
        self.conv_last = conv(features, outputs)
        self.lrelu = lrelu()

    def forward(self, x: Tensor) -> Tensor:
        feat = F.pixel_unshuffle(x, self.fold)
        feat = self.conv_first(feat)
        feat = feat + self.conv_body(self.body(feat))
        feat = self.lrelu(self.conv_up1(F.interpolate(feat, scale_factor=2, mode="nearest")))
        feat = self.lrelu(self.conv_up2(F.interpolate(feat, scale_factor=2, mode="nearest")))
        return self.conv_last(self.lrelu(self.conv_hr(feat)))


class SRVGGNetCompact(nn.Module):
    """Real-ESRGAN's and BasicSR's: one list of layers called `body`, run one after another."""

    def __init__(
        self, features: int, convolutions: int, scale: int, activation: str = "prelu", colours: int = 3
    ) -> None:
        super().__init__()
        self.scale = scale
        kinds = {
            "prelu": lambda: nn.PReLU(num_parameters=features),
            "relu": lambda: nn.ReLU(inplace=True),
            "leakyrelu": lambda: nn.LeakyReLU(negative_slope=0.1, inplace=True),
        }
        self.body = nn.ModuleList([conv(colours, features), kinds[activation]()])
        for _ in range(convolutions):
            self.body.append(conv(features, features))
            self.body.append(kinds[activation]())
        self.body.append(conv(features, colours * scale * scale))
        self.upsampler = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for layer in self.body:
            out = layer(out)
        out = self.upsampler(out)
        out += F.interpolate(x, scale_factor=self.scale, mode="nearest")
        return out


def dcgan_generator(layers: int, latent: int = 5, width: int = 4, channels: int = 3) -> nn.Module:
    """pytorch/examples' `netG`, of so many transposed convolutions (it has 5)."""
    made: list[nn.Module] = []
    inputs, outputs = latent, width * 2 ** (layers - 2)
    for number in range(layers - 1):
        stride, padding = (1, 0) if number == 0 else (2, 1)
        made += [
            nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(True),
        ]
        inputs, outputs = outputs, outputs // 2
    made += [nn.ConvTranspose2d(inputs, channels, 4, 2, 1, bias=False), nn.Tanh()]
    return Main(made)


def dcgan_discriminator(width: int = 4) -> nn.Module:
    """pytorch/examples' `netD`."""
    made: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), lrelu()]
    for factor in (1, 2, 4):
        made += [
            nn.Conv2d(width * factor, width * factor * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width * factor * 2),
            lrelu(),
        ]
    made += [nn.Conv2d(width * 8, 1, 4, 1, 0, bias=False), nn.Sigmoid()]
    return Main(made)


class Main(nn.Module):
    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.main = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)
