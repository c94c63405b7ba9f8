"""`python -m benchmarks.upscalers`: how many pixels a second each upscaler gives, the compact ones beside RRDB-23.

All have random weights (speed does not depend on them), the same precision, tile and halo, and run in turns in this process,
so that their ratios hold while the machine's speed drifts. Pixels count once, however many tiles computed them.
"""

from __future__ import annotations

import json
import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from benchmarks import engines, machine, plots
from benchmarks.load import Duration
from benchmarks.served import say
from benchmarks.serving import open_engine, random_bundle
from export import families
from export.checkpoints import checkpoint
from export.inspect.cost import Cost, count
from runtime.tensors import Precision

TILE, HALO = 192, 16
# Four tiles without waste: both sides are two tiles, less a halo at each inner border.
SIDE_PX = 2 * (TILE - HALO)


@dataclass(frozen=True)
class Upscaler:
    """A network to measure. settings: as for `--set`, where they differ from the family's defaults."""

    name: str
    family: str
    settings: dict[str, str]

    def cost(self) -> Cost:
        spec = families.get(self.family)
        config = checkpoint.configure(spec.config(), self.settings)
        return count(spec, config, checkpoint.outline(spec, config))


# The first is what the others are compared with.
UPSCALERS = (
    Upscaler("rrdb-23", "esrgan", {}),
    Upscaler("srvgg-64x32", "srvgg", {}),
    Upscaler("srvgg-64x16", "srvgg", {"convolutions": "16"}),
)


def measure(
    upscalers: tuple[Upscaler, ...],
    folder: Path,
    precision: Precision,
    *,
    side_px: int,
    rounds: int,
    duration: Duration,
) -> list[dict[str, Any]]:
    """A row of the report for each upscaler. folder: of the bundles, which are built where they are missing."""
    image = engines.photograph(side_px, side_px)
    mpx_per_s: dict[str, list[float]] = {upscaler.name: [] for upscaler in upscalers}
    with ExitStack() as stack:
        opened = {}
        for upscaler in upscalers:
            bundle = random_bundle(
                folder / f"{upscaler.name}-{precision}", upscaler.family, upscaler.settings, precision, tile=TILE, halo=HALO
            )  # fmt: skip
            opened[upscaler.name] = stack.enter_context(open_engine(bundle, "openvino"))
        for number in range(1, rounds + 1):
            for name, engine in opened.items():
                per_s = engines.pictures(engine, image, duration=duration).per_s
                mpx_per_s[name].append(per_s * (side_px * engine.manifest.scale) ** 2 / 1e6)
                say(f"round {number}", f"{name} ({engine.precision}): {mpx_per_s[name][-1]:.3f} megapixels/s")
        executed = {name: engine.precision for name, engine in opened.items()}
    reference = mpx_per_s[upscalers[0].name]
    rows = []
    for upscaler in upscalers:
        rates, cost = mpx_per_s[upscaler.name], upscaler.cost()
        ratios = [rate / base for rate, base in zip(rates, reference, strict=True)]
        rows.append(
            {
                "name": upscaler.name,
                "precision": executed[upscaler.name],
                "parameters": cost.parameters,
                "mmac_per_input_px": round(cost.mmac, 3),
                "output_mpx_per_s": [round(rate, 4) for rate in rates],
                "times_as_fast": [round(ratio, 2) for ratio in ratios],
                "median_times_as_fast": round(statistics.median(ratios), 2),
            }
        )
    return rows


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--bundles", type=click.Path(path_type=Path), default="build/bench", show_default=True,
              help="Where the bundles are kept; built where they are missing.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default="benchmarks/results", show_default=True)
@click.option("--precision", type=click.Choice(get_args(Precision)), default="bfloat16", show_default=True)
@click.option("--side-px", type=click.IntRange(min=1), default=SIDE_PX, show_default=True,
              help="Of the picture; up to a tile's side it is computed in one piece.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--duration-s", type=float, default=5.0, show_default=True, help="Seconds of each turn.")
def main(
    bundles: Path, output: Path, precision: Precision, side_px: int, rounds: int, duration_s: float
) -> None:
    """Measure upscalers in turns: output megapixels a second, and how many times as fast as RRDB-23."""
    host = machine.describe()
    say("machine", f"{host['cpu']}, {host['cores']} cores, load {host['load_before']}")
    duration = Duration(duration_s, min_calls=2)
    rows = measure(UPSCALERS, bundles, precision, side_px=side_px, rounds=rounds, duration=duration)
    for row in rows:
        say(
            row["name"],
            f"{row['mmac_per_input_px']} MMAC per input pixel, {statistics.median(row['output_mpx_per_s']):.3f} megapixels/s, "
            f"{row['median_times_as_fast']} times as fast as {rows[0]['name']}",
        )
    report = {"machine": host, "picture_px": side_px, "tile": TILE, "halo": HALO, "rows": rows}
    output.mkdir(parents=True, exist_ok=True)
    (output / "upscalers.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    plots.upscalers(report, output / "upscalers.png")
    say("written", f"{output / 'upscalers.json'} and {output / 'upscalers.png'}")


if __name__ == "__main__":
    main()
