"""The targets of a build: which engines can be made on this machine, and compiling them.

A target is a kind of engine; each belongs to a backend, which declares its targets (see `runtime.backends.Backend`).
command.py calls `resolve` for `--target` and `native_precisions` for `--fastest`; the pipeline calls `compile_all`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.build.steps import Steps
from runtime import backends
from runtime.bundle import GRAPH
from runtime.errors import BackendUnavailable, EngineError, InvalidInput
from runtime.manifest import EngineFile, Manifest
from runtime.tensors import Precision

# Target → the name of the backend that runs it; those that run on every machine come first.
TARGETS = {
    target: name for name, _ in reversed(backends.PREFERENCE) for target in backends.load(name).TARGETS
}


def missing(target: str) -> str | None:
    """Why this machine cannot make `target`, or None where it can."""
    return backends.load(TARGETS[target]).cannot_make(target)


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


def native_precisions(targets: Sequence[str]) -> tuple[Precision, ...]:
    """The precisions that the preferred backend among those of `targets` computes natively on this machine, fastest first."""
    return backends.native_precisions({TARGETS[target] for target in targets})


def compile_all(
    targets: tuple[str, ...], folder: Path, manifest: Manifest, steps: Steps, *, all_required: bool
) -> tuple[EngineFile, ...]:
    """Compile the engines of `targets` into the bundle in `folder`; returns those that were written.

    Targets that run the graph itself need no engine. all_required: raise EngineError or BackendUnavailable where an engine
    cannot be made, instead of warning.
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


def compile_engine(target: str, folder: Path, manifest: Manifest) -> EngineFile | None:
    """Compile `target` for the bundle in `folder`, and write the engine into it. None: there is nothing to compile."""
    compiled = backends.load(TARGETS[target]).compile_engine(target, folder / GRAPH, manifest)
    if compiled is None:
        return None
    content, engine = compiled
    path = folder / engine.path
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return engine
