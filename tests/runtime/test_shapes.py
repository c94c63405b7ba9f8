"""The table of batch sizes, and the shapes that are warmed up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.backends import shapes
from runtime.backends.shapes import DeviceKind
from runtime.manifest import Manifest
from tests.runtime import graphs

TILES = graphs.upscale_manifest(tile_sizes=(16, 32))
WHOLE = graphs.upscale_manifest(tiled=False, tile_sizes=(), halo=0, max_whole_px=100, size_multiple=24)
SAMPLES = graphs.sample_manifest()


@pytest.mark.parametrize(
    ("manifest", "device", "sizes"),
    [
        (TILES, "cpu", (1,)),
        (TILES, "cuda", (1, 2, 4, 8)),
        (graphs.upscale_manifest(scale=4, tile_sizes=(512,)), "cuda", (1, 2, 4)),
        (graphs.upscale_manifest(scale=8, tile_sizes=(2048,)), "cuda", (1,)),
        (WHOLE, "cpu", (1,)),
        (WHOLE, "cuda", (1,)),
        (SAMPLES, "cpu", (1, 2, 4, 8, 16, 32, 64)),
        (SAMPLES, "cuda", (1, 2, 4, 8, 16, 32, 64)),
    ],
)
def test_batches_depend_on_the_items_and_the_device(
    manifest: Manifest, device: DeviceKind, sizes: tuple[int, ...]
) -> None:
    assert shapes.batch_sizes(manifest, device) == sizes


def test_every_tile_size_is_warmed_up_in_every_batch_size() -> None:
    assert shapes.warm_up_shapes(TILES, (1, 2)) == [(1, 16), (1, 32), (2, 16), (2, 32)]


def test_a_whole_picture_that_warms_up_has_a_size_that_the_graph_takes() -> None:
    assert shapes.warm_up_shapes(WHOLE, (1,)) == [(1, 72)]
    assert shapes.warm_up_shapes(replace(WHOLE, least_side_px=80), (1,)) == [(1, 96)]


def test_samples_have_no_sides() -> None:
    assert shapes.warm_up_shapes(SAMPLES, (1, 4)) == [(1, 0), (4, 0)]
