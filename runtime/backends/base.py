"""Engine, the base class of all backends' engines: one bundle's graph, loaded on one device.

`runtime.backends.open_engine` returns one; scheduler, build, evaluation and benchmarks call `run` with arrays and get
arrays back. The checks of inputs, outputs and precision are here; a backend implements `_run`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import numpy as np

from runtime.backends.precisions import SIGNIFICAND_BITS, is_allowed
from runtime.backends.shapes import warm_up_shapes
from runtime.bundle import Bundle
from runtime.errors import EngineError
from runtime.tensors import Array, Precision, zero_inputs


class Engine(ABC):
    """One bundle's graph, loaded on one device.

    device: "CPU" or "cuda:0". precision: the narrowest that any convolution or matrix product really runs in.
    slots: how many `run` calls may be in flight at once. batch_sizes: the batch sizes that the engine is prepared for,
    ascending; a batch is padded to the next of them, so that the library sees few shapes.
    min_precision: the lowest precision allowed by the operator; None for the bundle's own.
    """

    backend: str

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str,
        precision: Precision,
        slots: int,
        batch_sizes: tuple[int, ...],
        min_precision: Precision | None = None,
    ) -> None:
        """Raises EngineError if `precision` is below what the bundle and the operator allow."""
        if not is_allowed(precision, bundle.manifest.precision, min_precision):
            raise EngineError(
                f"{bundle.manifest.name}: {self.backend} computes in {precision} "
                f"({SIGNIFICAND_BITS[precision]} significand bits), the bundle needs {bundle.manifest.precision} "
                f"({SIGNIFICAND_BITS[bundle.manifest.precision]}); take another backend, or allow it with "
                f"--min-precision {precision}"
            )
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.device = device
        self.precision = precision
        self.slots = slots
        self.batch_sizes = batch_sizes
        self._closed = False

    @property
    def warm_seconds_per_px(self) -> float | None:
        """Seconds for each pixel of an item, as timed after the warm-up; None if they were not."""
        return None

    @property
    def slots_by_device(self) -> Mapping[str, int]:
        """How many `run` calls may be in flight at once, on each device."""
        return {self.device: self.slots}

    @property
    def unavailable(self) -> str | None:
        """Why no device can run it now; None if one can. Only an engine that heals itself knows (runtime/healing.py)."""
        return None

    @property
    def max_batch(self) -> int:
        """The longest batch that `run` takes."""
        return self.batch_sizes[-1]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch, at most `max_batch` long. Safe to call from `slots` threads at once.

        inputs: one array [N, …] per graph input, in the dtype and shape of the manifest.
        Returns one float32 array [N, …] per graph output, owned by the caller.
        Raises EngineError if an input has another dtype or shape, an output has another shape or is not finite, or the
        engine is closed.
        """
        if self._closed:
            raise EngineError(f"{self.manifest.name}: the engine is closed")
        self._check(inputs)
        count = len(next(iter(inputs.values())))
        size = next(size for size in self.batch_sizes if size >= count)
        outputs = self._run({name: _pad(array, size) for name, array in inputs.items()})
        outputs = {name: array[:count] for name, array in outputs.items()}
        self._check_shapes(outputs, inputs)
        for name, array in outputs.items():
            # The sum is not finite if any value is not, and needs no second array.
            if not np.isfinite(array.sum(dtype=np.float64)):
                raise EngineError(
                    f"{self.manifest.name}: output {name!r} holds NaN or infinity in {self.precision}"
                )
        return outputs

    @abstractmethod
    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run a checked batch whose size is one of `batch_sizes`."""

    def warm_up(self) -> None:
        """Run every common input shape once, so that no request pays for a shape's slow first run."""
        for batch, side_px in warm_up_shapes(self.manifest, self.batch_sizes):
            self.run(zero_inputs(self.manifest.inputs, batch=batch, height=side_px, width=side_px))

    def wider(self) -> Callable[[], Engine] | None:
        """Opens the same bundle on the same device in a wider precision, when called; None if the backend cannot."""
        return None

    def close(self) -> None:
        """Free the device's memory. Later calls of `run` raise EngineError; closing again does nothing."""
        self._closed = True

    def _check(self, inputs: Mapping[str, Array]) -> None:
        specs = {spec.name: spec for spec in self.manifest.inputs}
        if inputs.keys() != specs.keys():
            raise EngineError(f"{self.manifest.name}: got inputs {sorted(inputs)}, expected {sorted(specs)}")
        for name, spec in specs.items():
            array = inputs[name]
            fits = array.ndim == len(spec.shape) and all(
                length > 0 if isinstance(axis, str) else length == axis
                for length, axis in zip(array.shape, spec.shape, strict=True)
            )
            if not fits or array.dtype != spec.dtype:
                raise EngineError(
                    f"{self.manifest.name}: input {name!r} is {array.dtype}{list(array.shape)}, "
                    f"expected {spec.dtype}{list(spec.shape)}"
                )
        counts = {name: len(array) for name, array in inputs.items()}
        if len(set(counts.values())) > 1 or max(counts.values()) > self.max_batch:
            raise EngineError(
                f"{self.manifest.name}: batch lengths {counts}, expected one length of at most {self.max_batch}"
            )

    def _check_shapes(self, outputs: Mapping[str, Array], inputs: Mapping[str, Array]) -> None:
        """Raises EngineError if an output does not have the manifest's fixed axes, or a picture not its scale."""
        height_width = inputs[self.manifest.inputs[0].name].shape[2:]  # () for samples
        for spec in self.manifest.outputs:
            shape = outputs[spec.name].shape
            sides = tuple(side * self.manifest.scale for side in height_width) or spec.shape[2:]
            expected = (*spec.shape[:2], *sides)
            fits = len(shape) == len(expected) and all(
                length == axis for length, axis in zip(shape, expected, strict=True) if isinstance(axis, int)
            )
            if not fits:
                raise EngineError(
                    f"{self.manifest.name}: output {spec.name!r} is {list(shape)}, expected {list(expected)} "
                    f"(scale {self.manifest.scale}); the manifest does not fit the graph, build the bundle again"
                )


def _pad(array: Array, size: int) -> Array:
    """[n, …] → [size, …], zeros appended."""
    if len(array) == size:
        return array
    padded = np.zeros((size, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded
