"""Measures batch-norm statistics again (`recalibrate_batch_norm`) for a network that has none that fit its weights.

The training loop calls it for the averaged generator that it exports, the evaluation for an untrained generator.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def recalibrate_batch_norm(module: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> nn.Module:
    """Replace batch norm's running means and variances by those over `batches`. Returns `module`, in eval mode.

    batches: the module's inputs, a tuple of tensors each; not used if the module has no batch norm.

    Averaging statistics over training does not give the statistics of the averaged weights, and a server needs the latter
    ("precise batch norm", Wu and Johnson 2021, arXiv 2105.07576). torch.optim.swa_utils.update_bn does the same, but only
    for networks with one input; generators may take a latent and a label.
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
