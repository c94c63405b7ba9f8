"""NAMINGS: SRVGGNetCompact's tensor names in the checkpoints of Real-ESRGAN and BasicSR, which are our names too.

export/checkpoints/identification.py recognises such a file by them. Even places in `body` are convolutions, odd ones their
activations, which only PReLU has parameters for. Everything but the two other activations follows from the tensors' shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from export.checkpoints.naming import Assumption, Inferred, Naming
from runtime.errors import InvalidInput

COLOURS = (1, 3, 4)
OTHER = "the names are SRVGGNet's, the network is another one"
NO_PARAMETERS = Assumption(
    "activation", "relu", ("leakyrelu",), "activations without parameters may be ReLU or leaky ReLU"
)


def names(keys: Iterable[str]) -> Mapping[str, str]:
    """{name: name} for all tensors of the network to which `keys` belong, even if some are missing."""
    matches = (re.fullmatch(r"body\.(\d+)\.weight", key) for key in keys)
    places = {int(match[1]) for match in matches if match}
    last = min(max(places), 2 * len(places)) // 2 * 2
    slopes = range(1, last, 2) if any(place % 2 for place in places) else ()
    expected = [f"body.{place}.{kind}" for place in range(0, last + 1, 2) for kind in ("weight", "bias")]
    return {name: name for name in (*expected, *(f"body.{place}.weight" for place in slopes))}


def infer(tensors: Mapping[str, Tensor]) -> Inferred:
    """The configuration, from the tensors' shapes. Raises InvalidInput if they are those of another network."""
    last = max(int(name.split(".")[1]) for name in tensors)
    for place in range(0, last + 1, 2):
        if tensors[f"body.{place}.weight"].shape[2:] != (3, 3):
            raise refused(f"body.{place}.weight", tensors, "a convolution's [out, in, 3, 3]")
    features, colours = tensors["body.0.weight"].shape[:2]
    if colours not in COLOURS:
        raise refused("body.0.weight", tensors, "[features, 1, 3 or 4 colours, 3, 3]")
    scale = math.isqrt(tensors[f"body.{last}.weight"].shape[0] // colours)
    if tensors[f"body.{last}.weight"].shape[0] != colours * scale**2:
        raise refused(f"body.{last}.weight", tensors, f"{colours}·scale² channels for the pixel shuffle")
    for place in range(1, last, 2):
        if (slopes := f"body.{place}.weight") in tensors and tensors[slopes].shape != (features,):
            raise refused(slopes, tensors, f"[{features}], PReLU's slope for each channel")
    config = {
        "features": features,
        "convolutions": last // 2 - 1,
        "scale": scale,
        "activation": "prelu" if "body.1.weight" in tensors else NO_PARAMETERS.value,
        "in_channels": colours,
        "out_channels": colours,
    }
    return Inferred(config, () if "body.1.weight" in tensors else (NO_PARAMETERS,))


def refused(name: str, tensors: Mapping[str, Tensor], expected: str) -> InvalidInput:
    return InvalidInput("weights", f"{name}: got {list(tensors[name].shape)}, expected {expected}; {OTHER}")


NAMINGS = (
    Naming(
        name="BasicSR, Real-ESRGAN",
        recognised_by=(r"body\.0\.weight", r"body\.2\.weight"),
        to_ours=names,
        from_ours=names,
        infer=infer,
        target="basicsr",
        wrapped=True,
    ),
)
