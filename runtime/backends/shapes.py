"""The batch sizes and input sizes that an engine is prepared for, by kind of device and kind of item.

Backends call `batch_sizes` when they open an engine; `Engine.warm_up` runs the shapes of `warm_up_shapes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Literal

from runtime import tasks
from runtime.manifest import Manifest
from runtime.sides import side_of
from runtime.tasks import ItemKind

DeviceKind = Literal["cpu", "cuda"]
# Batching tiles makes a GPU faster, but not a CPU. Samples are small and profit on both. Whole pictures vary in size.
BATCH_SIZES: Mapping[DeviceKind, Mapping[ItemKind, tuple[int, ...]]] = {
    "cpu": {"tiles": (1,), "whole": (1,), "samples": (1, 2, 4, 8, 16, 32, 64)},
    "cuda": {"tiles": (1, 2, 4, 8), "whole": (1,), "samples": (1, 2, 4, 8, 16, 32, 64)},
}
# 64 feature maps of this many output pixels stay below 2^31 values. Beyond that, GPU kernels need 64-bit indices.
MAX_OUTPUT_PX = 4096 * 4096
# Sides in input pixels: of a tile before the build has chosen one, and of the warm-up picture of a model that takes
# whole pictures.
DEFAULT_TILE_PX = 192
WARM_UP_SIDE_PX = 64


def largest_tile_px(manifest: Manifest) -> int:
    """The side of the largest tile, in input pixels."""
    return max(manifest.tile_sizes, default=side_of(manifest, DEFAULT_TILE_PX))


def batch_sizes(manifest: Manifest, device: DeviceKind) -> tuple[int, ...]:
    """The batch sizes that an engine on such a device is prepared for, ascending, starting with 1."""
    kind = tasks.items_of(manifest)
    sizes = BATCH_SIZES[device][kind]
    if kind != "tiles":
        return sizes
    output_px = (largest_tile_px(manifest) * manifest.scale) ** 2
    return tuple(size for size in sizes if size == 1 or size * output_px <= MAX_OUTPUT_PX)


def warm_up_shapes(manifest: Manifest, batches: tuple[int, ...]) -> list[tuple[int, int]]:
    """(batch, side in input pixels) of every shape that most requests use; side 0 for samples."""
    if tasks.items_of(manifest) == "samples":
        return [(batch, 0) for batch in batches]
    return list(product(batches, manifest.tile_sizes or (side_of(manifest, WARM_UP_SIDE_PX),)))
