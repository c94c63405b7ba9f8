"""Tests that rewritten layers compute the same as torch's, for layers of any shape."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from export import families
from export.build.graph import example, free_axes
from export.build.rewrite import fold, phases, pixel_product, rewrite
from tests.export.lively import lively

# Float32 sums of a few hundred products of standard normals, in another order.
CLOSE = 2e-5


@st.composite
def layers(draw: st.DrawFn) -> nn.ConvTranspose2d:
    """Transposed convolutions, square or not."""

    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    groups = draw(st.sampled_from((1, 2)))
    stride, dilation = pair(1, 4), pair(1, 2)
    most = [max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)]
    return nn.ConvTranspose2d(
        2 * groups,
        3 * groups,
        pair(1, 6),
        stride,
        pair(0, 3),
        (draw(st.integers(0, most[0])), draw(st.integers(0, most[1]))),
        groups,
        draw(st.booleans()),
        dilation,
    )


def outcome(layer: nn.Module, x: Tensor) -> Tensor | None:
    """What the layer gives, None where its output would be empty and torch refuses."""
    try:
        y: Tensor = layer(x)
    except RuntimeError:
        return None
    return y if y.numel() else None


@settings(max_examples=150)
@given(layer=layers(), height=st.integers(1, 7), width=st.integers(1, 7))
def test_phases_equal_the_transposed_convolution(layer: nn.ConvTranspose2d, height: int, width: int) -> None:
    x = torch.randn(2, layer.in_channels, height, width)
    expected = outcome(layer, x)
    if expected is not None:
        torch.testing.assert_close(phases(layer)(x), expected, rtol=0, atol=CLOSE)


@settings(max_examples=100)
@given(layer=layers())
def test_a_single_pixel_becomes_a_matrix_product(layer: nn.ConvTranspose2d) -> None:
    x = torch.randn(3, layer.in_channels, 1, 1)
    expected = outcome(layer, x)
    if expected is not None:
        torch.testing.assert_close(pixel_product(layer)(x), expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize(
    ("kernel", "padding", "output_padding", "taps"), [(4, 1, 0, 2), (5, 2, 1, 3), (2, 0, 0, 1), (3, 1, 1, 2)]
)
def test_no_more_taps_than_needed(kernel: int, padding: int, output_padding: int, taps: int) -> None:
    """Zeros in the kernel would cost as much as weights."""
    layer = nn.ConvTranspose2d(1, 1, kernel, 2, padding, output_padding)
    assert phases(layer).convolution.kernel_size == (taps, taps)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Conv2d(4, 6, 3, bias=False),
        nn.ConvTranspose2d(4, 6, 4, 2, 1, groups=2),
        nn.ConvTranspose2d(4, 6, 4, 2, 1, bias=False),
    ],
    ids=lambda layer: f"{type(layer).__name__}-{layer.groups}-{layer.bias is not None}",
)
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_folds(layer: Any, affine: bool) -> None:
    norm = busy_norm(6, affine=affine)
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(fold(layer, norm)(x), norm(layer(x)), rtol=0, atol=CLOSE)


def test_batch_norm_with_nothing_in_front_stays_a_scale_and_shift() -> None:
    module = nn.Sequential(nn.ReLU(), busy_norm(3))
    rewritten = rewrite(module.eval())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in rewritten.modules())
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(rewritten(x), module(x), rtol=0, atol=CLOSE)


def test_a_layer_used_twice_keeps_its_weights() -> None:
    """Folding batch norm into a shared convolution must not change its other use."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(3, 3, 4, 2, 1)
            self.normed = nn.Sequential(self.up, busy_norm(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.up(x) + self.normed(x)

    module = Shared().eval()
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(rewrite(module)(x), module(x), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", families.names())
def test_rewritten_generators_compute_the_same_and_the_originals_stay(name: str) -> None:
    spec = families.get(name)
    signature, module = spec.signature(spec.tiny), lively(spec)
    before = copy.deepcopy(module.state_dict())
    fixed = None if free_axes(signature) else example(signature, batch=2)
    rewritten = rewrite(module, fixed)
    assert not any(isinstance(m, nn.ConvTranspose2d | nn.BatchNorm2d) for m in rewritten.modules())
    inputs = example(signature, batch=3, height=8, width=12)
    with torch.inference_mode():
        torch.testing.assert_close(rewritten(*inputs), module(*inputs), rtol=0, atol=CLOSE)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])


def busy_norm(channels: int, *, affine: bool = True) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, affine=affine).eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm
