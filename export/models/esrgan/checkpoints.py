"""RRDBNet as it lies on people's disks: xinntao's first ESRGAN, ESRGAN+, his second, BasicSR and mmagic.

All hold the same layers. A dialect is the table of their names; how many blocks and upsamplings there are is read
off the names, and the rest of the configuration off the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from export.checkpoints.dialect import Dialect, Inferred, Question
from export.models.esrgan.generator import SCALES, UNSHUFFLES, Config
from runtime.errors import InvalidInput

MAX_UPSAMPLINGS = 5
DENSE_BLOCKS, STEPS = range(1, 4), range(1, 6)


@dataclass(frozen=True)
class Layers:
    """The names of the layers. {block}, {dense} and {step} count within the trunk, {up} the upsamplings.

    Where layers are numbered in a row, as in an nn.Sequential, {blocks} is how many blocks stand before, and {at} the
    place in the row: an upsampling is three long (resize, convolution, activation).
    """

    first: str
    dense: str
    shortcut: str
    trunk: str
    up: str
    hr: str
    last: str

    def listed(self, blocks: int, ups: int, plus: bool) -> list[str]:
        """The names of all tensors of such a network, in an order that is the same for every dialect."""
        inside = [
            name.format(block=block, dense=dense, step=step)
            for block in range(blocks)
            for dense in DENSE_BLOCKS
            for name, steps in ((self.dense, STEPS), (self.shortcut, (0,) if plus else ()))
            for step in steps
        ]
        ends = [
            self.first,
            self.trunk.format(blocks=blocks),
            *(self.up.format(up=up, at=3 * up) for up in range(1, ups + 1)),
            self.hr.format(at=3 * ups + 2),
            self.last.format(at=3 * ups + 4),
        ]
        return [
            f"{layer}.{kind}"
            for layer in (*inside, *ends)
            for kind in (("weight",) if layer.endswith("conv1x1") else ("weight", "bias"))
        ]

    def counted(self, keys: Iterable[str]) -> tuple[int, int, bool]:
        """Blocks, upsamplings and shortcuts of the network with these tensors, the likeliest where some are missing."""
        there = set(keys)
        one = re.escape(self.dense.format(block="BLOCK", dense=1, step=1)).replace("BLOCK", r"(\d+)")
        blocks = len({found[1] for key in there if (found := re.match(one + r"\.weight$", key))})
        plus = any(key.endswith("conv1x1.weight") for key in there)
        ups = min(range(MAX_UPSAMPLINGS), key=lambda ups: len(there ^ set(self.listed(blocks, ups, plus))))
        return blocks, ups, plus

    def to(self, other: Layers, keys: Iterable[str]) -> Mapping[str, str]:
        """{name here: name in `other`} of all tensors of the network with these tensors."""
        counted = self.counted(keys)
        return dict(zip(self.listed(*counted), other.listed(*counted), strict=True))


OURS = Layers(
    first="conv_first",
    dense="body.{block}.rdb{dense}.conv{step}",
    shortcut="body.{block}.rdb{dense}.conv1x1",
    trunk="conv_body",
    up="conv_up{up}",
    hr="conv_hr",
    last="conv_last",
)
OLD = Layers(
    first="model.0",
    dense="model.1.sub.{block}.RDB{dense}.conv{step}.0",
    shortcut="model.1.sub.{block}.RDB{dense}.conv1x1",
    trunk="model.1.sub.{blocks}",
    up="model.{at}",
    hr="model.{at}",
    last="model.{at}",
)
NEW = Layers(
    first="conv_first",
    dense="RRDB_trunk.{block}.RDB{dense}.conv{step}",
    shortcut="RRDB_trunk.{block}.RDB{dense}.conv1x1",
    trunk="trunk_conv",
    up="upconv{up}",
    hr="HRconv",
    last="conv_last",
)


def infer(tensors: Mapping[str, Tensor], *, with_three: bool = True) -> Inferred:
    """The configuration of the network with these tensors. with_three: the dialect has ×3, which looks like ×2.

    Raises InvalidInput where the shapes are of no RRDBNet.
    """
    blocks, ups, plus = OURS.counted(tensors)
    for key in ("conv_first.weight", "conv_last.weight", "body.0.rdb1.conv1.weight"):
        if tensors[key].dim() != 4:
            got = list(tensors[key].shape)
            raise InvalidInput("weights", f"{key}: got {got}, expected a convolution's [out, in, 3, 3]")
    features, inputs = tensors["conv_first.weight"].shape[:2]
    outputs = tensors["conv_last.weight"].shape[0]
    # No image has 4 or 16 times as many channels as its upscaled one, unless they were folded.
    unshuffle = next((side for side in UNSHUFFLES[1:] if inputs == outputs * side**2), 1)
    told = {
        "features": features,
        "blocks": blocks,
        "growth": tensors["body.0.rdb1.conv1.weight"].shape[0],
        "in_channels": inputs // unshuffle**2,
        "out_channels": outputs,
        "unshuffle": unshuffle,
        "plus": plus,
    }
    if (ups, unshuffle) == (1, 1) and with_three:
        return Inferred(told, (Question("scale", ("2", "3"), "one up-convolution is ×2, or ×3"),))
    scale, rest = divmod(2**ups, unshuffle)
    if rest or scale not in SCALES:
        raise InvalidInput(
            "weights",
            f"{ups} up-convolutions after a pixel-unshuffle of {unshuffle} upscale ×{2**ups / unshuffle:g}, "
            f"expected one of {', '.join(f'×{one}' for one in SCALES)}",
        )
    return Inferred(told | {"scale": scale})


def old_lacks(config: Config) -> str:
    return f"a pixel-unshuffle of {config.folded} in front" if config.folded > 1 else ""


def basicsr_lacks(config: Config) -> str:
    if config.plus:
        return "ESRGAN+'s conv1x1 shortcuts"
    if len(config.steps) != 2 or config.unshuffle:
        return f"{len(config.steps)} up-convolutions after a pixel-unshuffle of {config.folded} (it has two, for ×1 ×2 ×4)"
    return ""


FIRST = Dialect(
    name="old ESRGAN",
    told_by=(r"model\.0\.weight", r"model\.1\.sub\.0\.RDB1\.conv1\.0\.weight"),
    names=partial(OLD.to, OURS),
    theirs=partial(OURS.to, OLD),
    infer=infer,
    target="old",
    lacks=old_lacks,
)
BASICSR = Dialect(
    name="BasicSR, Real-ESRGAN",
    told_by=(r"body\.0\.rdb1\.conv1\.weight",),
    names=partial(OURS.to, OURS),
    theirs=partial(OURS.to, OURS),
    infer=infer,
    target="basicsr",
    wrapped=True,
    lacks=basicsr_lacks,
)
# The first that is recognised counts.
DIALECTS = (
    replace(FIRST, name="ESRGAN+", told_by=(*FIRST.told_by, r"model\.1\.sub\.0\.RDB1\.conv1x1\.weight"), target=""),
    FIRST,
    Dialect(
        name="ESRGAN of 2019, BSRGAN, RealSR",
        told_by=(r"RRDB_trunk\.0\.RDB1\.conv1\.weight",),
        names=partial(NEW.to, OURS),
        theirs=partial(OURS.to, NEW),
        infer=partial(infer, with_three=False),  # BSRGAN ×2 has one up-convolution, and none of them upscales ×3
    ),
    replace(BASICSR, name="mmagic", under=("generator.", "generator_ema."), target=""),
    BASICSR,
)  # fmt: skip
