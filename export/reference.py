"""torch as an engine: the truth that every other engine is compared with, behind the same door."""

from __future__ import annotations

import torch
from torch import nn

from runtime.backends.base import Array, Engine
from runtime.bundle import Bundle
from runtime.tensors import Precision


class TorchEngine(Engine):
    """A torch module, run eagerly on the CPU. It takes any batch up to 64 as it is, unpadded."""

    backend = "torch"

    def __init__(self, bundle: Bundle, module: nn.Module, precision: Precision = "float32") -> None:
        super().__init__(bundle, device="CPU", precision=precision, slots=1, batch_sizes=tuple(range(1, 65)))
        self._module = module.eval()

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            # The module takes the signature's inputs by position, in order.
            output = self._module(*(torch.from_numpy(inputs[spec.name]) for spec in self.manifest.inputs))
        return {self.manifest.outputs[0].name: output.numpy()}
