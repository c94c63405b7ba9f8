"""Decides on which picture sizes a network runs: tiles, or whole pictures up to a limit. Both are measured.

What a request is cut into (`runtime.tasks.ItemKind`) decides which search runs (tiles.py, whole.py); samples have a fixed
size and need no search. load.py calls `check`, pipeline.py `choose`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from export.build import tiles, whole
from export.build.options import BuildOptions
from export.build.reference import TorchEngine
from export.build.steps import Steps
from export.families.spec import Signature
from runtime import backends
from runtime.bundle import Bundle
from runtime.errors import InvalidInput
from runtime.tasks import ItemKind

# What a request is cut into, in words for messages.
IN_WORDS: Mapping[ItemKind, str] = {"tiles": "tiles", "whole": "whole pictures", "samples": "samples"}
# Options that only make sense for items of one kind.
ONLY_FOR: Mapping[str, ItemKind] = {"tile": "tiles", "halo": "tiles", "max_whole_px": "whole"}


@dataclass(frozen=True)
class Sizes:
    """The outcome of a search; empty for samples. fields: of the manifest. report: entries of report.json.

    speed: how long tiles or whole pictures took, for the report's "speed".
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    speed: Mapping[str, Any] = field(default_factory=dict)


def check(items: ItemKind, signature: Signature, options: BuildOptions) -> None:
    """Raises InvalidInput if a tile, halo or limit that the user gave cannot work with this network."""
    for option, kind in ONLY_FOR.items():
        value = getattr(options, option)
        if value is not None and items != kind:
            raise InvalidInput(
                option,
                f"got {value}, but {options.model} runs on {IN_WORDS[items]}; this option is for those on {IN_WORDS[kind]}",
            )
    tiles.check(signature, options.tile, options.halo)
    whole.check(signature, options.max_whole_px)


def choose(
    items: ItemKind, bundle: Bundle, original: nn.Module, options: BuildOptions, steps: Steps
) -> Sizes:
    """Find the sizes with the engine that would serve `bundle` here. original: the module in float32, before rewriting."""
    if items not in SEARCHES:
        return Sizes()
    return SEARCHES[items](bundle, original, options, steps)


def _tiles(bundle: Bundle, original: nn.Module, options: BuildOptions, steps: Steps) -> Sizes:
    with closing(backends.open_engine(bundle, min_precision=options.min_precision)[0]) as engine:
        comparer = engine if engine.precision == "float32" else TorchEngine(bundle, original)
        choice = tiles.choose(engine, comparer, tile=options.tile, halo=options.halo)
    steps.note(
        f"tiles {', '.join(map(str, choice.sizes))}, halo {choice.halo} px; stitched against whole: {choice.close}"
    )
    if not choice.good:
        steps.note(
            f"WARNING: seams may show: {tiles.REQUIRED_DB:g} dB and {tiles.REQUIRED_LEVELS:g} of 256 levels are wanted; "
            "try a larger --tile, --halo"
        )
    return Sizes(
        {"tile_sizes": choice.sizes, "halo": choice.halo},
        {"tiles": choice.report()},
        {"tiles": choice.tiles},
    )


def _whole(bundle: Bundle, _original: nn.Module, options: BuildOptions, steps: Steps) -> Sizes:
    with closing(backends.open_engine(bundle, min_precision=options.min_precision)[0]) as engine:
        limit = whole.measure(engine, options.max_whole_px)
    steps.note(f"never tiled: whole pictures up to {limit.max_px:,} pixels ({limit.reason})")
    return Sizes({"max_whole_px": limit.max_px}, {"whole": limit.report()}, {"whole": limit.runs})


Search = Callable[[Bundle, nn.Module, BuildOptions, Steps], Sizes]
SEARCHES: Mapping[ItemKind, Search] = {"tiles": _tiles, "whole": _whole}
