"""The command `python -m export.build`: turns its options into BuildOptions, and runs the build or describes it (--dry-run).

`ganforge build` runs the same. The exit status is 2 for options that cannot work, 1 where the build fails.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import click
import safetensors

from export import families
from export.build.engines import TARGETS, native_precisions, resolve
from export.build.load import load
from export.build.options import BuildOptions
from export.build.pipeline import STEPS, build
from export.build.steps import Steps
from export.build.verify import OutOfTolerance
from export.checkpoints.checkpoint import COMES_WITH, RANDOM, SHIPPED
from export.families.settings import parse_settings
from runtime.errors import GanforgeError, InvalidInput
from runtime.tasks import ItemKind
from runtime.tensors import Precision

# Exit statuses: the options are wrong, the build failed.
BAD_INPUT, FAILED = 2, 1


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--model", metavar="NAME", help="The generator: one of those that --list shows.")
@click.option(
    "--weights", metavar="PATH|shipped:NAME|random:SEED", help="A checkpoint.  [default: what ships]"
)
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="A setting of the network, e.g. blocks=23; repeatable.",
)
@click.option("--scale", metavar="N", type=int, help="Short for --set scale=N.")
@click.option(
    "--output", metavar="DIR", type=click.Path(path_type=Path), default="bundles", show_default=True
)
@click.option(
    "--name", metavar="NAME", help="The bundle's name.  [default: MODEL-xSCALE for upscalers, else MODEL]"
)
@click.option("--fp32", "precisions", flag_value="float32", multiple=True, help="Full precision.  [default]")
@click.option(
    "--fp16",
    "precisions",
    flag_value="float16",
    multiple=True,
    help="Compute in float16; inputs and outputs stay float32.",
)
@click.option(
    "--bf16",
    "precisions",
    flag_value="bfloat16",
    multiple=True,
    help="Compute in bfloat16; inputs and outputs stay float32.",
)
@click.option(
    "--fastest",
    "precisions",
    flag_value="fastest",
    multiple=True,
    help="The precision that this machine computes fastest.",
)
@click.option(
    "--min-precision",
    type=click.Choice(get_args(Precision)),
    help="Lowest precision that engines may compute in, as on the server.  [default: the bundle's]",
)
@click.option(
    "--target",
    "targets",
    metavar="|".join(TARGETS),
    multiple=True,
    help="Engines to make; repeatable.  [default: all that can be made here]",
)
@click.option("--tile", metavar="N", type=int, help="Side of a tile, in input pixels.  [default: measured]")
@click.option(
    "--halo",
    metavar="N",
    type=int,
    help="Border of a tile that is computed and cut off, in input pixels.  [default: measured]",
)
@click.option(
    "--max-whole-px",
    metavar="N",
    type=int,
    help="For networks that are never tiled: the largest picture to serve, in pixels.  [default: measured]",
)
@click.option(
    "--classes",
    metavar="A,B,…",
    help="Names of the classes, in the labels' order.  [default: the checkpoint's]",
)
@click.option(
    "--keep-existing", is_flag=True, help="Fail where a bundle of this name exists, instead of replacing it."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@click.option(
    "--list", "listing", is_flag=True, help="Show the generators, their configuration and shipped weights."
)
def main(
    model: str | None,
    weights: str | None,
    settings: tuple[str, ...],
    scale: int | None,
    output: Path,
    name: str | None,
    precisions: tuple[str, ...],
    min_precision: Precision | None,
    targets: tuple[str, ...],
    tile: int | None,
    halo: int | None,
    max_whole_px: int | None,
    classes: str | None,
    keep_existing: bool,
    dry_run: bool,
    listing: bool,
) -> None:
    """Build a bundle: a checkpoint becomes a checked graph with engines, which `python -m server` serves."""
    try:
        if listing:
            click.echo("\n".join(describe(name) for name in families.names()))
            return
        if model is None:
            raise InvalidInput("model", f"is missing; expected one of {', '.join(families.names())}")
        if len(set(precisions)) > 1:
            raise InvalidInput(
                "precision", f"got {' and '.join(dict.fromkeys(precisions))}, expected one of them"
            )
        precision = precisions[0] if precisions else "float32"
        overrides = parse_overrides(families.get(model).config, settings, scale)
        check_weights(weights)
        check_name(name)
        available, left_out = resolve(targets)
        options = BuildOptions(
            model=model,
            weights=weights,
            overrides=overrides,
            output=output,
            name=name,
            precision=fastest(model, available) if precision == "fastest" else as_precision(precision),
            targets=available,
            class_names=tuple(label.strip() for label in classes.split(",")) if classes is not None else (),
            all_required=bool(targets),
            tile=tile,
            halo=halo,
            max_whole_px=max_whole_px,
            min_precision=min_precision,
            keep_existing=keep_existing,
        )
        if dry_run:
            click.echo(rehearse(options, left_out))
            return
        run(options, left_out, fall_back=precision == "fastest")
    except InvalidInput as error:
        options_there = {parameter.name for parameter in main.params} | {"set", "target"}
        option = f"--{error.field.replace('_', '-')}" if error.field in options_there else error.field
        click.echo(f"error: {option}: {error.problem}", err=True)
        sys.exit(BAD_INPUT)
    except GanforgeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(FAILED)


def run(options: BuildOptions, left_out: dict[str, str], *, fall_back: bool) -> None:
    """Build the bundle and print what was built.

    left_out: target → why it is not made. fall_back: build float32 where the asked precision misses its tolerance.
    """
    steps = Steps(STEPS)
    steps.say(f"{options.model} in {options.precision}; targets: {describe_targets(options, left_out)}")
    try:
        bundle = build(options, steps)
    except OutOfTolerance as error:
        if not fall_back or options.precision == "float32":
            raise
        steps.say(f"WARNING: {error}")
        steps.say("building float32 instead, since --fastest was asked for")
        bundle = build(replace(options, precision="float32"))
    psnr_db, max_abs = bundle.manifest.error["psnr_db"], bundle.manifest.error["max_abs"]
    steps.say(
        f"{bundle.path}: {bundle.manifest.precision}, {psnr_db:.1f} dB from float32 torch, at most {max_abs:.2g} off"
    )


def fastest(model: str, targets: tuple[str, ...]) -> Precision:
    """Of the precisions for which the model has a tolerance, the one that `targets` compute fastest on this machine."""
    tolerances = families.get(model).tolerances
    return next((precision for precision in native_precisions(targets) if precision in tolerances), "float32")


def parse_overrides(config: type, settings: tuple[str, ...], scale: int | None) -> dict[str, str]:
    """`--set key=value` pairs and `--scale` as overrides: key → value, as text. Raises InvalidInput if they disagree."""
    overrides = parse_settings(settings)
    if scale is not None:
        if not hasattr(config(), "scale"):
            raise InvalidInput("scale", f"got {scale}, but this generator has no scale")
        if overrides.setdefault("scale", str(scale)) != str(scale):
            raise InvalidInput(
                "scale", f"got {scale}, and --set scale={overrides['scale']}; give one of them"
            )
    return overrides


def check_weights(weights: str | None) -> None:
    if (
        weights is not None
        and weights.startswith(RANDOM)
        and not re.fullmatch(r"[0-9]{1,18}", weights[len(RANDOM) :])
    ):
        raise InvalidInput(
            "weights", f"got {weights!r}, expected a path, or {RANDOM}SEED with at most 18 digits"
        )


def check_name(name: str | None) -> None:
    if name is not None and (not name or name.startswith(".") or Path(name).name != name or "\0" in name):
        raise InvalidInput(
            "name", f"got {name!r}, expected a plain folder name that does not start with a dot"
        )


def as_precision(name: str) -> Precision:
    precisions: dict[str, Precision] = {"float32": "float32", "float16": "float16", "bfloat16": "bfloat16"}
    return precisions[name]


def describe_targets(options: BuildOptions, left_out: dict[str, str]) -> str:
    return ", ".join(options.targets) + "".join(
        f"; not {name}: {reason}" for name, reason in left_out.items()
    )


def rehearse(options: BuildOptions, left_out: dict[str, str]) -> str:
    """What a build with these options would do, as text. It loads the weights, so wrong options raise InvalidInput here too."""
    loaded = load(options)
    source = loaded.checkpoint
    lines = {
        "model": f"{options.model} ({source.spec.task})",
        "configuration": describe_config(asdict(source.config)),
        "weights": source.source + (f" (sha256 {source.sha256[:12]}…)" if source.sha256 else ""),
        "precision": options.precision,
        "targets": describe_targets(options, left_out),
        **SIZES[loaded.items](options),
        "bundle": str(options.output / loaded.name),
    }
    if loaded.replaces:
        lines["replaces"] = loaded.replaces
    if source.class_names:
        lines["classes"] = ", ".join(source.class_names)
    lines["steps"] = ", ".join(STEPS)
    if source.notes:
        lines["notes"] = "; ".join(source.notes)
    return (
        "\n".join(f"{key + ':':15}{value}" for key, value in lines.items())
        + "\nnothing was written (--dry-run)"
    )


def or_measured(value: int | None) -> str:
    return "measured" if value is None else str(value)


# The lines of a dry run about picture sizes, by what a request is cut into.
SIZES: Mapping[ItemKind, Callable[[BuildOptions], dict[str, str]]] = {
    "tiles": lambda options: {"tile, halo": f"{or_measured(options.tile)}, {or_measured(options.halo)}"},
    "whole": lambda options: {"largest": f"{or_measured(options.max_whole_px)} (pixels, never tiled)"},
    "samples": lambda options: {},
}


def describe_config(config: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in config.items())


def describe(name: str) -> str:
    """A few lines about a generator: task, shipped weights, configuration."""
    spec = families.get(name)
    lines = [f"{name} ({spec.task})", f"  configuration: {describe_config(asdict(spec.config()))}"]
    for path in sorted(SHIPPED.glob("*.safetensors")):
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("model") == name:
            lines.append(f"  weights: {COMES_WITH}{path.stem}, {path.stat().st_size / 1e6:.1f} MB, made for:")
            lines.append(f"    {describe_config(json.loads(metadata['config']))}")
    if len(lines) == 2:
        lines.append("  weights: none ship; --weights PATH or random:SEED")
    return "\n".join(lines)
