"""Gives tests random weights whose outputs fill their range, as trained weights do; initial weights give almost only zeros."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.build.graph import example
from export.families.spec import Spec
from runtime.sides import side_of

# Spread of the last layer's output. Of an upscaler it is the picture itself; a sampler's goes through tanh.
SPREAD = 0.3
PX = 16  # side of the pictures on which the spread is measured, times the size rule


def lively(spec: Spec, seed: int = 0) -> nn.Module:
    """The generator's tiny configuration with every layer at work, in eval mode. For any module, of whatever layers."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = spec.module(spec.tiny).eval()
        for layer in module.modules():
            weight, bias = matrix(layer), getattr(layer, "bias", None)
            if weight is not None and not isinstance(layer, nn.Embedding):
                nn.init.kaiming_normal_(weight, a=0.5)
                if isinstance(bias, nn.Parameter):
                    nn.init.normal_(bias, 0.0, 0.05)
            elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
                fill_batch_norm(layer)
        calibrate(module, spec)
    return module


def class_names(spec: Spec) -> tuple[str, ...]:
    return tuple(f"class{i}" for i in range(spec.signature(spec.tiny).classes))


def matrix(layer: nn.Module) -> nn.Parameter | None:
    """The weight of a convolution, a linear layer, an embedding: what has more than one number a channel."""
    weight = getattr(layer, "weight", None)
    return weight if isinstance(weight, nn.Parameter) and weight.dim() >= 2 else None


def fill_batch_norm(layer: nn.modules.batchnorm._BatchNorm) -> None:
    if layer.running_mean is not None and layer.running_var is not None:
        nn.init.normal_(layer.running_mean, 0.0, 0.2)
        nn.init.uniform_(layer.running_var, 0.5, 2.0)
    if layer.affine:
        nn.init.uniform_(layer.weight, 0.5, 1.5)


def calibrate(module: nn.Module, spec: Spec) -> None:
    """Scale the layer that runs last so that what it gives has the wanted spread."""
    outputs: list[tuple[nn.Parameter | None, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, _inputs, output: outputs.append((matrix(layer), output)))
        for layer in module.modules()
        if matrix(layer) is not None
    ]
    signature = spec.signature(spec.tiny)
    side = side_of(signature, PX * signature.size_multiple)
    module(*example(signature, batch=2, height=side, width=side))
    for hook in hooks:
        hook.remove()
    if outputs:
        weight, output = outputs[-1]
        assert weight is not None
        weight.mul_(float(SPREAD / output.std()))
