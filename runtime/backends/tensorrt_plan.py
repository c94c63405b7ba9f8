"""Compiles a bundle's graph into a TensorRT plan, and tells whether a plan fits a machine and graph.

The tensorrt backend calls `compile_plan` during a build, and at server start if no plan of the bundle fits. `describe`
returns a plan's entry in the manifest, which is also its key in the plan cache; `fits` compares two entries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

from runtime import tasks
from runtime.backends import shapes
from runtime.backends.tensorrt_cuda import Cuda
from runtime.backends.tensorrt_library import library_log, load_library, target_gpus
from runtime.bundle import file_info
from runtime.errors import BackendUnavailable, EngineError
from runtime.manifest import EngineFile, Manifest
from runtime.sides import side_of, side_within
from runtime.tasks import ItemKind
from runtime.tensors import TensorSpec

# In place of a compute capability: the plan runs on every GPU that its library compiles for.
ANY = "any"
TURING = "7.5"
WHOLE_SIDE_PX = 1024
OPTIMAL_TILES = 4


@dataclass(frozen=True)
class Profile:
    """The shapes of a TensorRT optimisation profile: 1 to max_batch items, sides from min_side_px to max_side_px.

    best_batch, best_side_px: the shape that kernels are tuned for. Sides are 0 if the inputs have no varying sides.
    """

    max_batch: int
    best_batch: int
    max_side_px: int = 0
    best_side_px: int = 0
    min_side_px: int = 0

    def takes(self, batch: int, longest_side_px: int) -> bool:
        """Whether the profile covers such a batch."""
        return batch <= self.max_batch and longest_side_px <= self.max_side_px

    def __str__(self) -> str:
        sides = f"x{self.min_side_px}-{self.max_side_px}@{self.best_side_px}" if self.max_side_px else ""
        return f"n1-{self.max_batch}@{self.best_batch}{sides}"


def profiles(manifest: Manifest) -> tuple[Profile, ...]:
    """The optimisation profiles of a bundle's plan.

    Samples: one for batches. Tiles: one for batches of tiles, one for single larger pictures. Whole pictures: one.
    """
    return PROFILES[tasks.items_of(manifest)](manifest)


def _sample_profiles(manifest: Manifest) -> tuple[Profile, ...]:
    batch = batch_sizes(manifest)[-1]
    return (Profile(batch, batch),)


def _tile_profiles(manifest: Manifest) -> tuple[Profile, ...]:
    least, tile = side_of(manifest, 1), shapes.largest_tile_px(manifest)
    batch = batch_sizes(manifest)[-1]
    tiles = Profile(batch, min(batch, OPTIMAL_TILES), tile, tile, least)
    whole = max(tile, min(WHOLE_SIDE_PX, _longest_side_px(manifest)))
    if whole == tile:
        return (tiles,)
    return tiles, Profile(1, 1, whole, max(tile, side_within(manifest, whole // 2)), least)


def _whole_profiles(manifest: Manifest) -> tuple[Profile, ...]:
    """Sides up to twice the side of the largest square, for pictures up to four times as wide as high."""
    square = isqrt(manifest.max_whole_px) or WHOLE_SIDE_PX
    longest = min(side_of(manifest, 2 * square), _longest_side_px(manifest))
    return (Profile(1, 1, longest, side_within(manifest, longest // 2), side_of(manifest, 1)),)


def _longest_side_px(manifest: Manifest) -> int:
    """The side of the largest square whose output stays within `shapes.MAX_OUTPUT_PX`."""
    return side_within(manifest, isqrt(shapes.MAX_OUTPUT_PX) // manifest.scale)


PROFILES: Mapping[ItemKind, Callable[[Manifest], tuple[Profile, ...]]] = {
    "samples": _sample_profiles,
    "tiles": _tile_profiles,
    "whole": _whole_profiles,
}


def profile_key(manifest: Manifest) -> str:
    """`profiles` as one line of text. Plans with equal keys take the same shapes."""
    return " ".join(map(str, profiles(manifest)))


def batch_sizes(manifest: Manifest) -> tuple[int, ...]:
    """The batch sizes that an engine on a GPU is prepared for, ascending."""
    return shapes.batch_sizes(manifest, "cuda")


def compile_plan(
    onnx: Path, manifest: Manifest, library: str, *, compute_capability: str | None = None, device: int = 0
) -> tuple[bytes, EngineFile]:
    """Compile `onnx` in the precision that the graph states.

    compute_capability: such as "8.6"; None for all that TensorRT-RTX compiles for, or for the GPU that TensorRT uses.
    device: number of the GPU that TensorRT compiles on and for; TensorRT-RTX needs none.
    Returns the plan and its entry in the manifest. Raises BackendUnavailable if the library is missing or cannot compile
    here, EngineError with the message of the parser or compiler.
    """
    if library == "tensorrt":
        own = _own_gpu(device, compute_capability)
        return _compile(onnx, manifest, library, ()), describe(onnx, manifest, library, own)
    known = target_gpus(library, manifest) or ()
    if compute_capability is not None and compute_capability not in known:
        raise BackendUnavailable(
            f"{library} does not compile {manifest.precision} for compute capability {compute_capability}, "
            f"only for {', '.join(known)}"
        )
    entry = describe(onnx, manifest, library, compute_capability or ANY)
    if compute_capability is not None:
        return _compile(onnx, manifest, library, (compute_capability,)), entry
    try:
        return _compile(onnx, manifest, library, known), entry
    except EngineError as error:
        # Turing lacks some kernels, such as float32 matrix products. Then compile for the later GPUs only.
        if TURING not in known or not re.search("turing|sm_?75", str(error), re.IGNORECASE):
            raise
        later = tuple(target for target in known if target != TURING)
        return _compile(onnx, manifest, library, later), entry


def _own_gpu(device: int, expected: str | None) -> str:
    """The compute capability of GPU `device`, which becomes this thread's. Raises BackendUnavailable if not `expected`."""
    problem = Cuda.problem(device)
    if problem is not None:
        raise BackendUnavailable(f"tensorrt compiles only on the GPU that it compiles for: {problem}")
    cuda = Cuda(device)
    own = cuda.compute_capability()
    if expected not in (None, own):
        raise BackendUnavailable(
            f"tensorrt: asked to compile for compute capability {expected}, GPU {device} here has {own}"
        )
    cuda.use()
    return own


def _compile(onnx: Path, manifest: Manifest, library: str, compute_capabilities: tuple[str, ...]) -> bytes:
    trt = load_library(library)
    logger = library_log(library)
    logger.messages.clear()
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # the binding's error for a null pointer
        raise BackendUnavailable(f"{library} cannot compile here: {logger.take()}") from error
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        errors = (parser.get_error(i) for i in range(parser.num_errors))
        problems = "; ".join(f"{e.node_operator()} {e.node_name()}: {e.desc()}" for e in errors)
        raise EngineError(f"{manifest.name}: {library} cannot read {onnx}: {problems or logger.take()}")
    config = builder.create_builder_config()
    # TF32 is on by default and would run a float32 graph with 11 significand bits.
    config.clear_flag(trt.BuilderFlag.TF32)
    for profile in profiles(manifest):
        _add_profile(builder, network, config, manifest, profile)
    if library == "tensorrt":
        # Plans are matched by compute capability, which is the same for GPUs of different size (H100, H200, a MIG slice).
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    if compute_capabilities:
        config.num_compute_capabilities = len(compute_capabilities)
    for index, target in enumerate(compute_capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, "SM" + target.replace(".", "")), index)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{manifest.name}: {library} cannot compile {onnx}: {logger.take()}")
    return bytes(plan)


def describe(onnx: Path, manifest: Manifest, library: str, compute_capability: str) -> EngineFile:
    """The entry of a plan in the manifest. Two plans with equal entries are interchangeable."""
    version = str(load_library(library).__version__)
    # A bundle that is still being built has no list of files yet.
    info = manifest.files.get(onnx.name) or file_info(onnx)
    return EngineFile(
        path=f"engines/{library}-{version}-{compute_capability}.plan",
        library=library,
        library_version=version,
        compute_capability=compute_capability,
        onnx_sha256=info.sha256,
        profile=profile_key(manifest),
    )


def fits(plan: EngineFile, wanted: EngineFile) -> bool:
    """Whether `plan` was compiled for the GPU, library version, graph and shapes of `wanted`."""
    same = all(
        getattr(plan, name) == getattr(wanted, name)
        for name in ("library", "library_version", "onnx_sha256", "profile")
    )
    return same and plan.compute_capability in (ANY, wanted.compute_capability)


def _network_flags(trt: Any) -> int:
    # TensorRT 11 is always strongly typed and ignores the flag; 10 needs it.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _add_profile(builder: Any, network: Any, config: Any, manifest: Manifest, profile: Profile) -> None:
    specs = {spec.name: spec for spec in manifest.inputs}
    names = {network.get_input(i).name for i in range(network.num_inputs)}
    if names != specs.keys():
        raise EngineError(
            f"{manifest.name}: the graph takes {sorted(names)}, the manifest says {sorted(specs)}; build the bundle again"
        )
    entry = builder.create_optimization_profile()
    for name, spec in specs.items():
        least = _square(spec, 1, profile.min_side_px)
        best = _square(spec, profile.best_batch, profile.best_side_px)
        most = _square(spec, profile.max_batch, profile.max_side_px)
        entry.set_shape(name, least, best, most)
    if config.add_optimization_profile(entry) < 0:
        raise EngineError(f"{manifest.name}: profile {profile} was refused for inputs {sorted(names)}")


def _square(spec: TensorSpec, batch: int, side_px: int) -> tuple[int, ...]:
    return spec.concrete_shape(batch=batch, height=side_px, width=side_px)
