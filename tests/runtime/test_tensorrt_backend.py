"""The tensorrt backend on a GPU made of host memory: plans chosen, shapes prepared, graphs launched, memory freed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from runtime.backends import tensorrt_backend as nvidia
from runtime.backends import tensorrt_library as libraries
from runtime.backends.tensorrt_cuda import Cuda
from runtime.backends.tensorrt_slot import DYNAMIC_GRAPHS, Context
from runtime.bundle import Bundle
from runtime.errors import BackendUnavailable, EngineError
from tests.runtime import graphs
from tests.runtime.fake_gpu import Code, FakeContext, FakeCudart

MANIFEST = graphs.upscale_manifest(tile_sizes=(8, 16))
BUNDLE = Bundle(Path("nowhere"), MANIFEST)


@pytest.fixture
def cudart() -> FakeCudart:
    return FakeCudart()


@pytest.fixture
def engine(cudart: FakeCudart) -> Iterator[nvidia.TensorRTEngine]:
    opened = make_engine(cudart)
    yield opened
    if not cudart.fail:
        opened.close()


def make_engine(cudart: FakeCudart, *, library: str = "tensorrt") -> nvidia.TensorRTEngine:
    def make_context(fixed: bool) -> Context:
        return Context(FakeContext(cudart, MANIFEST.scale), reason)

    return nvidia.TensorRTEngine(
        BUNDLE, cuda=Cuda(runtime=cudart), make_context=make_context, library=library
    )


def reason() -> str:
    return "the log's words"


def check(engine: nvidia.TensorRTEngine, batch: int, height: int, width: int, seed: int = 0) -> None:
    image = graphs.draw(MANIFEST, batch, height, width, seed)["image"]
    upscaled = engine.run({"image": image})["upscaled"]
    np.testing.assert_array_equal(upscaled, image.repeat(2, axis=2).repeat(2, axis=3))


class TestRuns:
    @pytest.mark.parametrize("library", libraries.LIBRARIES)
    def test_any_shape_gives_the_right_answer_however_often_it_runs(
        self, cudart: FakeCudart, library: str
    ) -> None:
        engine = make_engine(cudart, library=library)
        engine.warm_up()
        for seed in range(3):
            for batch, height, width in [
                (1, 16, 16),
                (3, 8, 8),
                (8, 16, 16),
                (1, 1, 1),
                (2, 7, 5),
                (1, 40, 33),
            ]:
                check(engine, batch, height, width, seed)
        engine.close()
        assert not cudart.memory
        assert not cudart.graphs

    def test_a_fixed_shape_is_one_graph_launch_after_warm_up(self, engine: nvidia.TensorRTEngine) -> None:
        engine.warm_up()
        launches, plain = engine.graph_launches, engine.plain_runs
        for seed in range(4):
            check(engine, 8, 16, 16, seed)
        assert engine.graph_launches == launches + 4
        assert engine.plain_runs == plain

    def test_another_shape_gets_a_graph_on_its_second_run_and_uses_it_from_the_third(
        self, engine: nvidia.TensorRTEngine, cudart: FakeCudart
    ) -> None:
        for seed in range(engine.slots):  # the slots take turns
            check(engine, 1, 7, 5, seed)
        assert not cudart.graphs
        for seed in range(2 * engine.slots):
            check(engine, 1, 7, 5, seed)
        assert (engine.plain_runs, engine.graph_launches) == (2 * engine.slots, engine.slots)

    def test_a_shape_that_needs_more_scratch_memory_leaves_other_graphs_valid(
        self, engine: nvidia.TensorRTEngine
    ) -> None:
        engine.warm_up()
        check(engine, 1, 200, 300)
        check(engine, 1, 300, 200)
        for seed in range(3):
            check(engine, 8, 16, 16, seed)

    def test_a_batch_of_images_larger_than_tiles_runs_one_by_one(self, engine: nvidia.TensorRTEngine) -> None:
        check(engine, 3, 16, 16)
        assert engine.plain_runs == 1
        check(engine, 3, 40, 24)  # padded to 4
        assert engine.plain_runs == 1 + 4

    def test_warm_up_gives_every_fixed_shape_a_graph_in_every_slot(
        self, engine: nvidia.TensorRTEngine
    ) -> None:
        engine.warm_up()
        launches, plain = engine.graph_launches, engine.plain_runs
        fixed = [(batch, side) for batch in engine.batch_sizes for side in MANIFEST.tile_sizes]
        for batch, side in fixed:
            for _ in range(engine.slots):  # the slots take turns
                check(engine, batch, side, side)
        assert engine.plain_runs == plain
        assert engine.graph_launches == launches + engine.slots * len(fixed)

    def test_a_sampler_is_warmed_up_in_every_batch_size(self, cudart: FakeCudart) -> None:
        manifest = graphs.sample_manifest()
        sampler = nvidia.TensorRTEngine(
            Bundle(Path("nowhere"), manifest),
            cuda=Cuda(runtime=cudart),
            make_context=lambda fixed: Context(FakeContext(cudart, 1, sample=(1, 8, 8)), reason),
            library="tensorrt",
        )
        sampler.warm_up()
        plain = sampler.plain_runs
        for count in (1, 3, 64):
            assert sampler.run(graphs.draw(manifest, count))["sample"].shape == (count, 1, 8, 8)
        assert sampler.plain_runs == plain
        sampler.close()

    def test_an_image_larger_than_every_profile_is_refused_with_the_limit(
        self, engine: nvidia.TensorRTEngine
    ) -> None:
        with pytest.raises(EngineError, match="side of 2000 px, the plan takes at most 1024 px"):
            check(engine, 1, 4, 2000)

    def test_many_threads_share_the_slots(self, engine: nvidia.TensorRTEngine) -> None:
        engine.warm_up()
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(check, engine, 1 + i % 3, 4 + i % 5, 8, i) for i in range(40)]
        for job in jobs:
            job.result()

    def test_outputs_belong_to_the_caller(self, engine: nvidia.TensorRTEngine) -> None:
        first = engine.run(graphs.draw(MANIFEST, 1, 8, 8, seed=1))["upscaled"]
        kept = first.copy()
        for seed in range(4):
            engine.run(graphs.draw(MANIFEST, 1, 8, 8, seed=seed))
        np.testing.assert_array_equal(first, kept)


class TestFailures:
    @pytest.mark.parametrize(
        "name", ["cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync", "cudaStreamSynchronize"]
    )
    def test_a_call_that_fails_is_named(self, cudart: FakeCudart, name: str) -> None:
        engine = make_engine(cudart)
        cudart.fail[name] = Code.cudaErrorMemoryAllocation
        with pytest.raises(EngineError, match=rf"{name} failed: cudaErrorMemoryAllocation \(in words\)"):
            check(engine, 1, 16, 16)
        cudart.fail.clear()
        check(engine, 1, 16, 16)
        check(engine, 1, 16, 16)

    def test_without_a_graph_kernels_are_enqueued_with_a_warning(
        self, cudart: FakeCudart, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine = make_engine(cudart)
        cudart.fail["cudaGraphInstantiate"] = Code.cudaErrorStreamCaptureUnsupported
        engine.warm_up()
        check(engine, 8, 16, 16)
        assert engine.graph_launches == 0
        assert "cudaGraphInstantiate failed" in caplog.text
        assert not cudart.captures

    def test_a_shape_that_tensorrt_refuses_is_named(self, cudart: FakeCudart) -> None:
        context = Context(FakeContext(cudart, 2, accepts=False), reason)
        with pytest.raises(EngineError, match=r"refused image\[1, 3, 8, 8\]: the log's words"):
            context.bind(0, (("image", (1, 3, 8, 8)),), stream=1)

    def test_no_context_is_an_error(self) -> None:
        with pytest.raises(EngineError, match="create_execution_context failed: the log's words"):
            Context(None, reason)

    def test_scratch_memory_that_moved_before_a_failure_is_not_used_by_old_graphs(
        self, cudart: FakeCudart
    ) -> None:
        """The fake GPU asserts that no kernel uses memory that was freed."""
        engine = make_engine(cudart)
        engine.warm_up()
        cudart.fail["cudaMallocHost"] = Code.cudaErrorMemoryAllocation
        for _ in range(engine.slots):
            with pytest.raises(EngineError, match="cudaMallocHost failed"):
                check(engine, 1, 300, 300)  # its scratch memory is larger, its input finds no room
        cudart.fail.clear()
        for seed in range(2 * engine.slots):
            check(engine, 8, 16, 16, seed)
        engine.close()
        assert not cudart.memory

    def test_a_run_on_a_closed_engine_is_refused(self, cudart: FakeCudart) -> None:
        engine = make_engine(cudart)
        engine.close()
        engine.close()
        for _ in range(2):
            with pytest.raises(EngineError, match="tiny-upscaler: the engine is closed"):
                check(engine, 1, 16, 16)

    def test_a_failure_to_free_is_raised_once_and_leaves_nothing_waiting(self, cudart: FakeCudart) -> None:
        engine = make_engine(cudart)
        engine.warm_up()
        cudart.fail["cudaFree"] = Code.cudaErrorIllegalState
        with pytest.raises(EngineError, match="cudaFree failed"):
            engine.close()
        engine.close()
        with pytest.raises(EngineError, match="the engine is closed"):
            check(engine, 1, 16, 16)

    def test_without_a_size_for_these_shapes_the_profiles_scratch_memory_is_taken(
        self, cudart: FakeCudart
    ) -> None:
        """TensorRT answers 0 where it failed; the fake kernel asserts that the memory is large enough."""
        context = FakeContext(cudart, MANIFEST.scale, scratch_known=False)
        engine = nvidia.TensorRTEngine(
            BUNDLE,
            cuda=Cuda(runtime=cudart),
            make_context=lambda fixed: Context(context, reason),
            library="tensorrt_rtx",
        )
        check(engine, 2, 8, 8)
        engine.close()

    def test_nothing_is_made_or_freed_on_the_device_while_a_graph_is_captured(
        self, cudart: FakeCudart
    ) -> None:
        """Captures, new contexts and freed memory all hold the device's lock."""
        cuda, unlocked = Cuda(runtime=cudart), []

        def note(call: str) -> None:
            with ThreadPoolExecutor(1) as other_thread:
                if other_thread.submit(cuda.lock.acquire, blocking=False).result():
                    other_thread.submit(cuda.lock.release).result()
                    unlocked.append(call)

        cudart.watch = {"cudaStreamBeginCapture": note, "cudaStreamEndCapture": note, "cudaFree": note}
        engine = make_engine(cudart)
        engine.warm_up()
        for seed in range(3):
            check(engine, 1, 7, 5, seed)
        for side in range(1, DYNAMIC_GRAPHS * 2 + 3):
            for seed in range(2 * engine.slots):
                check(engine, 1, side, 3, seed)  # evicts others
        engine.close()
        assert unlocked == []


class TestDevices:
    @pytest.mark.parametrize(
        ("device", "index"),
        [
            (None, 0),
            ("cuda", 0),
            ("cuda:2", 2),
            ("CUDA:0", 0),
            ("cpu", None),
            ("CPU", None),
            ("cuda:x", None),
        ],
    )
    def test_device_names_are_parsed(self, device: str | None, index: int | None) -> None:
        assert nvidia.device_index(device) == index

    def test_the_cpu_is_refused(self) -> None:
        assert "cuda:0" in str(nvidia.unavailable(BUNDLE, "CPU"))

    def test_without_a_driver_or_gpu_cudas_message_is_passed_on(self, cudart: FakeCudart) -> None:
        cudart.fail["cudaGetDeviceCount"] = Code.cudaErrorNoDevice
        assert "cudaGetDeviceCount failed: cudaErrorNoDevice" in str(Cuda.problem(0, cudart))

    def test_a_missing_gpu_is_refused_with_the_number_of_gpus(self, cudart: FakeCudart) -> None:
        assert Cuda.problem(0, cudart) is None
        assert Cuda.problem(1, cudart) == "there is no GPU number 1: this machine has 1"

    def test_unavailable_and_open_give_the_same_reason(self) -> None:
        reason = nvidia.unavailable(BUNDLE, None)
        if reason is None:
            pytest.skip("this machine has a GPU and its libraries")
        with pytest.raises(BackendUnavailable) as caught:
            nvidia.open_engine(BUNDLE)
        assert reason in str(caught.value)
