"""Visible colours: wide gamuts with their profiles, and the edges of transparent areas."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image

from runtime.tensors import Array
from tests.server.conftest import SCALE, Served, smooth_and_enlarge
from tests.server.kinds import saved, vips, waves
from tests.server.test_pictures import read_back

P3 = pyvips.Image.profile_load("p3")
# Within it of the edge the fake network's zeros show, and bicubic's own way with edges.
RIM_PX = 3 * SCALE


def lab(image: pyvips.Image) -> pyvips.Image:
    """By the image's own profile; sRGB where it has none."""
    return image.icc_import(embedded=True, pcs="lab", input_profile="srgb", intent="relative")


def inside(image: pyvips.Image) -> pyvips.Image:
    return image.crop(RIM_PX, RIM_PX, image.width - 2 * RIM_PX, image.height - 2 * RIM_PX)


def vivid(bits: int) -> Array:
    """[H, W, 3]: gentle slopes through colours that sRGB does not have."""
    rows, columns = np.mgrid[0:60, 0:72] / 72
    values = np.stack([0.98 - rows / 2, 0.1 + columns / 2, 0.05 + (rows + columns) / 3], 2)
    most = 2**bits - 1
    return np.rint(values * most).astype({8: np.uint8, 16: np.uint16}[bits])


@pytest.mark.parametrize(
    ("format", "bits", "answer_format"),
    [
        ("png", 8, "png"),
        ("png", 16, "png"),
        ("png", 16, "tiff"),
        ("tiff", 16, "tiff"),
        ("jpeg", 8, "jpeg"),
        ("jpeg", 8, "png"),
        ("png", 16, "webp"),
        ("webp", 8, "webp"),
    ],
)
@pytest.mark.parametrize("outscale", [None, 2.5])
def test_a_wide_gamut_keeps_its_profile_and_its_colours(
    served: Served, format: str, bits: int, answer_format: str, outscale: float | None
) -> None:
    image = vips(vivid(bits), {8: "srgb", 16: "rgb16"}[bits]).copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", P3)
    file = image.write_to_buffer(f".{format}", **({"Q": 95} if format in ("jpeg", "webp") else {}))
    answer = served.client.upscale(file, format=answer_format, quality=95, outscale=outscale)
    upscaled = pyvips.Image.new_from_buffer(answer.image, "")
    assert upscaled.get("icc-profile-data") == P3
    bicubic = pyvips.Image.new_from_buffer(file, "").resize(
        answer.width / image.width, vscale=answer.height / image.height, kernel="cubic"
    )
    colour_difference = inside(lab(upscaled)).dE00(inside(lab(bicubic)))
    assert colour_difference.avg() < 1  # CIEDE2000 differences below 1 are not visible
    # The same pixels without their profile would be other colours: the figure above is not blind.
    bare = upscaled.copy()
    bare.remove("icc-profile-data")
    assert inside(lab(bare)).dE00(inside(lab(bicubic))).avg() > 1


# Transparency.


def disc(hidden: int, side: int = 64) -> Array:
    """[H, W, 4] uint8: an orange disc with a soft edge, on transparent pixels whose colour is `hidden`."""
    rows, columns = np.mgrid[0:side, 0:side] - (side - 1) / 2
    alpha = np.clip(side / 3 - np.hypot(rows, columns) + 0.5, 0, 1)
    pixels = np.full((side, side, 4), hidden, np.uint8)
    pixels[alpha > 0, :3] = (230, 120, 20)
    pixels[:, :, 3] = np.rint(alpha * 255)
    return pixels


def visible(file: bytes) -> Array:
    """[C, H, W]: colours multiplied with their alpha, and alpha."""
    image = read_back(file, 8)
    return np.concatenate([image[:-1] * image[-1:], image[-1:]])


@pytest.mark.parametrize(
    "options", [{}, {"outscale": 2.5}, {"format": "webp", "lossless": True}, {"format": "tiff"}]
)
def test_colours_under_transparency_do_not_show(served: Served, options: dict[str, Any]) -> None:
    answers = [
        served.client.upscale(saved(Image.fromarray(disc(hidden)), "PNG"), **options).image
        for hidden in (0, 255, 99)
    ]
    black, white, grey = (visible(answer) for answer in answers)
    assert np.abs(black - white).max() <= 1 / 255
    assert np.abs(black - grey).max() <= 1 / 255
    # And the edge of the disc is orange all the way out, neither dark nor bright.
    image = read_back(answers[0], 8)
    seen = image[:3, image[3] > 0.1]
    wanted = np.array([230, 120, 20], np.float32)[:, None] / 255
    assert np.abs(seen - wanted).max() <= 2 / 255


@pytest.mark.parametrize("hidden", [0, 255])
def test_in_a_format_without_alpha_transparency_is_blended_with_white(served: Served, hidden: int) -> None:
    answer = served.client.upscale(saved(Image.fromarray(disc(hidden)), "PNG"), format="jpeg", quality=100)
    image = np.asarray(Image.open(io.BytesIO(answer.image)))
    assert image[:16, :16].min() >= 253
    middle = np.abs(image[120:136, 120:136].astype(int) - (230, 120, 20))
    assert middle.max() <= 3


@pytest.mark.parametrize("outscale", [None, 0.7, 2.5])
@pytest.mark.parametrize("level", [0, 1, 77, 254, 255])
@pytest.mark.parametrize("bits", [8, 16])
def test_an_alpha_that_is_the_same_all_over_stays_exactly_so(
    served: Served, bits: int, level: int, outscale: float | None
) -> None:
    pixels = np.concatenate([waves(3, 70, 50), np.full((70, 50, 1), level / 255, np.float32)], 2)
    pixels = np.rint(pixels * (2**bits - 1)).astype({8: np.uint8, 16: np.uint16}[bits])
    file = vips(pixels, {8: "srgb", 16: "rgb16"}[bits]).pngsave_buffer()
    for format in ("png", "webp", "tiff"):
        depth = 8 if format == "webp" else bits
        answer = served.client.upscale(file, format=format, outscale=outscale, lossless=format == "webp")
        alpha = pyvips.Image.new_from_buffer(answer.image, "").numpy()[:, :, 3:]
        wanted = round(level / 255 * (2**depth - 1))
        # libvips leaves out an alpha that is opaque everywhere when it writes WebP: then Pillow sees none.
        if format == "webp" and alpha.shape[2] == 0:
            assert level == 255
        else:
            assert (alpha == wanted).all(), format


def test_opaque_and_hidden_areas_away_from_edges_stay_exactly_so(served: Served) -> None:
    pixels = np.full((200, 200, 4), 90, np.uint8)
    pixels[:100, :, 3], pixels[100:, :, 3] = 255, 0
    answer = served.client.upscale(saved(Image.fromarray(pixels), "PNG"))
    alpha = read_back(answer.image, 8)[3]
    window = 32 * SCALE  # of the fake network: tiles that see no edge are one value all over
    assert (alpha[: 100 * SCALE - window] == 1).all()
    assert (alpha[100 * SCALE + window :] == 0).all()


def test_grey_and_colour_see_the_same_network(served: Served) -> None:
    grey = np.rint(waves(1, 40, 30) * 255).astype(np.uint8)
    file = saved(Image.fromarray(grey[:, :, 0]), "PNG")
    colour = saved(Image.fromarray(grey.repeat(3, 2)), "PNG")
    left = read_back(served.client.upscale(file).image, 8)
    right = read_back(served.client.upscale(colour).image, 8)
    assert len(left) == 1
    assert np.abs(left - right).max() <= 1 / 255
    whole = smooth_and_enlarge(grey.transpose(2, 0, 1)[None].astype(np.float32) / 255)[0]
    assert np.abs(left - whole).max() <= 0.51 / 255
