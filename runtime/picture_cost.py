"""What a picture costs, known from its header: pixels to compute, memory and disk. runtime/picture_work.py calls it.

Everything is arithmetic on sizes, in constant time: admission asks before anything is decoded or listed. The bounds are
upper ones; tests/runtime/test_costs.py measures them against the memory of a process.
"""

from __future__ import annotations

from runtime import tasks
from runtime.cost import Cost
from runtime.manifest import Manifest
from runtime.pictures import costs
from runtime.pictures.formats import WRITABLE
from runtime.pictures.reading import OpenedPicture
from runtime.pictures.transparency import ROWS_SEEN_BEYOND, STRIPE_PX
from runtime.pictures.writing import Output
from runtime.tiling.tiled_picture import TiledPicture
from runtime.values import UNIT, value_range

FLOAT_BYTES = 4
# At most three bands are in memory: two on the way through the network, one being written.
BANDS_ALIVE = 3
# Copies of a band's rows as floats: while colours under transparency are filled, a stripe at a time, and while an alpha
# channel is enlarged.
FILL_COPIES, ENLARGE_COPIES = 7, 3
# Copies of a whole picture's floats at the network: the batch, the output, and its conversion to levels.
WHOLE_COPIES = 3
# Python's objects, libvips' buffers, Rows' pieces.
FIXED_BYTES = 2 * 2**20
PIECES = 10
# Copies of a file that is encoded to memory: libvips' buffer grows by doubling, and Python copies it.
ENCODED_COPIES = 3
# Metadata is kept from the header, set on the answer's image, and copied into its file.
METADATA_COPIES = 4
# Uncompressed 16-bit RGBA. A file with more bytes per pixel is charged for as many pixels as it could hold.
FILE_BYTES_PER_PIXEL = 8


def picture_cost(
    manifest: Manifest,
    opened: OpenedPicture,
    tiled: TiledPicture,
    output: Output,
    *,
    in_memory: bool,
    file_bytes: int,
) -> Cost:
    """The cost of one picture, without the seconds.

    in_memory: whether the answer's file is encoded to memory, not to disk. file_bytes: memory held by the input file.
    """
    header, encoding = opened.header, output.encoding
    held = WRITABLE[encoding.format].hold(output.pixel_format)
    encoded = costs.file_bytes(
        encoding,
        channels=held.channels,
        bits=output.bits,
        width=output.to_width,
        height=output.to_height,
    )
    encoder = costs.encoder_bytes(
        encoding,
        given=output.pixel_format,
        bits=output.bits,
        size=(output.width, output.height),
        to_size=(output.to_width, output.to_height),
    )
    metadata = opened.metadata.size_bytes * METADATA_COPIES
    alive = min(BANDS_ALIVE, len(tiled.bands))
    canvases = alive * tiled.most_canvas_rows * tiled.canvas_row_bytes
    decoding = opened.decoder_bytes + _planes_bytes(manifest, opened, tiled, alive)
    writing = encoder + (ENCODED_COPIES * encoded if in_memory else 0)
    # The one band of a small picture is decoded before it is encoded; the steps of a large one overlap.
    stages = max(decoding, writing) if in_memory else decoding + writing
    by_rows = WRITABLE[encoding.format].by_rows
    own_px, answer_px = output.width * output.height, output.to_width * output.to_height
    resized = max(own_px, header.pixels) < answer_px
    return Cost(
        pixels=max(tiled.computed_px, file_bytes // FILE_BYTES_PER_PIXEL),
        memory_bytes=FIXED_BYTES + file_bytes + metadata + canvases + stages,
        disk_bytes=0 if in_memory else encoded + metadata,
        field="outscale" if resized else "image" if by_rows else "format",
    )


def _planes_bytes(manifest: Manifest, opened: OpenedPicture, tiled: TiledPicture, alive: int) -> int:
    """Memory for the decoded rows of the bands in work, as floats, and for preparing and running the network on them."""
    header = opened.header
    pixel_format, rows = header.pixel_format, tiled.most_rows_needed
    row_px = header.width
    row_bytes = row_px * pixel_format.channels * FLOAT_BYTES
    # Of the windows, beside those in work: the copy that is padded, and the model's own range.
    window_px = tiled.most_window_rows * tiled.padded_width
    window_bytes = window_px * pixel_format.channels * FLOAT_BYTES
    needed = window_bytes * (alive + 1 + (value_range(manifest.inputs[0]) != UNIT))
    needed += rows * row_bytes  # kept for the next band
    scale_px = manifest.scale**2
    if pixel_format.alpha:
        # The rows around the windows are decoded and filled, too.
        needed += rows * row_bytes * 2
        stripe_px = min(row_px, STRIPE_PX + 2 * ROWS_SEEN_BEYOND)
        needed += rows * row_bytes * FILL_COPIES * stripe_px // row_px
        if tasks.of(manifest).alpha == "beside":
            needed += row_px * rows * scale_px * FLOAT_BYTES * ENLARGE_COPIES
    if tasks.items_of(manifest) == "whole":
        needed += window_px * (pixel_format.channels + scale_px * tiled.channels) * FLOAT_BYTES * WHOLE_COPIES
    pieces = min(row_px * rows, max(row_px, 2**20 // pixel_format.pixel_bytes)) * pixel_format.channels
    return needed + pieces * PIECES
