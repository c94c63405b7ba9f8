"""The generators and discriminators of pytorch-CycleGAN-and-pix2pix, written from its public code for tests to compare with.

They use nothing of export/. Names of attributes and the order of layers are that project's; so is the ReLU in place, which
changes what a skip carries.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class InstanceNormWithStatistics(nn.InstanceNorm2d):
    """As PyTorch before 0.4 had it: running statistics are kept, and never computed with."""

    def __init__(self, maps: int) -> None:
        super().__init__(maps)
        self.register_buffer("running_mean", torch.randn(maps))
        self.register_buffer("running_var", torch.rand(maps))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.instance_norm(x, eps=self.eps)


Norm = Callable[[int], nn.Module]
NORMS: dict[str, Norm] = {
    "instance": nn.InstanceNorm2d,
    "instance with statistics": InstanceNormWithStatistics,
    "batch": nn.BatchNorm2d,
}


class ResnetBlock(nn.Module):
    def __init__(self, dim: int, norm_layer: Norm, use_dropout: bool, use_bias: bool) -> None:
        super().__init__()
        conv_block: list[nn.Module] = [nn.ReflectionPad2d(1)]
        conv_block += [nn.Conv2d(dim, dim, 3, padding=0, bias=use_bias), norm_layer(dim), nn.ReLU(True)]
        if use_dropout:
            conv_block += [nn.Dropout(0.5)]
        conv_block += [nn.ReflectionPad2d(1)]
        conv_block += [nn.Conv2d(dim, dim, 3, padding=0, bias=use_bias), norm_layer(dim)]
        self.conv_block = nn.Sequential(*conv_block)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class ResnetGenerator(nn.Module):
    def __init__(
        self, input_nc: int, output_nc: int, ngf: int, norm: str, use_dropout: bool, n_blocks: int
    ) -> None:
        super().__init__()
        norm_layer, use_bias = NORMS[norm], norm != "batch"
        model: list[nn.Module] = [nn.ReflectionPad2d(3)]
        model += [nn.Conv2d(input_nc, ngf, 7, padding=0, bias=use_bias), norm_layer(ngf), nn.ReLU(True)]
        for i in range(2):
            mult = 2**i
            model += [nn.Conv2d(ngf * mult, ngf * mult * 2, 3, stride=2, padding=1, bias=use_bias)]
            model += [norm_layer(ngf * mult * 2), nn.ReLU(True)]
        model += [ResnetBlock(ngf * 4, norm_layer, use_dropout, use_bias) for _ in range(n_blocks)]
        for i in range(2):
            mult = 2 ** (2 - i)
            up = nn.ConvTranspose2d(
                ngf * mult, ngf * mult // 2, 3, stride=2, padding=1, output_padding=1, bias=use_bias
            )
            model += [up, norm_layer(ngf * mult // 2), nn.ReLU(True)]
        model += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, 7, padding=0), nn.Tanh()]
        self.model = nn.Sequential(*model)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class UnetSkipConnectionBlock(nn.Module):
    def __init__(
        self,
        outer_nc: int,
        inner_nc: int,
        norm: str,
        *,
        input_nc: int | None = None,
        submodule: nn.Module | None = None,
        outermost: bool = False,
        innermost: bool = False,
        use_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        norm_layer, use_bias = NORMS[norm], norm != "batch"
        downconv = nn.Conv2d(input_nc or outer_nc, inner_nc, 4, stride=2, padding=1, bias=use_bias)
        downrelu, downnorm = nn.LeakyReLU(0.2, True), norm_layer(inner_nc)
        uprelu, upnorm = nn.ReLU(True), norm_layer(outer_nc)
        model: list[nn.Module]
        if outermost:
            assert submodule is not None
            upconv = nn.ConvTranspose2d(inner_nc * 2, outer_nc, 4, stride=2, padding=1)
            model = [downconv, submodule, uprelu, upconv, nn.Tanh()]
        elif innermost:
            upconv = nn.ConvTranspose2d(inner_nc, outer_nc, 4, stride=2, padding=1, bias=use_bias)
            model = [downrelu, downconv, uprelu, upconv, upnorm]
        else:
            assert submodule is not None
            upconv = nn.ConvTranspose2d(inner_nc * 2, outer_nc, 4, stride=2, padding=1, bias=use_bias)
            model = [downrelu, downconv, downnorm, submodule, uprelu, upconv, upnorm]
            model += [nn.Dropout(0.5)] if use_dropout else []
        self.model = nn.Sequential(*model)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class UnetGenerator(nn.Module):
    def __init__(
        self, input_nc: int, output_nc: int, num_downs: int, ngf: int, norm: str, use_dropout: bool
    ) -> None:
        super().__init__()
        block = UnetSkipConnectionBlock(ngf * 8, ngf * 8, norm, innermost=True)
        for _ in range(num_downs - 5):
            block = UnetSkipConnectionBlock(ngf * 8, ngf * 8, norm, submodule=block, use_dropout=use_dropout)
        for outer, inner in ((4, 8), (2, 4), (1, 2)):
            block = UnetSkipConnectionBlock(ngf * outer, ngf * inner, norm, submodule=block)
        self.model = UnetSkipConnectionBlock(
            output_nc, ngf, norm, input_nc=input_nc, submodule=block, outermost=True
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class NLayerDiscriminator(nn.Module):
    def __init__(self, input_nc: int, ndf: int, norm: str, n_layers: int = 3) -> None:
        super().__init__()
        norm_layer, use_bias = NORMS[norm], norm != "batch"
        sequence: list[nn.Module] = [
            nn.Conv2d(input_nc, ndf, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, True),
        ]
        before = 1
        for n in range(1, n_layers + 1):
            mult, stride = min(2**n, 8), 2 if n < n_layers else 1
            sequence += [nn.Conv2d(ndf * before, ndf * mult, 4, stride=stride, padding=1, bias=use_bias)]
            sequence += [norm_layer(ndf * mult), nn.LeakyReLU(0.2, True)]
            before = mult
        sequence += [nn.Conv2d(ndf * before, 1, 4, stride=1, padding=1)]
        self.model = nn.Sequential(*sequence)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PixelDiscriminator(nn.Module):
    def __init__(self, input_nc: int, ndf: int, norm: str) -> None:
        super().__init__()
        use_bias = norm != "batch"
        self.net = nn.Sequential(
            nn.Conv2d(input_nc, ndf, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(ndf, ndf * 2, 1, bias=use_bias),
            NORMS[norm](ndf * 2),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(ndf * 2, 1, 1, bias=use_bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
