"""Turns the frames of clips into lossless files and back, with PyAV.

Frames travel as TIFF without compression, in both directions: the one format for which neither end computes anything. For
a frame of 1280×720, the client takes 3 ms to write and to read one (PNG at level 1: 360 ms), the server 90 ms (PNG: 320 ms).
TIFF holds 16 bits as well.
"""

from __future__ import annotations

from fractions import Fraction

import av
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from runtime.errors import EngineError
from server.client.moving.frames import Look

# H.273's codes of matrices → swscale's. A matrix that is not stated is read as players do, by the size.
MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
BT709, BT601, NOT_STATED = 1, 6, 2
LIMITED, FULL = 1, 2
# By default swscale rounds colours by up to two levels and repeats chroma instead of interpolating it.
EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
RGB = {False: "rgb24", True: "rgb48le"}


def look_of(frame: av.VideoFrame, aspect: Fraction | None) -> Look:
    """How the numbers of a decoded frame are colours, with what it does not state filled in. aspect: of a pixel."""
    is_rgb = frame.format.is_rgb
    matrix = int(frame.colorspace)
    if is_rgb or matrix not in MATRICES:
        matrix = BT709 if frame.width >= 1280 or frame.height > 576 or is_rgb else BT601
    full = frame.format.name.startswith("yuvj") or int(frame.color_range) == FULL
    return Look(
        matrix,
        FULL if full and not is_rgb else LIMITED,
        int(frame.color_primaries),
        int(frame.color_trc),
        deep=max(component.bits for component in frame.format.components) > 8,
        aspect=aspect or Fraction(1),
    )


def encoded(frame: av.VideoFrame, look: Look) -> bytes:
    """A TIFF file of a decoded frame, in RGB of 8 or 16 bits."""
    source_range = FULL if frame.format.is_rgb else look.range
    rgb = frame.reformat(
        format=RGB[look.deep],
        src_colorspace=MATRICES[look.matrix],
        src_color_range=ColorRange(source_range),
        dst_color_range=ColorRange.JPEG,
        interpolation=EXACT,
        threads=1,
    )
    # Without what else FFmpeg knows of the frame: it would write into the file that it lies on its side.
    bare = av.VideoFrame(rgb.width, rgb.height, RGB[look.deep])
    bare.planes[0].update(bytes(rgb.planes[0]))
    bare.pts = 0
    encoder = av.CodecContext.create("tiff", "w")
    encoder.width, encoder.height, encoder.pix_fmt = rgb.width, rgb.height, RGB[look.deep]
    encoder.time_base = Fraction(1)
    encoder.options = {"compression_algo": "raw"}
    return b"".join(bytes(packet) for packet in [*encoder.encode(bare), *encoder.encode(None)])


def decoded(file: bytes, look: Look, pixel_format: str) -> av.VideoFrame:
    """The frame of a TIFF file in `pixel_format`, for an encoder: sides are even, an odd one gets its last line twice."""
    decoder = av.CodecContext.create("tiff", "r")
    frames = [*decoder.decode(av.Packet(file)), *decoder.decode(None)]
    if len(frames) != 1:
        raise EngineError(f"the server's answer holds {len(frames)} pictures, expected one frame")
    frame = frames[0].reformat(
        format=pixel_format,
        src_color_range=ColorRange.JPEG,
        dst_colorspace=MATRICES[look.matrix],
        dst_color_range=ColorRange(look.range),
        interpolation=EXACT,
        threads=1,
    )
    return even(frame) if frame.width % 2 or frame.height % 2 else frame


def even(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame with even sides. Its planes of chroma have half a line more than its luma already, so only luma grows."""
    larger = av.VideoFrame(frame.width + frame.width % 2, frame.height + frame.height % 2, frame.format.name)
    sample_bytes = frame.format.components[0].bits // 9 + 1
    for plane, target in zip(frame.planes, larger.planes, strict=True):
        data, used = memoryview(plane), plane.width * sample_bytes
        rows = [
            bytes(data[at : at + used]) for at in range(0, plane.height * plane.line_size, plane.line_size)
        ]
        repeated = (target.width - plane.width) * sample_bytes
        padding = bytes(target.line_size - used - repeated)
        rows = [row + row[used - repeated :] + padding for row in rows]
        rows += rows[-1:] * (target.height - plane.height)
        target.update(b"".join(rows))
    return larger
