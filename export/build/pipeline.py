"""From a checkpoint to a bundle: `python -m export.build --model esrgan --fp16`.

load → precision → graph → tiles → engines → verify → preview → manifest. The manifest comes last, and with it the
folder takes its name: a build that fails or is killed leaves no bundle. `export/build/command.py` is the command line.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import nn

from export.build import engines, tiles
from export.build.compare import NONE, Difference
from export.build.graph import example, free_axes, write_graph
from export.build.precision import at_precision
from export.build.preview import preview
from export.build.reference import TorchEngine, first_manifest
from export.build.rewrite import rewrite
from export.build.staging import staging
from export.build.steps import Steps
from export.build.verify import Verified, cases, verify
from export.checkpoints.checkpoint import Checkpoint, load
from export.families.spec import Signature, Spec
from runtime import backends
from runtime.backends.base import Engine
from runtime.bundle import GRAPH, Bundle, file_info
from runtime.errors import BackendUnavailable, EngineError
from runtime.manifest import EngineFile, Manifest
from runtime.tensors import Precision

STEPS = ("load", "precision", "graph", "tiles", "engines", "verify", "preview", "manifest")
TOOLS = ("ganforge", "torch", "onnx", "onnxscript", "openvino", "onnxruntime", "numpy")
SPEED_BATCHES = (1, 8, 64)
SPEED_S = 0.2
# Seconds for the comparison with narrow arithmetic in torch: many CPUs have none, and emulate it slowly.
ARITHMETIC_S = 10.0


@dataclass(frozen=True)
class Options:
    """One build. weights, overrides: as in `checkpoint.load`. name: of the bundle, None for the usual one.

    targets: resolved names of `engines.TARGETS`; asked: the user named them, so that each must work.
    tile, halo: input pixels, None to measure. min_precision: the lowest that engines may compute in, None for `precision`.
    """

    model: str
    weights: str | None
    overrides: Mapping[str, str]
    output: Path
    name: str | None
    precision: Precision
    targets: tuple[str, ...]
    asked: bool = False
    tile: int | None = None
    halo: int | None = None
    min_precision: Precision | None = None


def steps_of(spec: Spec) -> tuple[str, ...]:
    """The names of the steps that a build of this generator takes."""
    return tuple(step for step in STEPS if spec.task == "upscale" or step != "tiles")


@dataclass(frozen=True)
class Plan:
    """Everything a build needs to know before it writes a byte."""

    options: Options
    checkpoint: Checkpoint
    signature: Signature
    name: str


def prepare(options: Options) -> Plan:
    """Load the weights, strictly, and resolve what was left open. Raises InvalidInput."""
    checkpoint = load(options.model, options.weights, options.overrides)
    signature = checkpoint.spec.signature(checkpoint.config)
    tiles.check(checkpoint.spec.task, signature, options.tile, options.halo)
    usual = f"{options.model}-x{signature.scale}" if checkpoint.spec.task == "upscale" else options.model
    return Plan(options, checkpoint, signature, options.name or usual)


def build(options: Options, steps: Steps) -> Bundle:
    """Make, check and write one bundle.

    Raises InvalidInput for options that cannot work, OutOfTolerance where an engine strays too far from float32
    torch, BackendUnavailable where nothing here can run the graph.
    """
    with steps.step("load", f"{options.model}, weights {options.weights or 'as shipped'}"):
        plan = prepare(options)
        for note in plan.checkpoint.notes:
            steps.note(note)
    checkpoint, signature = plan.checkpoint, plan.signature
    with steps.step("precision", f"{options.precision} inside, no batch norm, no transposed convolution"):
        fixed = None if free_axes(signature) else example(signature, batch=2)
        module = at_precision(rewrite(checkpoint.module, fixed), options.precision)
    with staging(options.output, plan.name) as writer:
        with steps.step("graph", "torch.onnx, checked"):
            model = write_graph(module, signature, writer.path / GRAPH)
            steps.note(f"{len(model.graph.node)} nodes, {(writer.path / GRAPH).stat().st_size / 1e6:.1f} MB")
        manifest = replace(
            first_manifest(plan.checkpoint, name=plan.name, precision=plan.options.precision),
            tools=versions(),
        )
        choice = None
        if checkpoint.spec.task == "upscale":
            with steps.step("tiles", "the least halo and the fastest tile, on photographs"):
                choice = _choose_tiles(Bundle(writer.path, manifest), checkpoint.module, options, steps)
                manifest = replace(manifest, tile_sizes=choice.sizes, halo=choice.halo)
        with steps.step("engines", ", ".join(options.targets)):
            manifest = replace(manifest, engines=_compile(writer.path, manifest, options, steps))
        bundle = Bundle(writer.path, replace(manifest, files=_files(writer.path, manifest)))
        with ExitStack() as open_engines:
            with steps.step("verify", "against float32 torch"):
                serving, why = backends.open_engine(bundle, min_precision=options.min_precision)
                open_engines.callback(serving.close)
                steps.note(why)
                verified, not_run = _verify(bundle, serving, module, plan, steps)
            with steps.step("preview", "a picture through the engine, and its speed"):
                (writer.path / "preview.png").write_bytes(preview(serving))
                speed = _speed(serving, signature, choice)
        with steps.step("manifest", str(options.output / plan.name)):
            worst = reduce(Difference.worst, (one.worst for one in verified), NONE)
            manifest = replace(manifest, error={"psnr_db": worst.psnr_db, "max_abs": worst.max_abs})
            report = {
                "name": plan.name,
                "model": options.model,
                "config": asdict(checkpoint.config),
                "precision": options.precision,
                "weights": dict(manifest.weights),
                "tolerance": asdict(checkpoint.spec.tolerances[options.precision]),
                "error": dict(manifest.error),
                "verified": [one.report() for one in verified],
                "not_run": not_run,
                "tiles": choice.report() if choice else None,
                "speed": speed,
                "engines": [asdict(one) for one in manifest.engines],
                "tools": dict(manifest.tools),
                "seconds": steps.seconds,
            }
            (writer.path / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            return writer.commit(manifest)


def versions() -> dict[str, str]:
    """The versions of all that shapes a bundle."""
    found = {"python": platform.python_version()}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _choose_tiles(bundle: Bundle, original: nn.Module, options: Options, steps: Steps) -> tiles.Choice:
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
    return choice


def _compile(folder: Path, manifest: Manifest, options: Options, steps: Steps) -> tuple[EngineFile, ...]:
    compiled = []
    for name in options.targets:
        try:
            engine = engines.compile_engine(name, folder, manifest)
        except (EngineError, BackendUnavailable) as error:
            if options.asked:
                raise
            steps.note(f"WARNING: no engine for {name}: {error}")
            continue
        if engine is not None:
            compiled.append(engine)
            size = (folder / engine.path).stat().st_size
            steps.note(
                f"{engine.path}: {size / 1e6:.1f} MB, for compute capability {engine.compute_capability}"
            )
    return tuple(compiled)


def _files(folder: Path, manifest: Manifest) -> dict[str, Any]:
    return {name: file_info(folder / name) for name in (GRAPH, *(engine.path for engine in manifest.engines))}


def _verify(
    bundle: Bundle, serving: Engine, module: nn.Module, plan: Plan, steps: Steps
) -> tuple[list[Verified], dict[str, str]]:
    """The engine that would serve here, every other backend of the targets, and the graph's arithmetic in torch.

    The latter because a CPU runs a narrow graph in float32, and says nothing of what a GPU will make of it.
    Returns what was verified, and why the rest was not run.
    """
    options, tolerance = plan.options, plan.checkpoint.spec.tolerances[plan.options.precision]
    made = cases(TorchEngine(bundle, plan.checkpoint.module), plan.signature, bundle.manifest.tile_sizes)
    verified: list[Verified] = []
    not_run: dict[str, str] = {}

    def check(engine: Engine, budget_s: float = math.inf) -> None:
        one = verify(engine, made, tolerance, budget_s)
        steps.note(f"{engine.backend} in {engine.precision}: {one.worst} over {len(one.rows)} cases")
        verified.append(one)

    check(serving)
    if options.precision != "float32":
        check(TorchEngine(bundle, module, options.precision), ARITHMETIC_S)
    for name in dict.fromkeys(engines.TARGETS[target].backend for target in options.targets):
        if name == serving.backend:
            continue
        backend = backends.load(name)
        if (reason := backend.unavailable(bundle, None)) is not None:
            not_run[name] = reason
            steps.note(f"{name}: not run here: {reason}")
            continue
        with closing(backend.open_engine(bundle, None, min_precision=options.min_precision)) as engine:
            check(engine)
    return verified, not_run


def _speed(engine: Engine, signature: Signature, choice: tiles.Choice | None) -> dict[str, Any]:
    """What the engine that will serve here reaches, without a server around it."""
    speed: dict[str, Any] = {"backend": engine.backend, "device": engine.device, "executed": engine.precision}
    if choice is not None:
        speed["tiles"] = choice.tiles
        return speed
    batches = []
    for batch in (size for size in SPEED_BATCHES if size <= engine.max_batch):
        tensors = example(signature, batch=batch)
        inputs = {spec.name: tensor.numpy() for spec, tensor in zip(signature.inputs, tensors, strict=True)}
        engine.run(inputs)
        best, spent = float("inf"), 0.0
        while spent < SPEED_S:
            started = time.perf_counter()
            engine.run(inputs)
            took = time.perf_counter() - started
            best, spent = min(best, took), spent + took
        batches.append({"batch": batch, "ms": round(best * 1e3, 3), "samples_per_s": round(batch / best, 1)})
    speed["batches"] = batches
    return speed
