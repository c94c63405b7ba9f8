"""Passes: maps a picture's channels to the network's, in one or more runs, and its outputs to the answer's channels.

A network takes a fixed number of channels, but pictures can be grey, RGB or have transparency. An RGBA picture needs two
passes of an RGB network: one for the colours, one for the alpha channel. tiled_picture.py calls `passes` and runs every
tile once per pass; picture_work.py calls `answer_format` for the answer's pixel format.
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

    sources: for each input channel of the network, the picture's channel. targets: the answer's channels that get the
    output; if it is only one, it gets the mean of the output's channels.
    keeps_flat: whether a constant tile keeps its exact value instead of going through the network.
    """

    sources: tuple[int, ...]
    targets: slice
    keeps_flat: bool = False


def answer_format(pixel_format: PixelFormat, manifest: Manifest) -> PixelFormat:
    """The answer's pixel format: with the picture's colours or the model's, depending on the task."""
    if tasks.of(manifest).colours == "kept":
        return pixel_format
    return replace(pixel_format, colours=_channels(manifest)[1])


def passes(pixel_format: PixelFormat, manifest: Manifest) -> tuple[Pass, ...]:
    """The passes for a picture of `pixel_format`. Raises EngineError if the network cannot take its channels."""
    task = tasks.of(manifest)
    taken, returned = _channels(manifest)
    colours = answer_format(pixel_format, manifest).colours
    if taken == pixel_format.colours:
        through = [Pass(tuple(range(taken)), slice(0, colours))]
    elif pixel_format.colours == 1:
        through = [Pass((0,) * taken, slice(0, colours))]
    elif task.colours == "kept":
        through = [Pass((channel,) * taken, slice(channel, channel + 1)) for channel in range(colours)]
    else:
        raise EngineError(
            f"{manifest.name}: takes {taken} channels and gives {returned}, got a picture of {pixel_format.colours} "
            "colour channels"
        )
    if pixel_format.alpha and task.alpha == "network":
        last = pixel_format.colours
        through.append(Pass((last,) * taken, slice(last, last + 1), keeps_flat=True))
    return tuple(through)


def _channels(manifest: Manifest) -> tuple[int, int]:
    """The numbers of the network's input and output channels."""
    taken, returned = (spec.shape[1] for spec in (manifest.inputs[0], manifest.outputs[0]))
    if not isinstance(taken, int) or not isinstance(returned, int):
        raise EngineError(
            f"{manifest.name}: takes {taken} channels and gives {returned}, expected fixed numbers"
        )
    return taken, returned
