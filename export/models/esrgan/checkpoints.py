"""NAMINGS: RRDBNet's tensor names in public checkpoints (xinntao's ESRGAN of 2018 and 2019, ESRGAN+, BasicSR, mmagic).

export/checkpoints/identification.py recognises files by them; `export.convert` writes such files. All code bases have the
same layers under other names, so each is a table of names (`Layers`). The numbers of blocks and upsamplings are counted in a
file's names; the rest of the configuration follows from the tensors' shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from export.checkpoints.naming import Assumption, Inferred, Naming
from export.models.esrgan.generator import SCALES, UNSHUFFLES, Config
from runtime.errors import InvalidInput

MAX_UPSAMPLINGS = 5
DENSE_BLOCKS, STEPS = range(1, 4), range(1, 6)


@dataclass(frozen=True)
class Layers:
    """A code base's names of the layers, as templates.

    {block}, {dense} and {step} count within the trunk, {up} the upsamplings. For layers of an nn.Sequential, {blocks} is
    the number of blocks, and {at} the layer's index: an upsampling takes three (resize, convolution, activation).
    """

    first: str
    dense: str
    shortcut: str
    trunk: str
    up: str
    hr: str
    last: str

    def listed(self, blocks: int, ups: int, plus: bool) -> list[str]:
        """The names of all tensors of a network, in the same order for every code base. plus: with ESRGAN+'s shortcuts."""
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
        """Of the network with these tensors: blocks, upsamplings, and whether it has ESRGAN+'s shortcuts.

        If tensors are missing, it is the network that fits best.
        """
        present = set(keys)
        first_dense = re.escape(self.dense.format(block="BLOCK", dense=1, step=1)).replace("BLOCK", r"(\d+)")
        matches = (re.fullmatch(rf"{first_dense}\.weight", key) for key in present)
        blocks = len({match[1] for match in matches if match})
        plus = any(key.endswith("conv1x1.weight") for key in present)
        ups = min(range(MAX_UPSAMPLINGS), key=lambda ups: len(present ^ set(self.listed(blocks, ups, plus))))
        return blocks, ups, plus

    def to(self, other: Layers, keys: Iterable[str]) -> Mapping[str, str]:
        """{name in this table: name in `other`} for all tensors of the network to which `keys` belong."""
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


TWO_OR_THREE = Assumption("scale", "2", ("3",), "one up-convolution may be ×2 or ×3")


def infer(tensors: Mapping[str, Tensor], *, with_three: bool = True) -> Inferred:
    """The configuration of the network with these tensors, under our names.

    with_three: the code base also has ×3 networks, whose tensors look like those of ×2. Like other loaders, this assumes ×2.
    Raises InvalidInput if the shapes are not those of an RRDBNet.
    """
    blocks, ups, plus = OURS.counted(tensors)
    for key in ("conv_first.weight", "conv_last.weight", "body.0.rdb1.conv1.weight"):
        if tensors[key].dim() != 4:
            got = list(tensors[key].shape)
            raise InvalidInput("weights", f"{key}: got {got}, expected a convolution's [out, in, 3, 3]")
    features, inputs = tensors["conv_first.weight"].shape[:2]
    outputs = tensors["conv_last.weight"].shape[0]
    # 4 or 16 times as many input channels as output channels: a pixel-unshuffle comes first.
    unshuffle = next((side for side in UNSHUFFLES[1:] if inputs == outputs * side**2), 1)
    config = {
        "features": features,
        "blocks": blocks,
        "growth": tensors["body.0.rdb1.conv1.weight"].shape[0],
        "in_channels": inputs // unshuffle**2,
        "out_channels": outputs,
        "unshuffle": unshuffle,
        "plus": plus,
    }
    scale, rest = divmod(2**ups, unshuffle)
    if rest or scale not in SCALES:
        raise InvalidInput(
            "weights",
            f"{ups} up-convolutions after a pixel-unshuffle of {unshuffle} upscale ×{2**ups / unshuffle:g}, "
            f"expected one of {', '.join(f'×{scale}' for scale in SCALES)}",
        )
    ambiguous = with_three and (ups, unshuffle) == (1, 1)
    return Inferred(config | {"scale": scale}, (TWO_OR_THREE,) if ambiguous else ())


def old_lacks(config: Config) -> str:
    return f"a pixel-unshuffle of {config.folded} in front" if config.folded > 1 else ""


def basicsr_lacks(config: Config) -> str:
    if config.plus:
        return "ESRGAN+'s conv1x1 shortcuts"
    if len(config.steps) != 2 or config.unshuffle:
        return f"{len(config.steps)} up-convolutions after a pixel-unshuffle of {config.folded} (it has two, for ×1 ×2 ×4)"
    return ""


FIRST = Naming(
    name="old ESRGAN",
    recognised_by=(r"model\.0\.weight", r"model\.1\.sub\.0\.RDB1\.conv1\.0\.weight"),
    to_ours=partial(OLD.to, OURS),
    from_ours=partial(OURS.to, OLD),
    infer=infer,
    target="old",
    lacks=old_lacks,
)
BASICSR = Naming(
    name="BasicSR, Real-ESRGAN",
    recognised_by=(r"body\.0\.rdb1\.conv1\.weight",),
    to_ours=partial(OURS.to, OURS),
    from_ours=partial(OURS.to, OURS),
    infer=infer,
    target="basicsr",
    wrapped=True,
    lacks=basicsr_lacks,
)
# The first naming that matches a file is used.
NAMINGS = (
    replace(FIRST, name="ESRGAN+", target="",
            recognised_by=(*FIRST.recognised_by, r"model\.1\.sub\.0\.RDB1\.conv1x1\.weight")),
    FIRST,
    Naming(
        name="ESRGAN of 2019, BSRGAN, RealSR",
        recognised_by=(r"RRDB_trunk\.0\.RDB1\.conv1\.weight",),
        to_ours=partial(NEW.to, OURS),
        from_ours=partial(OURS.to, NEW),
        infer=partial(infer, with_three=False),  # BSRGAN ×2 has one up-convolution, and none of them upscales ×3
    ),
    replace(BASICSR, name="mmagic", under=("generator.", "generator_ema."), target=""),
    BASICSR,
)  # fmt: skip
