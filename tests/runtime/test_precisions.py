"""The precision rule on all kinds of CPU: what an engine computes in, what it reports, and its error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from runtime import backends
from runtime.backends import cpu_features, precisions
from runtime.backends import openvino_backend as openvino
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import BackendUnavailable, EngineError
from runtime.tensors import Array, Precision
from tests.runtime import graphs
from tests.runtime.cpus import executes

# What an engine chooses on each kind of CPU for a bundle of each precision.
CHOSEN: dict[str, dict[Precision, Precision]] = {
    "plain": {"float32": "float32", "float16": "float32", "bfloat16": "float32"},
    "avx512-bf16": {"float32": "float32", "float16": "float32", "bfloat16": "bfloat16"},
    "amx": {"float32": "float32", "float16": "float32", "bfloat16": "bfloat16"},
    "amx-fp16": {"float32": "float32", "float16": "float16", "bfloat16": "bfloat16"},
}
# What the rounding of weights and of arithmetic may cost, through two convolutions of values around 1.
LEAST_DB = {"float32": 100.0, "float16": 65.0, "bfloat16": 42.0, "int8": 30.0}


@pytest.fixture(params=CHOSEN)
def cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of CPU that is imitated."""
    monkeypatch.setenv(cpu_features.IMITATE, request.param)
    return str(request.param)


def make_bundle(folder: Path, precision: Precision) -> Bundle:
    return graphs.write_bundle(folder, graphs.upscaler(precision), graphs.upscale_manifest(precision))


def psnr_db(engine: Engine) -> float:
    inputs = graphs.draw(engine.manifest, 1, 16, 16)
    off = engine.run(inputs)["upscaled"] - graphs.reference(engine.manifest, inputs)
    return float(-10 * np.log10(np.mean(np.square(off, dtype=np.float64))))


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_an_engine_computes_and_reports_no_less_than_the_bundles_precision(
    cpu: str, precision: Precision, tmp_path: Path
) -> None:
    engine = openvino.open_engine(make_bundle(tmp_path, precision))
    assert engine.precision == executes(CHOSEN[cpu][precision])
    assert psnr_db(engine) >= LEAST_DB[precision]
    engine.close()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_operator_may_allow_bfloat16(cpu: str, precision: Precision, tmp_path: Path) -> None:
    engine, why = backends.open_engine(make_bundle(tmp_path, precision), "openvino", min_precision="bfloat16")
    narrow = cpu != "plain" and executes("bfloat16") == "bfloat16"
    assert engine.precision == ("bfloat16" if narrow else "float32")
    assert ("--min-precision allows a lower one" in why) is narrow
    assert (psnr_db(engine) < LEAST_DB["float16"]) is narrow  # what is reported is what ran
    engine.close()


def test_a_lower_limit_above_the_bundles_precision_changes_nothing(tmp_path: Path, cpu: str) -> None:
    engine = openvino.open_engine(make_bundle(tmp_path, "bfloat16"), min_precision="float32")
    assert engine.precision == executes(CHOSEN[cpu]["bfloat16"])
    engine.close()


def test_a_tile_and_any_other_shape_run_in_the_same_precision(cpu: str, tmp_path: Path) -> None:
    """They are two compiled graphs."""
    engine = openvino.open_engine(make_bundle(tmp_path, "float16"))
    (tile,) = engine.manifest.tile_sizes
    inputs = graphs.draw(engine.manifest, 1, tile, tile)
    padded = {"image": np.pad(inputs["image"], ((0, 0), (0, 0), (0, 8), (0, 8)))}
    inside = np.s_[:, :, : 2 * tile - 8, : 2 * tile - 8]
    off = engine.run(inputs)["upscaled"][inside] - engine.run(padded)["upscaled"][inside]
    assert np.abs(off).max() < 1e-5  # float32's rounding; bfloat16's is 1e-3
    engine.close()


def test_an_unknown_cpu_cannot_be_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu_features.IMITATE, "abacus")
    with pytest.raises(BackendUnavailable, match="got 'abacus', expected one of plain, avx512-bf16, amx"):
        openvino.native_precisions()


@pytest.mark.parametrize(
    ("capabilities", "flags", "native"),
    [
        ("FP32 INT8", "avx512_vnni", ["float32"]),
        ("FP32 BF16", "avx512_bf16", ["bfloat16", "float32"]),
        ("FP32 BF16 FP16", "amx_bf16 avx512_fp16", ["bfloat16", "float32"]),
        ("FP32 BF16 FP16", "amx_bf16 avx512_fp16 amx_fp16", ["bfloat16", "float16", "float32"]),
        ("FP32 FP16", "fp asimd asimdhp", ["float16", "float32"]),
        ("FP32", "asimdhp", ["float32"]),
    ],
)
def test_float16_counts_as_native_only_where_it_is_fast(
    capabilities: str, flags: str, native: list[str]
) -> None:
    cpu = cpu_features.CpuFeatures(frozenset(capabilities.split()), frozenset(flags.split()))
    assert list(cpu.native_precisions) == native


@pytest.mark.parametrize(
    ("native", "bundle", "limit", "chosen"),
    [
        (("bfloat16", "float16", "float32"), "float32", None, "float32"),
        (("bfloat16", "float16", "float32"), "float16", None, "float16"),
        (("bfloat16", "float16", "float32"), "bfloat16", None, "bfloat16"),
        (("float16", "float32"), "bfloat16", None, "float32"),  # float16 ends at 65504
        (("float16", "float32"), "float32", "float16", "float16"),
        (("float16", "float32"), "float32", "bfloat16", "float32"),
        (("bfloat16", "float32"), "float32", "float16", "float32"),
        (("bfloat16", "float32"), "int8", None, "bfloat16"),
        (("float16", "float32"), "int8", None, "float32"),
        (("float32",), "int8", None, "float32"),
    ],
)
def test_the_fastest_that_the_rule_allows_is_chosen(
    native: tuple[Precision, ...], bundle: Precision, limit: Precision | None, chosen: str
) -> None:
    assert precisions.fastest_allowed(native, bundle, limit) == chosen


@pytest.mark.parametrize(
    ("executed", "reported"),
    [
        ((), "float32"),
        (("float32", "float16"), "float16"),
        (("float16", "bfloat16", "float32"), "bfloat16"),
        (("bfloat16", "int8", "bfloat16"), "int8"),
    ],
)
def test_an_engine_of_several_precisions_reports_the_narrowest(
    executed: tuple[Precision, ...], reported: str
) -> None:
    assert precisions.narrowest(executed) == reported


class Claiming(Engine):
    """An engine that says it computes in `precision`."""

    backend = "claiming"

    def __init__(self, bundle: Bundle, precision: Precision, limit: Precision | None) -> None:
        super().__init__(
            bundle, device="CPU", precision=precision, slots=1, batch_sizes=(1,), min_precision=limit
        )

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return {}


def test_no_backend_can_break_the_rule() -> None:
    """The base class refuses what a library made of the request."""
    bundle = Bundle(Path("nowhere"), graphs.upscale_manifest("float16"))
    message = (
        r"tiny-upscaler: claiming computes in bfloat16 \(8 significand bits\), the bundle needs float16 \(11\); "
        r"take another backend, or allow it with --min-precision bfloat16"
    )
    with pytest.raises(EngineError, match=message):
        Claiming(bundle, "bfloat16", None)
    assert Claiming(bundle, "bfloat16", "bfloat16").precision == "bfloat16"
    assert Claiming(bundle, "float32", None).precision == "float32"


def write_int8_bundle(folder: Path) -> Bundle:
    """The tiny upscaler with its second convolution quantised, per tensor; the first stays float32."""
    model = graphs.upscaler()
    (last,) = (tensor for tensor in model.graph.initializer if tensor.name == "last")
    weights = numpy_helper.to_array(last)
    scale = np.float32(np.abs(weights).max() / 127)
    constants = {
        "last_int8": np.round(weights / scale).astype(np.int8),
        "last_scale": scale,
        "b_scale": np.float32(4 / 255),
        "zero_int8": np.int8(0),
        "zero_uint8": np.uint8(64),
    }
    model.graph.initializer.remove(last)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    nodes = list(model.graph.node)
    del model.graph.node[:]
    quantised = [
        helper.make_node("QuantizeLinear", ["b", "b_scale", "zero_uint8"], ["b_uint8"]),
        helper.make_node("DequantizeLinear", ["b_uint8", "b_scale", "zero_uint8"], ["b_again"]),
        helper.make_node("DequantizeLinear", ["last_int8", "last_scale", "zero_int8"], ["last"]),
    ]
    for node in nodes:
        if "last" in node.input:
            model.graph.node.extend(quantised)
            node.input[0] = "b_again"
        model.graph.node.append(node)
    onnx.checker.check_model(model, full_check=True)
    return graphs.write_bundle(folder, model, graphs.upscale_manifest("int8"))


def test_quantised_layers_of_an_int8_bundle_run_in_int8_and_the_rest_no_lower(
    cpu: str, tmp_path: Path
) -> None:
    engine = openvino.open_engine(write_int8_bundle(tmp_path))
    assert engine.precision == "int8"
    assert psnr_db(engine) >= LEAST_DB["int8"]
    engine.close()


@pytest.mark.parametrize("limit", ["float16", "bfloat16"])
def test_the_reported_precision_is_the_executed_one(cpu: str, limit: Precision, tmp_path: Path) -> None:
    """A float32 bundle loses to rounding what the reported precision rounds away: no less, and no more."""
    engine = openvino.open_engine(make_bundle(tmp_path, "float32"), min_precision=limit)
    least, most = {"float32": (100, 200), "float16": (60, 95), "bfloat16": (40, 60)}[engine.precision]
    assert least <= psnr_db(engine) <= most
    engine.close()
