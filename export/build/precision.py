"""Converts a module to the precision of its bundle: the build's second step.

Weights and arithmetic become float16 or bfloat16; images, latents and outputs stay float32, labels int64. pipeline.py calls
`at_precision`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from runtime.tensors import Precision

TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class CastAtEnds(nn.Module):
    """A module in `dtype` whose inputs and outputs are float32: they are cast. Labels (int64) are not."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> Tensor:
        cast = [x.to(self.dtype) if x.is_floating_point() else x for x in inputs]
        return self.module(*cast).to(torch.float32)


def at_precision(module: nn.Module, precision: Precision) -> nn.Module:
    """`module` (float32) with weights and arithmetic in `precision` and its old inputs and outputs. `module` itself changes."""
    return module if precision == "float32" else CastAtEnds(module, TORCH[precision])
