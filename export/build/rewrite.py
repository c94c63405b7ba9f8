"""Rewrites a network into layers that every library runs fast, without changing what it computes. pipeline.py calls `rewrite`.

- A batch norm in eval mode is a scale and a shift of each channel. It is folded into the convolution or linear
  layer in front of it, and where there is none it stays as that scale and shift.
- A transposed convolution of stride s is an ordinary convolution that computes all s×s phases of the output as
  channels, and a pixel shuffle that puts them in their places (Shi et al. 2016, arXiv 1609.07009). It is exact: the
  same products, summed in another order. Libraries run it several times faster, and TensorRT-RTX refuses transposed
  convolutions in bfloat16 altogether.
- A transposed convolution over a single pixel is a matrix product.

All of it happens in float32 (the arithmetic on weights in float64), before any cast to a narrower type.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
Foldable = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def rewrite(module: nn.Module, example: tuple[Tensor, ...] | None = None) -> nn.Module:
    """A copy of `module` (eval mode, float32) that computes the same without batch norm and transposed convolutions.

    example: inputs, if all their sizes but the batch are fixed: transposed convolutions that see a single pixel then become
    matrix products. None if height and width vary.
    """
    module = copy.deepcopy(module)
    holder = nn.Sequential(module)  # so that a module which is itself a layer can be replaced
    _fold_sequences(holder)
    pixels = _over_one_pixel(holder[0], example) if example is not None else set()
    replacements: dict[nn.Module, nn.Module] = {}
    for layer in holder.modules():
        if getattr(layer, "inplace", False):
            # An in-place layer after a crop would be exported as ScatterND, which is slow.
            vars(layer)["inplace"] = False
        if isinstance(layer, nn.ConvTranspose2d):
            replacements[layer] = pixel_product(layer) if layer in pixels else phases(layer)
        elif isinstance(layer, BatchNorm) and layer.running_mean is not None:
            replacements[layer] = Affine(*scale_and_shift(layer))
    _replace(holder, replacements)
    return holder[0].eval()


class Affine(nn.Module):
    """x · scale + shift, with a scale and a shift for each channel. [N, C, …] → the same shape."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale.float(), requires_grad=False)
        self.shift = nn.Parameter(shift.float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return x * self.scale.view(shape) + self.shift.view(shape)


class Phases(nn.Module):
    """A transposed convolution as pad, convolution, pixel shuffle and crop. [N, in, H, W] → [N, out, H', W'].

    padding, crop: (left, right, top, bottom) in pixels; negative padding cuts.
    """

    def __init__(
        self, convolution: nn.Conv2d, stride: tuple[int, int], padding: tuple[int, ...], crop: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.stride = stride
        self.padding = padding
        self.crop = crop

    def forward(self, x: Tensor) -> Tensor:
        if any(self.padding):
            x = F.pad(x, self.padding)
        x = shuffle(self.convolution(x), self.stride)
        left, right, top, bottom = self.crop
        if any(self.crop):
            x = x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]
        return x


class PixelProduct(nn.Module):
    """A transposed convolution over one pixel as a matrix product. [N, in, 1, 1] → [N, out, H', W']."""

    def __init__(self, linear: nn.Linear, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = linear
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return torch.unflatten(self.linear(torch.flatten(x, 1)), 1, self.shape)


def shuffle(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """[N, C·sh·sw, H, W] → [N, C, sh·H, sw·W]."""
    if stride[0] == stride[1]:
        return F.pixel_shuffle(x, stride[0]) if stride[0] > 1 else x
    x = torch.unflatten(x, 1, (-1, *stride)).permute(0, 1, 4, 2, 5, 3)  # [N, C, H, sh, W, sw]
    return x.flatten(4, 5).flatten(2, 3)


@dataclass(frozen=True)
class Axis:
    """How one axis of a transposed convolution splits into phases. All in pixels.

    taps[r]: for output phase r, kernel index → tap of the ordinary convolution. length: how many taps it has.
    before, after: padding of the input. cut_before, cut_after: what is cut from the shuffled output.
    """

    taps: tuple[Mapping[int, int], ...]
    length: int
    before: int
    after: int
    cut_before: int
    cut_after: int


def split(kernel: int, stride: int, padding: int, output_padding: int, dilation: int) -> Axis:
    """Split one axis of a transposed convolution of these settings into its phases.

    Input i and tap k meet at output o = i·s - p + k·d. Written o + cut = q·s + r, phase r of the convolution's output
    q takes tap k from input q + (r + p - cut - k·d)/s, where that is whole. Of the s possible cuts, the one with
    the fewest taps is taken: the taps a phase does not use are zeros that cost time.
    """
    candidates = [_split(kernel, stride, padding, output_padding, dilation, cut) for cut in range(stride)]
    return min(candidates, key=lambda axis: (axis.length, axis.cut_before))


def _split(kernel: int, stride: int, padding: int, output_padding: int, dilation: int, cut: int) -> Axis:
    offsets: list[dict[int, int]] = []
    for phase in range(stride):
        reach = phase + padding - cut
        offsets.append(
            {
                k: (reach - k * dilation) // stride
                for k in range(kernel)
                if not (reach - k * dilation) % stride
            }
        )
    used = [offset for phase in offsets for offset in phase.values()]
    first, length = min(used), max(used) - min(used) + 1
    # H' = (H - 1)·s + grown; the convolution must give enough rows to cover H' and what is cut before it.
    grown = dilation * (kernel - 1) + 1 + output_padding - 2 * padding
    extra_rows = -(-(grown + cut) // stride) - 1  # rows of the convolution's output beyond H
    return Axis(
        taps=tuple({k: offset - first for k, offset in phase.items()} for phase in offsets),
        length=length,
        before=-first,
        after=extra_rows + first + length - 1,
        cut_before=cut,
        cut_after=(extra_rows + 1) * stride - grown - cut,
    )


def _axis(layer: nn.ConvTranspose2d, i: int) -> Axis:
    padding = layer.padding[i]
    assert isinstance(padding, int), "only ordinary convolutions take padding by name"
    return split(layer.kernel_size[i], layer.stride[i], padding, layer.output_padding[i], layer.dilation[i])


def phases(layer: nn.ConvTranspose2d) -> Phases:
    """The transposed convolution `layer` as an ordinary convolution and a pixel shuffle, exactly."""
    rows, columns = (_axis(layer, i) for i in (0, 1))
    groups, (sh, sw) = layer.groups, layer.stride
    narrow_in, narrow_out = layer.in_channels // groups, layer.out_channels // groups
    # [in, out/g, kh, kw] → [out, in/g, kh, kw]
    kernel = layer.weight.detach().unflatten(0, (groups, narrow_in)).transpose(1, 2).flatten(0, 1)
    weight = kernel.new_zeros(layer.out_channels, sh, sw, narrow_in, rows.length, columns.length)
    for r, row_taps in enumerate(rows.taps):
        for c, column_taps in enumerate(columns.taps):
            for k, to_row in row_taps.items():
                for j, to_column in column_taps.items():
                    weight[:, r, c, :, to_row, to_column] = kernel[:, :, k, j]
    symmetric = rows.before == rows.after >= 0 and columns.before == columns.after >= 0
    convolution = nn.Conv2d(
        layer.in_channels,
        narrow_out * groups * sh * sw,
        (rows.length, columns.length),
        padding=(rows.before, columns.before) if symmetric else 0,
        groups=groups,
        bias=layer.bias is not None,
    )
    convolution.weight = nn.Parameter(weight.flatten(0, 2), requires_grad=False)
    if layer.bias is not None:
        convolution.bias = nn.Parameter(layer.bias.detach().repeat_interleave(sh * sw), requires_grad=False)
    padding = (0, 0, 0, 0) if symmetric else (columns.before, columns.after, rows.before, rows.after)
    crop = (columns.cut_before, columns.cut_after, rows.cut_before, rows.cut_after)
    return Phases(convolution, (sh, sw), padding, crop)


def pixel_product(layer: nn.ConvTranspose2d) -> PixelProduct:
    """The transposed convolution `layer`, given one pixel at a time, as a matrix product."""
    with torch.no_grad():
        # What each input channel alone gives is a row of the matrix, and the bias comes on top.
        alone = copy.deepcopy(layer)
        alone.bias = None
        responses = alone(torch.eye(layer.in_channels)[:, :, None, None])  # [in, out, H', W']
        linear = nn.Linear(layer.in_channels, responses[0].numel(), bias=layer.bias is not None)
        linear.weight.copy_(responses.flatten(1).T)
        if layer.bias is not None:
            linear.bias.copy_(layer.bias.repeat_interleave(responses[0, 0].numel()))
    return PixelProduct(linear, tuple(responses.shape[1:]))


def scale_and_shift(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """The scale and shift that a batch norm applies to each channel in eval mode, both [C] float64.

    Raises ValueError if it keeps no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("the batch norm keeps no running statistics, so it is no fixed scale and shift")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    return scale.detach(), shift.detach()


def fold(layer: Foldable, norm: BatchNorm) -> Foldable:
    """A copy of `layer` that does what `layer` followed by `norm` does."""
    scale, shift = scale_and_shift(norm)
    folded = copy.deepcopy(layer)
    weight = layer.weight.detach().double()
    if isinstance(layer, nn.ConvTranspose2d):  # [in, out/g, kh, kw], input channels ordered by group
        weight = weight.unflatten(0, (layer.groups, -1)) * scale.view(layer.groups, 1, -1, 1, 1)
        weight = weight.flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *(1,) * (weight.dim() - 1))
    bias = shift if layer.bias is None else layer.bias.detach().double() * scale + shift
    folded.weight = nn.Parameter(weight.float(), requires_grad=False)
    folded.bias = nn.Parameter(bias.float(), requires_grad=False)
    return folded


def _fold_sequences(module: nn.Module) -> None:
    """Fold each batch norm that directly follows a convolution or linear layer in an nn.Sequential.

    Only there does the order of the modules say the order of the work.
    """
    for sequence in [layer for layer in module.modules() if isinstance(layer, nn.Sequential)]:
        for i in range(len(sequence) - 1):
            layer, norm = sequence[i], sequence[i + 1]
            if isinstance(layer, Foldable) and isinstance(norm, BatchNorm) and norm.running_mean is not None:
                sequence[i], sequence[i + 1] = fold(layer, norm), nn.Identity()


def _over_one_pixel(module: nn.Module, example: tuple[Tensor, ...]) -> set[nn.Module]:
    """The transposed convolutions of `module` that see nothing but single pixels when `example` is run."""
    seen: dict[nn.Module, bool] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[layer] = seen.get(layer, True) and inputs[0].shape[2:] == (1, 1)

    hooks = [m.register_forward_pre_hook(note) for m in module.modules() if isinstance(m, nn.ConvTranspose2d)]
    with torch.inference_mode():
        module(*example)
    for hook in hooks:
        hook.remove()
    return {layer for layer, single in seen.items() if single}


def _replace(module: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    for name, child in module.named_children():
        if child in replacements:
            module.register_module(name, replacements[child])
        else:
            _replace(child, replacements)
