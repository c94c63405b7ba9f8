"""The files that a style transfer writes: OUT, the pictures on the way to it and the plot of the losses (`Output`)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime import pixels
from runtime.errors import InvalidInput
from runtime.files import atomic_write
from runtime.tensors import Array

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".tif": "tiff", ".tiff": "tiff"}


class Output:
    """The files beside OUT: for portrait.jpg also portrait.losses.png and the folder portrait-steps.

    sources: what must not be overwritten. overwrite: whether files of an earlier run may be.
    Raises InvalidInput, before anything is computed, for an OUT that cannot or must not be written.
    """

    def __init__(self, path: Path, sources: Sequence[Path], *, overwrite: bool) -> None:
        self.path = path
        self.plot = path.with_name(f"{path.stem}.losses.png")
        self.steps = path.with_name(f"{path.stem}-steps")
        if path.suffix.lower() not in FORMATS:
            raise InvalidInput("OUT", f"got {path.name}, expected a name ending in {', '.join(FORMATS)}")
        for target in (self.path, self.plot):
            if target.exists() and not target.is_file():
                raise InvalidInput("OUT", f"{target} exists and is not a regular file; name another one")
            if any(target.exists() and source.exists() and target.samefile(source) for source in sources):
                raise InvalidInput("OUT", f"{target} is one of the pictures that are read; name another file")
        if any(source.resolve().parent == self.steps.resolve() for source in sources):
            raise InvalidInput(
                "OUT", f"a picture in {self.steps} is read, whose files are replaced; name another file"
            )
        for target in (self.path, self.plot, self.steps):
            if target.exists() and not overwrite:
                raise InvalidInput("OUT", f"{target} exists; --overwrite replaces it, or choose another name")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path.parent).close()  # before minutes of work, not after them
        except OSError as error:
            raise InvalidInput("OUT", f"{path} cannot be written: {error.strerror}") from error

    def clear_steps(self) -> None:
        """Delete the pictures of an earlier run's steps."""
        for path in self.steps.glob("[0-9]*.png"):
            path.unlink()

    def save(self, image: Array) -> None:
        """Write OUT. image: [H, W, 3] uint8."""
        write(self.path, image)

    def save_step(self, step: int, image: Array) -> None:
        """Write a picture on the way to OUT, named by its step. image: [H, W, 3] uint8."""
        self.steps.mkdir(exist_ok=True)
        write(self.steps / f"{step:05d}.png", image)

    def plot_losses(self, log: Sequence[Mapping[str, float]]) -> None:
        """Draw the weighted losses over the steps, on a logarithmic scale. log: of each step, the losses by name."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4))
        FigureCanvasAgg(figure)
        panel = figure.subplots()
        for name in log[0]:
            panel.plot(range(1, len(log) + 1), [entry[name] for entry in log], linewidth=1, label=name)
        if any(entry["loss"] > 0 for entry in log):
            panel.set_yscale("log", nonpositive="mask")
        panel.set_xlabel("step")
        panel.set_ylabel("weighted loss")
        panel.legend()
        with atomic_write(self.plot) as unfinished:
            figure.savefig(unfinished, dpi=80, format="png")


def write(path: Path, image: Array) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(pixels.encode(image, FORMATS[path.suffix.lower()]))
