"""Compiles a bundle's graph into a TensorRT plan, and says what such a plan fits.

TensorRT (data-centre GPUs) compiles for the GPU of this machine. TensorRT-RTX has the same API, compiles on a machine
without a GPU, and puts several compute capabilities in one plan.
"""

from __future__ import annotations

import importlib
import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from runtime.bundle import file_info
from runtime.errors import BackendUnavailable, EngineError
from runtime.manifest import EngineFile, Manifest
from runtime.tensors import TensorSpec

Library = Literal["tensorrt", "tensorrt_rtx"]
LIBRARIES: tuple[Library, ...] = ("tensorrt", "tensorrt_rtx")
# Import names, best first: the whole package, else its bindings alone (they load the libraries' package themselves).
MODULES = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
PACKAGES = {"tensorrt": "tensorrt-cu13", "tensorrt_rtx": "tensorrt-rtx-cu13"}
ANY = "any"
TURING = "7.5"

DEFAULT_TILE_PX = 192
WHOLE_SIDE_PX = 1024
OPTIMAL_TILES = 4
# 64 feature maps over this many output pixels stay below 2^31 values, beyond which kernels need 64-bit indices.
OUTPUT_PX = 4096 * 4096
TILE_BATCHES = (1, 2, 4, 8)
SAMPLE_BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Profile:
    """The shapes one optimisation profile takes: 1..max_batch items, sides from size_multiple to max_side_px.

    best_batch, best_side_px: what its kernels are chosen for. Sides are 0 where no input has a varying side.
    """

    max_batch: int
    best_batch: int
    max_side_px: int = 0
    best_side_px: int = 0
    min_side_px: int = 0

    def takes(self, batch: int, longest_side_px: int) -> bool:
        return batch <= self.max_batch and longest_side_px <= self.max_side_px

    def __str__(self) -> str:
        sides = f"x{self.min_side_px}-{self.max_side_px}@{self.best_side_px}" if self.max_side_px else ""
        return f"n1-{self.max_batch}@{self.best_batch}{sides}"


def profiles(manifest: Manifest) -> tuple[Profile, ...]:
    """The profiles of a bundle's plan: batches of samples; or batches of tiles, then single larger images."""
    if manifest.task == "generate":
        return (Profile(SAMPLE_BATCHES[-1], SAMPLE_BATCHES[-1]),)
    multiple = manifest.size_multiple
    tile = max(manifest.tile_sizes, default=DEFAULT_TILE_PX)
    batch = batch_sizes(manifest)[-1]
    largest = int(OUTPUT_PX**0.5) // manifest.scale
    whole = max(tile, min(WHOLE_SIDE_PX, largest // multiple * multiple))
    tiles = Profile(batch, min(batch, OPTIMAL_TILES), tile, tile, multiple)
    if whole == tile:
        return (tiles,)
    return tiles, Profile(1, 1, whole, max(tile, whole // 2 // multiple * multiple), multiple)


def profile_key(manifest: Manifest) -> str:
    """`profiles` in one line: plans with the same key take the same shapes."""
    return " ".join(map(str, profiles(manifest)))


def batch_sizes(manifest: Manifest) -> tuple[int, ...]:
    """The batch lengths worth preparing, ascending."""
    if manifest.task == "generate":
        return SAMPLE_BATCHES
    output_px = (max(manifest.tile_sizes, default=DEFAULT_TILE_PX) * manifest.scale) ** 2
    return tuple(size for size in TILE_BATCHES if size == 1 or size * output_px <= OUTPUT_PX)


@cache
def load_library(library: str) -> Any:
    """TensorRT's or TensorRT-RTX's module. Raises BackendUnavailable saying which piece is missing."""
    names = MODULES[library]
    found = [name for name in names if find_spec(name) is not None]
    package = PACKAGES[library]
    if not found:
        raise BackendUnavailable(
            f"{library} is not installed (pip install {package}-bindings {package}-libs)"
        )
    problems = []
    for name in found:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:
            problems.append(str(error))
    raise BackendUnavailable(
        f"{library}: its Python bindings are installed, its libraries are not ({problems[-1]}); "
        f"pip install {package}-libs, whose files come from NVIDIA's own package index (https://pypi.nvidia.com)"
    )


def missing(library: str) -> str | None:
    """Which piece `library` lacks to compile here and how to get it (TensorRT also needs its GPU); None: nothing."""
    try:
        load_library(library)
        if library == "tensorrt":
            _own_gpu(None)
    except BackendUnavailable as error:
        return str(error)
    return None


@cache
def log(library: str) -> Any:
    """The library's one logger of this process (it takes no second): keeps the last warnings and errors."""
    trt = load_library(library)
    base: Any = trt.ILogger

    class Log(base):
        def __init__(self) -> None:
            base.__init__(self)
            self.messages: deque[str] = deque(maxlen=20)

        def log(self, severity: Any, message: str) -> None:
            if severity <= base.Severity.ERROR:
                self.messages.append(message)

        def take(self) -> str:
            """What was said since the last call, for an error message."""
            said = "; ".join(self.messages)
            self.messages.clear()
            return said or f"{library} gave no reason"

    return Log()


def targets(library: str, manifest: Manifest | None = None) -> tuple[str, ...] | None:
    """The compute capabilities that `library` compiles for, "8.6" and the like; None: whatever GPU is here.

    Given a manifest, only those that have its precision.
    """
    members = getattr(load_library(library), "ComputeCapability", None)
    if members is None:
        return None
    numbers = sorted(int(name[2:]) for name in members.__members__ if name.startswith("SM"))
    if manifest is not None and manifest.precision == "bfloat16":
        numbers = [number for number in numbers if number >= 80]  # the first with bfloat16
    return tuple(f"{number // 10}.{number % 10}" for number in numbers)


def compile_plan(
    onnx: Path, manifest: Manifest, library: str, *, compute_capability: str | None = None
) -> tuple[bytes, EngineFile]:
    """Compile `onnx` at the precision that is in it.

    compute_capability: "8.6" for one; None takes all that TensorRT-RTX can compile it for, or TensorRT's own GPU.
    Returns the plan and its entry for the manifest. Raises BackendUnavailable where the library is missing or cannot
    compile here, EngineError with the parser's or the compiler's words.
    """
    if library == "tensorrt":
        own = _own_gpu(compute_capability)
        return _compile(onnx, manifest, library, ()), describe(onnx, manifest, library, own)
    known = targets(library, manifest) or ()
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
        # Turing lacks kernels that all later GPUs have (matrix products in float32, for one); the rest need not suffer.
        if TURING not in known or not re.search("turing|sm_?75", str(error), re.IGNORECASE):
            raise
        later = tuple(target for target in known if target != TURING)
        return _compile(onnx, manifest, library, later), entry


def _compile(onnx: Path, manifest: Manifest, library: str, compute_capabilities: tuple[str, ...]) -> bytes:
    trt = load_library(library)
    logger = log(library)
    logger.messages.clear()
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # the binding's word for a null pointer
        raise BackendUnavailable(f"{library} cannot compile here: {logger.take()}") from error
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        errors = (parser.get_error(i) for i in range(parser.num_errors))
        problems = "; ".join(f"{e.node_operator()} {e.node_name()}: {e.desc()}" for e in errors)
        raise EngineError(f"{manifest.name}: {library} cannot read {onnx}: {problems or logger.take()}")
    config = builder.create_builder_config()
    # On by default; it would run a float32 graph with significands of 10 bits.
    config.clear_flag(trt.BuilderFlag.TF32)
    for profile in profiles(manifest):
        _add_profile(builder, network, config, manifest, profile)
    if compute_capabilities:
        config.num_compute_capabilities = len(compute_capabilities)
    for index, target in enumerate(compute_capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, "SM" + target.replace(".", "")), index)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{manifest.name}: {library} cannot compile {onnx}: {logger.take()}")
    return bytes(plan)


def describe(onnx: Path, manifest: Manifest, library: str, compute_capability: str) -> EngineFile:
    """What identifies a plan: the entry of the manifest, and the key of the cache."""
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
    """Whether `plan` runs where `wanted` names this GPU, this library's version, this graph and these shapes."""
    same = all(
        getattr(plan, name) == getattr(wanted, name)
        for name in ("library", "library_version", "onnx_sha256", "profile")
    )
    return same and plan.compute_capability in (ANY, wanted.compute_capability)


def _own_gpu(asked: str | None) -> str:
    from runtime.backends.cuda_memory import Cuda

    problem = Cuda.problem()
    if problem is not None:
        raise BackendUnavailable(f"tensorrt compiles only on the GPU it compiles for: {problem}")
    found = Cuda().compute_capability()
    if asked not in (None, found):
        raise BackendUnavailable(
            f"tensorrt: asked to compile for compute capability {asked}, the GPU here is {found}"
        )
    return found


def _network_flags(trt: Any) -> int:
    # TensorRT 11 is always strongly typed and ignores the flag; 10 needs it.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _add_profile(builder: Any, network: Any, config: Any, manifest: Manifest, profile: Profile) -> None:
    specs = {spec.name: spec for spec in manifest.inputs}
    names = {network.get_input(i).name for i in range(network.num_inputs)}
    if names != specs.keys():
        raise EngineError(
            f"{manifest.name}: the graph takes {sorted(names)}, the manifest says {sorted(specs)}"
        )
    entry = builder.create_optimization_profile()
    for name, spec in specs.items():
        least = _shape(spec, 1, profile.min_side_px)
        best = _shape(spec, profile.best_batch, profile.best_side_px)
        most = _shape(spec, profile.max_batch, profile.max_side_px)
        entry.set_shape(name, least, best, most)
    if config.add_optimization_profile(entry) < 0:
        raise EngineError(f"{manifest.name}: profile {profile} was refused for inputs {sorted(names)}")


def _shape(spec: TensorSpec, batch: int, side_px: int) -> tuple[int, ...]:
    return batch, *(side_px if isinstance(axis, str) else axis for axis in spec.shape[1:])
