"""Builds a bundle from a checkpoint, step by step; each step is a file of this package.

The manifest is written last, and then the folder is renamed: a build that fails or is killed leaves no bundle.
command.py calls `build`, and so do tests; it returns the Bundle.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from export.build import sizes
from export.build.engines import compile_all
from export.build.graph import example, free_axes, write_graph
from export.build.load import load
from export.build.manifest import commit, versions
from export.build.options import BuildOptions
from export.build.precision import at_precision
from export.build.preview import preview
from export.build.reference import first_manifest
from export.build.rewrite import rewrite
from export.build.speed import speed
from export.build.staging import staging
from export.build.steps import Steps
from export.build.verify import verify_all
from runtime import backends
from runtime.bundle import GRAPH, Bundle, file_info

STEPS = ("load", "precision", "graph", "sizes", "engines", "verify", "preview", "manifest")


def build(options: BuildOptions, steps: Steps | None = None) -> Bundle:
    """Make, check and write a bundle. An existing bundle of its name is replaced at the very end, atomically.

    steps: shows the progress; None for a new one.
    Raises InvalidInput for options that cannot work, OutOfTolerance if an engine's output is too far from float32
    torch's, BackendUnavailable if no backend here can run the graph.
    """
    steps = steps or Steps(STEPS)
    with steps.step("load", f"{options.model}, weights {options.weights or 'as shipped'}"):
        loaded = load(options)
        for note in loaded.checkpoint.notes:
            steps.note(note)
        if loaded.replaces:
            steps.note(f"NOTE: {options.output / loaded.name} will be replaced: {loaded.replaces}")
    original, signature = loaded.checkpoint.module, loaded.signature
    with steps.step("precision", f"{options.precision}, batch norm and transposed convolutions rewritten"):
        fixed = None if free_axes(signature) else example(signature, batch=2)
        module = at_precision(rewrite(original, fixed), options.precision)
    with staging(options.output, loaded.name) as writer, ExitStack() as open_engines:
        with steps.step("graph", "torch.onnx, checked"):
            graph = writer.path / GRAPH
            model = write_graph(module, signature, graph)
            steps.note(f"{len(model.graph.node)} nodes, {graph.stat().st_size / 1e6:.1f} MB")
        manifest = first_manifest(loaded.checkpoint, name=loaded.name, precision=options.precision)
        manifest = replace(manifest, tools=versions())
        with steps.step("sizes", f"a request becomes {sizes.IN_WORDS[loaded.items]}"):
            chosen = sizes.choose(loaded.items, Bundle(writer.path, manifest), original, options, steps)
            manifest = replace(manifest, **chosen.fields)
        with steps.step("engines", ", ".join(options.targets)):
            engines = compile_all(
                options.targets, writer.path, manifest, steps, all_required=options.all_required
            )
            files = {name: file_info(writer.path / name) for name in (GRAPH, *(e.path for e in engines))}
            bundle = Bundle(writer.path, replace(manifest, engines=engines, files=files))
        with steps.step("verify", "against float32 torch"):
            serving, why = backends.open_engine(bundle, min_precision=options.min_precision)
            open_engines.callback(serving.close)
            steps.note(why)
            verified, not_run = verify_all(bundle, serving, module, loaded, options, steps)
        with steps.step("preview", "a picture through the engine, and its speed"):
            (writer.path / "preview.png").write_bytes(preview(serving))
            figures = speed(serving, signature, chosen)
        with steps.step("manifest", str(options.output / loaded.name)):
            return commit(
                writer,
                bundle.manifest,
                loaded,
                options,
                verified=verified,
                not_run=not_run,
                sizes=chosen,
                speed=figures,
                seconds=steps.seconds,
            )
