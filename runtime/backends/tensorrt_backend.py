"""The TensorRT backend, for NVIDIA GPUs. See `Backend` for its functions.

It uses `tensorrt` on data-centre GPUs and `tensorrt_rtx` on RTX GPUs; both have the same API. A plan (a compiled engine)
comes from the bundle if one fits this GPU and library, else from the user's cache, else it is compiled now and stored in
the cache. The bundle is never changed. The other files `tensorrt_*.py` are parts of this backend:

    tensorrt_library       imports the two libraries
    tensorrt_plan          compiles plans, and tells which plan fits
    tensorrt_plan_cache    the user's cache of plans
    tensorrt_loading       chooses and loads a plan
    tensorrt_cuda          CUDA calls and buffers
    tensorrt_slot          runs batches on a CUDA stream
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import product
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from runtime.backends import tensorrt_library as libraries
from runtime.backends import tensorrt_plan as plans
from runtime.backends.base import Engine
from runtime.backends.shapes import warm_up_shapes
from runtime.backends.tensorrt_cuda import Cuda
from runtime.backends.tensorrt_loading import candidates, choose, context_maker, deserialize, usable_libraries
from runtime.backends.tensorrt_plan_cache import PlanCache, default_folder
from runtime.backends.tensorrt_slot import Context, Slot, shapes_of
from runtime.bundle import Bundle
from runtime.errors import BackendUnavailable, EngineError
from runtime.manifest import EngineFile, Manifest
from runtime.tensors import Array, Precision, zero_inputs

NAME = "tensorrt"
PACKAGES = ("tensorrt-cu13", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs", "cuda-python")
# `export.build --target` → the library that compiles for it.
TARGET_LIBRARIES: dict[str, libraries.Library] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
TARGETS = tuple(TARGET_LIBRARIES)
# Two streams, so that one batch is copied while the other computes.
SLOTS = 2
logger = logging.getLogger(__name__)


def unavailable(bundle: Bundle, device: str | None) -> str | None:
    """The reason why TensorRT cannot run this bundle on `device`, or None if it can."""
    index = device_index(device)
    if index is None:
        return f"it runs on cuda:0, cuda:1, …, not on device {device!r}"
    problem = Cuda.problem(index)
    if problem is not None:
        return problem
    _, reasons = usable_libraries(bundle.manifest, Cuda(index).compute_capability(), index)
    return "; ".join(reasons) if len(reasons) == len(libraries.LIBRARIES) else None


def native_precisions(device: str | None = None) -> tuple[Precision, ...]:
    """float16 before bfloat16, which is as fast but has 3 significand bits less. () if TensorRT cannot run here."""
    index = device_index(device)
    if index is None or Cuda.problem(index) is not None:
        return ()
    if all(libraries.missing(library, index) is not None for library in libraries.LIBRARIES):
        return ()
    has_bfloat16 = float(Cuda(index).compute_capability()) >= libraries.FIRST_BFLOAT16
    return ("float16", "bfloat16", "float32") if has_bfloat16 else ("float16", "float32")


def cannot_make(target: str) -> str | None:
    """The reason why this machine cannot compile for `target` ("tensorrt" or "tensorrt-rtx"), or None if it can."""
    return libraries.missing(TARGET_LIBRARIES[target])


def compile_engine(target: str, onnx: Path, manifest: Manifest) -> tuple[bytes, EngineFile] | None:
    """Compile a plan for GPU 0 of this machine ("tensorrt"), or for every GPU that TensorRT-RTX knows ("tensorrt-rtx").

    Returns the plan and its entry in the manifest. Raises BackendUnavailable or EngineError.
    """
    return plans.compile_plan(onnx, manifest, TARGET_LIBRARIES[target])


def open_engine(
    bundle: Bundle,
    device: str | None = None,
    *,
    min_precision: Precision | None = None,
    library: str | None = None,
) -> Engine:
    """Load the bundle. device: "cuda" or None for GPU 0, "cuda:1" for GPU 1.

    min_precision: not used; a plan computes in the graph's own precision (strongly typed, without TF32).
    library: "tensorrt" or "tensorrt_rtx"; None for the one that has a fitting plan in the bundle, else the first usable.
    Raises BackendUnavailable with the reason of `unavailable`, EngineError if no plan can be compiled or loaded.
    """
    reason = unavailable(bundle, device)
    if reason is not None:
        raise BackendUnavailable(f"{NAME}: {reason}")
    cuda = Cuda(device_index(device) or 0)
    cuda.use()
    wanted = choose(bundle, cuda.compute_capability(), library, cuda.device)
    trt = libraries.load_library(wanted.library)
    log = libraries.library_log(wanted.library)
    runtime = trt.Runtime(log)
    engine, source = deserialize(
        runtime, candidates(bundle, wanted, PlanCache(default_folder()), cuda.device), log.take
    )
    logger.info("%s: %s", bundle.manifest.name, source)
    make_context = context_maker(trt, engine, wanted.library, log.take)
    return TensorRTEngine(bundle, cuda=cuda, make_context=make_context, library=wanted.library)


def device_index(device: str | None) -> int | None:
    """The GPU's number: 0 for "cuda" and None, 1 for "cuda:1"; None for any other device."""
    name, _, index = (device or "cuda").partition(":")
    return int(index or 0) if name.lower() == "cuda" and (not index or index.isdecimal()) else None


class TensorRTEngine(Engine):
    """One plan on one GPU, with a stream, buffers and CUDA graphs for each of its slots."""

    backend = NAME

    def __init__(
        self,
        bundle: Bundle,
        *,
        cuda: Cuda,
        make_context: Callable[[bool], Context],
        library: str,
    ) -> None:
        manifest = bundle.manifest
        sizes = plans.batch_sizes(manifest)
        # The graph is strongly typed, so it runs in the precision that it states.
        super().__init__(
            bundle, device=f"cuda:{cuda.device}", precision=manifest.precision, slots=SLOTS, batch_sizes=sizes
        )
        self.library = library
        self._cuda = cuda
        self._profiles = plans.profiles(manifest)
        self._fixed = warm_up_shapes(manifest, sizes)
        outputs = tuple(spec.name for spec in manifest.outputs)
        keys = {shapes_of(self._zeros(batch, side)) for batch, side in self._fixed}
        # TensorRT-RTX captures CUDA graphs by itself: only it knows when its kernels for a shape are ready.
        capture = library == "tensorrt"
        self._slots = [
            Slot(cuda, make_context, outputs=outputs, fixed=keys, capture=capture) for _ in range(SLOTS)
        ]
        # None tells every thread that waits for a slot that the engine is closed.
        self._idle: SimpleQueue[Slot | None] = SimpleQueue()
        for slot in self._slots:
            self._idle.put(slot)

    @property
    def graph_launches(self) -> int:
        """Runs that were one launch of a captured CUDA graph (TensorRT-RTX' own graphs are not counted)."""
        return sum(slot.graph_launches for slot in self._slots)

    @property
    def plain_runs(self) -> int:
        """Runs that were enqueued kernel by kernel, or through TensorRT-RTX' own graphs."""
        return sum(slot.plain_runs for slot in self._slots)

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        batch = len(next(iter(inputs.values())))
        side = max(
            (array.shape[axis] for array in inputs.values() for axis in range(2, array.ndim)), default=0
        )
        profile = self._profile(batch, side)
        if profile is None and batch > 1 and self._profile(1, side) is not None:
            singles = [
                self._run({name: array[i : i + 1] for name, array in inputs.items()}) for i in range(batch)
            ]
            return {name: np.concatenate([single[name] for single in singles]) for name in singles[0]}
        if profile is None:
            most = max(profile.max_side_px for profile in self._profiles)
            raise EngineError(
                f"{self.manifest.name}: got a side of {side} px, the plan takes at most {most} px"
            )
        slot = self._take()
        try:
            self._cuda.use()
            return slot.run(profile, inputs)
        finally:
            self._idle.put(slot)

    def _profile(self, batch: int, side_px: int) -> int | None:
        fitting = (i for i, profile in enumerate(self._profiles) if profile.takes(batch, side_px))
        return next(fitting, None)

    def warm_up(self) -> None:
        """Prepare every fixed shape on every slot, the largest first, so that its scratch memory is enough for the rest."""
        self._cuda.use()
        slots = [self._take() for _ in self._slots]
        try:
            for slot, (batch, side) in product(slots, sorted(self._fixed, reverse=True)):
                profile = self._profile(batch, side)
                if profile is not None:
                    slot.run(profile, self._zeros(batch, side))
        finally:
            for slot in slots:
                self._idle.put(slot)
        # Once with the checks of `run`, so that a graph whose output is NaN fails now and not at the first request.
        self.run(self._zeros(1, self._fixed[0][1]))

    def _zeros(self, batch: int, side_px: int) -> dict[str, Array]:
        return zero_inputs(self.manifest.inputs, batch=batch, height=side_px, width=side_px)

    def _take(self) -> Slot:
        """Wait for an idle slot and take it. Raises EngineError if the engine is closed."""
        slot = self._idle.get()
        if slot is None:
            self._idle.put(None)  # for the next waiting thread
            raise EngineError(f"{self.manifest.name}: the engine is closed")
        return slot

    def close(self) -> None:
        """Wait for the runs in flight, then free the GPU's memory.

        Raises the first EngineError if CUDA fails to free a part; the rest is freed.
        """
        super().close()
        problems: list[EngineError] = []
        slots, self._slots = self._slots, []
        self._cuda.use()
        for _ in slots:
            try:
                self._take().free()
            except EngineError as error:
                problems.append(error)
        if slots:
            self._idle.put(None)
        if problems:
            raise problems[0]
