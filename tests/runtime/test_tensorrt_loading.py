"""Which TensorRT library and which plan run a bundle on a GPU: from the bundle, from the cache, or compiled now."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.backends import tensorrt_library as libraries
from runtime.backends import tensorrt_loading as loading
from runtime.backends import tensorrt_plan as plan
from runtime.backends.tensorrt_cuda import Cuda
from runtime.backends.tensorrt_plan_cache import PlanCache
from runtime.bundle import Bundle
from runtime.errors import EngineError
from runtime.manifest import EngineFile, FileInfo
from tests.runtime import graphs

MANIFEST = graphs.upscale_manifest(tile_sizes=(8, 16))


@pytest.mark.skipif(
    libraries.missing("tensorrt_rtx") is not None, reason=str(libraries.missing("tensorrt_rtx"))
)
def test_rtx_says_which_gpus_it_supports() -> None:
    usable, reasons = loading.usable_libraries(MANIFEST, "9.0")
    assert "tensorrt_rtx" not in usable
    assert any("compute capability 9.0; it supports 7.5, 8.0" in reason for reason in reasons)
    assert "tensorrt_rtx" in loading.usable_libraries(MANIFEST, "8.9")[0]
    turing = loading.usable_libraries(replace(MANIFEST, precision="bfloat16"), "7.5")
    assert "tensorrt_rtx" not in turing[0]


class Runtime:
    """Loads the plans it is told to; the others give None, as TensorRT does."""

    def __init__(self, *good: bytes) -> None:
        self.good = good

    def deserialize_cuda_engine(self, blob: bytes) -> str | None:
        return f"engine of {blob!r}" if blob in self.good else None


class TestPlans:
    WANTED = EngineFile("engines/a.plan", "tensorrt", "11.4", "8.9", "0" * 64, "n1-8")

    @pytest.fixture
    def cache(self, tmp_path: Path) -> PlanCache:
        return PlanCache(tmp_path / "cache")

    @pytest.fixture
    def compiled(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        calls: list[str] = []

        def compile_plan(
            onnx: Path, manifest: Any, library: str, *, compute_capability: str, device: int
        ) -> Any:
            calls.append(f"{library} {compute_capability}")
            return b"compiled", None

        monkeypatch.setattr(plan, "compile_plan", compile_plan)
        return calls

    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Callable[..., Bundle]:
        def make(entry: EngineFile, blob: bytes = b"bundled", listed: bytes = b"bundled") -> Bundle:
            folder = tmp_path / "bundle"
            (folder / "engines").mkdir(parents=True)
            (folder / entry.path).write_bytes(blob)
            info = FileInfo(hashlib.sha256(listed).hexdigest(), len(listed))
            return Bundle(folder, replace(MANIFEST, engines=(entry,), files={entry.path: info}))

        return make

    def open(self, bundle: Bundle, cache: PlanCache, *good: bytes) -> tuple[Any, str]:
        sources = loading.candidates(bundle, self.WANTED, cache)
        return loading.deserialize(Runtime(*good), sources, lambda: "the log's words")

    def test_the_bundles_plan_is_used_where_it_fits(
        self, bundle: Callable[..., Bundle], cache: PlanCache, compiled: list[str]
    ) -> None:
        engine, source = self.open(bundle(self.WANTED), cache, b"bundled")
        assert engine == "engine of b'bundled'"
        assert source == "plan engines/a.plan of the bundle"
        assert not compiled

    def test_a_plan_for_another_gpu_is_compiled_anew_into_the_cache_and_never_into_the_bundle(
        self,
        bundle: Callable[..., Bundle],
        cache: PlanCache,
        compiled: list[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        other = bundle(replace(self.WANTED, compute_capability="9.0"))
        before = sorted(other.path.rglob("*"))
        _, source = self.open(other, cache, b"compiled")
        assert str(cache.folder) in source
        assert "compiling one, which can take minutes" in caplog.text
        assert sorted(other.path.rglob("*")) == before
        _, source = self.open(other, cache, b"compiled")
        assert source.startswith(f"plan from {cache.folder}")
        assert compiled == ["tensorrt 8.9"]

    def test_a_plan_that_does_not_load_is_compiled_anew_with_the_reason_in_the_log(
        self, bundle: Callable[..., Bundle], cache: PlanCache, compiled: list[str]
    ) -> None:
        _, source = self.open(bundle(self.WANTED), cache, b"compiled")
        assert "engines/a.plan of the bundle was refused: the log's words" in source
        assert compiled

    def test_an_altered_plan_of_the_bundle_is_never_loaded(
        self, bundle: Callable[..., Bundle], cache: PlanCache, compiled: list[str]
    ) -> None:
        engine, _ = self.open(bundle(self.WANTED, blob=b"evil"), cache, b"evil", b"compiled")
        assert engine == "engine of b'compiled'"

    def test_an_altered_plan_of_the_cache_is_compiled_anew(
        self, bundle: Callable[..., Bundle], cache: PlanCache, compiled: list[str]
    ) -> None:
        other = bundle(replace(self.WANTED, library_version="11.3"))
        cache.put(self.WANTED, b"kept").write_bytes(b"evil")
        engine, _ = self.open(other, cache, b"evil", b"compiled")
        assert engine == "engine of b'compiled'"

    def test_no_plan_that_loads_is_an_error_with_every_reason(
        self, bundle: Callable[..., Bundle], cache: PlanCache, compiled: list[str]
    ) -> None:
        with pytest.raises(
            EngineError, match=r"bundle was refused: the log's words; plan compiled now .* refused"
        ):
            self.open(bundle(self.WANTED), cache)

    @pytest.mark.skipif(
        libraries.missing("tensorrt_rtx") is not None, reason=str(libraries.missing("tensorrt_rtx"))
    )
    @pytest.mark.skipif(Cuda.problem() is None, reason="this machine has a GPU")
    def test_tensorrts_message_says_why_a_plan_does_not_load(self) -> None:
        log = libraries.library_log("tensorrt_rtx")
        runtime = libraries.load_library("tensorrt_rtx").Runtime(log)
        with pytest.raises(EngineError, match=r"a plan was refused: .*Error"):
            loading.deserialize(runtime, [("a plan", b"no plan at all")], log.take)

    @pytest.mark.skipif(
        libraries.missing("tensorrt_rtx") is not None, reason=str(libraries.missing("tensorrt_rtx"))
    )
    def test_a_compiled_plan_in_the_bundle_fits(self, tmp_path: Path) -> None:
        manifest = graphs.upscale_manifest("float16")
        built = graphs.write_bundle(tmp_path, graphs.upscaler("float16"), manifest)
        _, entry = plan.compile_plan(built.onnx, manifest, "tensorrt_rtx")
        whole = Bundle(built.path, replace(built.manifest, engines=(entry,)))
        assert plan.fits(entry, loading.choose(whole, "8.9"))
