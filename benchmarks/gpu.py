"""`python -m benchmarks.gpu`: torch, TensorRT and ONNX Runtime on RRDB-23 and DCGAN, on this machine's NVIDIA GPU.

A path is one way to run a model (gpu_paths.py). Every path's output is compared with float32 torch, then the path is
timed. Its speed is given as a share of what a large matrix product reaches in the same run. The weights are random: speed
does not depend on them. Writes gpu.json and gpu.png.

Needs torch and click. Paths whose libraries are not installed are left out; so is the plot without matplotlib.
`--device cpu --quick` runs the same code on tiny models, to test it where there is no GPU.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.gpu_models import Case, Model
from benchmarks.gpu_paths import DTYPES, RunPath, all_paths
from benchmarks.gpu_timing import matrix_ceiling_tflops
from export import families
from export.build.compare import difference, peak
from runtime.errors import GanforgeError
from runtime.tensors import Precision

NO_GPU = 2
PACKAGES = (
    *("torch", "triton", "onnx", "onnxruntime", "onnxruntime-gpu"),
    *("tensorrt-cu13", "tensorrt-rtx-cu13-libs", "cuda-bindings"),
)
# Errors after which a path is left out and the others still run: ours and the libraries' (out of memory, no compiler).
FAILURES = (GanforgeError, RuntimeError, ImportError, OSError, ValueError, AssertionError)


@dataclass(frozen=True)
class Workload:
    """What a run measures. cases: by model, those to time. checks: by model, those to compare with float32 torch.

    budget_s: seconds for timing one case on one path.
    """

    models: dict[str, Model]
    cases: Mapping[str, tuple[Case, ...]]
    checks: Mapping[str, tuple[Case, ...]]
    budget_s: float


@dataclass
class Report:
    """The content of gpu.json. Figures in `results` are medians, measured after a warm-up."""

    machine: dict[str, Any]
    precision: Precision
    matrix_ceiling_tflops: float = 0.0
    correctness: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[dict[str, Any]]:
        return [row for row in self.correctness if not row["ok"]]


@click.command(context_settings={"max_content_width": 110})
@click.option(
    "--device", default="cuda", show_default=True, help="cuda, cuda:1, …; cpu only tests this benchmark."
)
@click.option("--precision", type=click.Choice(list(DTYPES)), default="float16", show_default=True)
@click.option("--quick", is_flag=True, help="Fewer sizes and shorter timings.")
@click.option(
    "--only", multiple=True, help="Only paths whose name contains this; may be given more than once."
)
@click.option("--output", type=click.Path(path_type=Path), default="benchmarks/results", show_default=True)
def main(device: str, precision: Precision, quick: bool, only: tuple[str, ...], output: Path) -> None:
    """Check and time every way to run the generators on a GPU. Exit status 1: an output is wrong; 2: no GPU."""
    place = torch.device(device)
    if place.type == "cuda" and not torch.cuda.is_available():
        say(
            f"There is no NVIDIA GPU that torch {torch.__version__} can use here; --device cpu --quick only tests this."
        )
        sys.exit(NO_GPU)
    full_float32()
    if place.type == "cpu":
        torch.set_num_threads(1)  # tiny layers wait for threads longer than they compute
    workload = tiny() if place.type == "cpu" else real(quick=quick)
    report = Report(machine(place), precision)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            p for p in all_paths(Path(folder)) if not only or any(o.lower() in p.name.lower() for o in only)
        ]
        for name, model in workload.models.items():
            usable = list(available(paths, model, place, report))
            for path in usable:
                check(path, model, workload.checks[name], place, report)
        report.matrix_ceiling_tflops = matrix_ceiling_tflops(
            place, DTYPES[precision], budget_s=workload.budget_s
        )
        say(f"matrix ceiling: {report.matrix_ceiling_tflops:.3g} TFLOP/s in {precision}")
        for name, model in workload.models.items():
            for case in workload.cases[name]:
                for path in available(paths, model, place, None):
                    measure(path, model, case, place, workload.budget_s, report)
                    save(report, output)  # a run that is cut short keeps what it has
    save(report, output)
    print_table(report)
    plot(report, output)
    if report.wrong:
        say(
            f"{len(report.wrong)} outputs are wrong: "
            + ", ".join(f"{row['path']} ({row['model']})" for row in report.wrong)
        )
        sys.exit(1)


def full_float32() -> None:
    """Turn off TF32, with which torch would compute the float32 reference's convolutions in 10-bit significands."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def real(*, quick: bool) -> Workload:
    esrgan, dcgan = families.get("esrgan"), families.get("dcgan")
    models = {
        "rrdb-23": Model.make("rrdb-23", esrgan, esrgan.config()),
        "dcgan": Model.make("dcgan", dcgan, dcgan.config()),
    }
    tiles = (Case(1, 128), Case(4, 128), Case(8, 128), Case(1, 256), Case(4, 256), Case(1, 512))
    cases = {"rrdb-23": (Case(4, 128), Case(1, 256)) if quick else tiles, "dcgan": (Case(64),)}
    return Workload(
        models,
        cases,
        {"rrdb-23": (Case(2, 64), Case(1, 33)), "dcgan": (Case(8), Case(5))},
        1.0 if quick else 3.0,
    )


def tiny() -> Workload:
    models = {name: Model.make(name, spec := families.get(name), spec.tiny) for name in ("esrgan", "dcgan")}
    cases = {"esrgan": (Case(1, 16),), "dcgan": (Case(4),)}
    checks = {"esrgan": (Case(2, 16), Case(1, 7)), "dcgan": (Case(4), Case(3))}
    return Workload(models, cases, checks, 0.02)


def available(
    paths: list[RunPath], model: Model, device: torch.device, report: Report | None
) -> Iterator[RunPath]:
    """The paths that can run `model` here. The reasons why others cannot go into `report`, if given."""
    for path in paths:
        reason = path.unavailable(model, device)
        if reason is None:
            yield path
        elif report is not None:
            leave_out(report, f"{path.name}, {model.name}: {reason}")


def check(path: RunPath, model: Model, cases: tuple[Case, ...], device: torch.device, report: Report) -> None:
    """Compare the path's outputs with float32 torch on the same device, and add a row for each case to the report."""
    (spec,) = model.signature.outputs
    tolerance = model.spec.tolerances[report.precision]
    for case in cases[:1] if path.static else cases:
        inputs = model.inputs(case)
        expected = model.reference(inputs, device)
        try:
            with closing(path.open(model, case, device, report.precision)) as runner:
                error = difference(runner.run(inputs), expected, peak=peak(spec))
        except FAILURES as failure:
            leave_out(report, f"{path.name}, {model.name}, {case}: {first_line(failure)}")
            continue
        ok = error.within(tolerance)
        row = {"model": model.name, "path": path.name, "case": str(case), "ok": ok, **asdict(error)}
        report.correctness.append(row)
        say(f"{'right' if ok else 'WRONG'}: {path.name}, {model.name}, {case}: {error}")


def measure(
    path: RunPath, model: Model, case: Case, device: torch.device, budget_s: float, report: Report
) -> None:
    inputs = model.inputs(case)
    try:
        with closing(path.open(model, case, device, report.precision)) as runner:
            timing = runner.time(inputs, budget_s)
            executed = runner.precision
    except FAILURES as error:
        leave_out(report, f"{path.name}, {model.name}, {case}: {first_line(error)}")
        return
    tflops = model.flop(case) / case.batch * timing.items_per_s / 1e12
    row = {
        "model": model.name,
        "path": path.name,
        "case": str(case),
        "batch": case.batch,
        "side_px": case.side_px,
        "ms": round(timing.ms, 4),
        "items_per_s": round(timing.items_per_s, 3),
        "tflops": round(tflops, 4),
        "of_ceiling": round(tflops / report.matrix_ceiling_tflops, 4),
        "precision": executed,
        "timed": path.timed,
    }
    report.results.append(row)
    say(f"{model.name}, {case}, {path.name}: {timing.ms:.2f} ms, {timing.items_per_s:.1f} a second")


def machine(device: torch.device) -> dict[str, Any]:
    facts: dict[str, Any] = {"python": platform.python_version(), "versions": {}}
    for package in PACKAGES:
        try:
            facts["versions"][package] = version(package)
        except PackageNotFoundError:
            continue
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"device": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
        return facts | {
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }
    return facts | {"device": f"CPU, {torch.get_num_threads()} threads"}


def save(report: Report, output: Path) -> None:
    (output / "gpu.json").write_text(
        json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def print_table(report: Report) -> None:
    say(
        f"\n{report.machine['device']}, {report.precision}, ceiling {report.matrix_ceiling_tflops:.3g} TFLOP/s"
    )
    head = ("model", "case", "path", "ms", "items/s", "TFLOP/s", "share", "timed", "ran in")
    keys = ("model", "case", "path", "ms", "items_per_s", "tflops", "of_ceiling", "timed", "precision")
    rows = [
        head,
        *(
            tuple(f"{row[k]:.4g}" if isinstance(row[k], float) else str(row[k]) for k in keys)
            for row in report.results
        ),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def plot(report: Report, output: Path) -> None:
    """Each path's share of the matrix ceiling, one panel a case."""
    try:
        from benchmarks.gpu_plot import shares
    except ImportError:
        say("no plot: matplotlib is not installed (pip install matplotlib)")
        return
    if report.results:
        shares(asdict(report), output / "gpu.png")
        say(f"written: {output / 'gpu.json'}, {output / 'gpu.png'}")


def leave_out(report: Report, why: str) -> None:
    report.left_out.append(why)
    say(f"left out: {why}")


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def say(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
