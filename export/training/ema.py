"""The averaged generator: the one whose samples are shown and whose weights are exported."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Average:
    """An exponential moving average of a module's parameters and floating-point buffers.

    The decay ramps up from 0, so that the first steps do not keep the random start in the average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.module.state_dict().values(), module.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)


@torch.no_grad()
def settle_batch_norm(module: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> nn.Module:
    """Measure batch norm's running statistics afresh over `batches` of the module's inputs; gives it back in eval mode.

    The average of many generators' statistics is not the statistics of the averaged generator, and a server
    normalises by the latter ("precise batch norm", Wu and Johnson 2021, arXiv 2105.07576). Without batch norm, no
    batch is asked for.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    for inputs in batches if norms else ():
        module(*inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return module.eval()
