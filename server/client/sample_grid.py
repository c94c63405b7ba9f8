"""Arranges samples in one picture, for the command `generate --grid`."""

from __future__ import annotations

import io
import math

from PIL import Image

from server.client.results import SamplesResult

GAP_PX = 2


def sample_grid(samples: SamplesResult, columns: int | None, format: str) -> bytes:
    """Arrange samples in a grid, row by row, with white gaps. Returns the picture's file in `format`.

    columns: None for a grid as square as possible. Uses Pillow, because the client installs without libvips and NumPy.
    """
    columns = min(columns or math.ceil(math.sqrt(len(samples.images))), len(samples.images))
    rows = -(-len(samples.images) // columns)
    step_x, step_y = samples.width + GAP_PX, samples.height + GAP_PX
    sheet = Image.new("RGB", (columns * step_x + GAP_PX, rows * step_y + GAP_PX), "white")
    for index, image in enumerate(samples.images):
        row, column = divmod(index, columns)
        with Image.open(io.BytesIO(image)) as sample:
            sheet.paste(sample, (column * step_x + GAP_PX, row * step_y + GAP_PX))
    file = io.BytesIO()
    sheet.save(file, format)
    return file.getvalue()
