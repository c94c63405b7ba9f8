"""Random weights whose outputs fill their range, as trained ones do: fresh ones give almost nothing but zeros."""

from __future__ import annotations

import torch
from torch import nn

from export.build.graph import example
from export.families.spec import Spec

# Spread of the last layer's output. Of an upscaler it is the picture itself; a sampler's goes through tanh.
SPREAD = 0.3


def lively(spec: Spec, seed: int = 0) -> nn.Module:
    """The generator's tiny configuration with every layer at work, in eval mode."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = spec.module(spec.tiny).eval()
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, a=0.5)
                if layer.bias is not None:
                    nn.init.normal_(layer.bias, 0.0, 0.05)
            elif (
                isinstance(layer, nn.BatchNorm2d)
                and layer.running_mean is not None
                and layer.running_var is not None
            ):
                nn.init.normal_(layer.running_mean, 0.0, 0.2)
                nn.init.uniform_(layer.running_var, 0.5, 2.0)
                nn.init.uniform_(layer.weight, 0.5, 1.5)
        _calibrate(module, spec)
    return module


def class_names(spec: Spec) -> tuple[str, ...]:
    return tuple(f"class{i}" for i in range(spec.signature(spec.tiny).classes))


def _calibrate(module: nn.Module, spec: Spec) -> None:
    """Scale the last convolution so that what it gives has the wanted spread."""
    last = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)][-1]
    spread: list[float] = []
    hook = last.register_forward_hook(lambda _module, _inputs, output: spread.append(float(output.std())))
    module(*example(spec.signature(spec.tiny), batch=2, height=16, width=16))
    hook.remove()
    last.weight *= SPREAD / spread[0]
