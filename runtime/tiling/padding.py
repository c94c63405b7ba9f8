"""Padding: grows a picture at the bottom and on the right to a size that the network takes.

runtime/tiling/tiled_picture.py calls `rows_read` and `pad` for each band. The answer's padding is cut off by the canvas.
"""

from __future__ import annotations

import numpy as np

from runtime.tensors import Array, Padding


def rows_read(start: int, stop: int, height: int, padding: Padding) -> tuple[int, int]:
    """[first, last) of the picture's rows that fill rows [start, stop) of the padded picture.

    height: of the picture, in px; `stop` may lie beyond it.
    """
    beyond = max(stop - height, 0)
    mirrored = beyond + 1 if padding == "reflect" else 1
    return (max(min(start, height - mirrored), 0), height) if beyond else (start, stop)


def pad(planes: Array, down: int, right: int, padding: Padding) -> Array:
    """Add `down` rows and `right` columns: [C, H, W] → [C, H + down, W + right]; `planes` itself if there are none.

    "edge": copies of the last row and column. "reflect": the picture mirrored at its last row and column, which are not
    repeated: a b c → a b c b a. Where a side is too short for that, it is mirrored to and fro: a b c b a b c. A single row
    or column has nothing beside it and is repeated.
    """
    return np.pad(planes, ((0, 0), (0, down), (0, right)), mode=padding) if down or right else planes
