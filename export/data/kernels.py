"""Blur kernels of Real-ESRGAN's degradation (Wang et al. 2021, arXiv 2107.10833, section 3.1). degradation.py draws them.

Every kernel is [side, side] float32 with the sum 1. `side` is odd, in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

# A shape of kernel → the value at squared distance d² (in units of sigma), for an exponent beta.
PROFILES: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "gaussian": lambda d2, beta: torch.exp(-0.5 * d2),
    "generalised": lambda d2, beta: torch.exp(-0.5 * d2**beta),
    "plateau": lambda d2, beta: 1 / (d2**beta + 1),
}


def blur(profile: str, side: int, sigma: tuple[float, float], turn: float = 0.0, beta: float = 1.0) -> Tensor:
    """A kernel of one of PROFILES. sigma: of its two axes, in pixels; equal ones make it isotropic.

    turn: angle of the first axis, in radians. beta: exponent of the generalised and the plateau shape.
    """
    offset = torch.arange(side, dtype=torch.float64) - side // 2
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    kernel = PROFILES[profile]((along / sigma[0]) ** 2 + (across / sigma[1]) ** 2, beta)
    return (kernel / kernel.sum()).float()


def sinc(side: int, cutoff: float) -> Tensor:
    """An ideal low-pass filter, which rings at edges as sharpening and scaling do. cutoff: in (0, π], radians a pixel."""
    offset = torch.arange(side, dtype=torch.float64) - side // 2
    radius = torch.sqrt(offset[:, None] ** 2 + offset[None] ** 2)
    radius[side // 2, side // 2] = 1.0
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[side // 2, side // 2] = cutoff**2 / (4 * math.pi)
    return (kernel / kernel.sum()).float()


def random_side(random: np.random.Generator) -> int:
    """7, 9 … 21 px, each as often."""
    return 7 + 2 * int(random.integers(8))


def random_sinc(random: np.random.Generator) -> Tensor:
    side = random_side(random)
    least = math.pi / 3 if side < 13 else math.pi / 5
    return sinc(side, float(random.uniform(least, math.pi)))
