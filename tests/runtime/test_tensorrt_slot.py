"""Parts of the tensorrt backend alone: the calls to cuda-python, and which shapes get a context of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runtime.backends.tensorrt_cuda import Buffer, Cuda
from runtime.backends.tensorrt_slot import DYNAMIC_GRAPHS, REMEMBERED, ShapeChoice, Shapes
from runtime.errors import EngineError


@pytest.mark.skipif(Cuda.problem() is None, reason="with a GPU these calls would do something")
def test_cuda_python_itself_takes_our_arguments_and_names_the_call() -> None:
    """Without a GPU every call fails, but only after cuda-python has accepted the arguments."""
    cudart = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    cuda = Cuda()
    buffer = Buffer(cuda)
    buffer.host, buffer.device, buffer.used = 4096, 8192, 16
    graph, executable = cudart.cudaGraph_t(3), cudart.cudaGraphExec_t(4)
    calls: dict[str, Callable[[], object]] = {
        "cudaSetDevice": cuda.use,
        "cudaDeviceGetAttribute": cuda.compute_capability,
        "cudaStreamCreateWithFlags": cuda.stream,
        "cudaMemcpyAsync": lambda: cuda.copy_in(buffer, 5),
        "cudaStreamSynchronize": lambda: cuda.synchronize(5),
        "cudaStreamBeginCapture": lambda: cuda.begin_capture(5),
        "cudaStreamEndCapture": lambda: cuda.end_capture(5),
        "cudaGraphInstantiate": lambda: cuda.call("cudaGraphInstantiate", graph, 0),
        "cudaGraphDestroy": lambda: cuda.call("cudaGraphDestroy", graph),
        "cudaGraphLaunch": lambda: cuda.call("cudaGraphLaunch", executable, 5),
        "cudaGraphExecDestroy": lambda: cuda.call("cudaGraphExecDestroy", executable),
        "cudaMalloc": lambda: buffer.fit(32),
        "cudaMallocHost": lambda: cuda.call("cudaMallocHost", 32),
        "cudaFreeHost": lambda: cuda.call("cudaFreeHost", 4096),
        "cudaStreamDestroy": lambda: cuda.call("cudaStreamDestroy", 5),
    }
    buffer.device = buffer.host = 0
    for name, call in calls.items():
        with pytest.raises(EngineError, match=f"{name} failed: cudaError"):
            call()
    cuda.abandon_capture(5)


def shapes(side: int) -> Shapes:
    return (("image", (1, 3, side, side)),)


class TestShapeChoice:
    def test_fixed_shapes_always_have_their_own_context(self) -> None:
        choice = ShapeChoice({shapes(8)})
        assert choice.visit(shapes(8))

    def test_the_least_recently_used_shape_loses_its_context(self) -> None:
        choice = ShapeChoice(set())
        for side in range(1, DYNAMIC_GRAPHS + 1):
            assert [choice.visit(shapes(side)), choice.visit(shapes(side))] == [False, True]
        assert choice.visit(shapes(1))  # now the most recently used
        choice.visit(shapes(100))
        choice.visit(shapes(100))
        assert choice.evicted() == [shapes(2)]
        assert choice.evicted() == []
        assert not choice.visit(shapes(2))

    def test_shapes_seen_once_are_forgotten_after_a_while(self) -> None:
        choice = ShapeChoice(set())
        for side in range(1, REMEMBERED + 2):
            choice.visit(shapes(side))
        assert not choice.visit(shapes(1))
