"""What a build can make beside the graph, and with which of the runtime's backends each is checked.

`resolve` turns `--target` into names; `compile_all` is the build's step.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from export.build.steps import Steps
from runtime.backends import plan
from runtime.bundle import GRAPH
from runtime.errors import BackendUnavailable, EngineError, InvalidInput
from runtime.manifest import EngineFile, Manifest


@dataclass(frozen=True)
class Target:
    """backend: which of the runtime's backends runs it. library: what compiles a plan for it, "" where none is."""

    backend: str
    library: str = ""


TARGETS = {
    "onnx": Target("onnxruntime"),
    "openvino": Target("openvino"),
    "tensorrt": Target("tensorrt", "tensorrt"),
    "tensorrt-rtx": Target("tensorrt", "tensorrt_rtx"),
}


def missing(name: str) -> str | None:
    """Why this machine cannot make the target `name`, or None where it can."""
    target = TARGETS[name]
    if target.library:
        return plan.missing(target.library)
    if name == "openvino" and find_spec("openvino") is None:
        return "openvino is not installed (pip install openvino)"
    return None


def resolve(asked: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The targets to make, in order, and why each of the others is left out (only where nothing was asked for).

    Raises InvalidInput for an unknown target, BackendUnavailable where one that was asked for cannot be made.
    """
    for name in asked:
        if name not in TARGETS:
            raise InvalidInput("target", f"got {name!r}, expected one of {', '.join(TARGETS)}")
    if not asked:
        reasons = {name: reason for name in TARGETS if (reason := missing(name)) is not None}
        return tuple(name for name in TARGETS if name not in reasons), reasons
    for name in asked:
        if (reason := missing(name)) is not None:
            raise BackendUnavailable(f"--target {name} cannot be made here: {reason}")
    return tuple(name for name in TARGETS if name in asked), {}


def compile_all(
    targets: tuple[str, ...], folder: Path, manifest: Manifest, steps: Steps, *, all_required: bool
) -> tuple[EngineFile, ...]:
    """Compile what `targets` need into the bundle in `folder`; those that need nothing are left out.

    all_required: raise where one cannot be made (EngineError, BackendUnavailable), instead of a warning.
    """
    compiled = []
    for name in targets:
        try:
            engine = compile_engine(name, folder, manifest)
        except (EngineError, BackendUnavailable) as error:
            if all_required:
                raise
            steps.note(f"WARNING: no engine for {name}: {error}")
            continue
        if engine is not None:
            compiled.append(engine)
            megabytes = (folder / engine.path).stat().st_size / 1e6
            steps.note(
                f"{engine.path}: {megabytes:.1f} MB, for compute capability {engine.compute_capability}"
            )
    return tuple(compiled)


def compile_engine(name: str, folder: Path, manifest: Manifest) -> EngineFile | None:
    """Compile the target `name` of the bundle in `folder` and store the engine in it. None: nothing to compile."""
    library = TARGETS[name].library
    if not library:
        return None
    blob, engine = plan.compile_plan(folder / GRAPH, manifest, library)
    path = folder / engine.path
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(blob)
    return engine
