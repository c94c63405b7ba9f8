"""UltraHDR: the JPEGs of recent phones, with a gain map behind them, are read as the plain JPEGs that they are."""

from __future__ import annotations

import numpy as np
import pytest
import pyvips

from runtime.pictures.reading import open_picture
from tests.server.kinds import vips, waves


@pytest.fixture
def ultra_hdr() -> bytes:
    """A JPEG with a gain map, of values up to twice white."""
    if not pyvips.type_find("VipsOperation", "uhdrsave_buffer"):
        pytest.skip("the installed libvips cannot write UltraHDR")
    file = vips(waves(3, 64, 96).astype(np.float32) * 2, "scrgb").uhdrsave_buffer()
    assert b"MPF\0" in file  # the index of its two pictures
    return bytes(file)


def test_an_ultra_hdr_picture_is_a_jpeg(ultra_hdr: bytes) -> None:
    opened = open_picture(ultra_hdr, max_pixels=10**6)
    assert (opened.header.format, opened.header.width, opened.header.height) == ("jpeg", 96, 64)
    assert opened.by_rows
    base = pyvips.Image.jpegload_buffer(ultra_hdr).numpy().transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_allclose(opened.rows().read(0, 64), base, atol=1e-6)


def test_the_answer_does_not_promise_a_gain_map() -> None:
    image = vips(np.zeros((8, 8, 3), np.uint8), "srgb").copy()
    xmp = b'<rdf:Description xmp:CreatorTool="camera" hdrgm:Version=\'1.0\' hdrgm:GainMapMax="2"/>'
    image.set_type(pyvips.GValue.blob_type, "xmp-data", xmp)
    fields = open_picture(image.jpegsave_buffer(), max_pixels=100).metadata.fields
    (kept,) = (value for name, _, value in fields if name == "xmp-data")
    assert kept == xmp.replace(b" hdrgm:Version='1.0'", b"")
