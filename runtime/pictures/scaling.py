"""Resizes an image of libvips, antialiased. runtime/pictures/writing.py and runtime/pixels.py call it."""

from __future__ import annotations

from runtime.pictures.codec import pyvips


def scaled(
    image: pyvips.Image, width: int, height: int, kernel: str = "lanczos3", *, premultiplied: bool = False
) -> pyvips.Image:
    """Resize to width × height px, without shifting the picture. Works row by row, from the top down.

    kernel: of libvips, for axes that shrink (antialiased); axes that grow are bicubic.
    premultiplied: whether colours are already weighted with their alpha; else they are while the picture grows.
    """
    across, down = width / image.width, height / image.height
    image = image.resize(min(across, 1.0), vscale=min(down, 1.0), kernel=kernel)
    if max(across, down) > 1:
        # libvips' resize would shift an enlarged picture by half a pixel to the right and down.
        image = image.affine(
            [max(across, 1.0), 0, 0, max(down, 1.0)],
            interpolate=pyvips.Interpolate.new("bicubic"),
            oarea=[0, 0, width, height],
            idx=0.5, idy=0.5, odx=-0.5, ody=-0.5,
            extend="copy",
            premultiplied=premultiplied,
        )  # fmt: skip
    return image
