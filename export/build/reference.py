"""torch as an engine: the truth that every other engine is compared with, behind the same door."""

from __future__ import annotations

import torch
from torch import nn

from export.checkpoints.checkpoint import Checkpoint
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.manifest import Manifest
from runtime.tensors import Array, Precision


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


def first_manifest(checkpoint: Checkpoint, *, name: str, precision: Precision) -> Manifest:
    """What is known of a generator before anything was built or measured."""
    signature = checkpoint.spec.signature(checkpoint.config)
    return Manifest(
        name=name,
        task=checkpoint.spec.task,
        precision=precision,
        inputs=signature.inputs,
        outputs=signature.outputs,
        scale=signature.scale,
        size_multiple=signature.size_multiple,
        latent_size=signature.latent_size,
        tiled=signature.tiled,
        classes=signature.classes,
        class_names=checkpoint.class_names,
        weights={"source": checkpoint.source, "sha256": checkpoint.sha256}
        | ({"tensor_names": checkpoint.naming} if checkpoint.naming else {}),
    )
