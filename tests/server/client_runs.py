"""Runs of the client's command line, for its tests."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from runtime.pictures.reading import open_picture
from server.client.__main__ import main
from tests.server.conftest import (
    Served,
    png,
)


def run(served: Served, *arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--address", served.address], input=stdin)


def done(served: Served, *arguments: str | Path) -> Result:
    result = run(served, *arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(served: Served, *arguments: str | Path) -> str:
    """What a command says that must send nothing."""
    calls = served.engine("upscaler").items_run
    result = run(served, *arguments)
    assert result.exit_code in (1, 2), result.output
    assert served.engine("upscaler").items_run == calls
    return result.output


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, hidden ones too, by its path from there."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def width(file: Path) -> int:
    return open_picture(file.read_bytes(), max_pixels=10**6).header.width


def make_photos(tmp_path: Path) -> Path:
    """A folder with three pictures of different widths, one of them in a folder inside."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(png(5, 4))
    (folder / "b.png").write_bytes(png(6, 4))
    (folder / "sub" / "c.png").write_bytes(png(7, 4))
    return folder
