"""Bundles whose versions can be told apart: a version paints every picture in its own level of grey. No engine library."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from runtime.backends.base import Engine
from runtime.bundle import GRAPH, Bundle, Writer
from runtime.errors import EngineError
from runtime.manifest import Manifest
from runtime.tensors import Array, TensorSpec
from tests.server.conftest import HALO, SCALE, TILE, FakeEngine

IMAGE = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
UPSCALED = TensorSpec("upscaled", "float32", ("N", 3, "SH", "SW"), (0.0, 1.0))


def write_version(folder: Path, level: int, name: str = "upscaler") -> Bundle:
    """Write the version that paints in `level`, in place of the one that is there."""
    manifest = Manifest(
        name,
        "upscale",
        "float32",
        (IMAGE,),
        (UPSCALED,),
        SCALE,
        1,
        (TILE,),
        HALO,
        weights={"level": str(level)},
    )
    with Writer(folder, name) as writer:
        graph = onnx.ModelProto(producer_name=str(level))
        (writer.path / GRAPH).write_bytes(graph.SerializeToString())
        return writer.commit(manifest)


class Painter(FakeEngine):
    """The engine of such a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.manifest)
        self.bundle = bundle
        self.level = int(bundle.manifest.weights["level"])
        self.closed = threading.Event()

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        count, _, height, width = inputs["image"].shape
        return {"upscaled": np.full((count, 3, height * SCALE, width * SCALE), self.level / 255, np.float32)}

    def close(self) -> None:
        super().close()
        self.closed.set()


@dataclass
class Opener:
    """Opens bundles as Painters. gate: openings wait while it is cleared. broken: levels that cannot be opened."""

    engines: list[Painter] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    broken: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, bundle: Bundle) -> tuple[Engine, str]:
        self.entered.set()
        assert self.gate.wait(30)
        if int(bundle.manifest.weights["level"]) in self.broken:
            raise EngineError(f"{bundle.manifest.name}: does not compile")
        self.engines.append(Painter(bundle))
        return self.engines[-1], "painted"

    def opened(self, level: int) -> list[Painter]:
        """The engines that were opened for a version."""
        return [engine for engine in self.engines if engine.level == level]
