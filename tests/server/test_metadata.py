"""Metadata through gRPC: kept if it is still true, corrected if it is not."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from tests.server.conftest import SCALE, Served
from tests.server.kinds import chunk, levels, png_by_hand, saved

TAGS = ExifTags.Base
TEXTS = {
    TAGS.Make: "Maker",
    TAGS.Model: "Model X",
    TAGS.ImageDescription: "A description",
    TAGS.Copyright: "somebody",
}
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" '
    b'tiff:Make="Maker"/></rdf:RDF></x:xmpmeta>'
)
# Pillow's formats that can say it, and how each is written without loss of what matters here.
LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "JPEG": {"quality": 100},
}
# Answers that hold EXIF; libvips writes none into TIFF.
HOLD_EXIF = ("png", "jpeg", "webp")


def picture() -> Image.Image:
    return Image.fromarray(levels(3))


def exif(orientation: int = 1, dpi: tuple[float, float] | None = None, thumbnail: bool = False) -> bytes:
    tags = Image.Exif()
    for tag, text in TEXTS.items():
        tags[tag] = text
    tags[TAGS.Orientation] = orientation
    if dpi:
        tags[TAGS.XResolution], tags[TAGS.YResolution] = dpi
        tags[TAGS.ResolutionUnit] = 2  # inches
    tags.get_ifd(ExifTags.IFD.Exif)[TAGS.DateTimeOriginal] = "2020:01:02 03:04:05"
    return with_thumbnail(tags.tobytes()) if thumbnail else tags.tobytes()


def with_thumbnail(block: bytes) -> bytes:
    """An EXIF block with a second directory (IFD1) that holds a JPEG, as every camera writes it. (EXIF 2.32, 4.5.8)"""
    order = "<" if block[6:8] == b"II" else ">"
    body = bytearray(block[6:])
    (first,) = struct.unpack_from(order + "I", body, 4)
    (count,) = struct.unpack_from(order + "H", body, first)
    struct.pack_into(order + "I", body, first + 2 + 12 * count, len(body))
    small = saved(picture().resize((8, 8)), "JPEG")
    entries = [(0x103, 3, 6), (0x201, 4, len(body) + 2 + 3 * 12 + 4), (0x202, 4, len(small))]
    body += struct.pack(order + "H", len(entries))
    for tag, kind, value in entries:
        number = struct.pack(order + ("H" if kind == 3 else "I"), value).ljust(4, b"\0")
        body += struct.pack(order + "HHI", tag, kind, 1) + number
    return block[:6] + bytes(body) + bytes(4) + small


def opened(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file))


def dpi_of(file: bytes) -> tuple[float, float]:
    """What a file says: where Pillow looks for it, else in EXIF, as of a WebP."""
    image = opened(file)
    tags = image.getexif()
    if TAGS.XResolution in tags and image.format in (
        "JPEG",
        "WEBP",
    ):  # Pillow gives a JPEG's one figure twice
        return float(tags[TAGS.XResolution]), float(tags[TAGS.YResolution])
    across, down = image.info["dpi"]
    return float(across), float(down)


# Orientation.


@pytest.mark.parametrize("format", LOSSLESS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_answer_is_upright_and_says_so(served: Served, format: str, orientation: int) -> None:
    block = exif(orientation)
    file = saved(picture(), format, exif=block, **LOSSLESS[format])
    upright = np.asarray(ImageOps.exif_transpose(opened(file)))
    wanted = served.client.upscale(saved(Image.fromarray(upright), "PNG"))
    for answer_format in ("png", "jpeg", "webp", "tiff"):
        answer = served.client.upscale(file, format=answer_format, quality=100)
        assert (answer.width, answer.height) == (wanted.width, wanted.height)
        image = opened(answer.image)
        assert image.getexif().get(TAGS.Orientation, 1) == 1
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
        assert shown.shape[:2] == (upright.shape[0] * SCALE, upright.shape[1] * SCALE)
        difference = np.abs(shown - np.asarray(opened(wanted.image)))
        # JPEG and WebP lose two levels here; a picture that was turned wrongly would be tens of levels off.
        assert difference.mean() <= (0.01 if answer_format in ("png", "tiff") else 4)


def test_a_phones_picture_comes_out_upright(served: Served) -> None:
    """The top is red and the bottom blue, stored lying on its side as phones do."""
    upright = np.zeros((48, 32, 3), np.uint8)
    upright[:24, :, 0] = upright[24:, :, 2] = 255
    stored = Image.fromarray(np.rot90(upright))
    file = saved(stored, "JPEG", quality=95, exif=exif(6, thumbnail=True))
    answer = served.client.upscale(file)
    shown = np.asarray(ImageOps.exif_transpose(opened(answer.image)))
    assert shown.shape == (48 * SCALE, 32 * SCALE, 3)
    assert shown[20:60, 20:-20].mean((0, 1)).argmax() == 0
    assert shown[-60:-20, 20:-20].mean((0, 1)).argmax() == 2


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_exif_says_the_new_size_and_has_no_old_thumbnail(served: Served, format: str) -> None:
    block = exif(6, thumbnail=True)
    file = saved(picture(), "JPEG", exif=block)
    assert "jpeg-thumbnail-data" in pyvips.Image.new_from_buffer(file, "").get_fields()
    assert opened(file).getexif().get_ifd(ExifTags.IFD.IFD1)
    answer = served.client.upscale(file, format=format)
    tags = opened(answer.image).getexif()
    assert not tags.get_ifd(ExifTags.IFD.IFD1)
    assert "jpeg-thumbnail-data" not in pyvips.Image.new_from_buffer(answer.image, "").get_fields()
    inner = tags.get_ifd(ExifTags.IFD.Exif)
    size = inner[TAGS.ExifImageWidth], inner[TAGS.ExifImageHeight]
    assert size == (answer.width, answer.height)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
def test_xmp_is_kept_and_its_orientation_put_right(served: Served, format: str) -> None:
    file = saved(picture(), "JPEG", exif=exif(6), xmp=XMP)
    answer = served.client.upscale(file, format=format)
    xmp = pyvips.Image.new_from_buffer(answer.image, "").get("xmp-data")
    assert xmp == XMP.replace(b'Orientation="6"', b'Orientation="1"')


def test_xmp_of_an_upright_picture_is_unchanged(served: Served) -> None:
    answer = served.client.upscale(saved(picture(), "JPEG", xmp=XMP))
    assert pyvips.Image.new_from_buffer(answer.image, "").get("xmp-data") == XMP


# Texts.


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_exifs_texts_are_carried(served: Served, format: str) -> None:
    file = saved(picture(), format, exif=exif(), **LOSSLESS[format])
    for answer_format in HOLD_EXIF:
        tags = opened(served.client.upscale(file, format=answer_format).image).getexif()
        assert {tag: tags[tag] for tag in TEXTS} == TEXTS
        assert tags.get_ifd(ExifTags.IFD.Exif)[TAGS.DateTimeOriginal] == "2020:01:02 03:04:05"


def test_pngs_texts_are_carried(served: Served) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "A title")
    texts.add_text("Comment", "long " * 100, zip=True)
    texts.add_itxt("Author", "Somebody")
    answer = served.client.upscale(saved(picture(), "PNG", pnginfo=texts))
    image = opened(answer.image)
    assert isinstance(image, PngImagePlugin.PngImageFile)
    assert image.text == {"Title": "A title", "Comment": "long " * 100, "Author": "Somebody"}


def test_a_tiffs_description_is_carried(served: Served) -> None:
    file = saved(picture(), "TIFF", tiffinfo={270: "A description"})
    assert opened(served.client.upscale(file).image).getexif()[TAGS.ImageDescription] == "A description"


def test_iptc_is_carried(served: Served) -> None:
    """The older way to say title, author and rights, which agencies still read."""
    iptc = b"\x1c\x02\x05\x00\x05Title"
    block = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + struct.pack(">I", len(iptc)) + iptc
    image = pyvips.Image.new_from_array(np.asarray(picture())).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.blob_type, "iptc-data", block)
    answer = served.client.upscale(image.jpegsave_buffer(), format="jpeg").image
    assert pyvips.Image.new_from_buffer(answer, "").get("iptc-data") == block


def test_texts_in_any_alphabet_are_served(served: Served) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in levels(3))
    height, width, _ = levels(3).shape
    for body in (b"Copyright\0\xa9 2020", b"Titre\xe9\0x", "Ключ\0значение".encode(), b"\xff\0\xff"):
        file = png_by_hand(width, height, 8, 2, rows, chunk(b"tEXt", body))
        for format in ("png", "jpeg", "tiff"):
            assert served.client.upscale(file, format=format).width == width * SCALE
    for text in (b"\xa9 me", b"\0\xff\xfe"):
        tags = Image.Exif()
        tags[TAGS.Copyright] = text
        assert served.client.upscale(saved(picture(), "JPEG", exif=tags)).width == width * SCALE


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt"])
def test_a_compressed_text_that_expands_enormously_is_dropped(served: Served, kind: bytes) -> None:
    packed = zlib.compress(bytes(20 * 2**20), 9)
    body = b"name\0\1\0\0\0" + packed if kind == b"iTXt" else b"name\0\0" + packed
    rows = b"".join(b"\0" + row.tobytes() for row in levels(3))
    height, width, _ = levels(3).shape
    answer = served.client.upscale(png_by_hand(width, height, 8, 2, rows, chunk(kind, body)))
    assert len(answer.image) < 10_000


# Resolution.


@pytest.mark.parametrize("outscale", [None, 0.5, 3.0])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "BMP"])
def test_the_resolution_grows_with_the_picture(served: Served, format: str, outscale: float | None) -> None:
    dpi = (300, 200) if format != "BMP" else (300, 300)
    file = saved(picture(), format, dpi=dpi)
    for answer_format in ("png", "jpeg", "webp", "tiff"):
        answer = served.client.upscale(file, format=answer_format, outscale=outscale)
        width, height = picture().size
        # The picture keeps its size on paper. PNG has whole pixels a metre, BMP as well: 0.03 dpi.
        wanted = (dpi[0] * answer.width / width, dpi[1] * answer.height / height)
        assert dpi_of(answer.image) == pytest.approx(wanted, rel=1e-4), answer_format


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_exifs_resolution_grows_and_turns_with_the_picture(served: Served, format: str) -> None:
    file = saved(picture(), format, exif=exif(6, dpi=(300, 200)), **LOSSLESS[format])
    for answer_format in ("png", "jpeg", "webp", "tiff"):
        answer = served.client.upscale(file, format=answer_format)
        assert dpi_of(answer.image) == pytest.approx((200 * SCALE, 300 * SCALE), rel=1e-4), answer_format
        tags = opened(answer.image).getexif()
        if answer_format in HOLD_EXIF:
            exact = float(tags[TAGS.XResolution]), float(tags[TAGS.YResolution])
            assert exact == pytest.approx((200 * SCALE, 300 * SCALE), rel=1e-4)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_an_unknown_resolution_is_not_scaled(served: Served, format: str) -> None:
    file = saved(picture().quantize() if format == "GIF" else picture(), format)
    for answer_format in ("png", "tiff"):  # libvips always writes one into these
        assert dpi_of(served.client.upscale(file, format=answer_format).image) == pytest.approx(
            (72, 72), abs=0.1
        )
    for answer_format in ("jpeg", "webp"):
        answer = opened(served.client.upscale(file, format=answer_format).image)
        assert "dpi" not in answer.info
        assert not answer.getexif()


# Colour profiles. tests/server/test_colours.py looks at the colours themselves.


def grey_profile() -> bytes:
    """A grey profile of gamma 2.2, by hand: lcms' Python module makes none. (ICC.1:2022, 8.5.2)"""
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, 563) + bytes(2)
    text = b"text" + bytes(4) + b"public domain\0\0\0"
    named = b"desc" + bytes(4) + struct.pack(">I", 5) + b"grey\0" + bytes(78 + 1)
    parts = [(b"desc", named), (b"wtpt", white), (b"kTRC", curve), (b"cprt", text)]
    start = 128 + 4 + 12 * len(parts)
    table, body = struct.pack(">I", len(parts)), b""
    for name, part in parts:
        table += name + struct.pack(">II", start + len(body), len(part))
        body += part + bytes(-len(part) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


PROFILES = {
    "L": grey_profile(),
    "RGB": pyvips.Image.profile_load("p3"),
    "sRGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
}


@pytest.mark.parametrize("answer_format", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("format", LOSSLESS)
@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_kept_byte_for_byte(served: Served, name: str, format: str, answer_format: str) -> None:
    mode = "L" if name == "L" else "RGB"
    image = picture().convert(mode)
    file = saved(image, format, icc_profile=PROFILES[name], **LOSSLESS[format])
    answer = served.client.upscale(file, format=answer_format)
    profile = opened(answer.image).info.get("icc_profile")
    # A WebP has no grey: a grey profile would be a lie there, and one that came in a WebP was.
    lie = name == "L" and "WEBP" in (format, answer_format.upper())
    assert profile == (None if lie else PROFILES[name])


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_a_cmyk_profile_is_used_and_not_kept(served: Served, format: str) -> None:
    ink = Image.fromarray(np.full((8, 8, 4), (0, 255, 255, 0), np.uint8), "CMYK")
    profile = pyvips.Image.profile_load("cmyk")
    answer = served.client.upscale(saved(ink, format, icc_profile=profile), format="png")
    image = opened(answer.image)
    assert "icc_profile" not in image.info
    red, green, blue = image.getpixel((16, 16))  # type: ignore[misc]
    assert red > 200 > 90 > max(green, blue)


@pytest.mark.parametrize(
    "damaged",
    [
        b"x" * 200,
        b"x" * 5,
        bytes(16) + b"RGB " + bytes(300),
        PROFILES["RGB"][:300],
        PROFILES["RGB"] + b"more",
        struct.pack(">I", 300) + PROFILES["RGB"][4:300],  # as long as it says, but not as long as its parts
        struct.pack(">I", 482)
        + PROFILES["RGB"][4:8]
        + b"\4"
        + PROFILES["RGB"][9:]
        + b"xx",  # no multiple of 4
        struct.pack(">I", 100) + PROFILES["RGB"][4:100],
        PROFILES["RGB"][:200] + bytes(100) + PROFILES["RGB"][300:],
        PROFILES["L"],
    ],
)
@pytest.mark.parametrize("format", LOSSLESS)
def test_a_picture_with_a_damaged_or_mismatching_profile_is_served(
    served: Served, format: str, damaged: bytes
) -> None:
    file = saved(picture(), format, icc_profile=damaged, **LOSSLESS[format])
    for answer_format in ("png", "jpeg", "webp", "tiff"):
        answer = served.client.upscale(file, format=answer_format)
        assert opened(answer.image).size == (answer.width, answer.height)
