"""A torch module behind the interface of an engine (TorchEngine), so that others can be compared with it.

The build's tile search and verification use it, and the evaluation and interpolation of checkpoints.
"""

from __future__ import annotations

import torch
from torch import nn

from export.checkpoints.checkpoint import Checkpoint
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import EngineError
from runtime.manifest import Manifest
from runtime.tensors import Array, Precision

CPU = torch.device("cpu")


class TorchEngine(Engine):
    """Runs a torch module eagerly on `device`, with any batch up to 64, unpadded.

    module: takes the inputs of the bundle's manifest by position, in order. `run` raises EngineError where a layer does not
    take the inputs' size.
    """

    backend = "torch"

    def __init__(
        self,
        bundle: Bundle,
        module: nn.Module,
        precision: Precision = "float32",
        device: torch.device = CPU,
    ) -> None:
        name = "CPU" if device == CPU else str(device)
        super().__init__(bundle, device=name, precision=precision, slots=1, batch_sizes=tuple(range(1, 65)))
        self._device, self._module = device, module.eval().to(device)

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        # The module takes the signature's inputs by position, in order.
        tensors = [torch.from_numpy(inputs[spec.name]).to(self._device) for spec in self.manifest.inputs]
        try:
            with torch.inference_mode():
                output = self._module(*tensors)
        except (RuntimeError, ValueError) as error:  # what torch raises for a size that a layer does not take
            shapes = {name: list(array.shape) for name, array in inputs.items()}
            raise EngineError(f"{self.manifest.name} cannot run inputs {shapes} in torch: {error}") from error
        return {self.manifest.outputs[0].name: output.cpu().numpy()}


def first_manifest(checkpoint: Checkpoint, *, name: str, precision: Precision) -> Manifest:
    """The manifest of a generator before anything was built or measured."""
    signature = checkpoint.spec.signature(checkpoint.config)
    return Manifest(
        name=name,
        task=checkpoint.spec.task,
        precision=precision,
        inputs=signature.inputs,
        outputs=signature.outputs,
        scale=signature.scale,
        size_multiple=signature.size_multiple,
        least_side_px=signature.least_side_px,
        padding=signature.padding,
        latent_size=signature.latent_size,
        tiled=signature.tiled,
        classes=signature.classes,
        class_names=checkpoint.class_names,
        weights={"source": checkpoint.source, "sha256": checkpoint.sha256}
        | ({"tensor_names": checkpoint.naming} if checkpoint.naming else {}),
    )
