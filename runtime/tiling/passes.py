"""Which channels of a picture go through the network, run after run, and which channels the answer has.

A network takes three channels (or one), whatever the picture has. runtime/tiling/tiled_picture.py runs every tile once a
pass; runtime/picture_work.py asks for the answer's pixel format.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from runtime import tasks
from runtime.errors import EngineError
from runtime.manifest import Manifest
from runtime.pictures.formats import PixelFormat


@dataclass(frozen=True)
class Pass:
    """One run of the network over every tile.

    sources: the picture's channel behind each of the network's. targets: the answer's channels that the output goes
    to; the mean of the output, where that is one. keeps_flat: a tile that is one value all over stays exactly so.
    """

    sources: tuple[int, ...]
    targets: slice
    keeps_flat: bool = False


def answer_format(pixel_format: PixelFormat, manifest: Manifest) -> PixelFormat:
    """What the answer is made of: a task keeps the picture's colours, or gives those of its model."""
    if tasks.of(manifest).colours == "kept":
        return pixel_format
    return replace(pixel_format, colours=_channels(manifest)[1])


def passes(pixel_format: PixelFormat, manifest: Manifest) -> tuple[Pass, ...]:
    """How a picture of `pixel_format` goes through the network. Raises EngineError where it cannot."""
    task = tasks.of(manifest)
    taken, given = _channels(manifest)
    colours = answer_format(pixel_format, manifest).colours
    if taken == pixel_format.colours:
        through = [Pass(tuple(range(taken)), slice(0, colours))]
    elif pixel_format.colours == 1:
        through = [Pass((0,) * taken, slice(0, colours))]
    elif task.colours == "kept":
        through = [Pass((channel,) * taken, slice(channel, channel + 1)) for channel in range(colours)]
    else:
        raise EngineError(
            f"{manifest.name}: takes {taken} channels and gives {given}, got a picture of {pixel_format.colours}"
        )
    if pixel_format.alpha and task.alpha == "network":
        last = pixel_format.colours
        through.append(Pass((last,) * taken, slice(last, last + 1), keeps_flat=True))
    return tuple(through)


def _channels(manifest: Manifest) -> tuple[int, int]:
    """That the network takes, and that it gives."""
    taken, given = (spec.shape[1] for spec in (manifest.inputs[0], manifest.outputs[0]))
    if not isinstance(taken, int) or not isinstance(given, int):
        raise EngineError(
            f"{manifest.name}: takes {taken} channels and gives {given}, expected fixed numbers"
        )
    return taken, given
