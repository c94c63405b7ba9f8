"""Puts a module at the precision of its bundle: the build's second step.

Weights and arithmetic are float16 or bfloat16 inside; images, latents and outputs stay float32, labels int64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from runtime.tensors import Precision

TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class CastAtEnds(nn.Module):
    """A module in `dtype` that takes and gives float32: a cast at each end. Labels (int64) pass as they are."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> Tensor:
        cast = [x.to(self.dtype) if x.is_floating_point() else x for x in inputs]
        return self.module(*cast).to(torch.float32)


def at_precision(module: nn.Module, precision: Precision) -> nn.Module:
    """`module` (float32) with its weights and arithmetic at `precision`, its inputs and outputs as they were."""
    return module if precision == "float32" else CastAtEnds(module, TORCH[precision])
