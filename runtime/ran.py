"""Ran: which engines computed a request's items, and what was done to save the request when one of them failed.

The scheduler notes it on the request's stopwatch for each batch; server/core/calls.py puts it into the answer's Timing.
"""

from __future__ import annotations

from runtime.backends.precisions import narrowest
from runtime.tensors import Precision


class Ran:
    """The engines that computed one request. Written by the scheduler with its lock held; read after the request's jobs.

    recovered: what was done after failures, each once, in order, e.g. "retried on a fresh engine" or "float32 instead of
    float16".
    """

    def __init__(self) -> None:
        self._backends: dict[str, None] = {}  # in order, each once
        self._devices: dict[str, None] = {}
        self._precisions: set[Precision] = set()
        self.recovered: dict[str, None] = {}

    def note(self, backend: str, device: str, precision: Precision) -> None:
        """Note an engine that computed items of the request."""
        self._backends[backend] = self._devices[device] = None
        self._precisions.add(precision)

    @property
    def backend(self) -> str:
        """The backends' names, separated by commas; empty if nothing ran."""
        return ",".join(self._backends)

    @property
    def device(self) -> str:
        """The devices, separated by commas; empty if nothing ran."""
        return ",".join(self._devices)

    @property
    def precision(self) -> Precision | None:
        """The narrowest precision that any item was computed in; None if nothing ran."""
        return narrowest(self._precisions) if self._precisions else None
