"""How clips are encoded: the codecs that --codec names, and which one a container gets by default.

clip_sink.py encodes with them, and clip_file.py writes the containers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from runtime.errors import InvalidInput
from server.client.moving.frames import Facts, Look
from server.client.moving.kinds import CONTAINERS

# SVT-AV1 writes its settings to stderr otherwise; it reads this when an encoder is opened.
os.environ.setdefault("SVT_LOG", "1")


@dataclass(frozen=True)
class Codec:
    """A codec: FFmpeg's name of its encoder, the quality (CRF) by default and the largest, and further options.

    deep: whether it holds 10 bits a channel here. containers: FFmpeg's names. tags: container → the codec's name in it.
    """

    encoder: str
    crf: int
    largest_crf: int
    options: Mapping[str, str]
    deep: bool = True
    containers: tuple[str, ...] = ("mp4", "mov", "matroska")
    tags: Mapping[str, str] = field(default_factory=dict)


# CRF 18 of x264 is where most people see no difference; the others' values come near its sizes at their finer steps.
CODECS: Mapping[str, Codec] = {
    # The look-ahead is what an encoder holds most frames for.
    "h264": Codec("libx264", 18, 51, {"preset": "medium", "rc-lookahead": "20"}),
    # Apple's players know H.265 by this name only.
    "h265": Codec(
        "libx265",
        20,
        51,
        {"preset": "medium", "x265-params": "log-level=error:rc-lookahead=20"},
        tags={"mp4": "hvc1", "mov": "hvc1"},
    ),
    "vp9": Codec(
        "libvpx-vp9",
        24,
        63,
        {"deadline": "good", "cpu-used": "3", "row-mt": "1", "lag-in-frames": "16"},
        deep=False,
        containers=("mp4", "matroska", "webm"),
    ),
    "av1": Codec("libsvtav1", 24, 63, {"preset": "8"}, containers=("mp4", "matroska", "webm")),
}
# Container → codec, for 8 bits a channel and for more. Hardly any player takes H.264 of 10 bits.
DEFAULTS = {"webm": ("vp9", "av1")}
USUAL = ("h264", "h265")


@dataclass(frozen=True)
class Encoding:
    """How one clip is encoded. container: FFmpeg's name. look: of its frames, as they are encoded."""

    codec: Codec
    crf: int
    container: str
    look: Look

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the pixels: 4:2:0, of 8 or 10 bits."""
        return "yuv420p10le" if self.look.deep else "yuv420p"

    @property
    def options(self) -> dict[str, str]:
        """The encoder's options."""
        return {**self.codec.options, "crf": str(self.crf)}


def encoding_for(
    target: Path, facts: Facts, codec: str | None, crf: int | None
) -> tuple[Encoding, list[str]]:
    """The encoding of a clip at `target`, and notes for the user. codec, crf: the user's choice, if any.

    Raises InvalidInput if the container cannot hold the codec, or the codec has no such quality.
    """
    suffix = target.suffix.lower()
    container, look, notes = CONTAINERS[suffix], facts.look, []
    name = codec or DEFAULTS.get(container, USUAL)[look.deep]
    chosen = CODECS[name]
    if container not in chosen.containers:
        able = [name for name, each in CODECS.items() if container in each.containers]
        raise InvalidInput("codec", f"got {name}, and {suffix} holds one of {', '.join(able)}")
    if crf is not None and crf > chosen.largest_crf:
        raise InvalidInput("crf", f"got {crf}, expected 0 to {chosen.largest_crf} for {name}")
    if look.deep and not chosen.deep:
        notes.append(f"its colours are reduced to 8 bits, because {name} has no more here")
        look = replace(look, deep=False)
    return Encoding(chosen, chosen.crf if crf is None else crf, container, look), notes
