"""What a network costs: its parameters, and its multiplications for each pixel or sample. inspect and a test of the table in
export/models/README.md call it.

Networks are counted as outlines on the meta device, so that counting takes neither memory nor time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from export.families.spec import Spec

SIDE_PX = 256  # of the picture that is counted; a multiple of every family's size rule
FLOPS_A_MAC = 2  # torch counts a multiplication and its addition as two


@dataclass(frozen=True)
class Cost:
    """parameters: trained ones, without batch norm's statistics. mmac: million multiply-accumulate operations of the
    convolutions and linear layers. per: what these are for, "input pixel" or "sample".
    """

    parameters: int
    mmac: float
    per: str

    def __str__(self) -> str:
        return f"{self.mmac:.2f} MMAC per {self.per}"


def count(spec: Spec, config: Any, outline: nn.Module) -> Cost:
    """The cost of a network. outline: the module of `config` on the meta device, as `checkpoint.outline` makes it."""
    signature = spec.signature(config)
    sizes = {"N": 1, "H": SIDE_PX, "W": SIDE_PX}
    inputs = [
        torch.empty(
            [sizes[axis] if isinstance(axis, str) else axis for axis in tensor.shape],
            dtype=getattr(torch, tensor.dtype), device="meta",
        )
        for tensor in signature.inputs
    ]  # fmt: skip
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outline.eval()(*inputs)
    whole_picture = any("H" in tensor.shape for tensor in signature.inputs)
    pixels = SIDE_PX**2 if whole_picture else 1
    return Cost(
        parameters=sum(parameter.numel() for parameter in outline.parameters()),
        mmac=counter.get_total_flops() / FLOPS_A_MAC / pixels / 1e6,
        per="input pixel" if whole_picture else "sample",
    )
