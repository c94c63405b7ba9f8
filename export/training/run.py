"""Run: reads and writes the folder of a training run. loop.py and command.py use it.

RUN/options.json                   every option of the run, enough to resume or repeat it
RUN/log.jsonl                      a line every `log_every` steps: losses (means since the last line) and other figures
RUN/losses.png                     the log, plotted
RUN/tensorboard/                   the log and the samples for `tensorboard --logdir RUN`
RUN/samples/step-00000500.png
RUN/checkpoints/step-00000500.pt   the last two, to resume from
RUN/<model>.safetensors            the averaged generator's weights, for `export.build --weights`
RUN/<model>-<name>.safetensors     in its place, one for each generator if the recipe trains several (Trainer.exports)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from export.data import write_picture
from runtime.errors import InvalidInput
from runtime.files import atomic_write, write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

KEPT_CHECKPOINTS = 2
FORMAT = 2  # of a checkpoint's content; raised when older checkpoints can no longer be resumed


class Run:
    """A run's folder. Files are written completely or not at all, by an atomic rename."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.model = folder, model
        self.log_file = folder / "log.jsonl"
        self.board: SummaryWriter | None = None
        self.resumed_at: int | None = None

    def weights(self, name: str = "") -> Path:
        """The file of one of the run's generators. name: as in Trainer.exports; "" where there is only one."""
        return self.folder / f"{self.model}{'-' if name else ''}{name}.safetensors"

    def checkpoints(self) -> list[Path]:
        """The checkpoints' paths, the oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-*.pt"))

    def start(self, options: Mapping[str, Any], *, fresh: bool = True) -> None:
        """Make the folder and write options.json. fresh: delete the log of an earlier run that left no checkpoint."""
        if fresh and (self.folder / "options.json").is_file():  # else they are not a run's
            self.log_file.unlink(missing_ok=True)
            shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)
        (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (self.folder / "samples").mkdir(exist_ok=True)
        write_text(self.folder / "options.json", json.dumps(options, indent=2) + "\n")

    def saved_options(self) -> dict[str, Any]:
        """The content of options.json. Raises InvalidInput if the folder has no checkpoint to resume from."""
        if not self.checkpoints():
            raise InvalidInput("resume", f"no checkpoint in {self.folder}; start the run without --resume")
        return json.loads((self.folder / "options.json").read_text())

    def save_checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint and delete old ones. state: a dictionary of tensors and plain values (Loop.save_checkpoint)."""
        with atomic_write(self.folder / "checkpoints" / f"step-{step:08d}.pt") as unfinished:
            torch.save({"format": FORMAT, "step": step} | dict(state), unfinished)
        for old in self.checkpoints()[:-KEPT_CHECKPOINTS]:
            old.unlink()

    def load_checkpoint(self) -> dict[str, Any]:
        """The state in the last checkpoint. Raises InvalidInput if another version of ganforge wrote it."""
        path = self.checkpoints()[-1]
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.get("format") != FORMAT:
            weights = " or ".join(str(path) for path in sorted(self.folder.glob("*.safetensors")))
            raise InvalidInput(
                "resume",
                f"{path} was written by another version of ganforge (format {state.get('format', 1)}, expected {FORMAT}); "
                f"begin a new run from its weights: --start {weights}, with another --output",
            )
        return state

    def save_samples(self, step: int, picture: np.ndarray) -> None:
        """Write a picture of samples, [H, W, C] uint8, as PNG and for TensorBoard."""
        write_picture(self.folder / "samples" / f"step-{step:08d}.png", picture)
        self.tensorboard().add_image("samples", picture, step, dataformats="HWC")

    def log(self, line: Mapping[str, float]) -> None:
        for name in line.keys() - {"step", "seconds"}:
            self.tensorboard().add_scalar(name, line[name], int(line["step"]))
        with self.log_file.open("a") as file:
            file.write(json.dumps({key: float(f"{value:.6g}") for key, value in line.items()}) + "\n")

    def tensorboard(self) -> SummaryWriter:
        """The writer of tensorboard/. In a resumed run it hides what was written beyond the step that it continues from."""
        if self.board is None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(self.folder / "tensorboard", purge_step=self.resumed_at)
        return self.board

    def forget_after(self, step: int) -> None:
        """Delete the log's lines beyond `step`, which a resumed run writes again."""
        self.resumed_at = step + 1
        if self.log_file.is_file():
            kept = [json.dumps(line) + "\n" for line in self.lines() if line["step"] <= step]
            write_text(self.log_file, "".join(kept))

    def lines(self) -> list[dict[str, float]]:
        """The lines of the log. A line that a crash cut short is left out."""
        lines = []
        for text in self.log_file.read_text().splitlines() if self.log_file.is_file() else ():
            with suppress(json.JSONDecodeError):
                lines.append(json.loads(text))
        return lines

    def plot_log(self) -> None:
        """Write losses.png: every figure of the log over the steps, a panel each. Writes nothing if the log is empty."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        lines = self.lines()
        if not lines:
            return
        names = list(dict.fromkeys(key for line in lines for key in line if key not in ("step", "seconds")))
        figure = Figure(figsize=(8, 2.2 * max(len(names), 1)))
        FigureCanvasAgg(figure)
        panels = figure.subplots(max(len(names), 1), sharex=True, squeeze=False)[:, 0]
        for panel, name in zip(panels, names, strict=False):
            points = [(line["step"], line[name]) for line in lines if name in line]
            panel.plot(*zip(*points, strict=True), linewidth=1)
            panel.set_ylabel(name)
        panels[-1].set_xlabel("step")
        figure.subplots_adjust(left=0.12, right=0.98, bottom=0.06, top=0.98)
        figure.savefig(self.folder / "losses.png", dpi=80)
