"""Batch-norm statistics of a network whose weights did not come straight from training.

Training calls it for the averaged generator that it exports, evaluation for the untrained network it compares with.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def recalibrate_batch_norm(module: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> nn.Module:
    """Measure batch norm's running means and variances afresh over `batches`; returns `module`, in eval mode.

    batches: the module's inputs, a tuple of tensors each. A module without batch norm takes none of them.

    The average of many generators' statistics is not the statistics of the averaged generator, and a server
    normalises by the latter ("precise batch norm", Wu and Johnson 2021, arXiv 2105.07576).
    torch.optim.swa_utils.update_bn does the same for data loaders of one input, and puts the module back in the mode
    it was in; generators may take a latent and a label.
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
