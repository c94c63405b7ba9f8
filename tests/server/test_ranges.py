"""A network with values in [-1, 1], through the server: every kind of picture has the right values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.manifest import Manifest
from runtime.tensors import Array
from tests.runtime.graphs import cubed, cubic_manifest
from tests.server.conftest import FakeEngine, Serve, Served, decoded, levels_apart, picture, png
from tests.server.kinds import vips, waves
from tests.server.test_pictures import read_back

WORDS = {8: ("b-w", "srgb"), 16: ("grey16", "rgb16"), 32: ("b-w", "scrgb")}


class Cubic(FakeEngine):
    """As tests/runtime/graphs.py's graph, in numpy."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        image = inputs["image"]
        assert -1 <= image.min() <= image.max() <= 1
        return {"cubed": (image**3).repeat(2, 2).repeat(2, 3)}


@pytest.fixture(scope="module")
def cubic(serve: Serve) -> Served:
    return serve(Cubic(cubic_manifest()))


def test_a_small_picture_is_served_right_in_every_range(cubic: Served) -> None:
    answer = decoded(cubic.client.upscale(png(50, 33)).image)
    planes = picture(50, 33).transpose(2, 0, 1) / 255
    expected = np.rint(cubed(planes) * 255).astype(np.uint8).transpose(1, 2, 0)
    assert levels_apart(answer, expected) <= 1


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_kind_of_picture_is_served_right_in_every_range(
    cubic: Served, channels: int, bits: int
) -> None:
    values = waves(channels, 40, 30)
    most = 1 if bits == 32 else 2**bits - 1
    dtypes: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.float32}
    levels = (values if bits == 32 else np.rint(values * most)).astype(dtypes[bits])
    file = vips(levels, WORDS[bits][channels > 2]).tiffsave_buffer()
    answer = read_back(cubic.client.upscale(file, format="tiff").image, bits)
    expected = cubed(levels.transpose(2, 0, 1).astype(np.float64) / most)
    tolerance = 1e-5 if bits == 32 else 1.001 / most
    np.testing.assert_allclose(answer, expected, atol=tolerance)


def test_a_resize_starts_from_converted_values(cubic: Served) -> None:
    flat = np.full((40, 30, 3), 200, np.uint8)
    file = vips(flat, "srgb").pngsave_buffer()
    answer = decoded(cubic.client.upscale(file, outscale=1.3).image)
    value = round(((2 * 200 / 255 - 1) ** 3 + 1) / 2 * 255)
    assert answer.shape == (52, 39, 3)
    assert (answer == value).all()


class Overshooting(Cubic):
    """Goes beyond its range at both ends, as networks do at edges."""

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return {"cubed": super()._run(inputs)["cubed"] * 1.5}


def test_floats_beyond_black_and_white_are_clipped(serve: Serve) -> None:
    served = serve(Overshooting(cubic_manifest()))
    file = vips(waves(3, 40, 30), "scrgb").tiffsave_buffer()
    answer = read_back(served.client.upscale(file, format="tiff").image, 32)
    expected = (2 * cubed(waves(3, 40, 30).transpose(2, 0, 1)) - 1) * 1.5 / 2 + 0.5
    assert expected.min() < 0
    assert expected.max() > 1
    np.testing.assert_allclose(answer, expected.clip(0, 1), atol=1e-5)
