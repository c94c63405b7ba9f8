"""Chooses the TensorRT library and plan for a bundle on a GPU, loads the plan and makes execution contexts from it.

`tensorrt_backend.open_engine` calls `choose`, `candidates`, `deserialize` and `context_maker`, in this order.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from runtime.backends import tensorrt_library as libraries
from runtime.backends import tensorrt_plan as plans
from runtime.backends.tensorrt_plan_cache import PlanCache
from runtime.backends.tensorrt_slot import Context
from runtime.bundle import Bundle
from runtime.errors import BackendUnavailable, EngineError
from runtime.manifest import EngineFile, Manifest

logger = logging.getLogger(__name__)


def usable_libraries(
    manifest: Manifest, compute_capability: str, device: int = 0
) -> tuple[list[str], list[str]]:
    """The libraries that can run the bundle on GPU number `device`, and for each of the others the reason why not."""
    usable: list[str] = []
    reasons: list[str] = []
    for library in libraries.LIBRARIES:
        problem = libraries.missing(library, device)
        if problem is None:
            supported = libraries.target_gpus(library, manifest)
            if supported is not None and compute_capability not in supported:
                problem = (
                    f"{library} does not support {manifest.precision} on this GPU (compute capability "
                    f"{compute_capability}; it supports {', '.join(supported)})"
                )
        if (
            problem is None
            and manifest.precision == "bfloat16"
            and float(compute_capability) < libraries.FIRST_BFLOAT16
        ):
            problem = (
                f"{library}: a GPU of compute capability {compute_capability} has no bfloat16, which needs at least "
                f"{libraries.FIRST_BFLOAT16}"
            )
        if problem is None:
            usable.append(library)
        else:
            reasons.append(problem)
    return usable, reasons


def choose(
    bundle: Bundle, compute_capability: str, library: str | None = None, device: int = 0
) -> EngineFile:
    """Choose the library. Returns the entry that a fitting plan would have: library, its version, GPU, graph and shapes.

    library: None for the one that has a fitting plan in the bundle, else the first usable.
    Raises BackendUnavailable if no library, or not `library`, can run the bundle on such a GPU.
    """
    usable, reasons = usable_libraries(bundle.manifest, compute_capability, device)
    allowed = [name for name in usable if library in (None, name)]
    if not allowed:
        raise BackendUnavailable(f"tensorrt: {'; '.join(reasons)}")
    wanted = [plans.describe(bundle.onnx, bundle.manifest, name, compute_capability) for name in allowed]
    ready = (want for want in wanted if any(plans.fits(have, want) for have in bundle.manifest.engines))
    return next(ready, wanted[0])


def candidates(
    bundle: Bundle, wanted: EngineFile, cache: PlanCache, device: int = 0
) -> Iterator[tuple[str, bytes]]:
    """Yields (description of the source, plan) for each plan that may fit, cheapest first.

    First the bundle's plans, then the cache's; the last is compiled when it is asked for, on GPU number `device`.
    """
    manifest = bundle.manifest
    for entry in manifest.engines:
        if plans.fits(entry, wanted):
            plan = (bundle.path / entry.path).read_bytes()
            if hashlib.sha256(plan).hexdigest() == manifest.files[entry.path].sha256:
                yield f"plan {entry.path} of the bundle", plan
            else:
                logger.warning("%s: %s was altered and is not used", manifest.name, entry.path)
    cached, why = cache.get(wanted)
    if cached is not None:
        yield why, cached
    logger.warning(
        "%s: no plan of the bundle runs on this GPU (compute capability %s) with %s %s, and %s: compiling one, "
        "which can take minutes",
        manifest.name, wanted.compute_capability, wanted.library, wanted.library_version, why,
    )  # fmt: skip
    plan, _ = plans.compile_plan(
        bundle.onnx,
        manifest,
        wanted.library,
        compute_capability=wanted.compute_capability,
        device=device,
    )
    path = cache.put(wanted, plan)
    yield f"plan compiled now into {path}", plan


def deserialize(
    runtime: Any, plan_sources: Iterable[tuple[str, bytes]], reason: Callable[[], str]
) -> tuple[Any, str]:
    """Load the first plan that TensorRT accepts; only loading shows whether a plan really fits.

    plan_sources: from `candidates`. reason: returns the library's log.
    Returns the TensorRT engine and a description of its source. Raises EngineError with the log of every plan.
    """
    problems: list[str] = []
    for source, plan in plan_sources:
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is not None:
            return engine, "; ".join((source, *problems))
        problems.append(f"{source} was refused: {reason()}")
        logger.warning(problems[-1])
    raise EngineError("; ".join(problems) or "there is no plan")


def context_maker(
    trt: Any, engine: Any, library: str, reason: Callable[[], str]
) -> Callable[[bool], Context]:
    """Returns make(fixed), which makes an execution context for one fixed shape (True) or for varying shapes (False).

    reason: returns the library's log, for error messages.
    """
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if library == "tensorrt":
        return lambda fixed: Context(engine.create_execution_context(strategy), reason)
    kernels = trt.DynamicShapesKernelSpecializationStrategy
    compiled = engine.create_runtime_config().create_runtime_cache()  # kernels, shared by all contexts

    def make(fixed: bool) -> Context:
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.set_runtime_cache(compiled)
        # Fixed shapes get specialised kernels at once, during warm-up; other shapes get them in the background.
        config.dynamic_shapes_kernel_specialization_strategy = kernels.EAGER if fixed else kernels.LAZY
        graphs = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE if fixed else trt.CudaGraphStrategy.DISABLED
        config.cuda_graph_strategy = graphs
        if config.cuda_graph_strategy != graphs:
            logger.warning("%s refused to use CUDA graphs", library)
        # The config and the engine must outlive the context.
        return Context(engine.create_execution_context(config), reason, keep=(config, engine, compiled))

    return make
