"""Reads and writes bundles: a folder with a graph, its engines and a manifest that lists every file with its hash.

A build writes a bundle with `Writer`. The server reads all bundles of a folder with `discover`, evaluation and
benchmarks read one with `load`; both return `Bundle`. The manifest is written last, so a folder without one is
incomplete and is not served. A file whose hash differs from the manifest is refused with BundleError, and so is a graph
that keeps tensors in files that the manifest does not list. With a Trust, the manifest must be signed by one of its keys.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from pydantic import TypeAdapter, ValidationError

from runtime import tasks
from runtime.errors import BundleError
from runtime.external_data import external_files
from runtime.files import UNFINISHED_SUFFIX, sha256, write_text
from runtime.manifest import FORMAT, FileInfo, Manifest
from runtime.signing import SIGNATURE, Trust

MANIFEST = "manifest.json"
GRAPH = "model.onnx"
VERSION_DIGITS = 12
FROM_JSON = TypeAdapter(Manifest)


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were checked. path: its folder.

    version: the first 12 hexadecimal digits of the SHA-256 of manifest.json, which has the hash of every other file: the
    same content is the same version, on every machine. "" for a bundle that was not read from a folder.
    """

    path: Path
    manifest: Manifest
    version: str = ""

    @property
    def onnx(self) -> Path:
        """The file of the graph."""
        return self.path / GRAPH


def load(path: Path, trust: Trust | None = None) -> Bundle:
    """Read the bundle at `path` and check the hash of every listed file, and its signature if `trust` is given.

    Raises BundleError.
    """
    while True:
        before = _identity(path)
        try:
            return _load(path, trust)
        except (BundleError, OSError, ValueError) as error:
            # If a build replaced the bundle meanwhile, read the new one.
            if _identity(path) == before:
                raise BundleError(f"{path}: {error}") from error


def discover(folder: Path, trust: Trust | None = None, *, may_be_empty: bool = False) -> list[Bundle]:
    """Every bundle directly inside `folder`, sorted by folder name. trust: as for `load`.

    Raises BundleError if there is none (unless it may be empty), if two have the same name, or if one of them cannot be read.
    """
    if not folder.is_dir():
        raise BundleError(
            f"{folder}: no such folder; build bundles with python -m export.build --output {folder}"
        )
    bundles = [
        load(path, trust)
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (path / MANIFEST).is_file()
    ]
    if not bundles and not may_be_empty:
        raise BundleError(
            f"{folder}: holds no bundle; build one with python -m export.build --output {folder}"
        )
    names = [bundle.manifest.name for bundle in bundles]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BundleError(
            f"{folder}: more than one bundle is called {', '.join(sorted(twice))}; rename one (--name)"
        )
    return bundles


class Writer:
    """Writes a bundle into a hidden folder beside its final place and moves it there once it is complete.

    A context manager: write the files under `path`, then call `commit`. Leaving the block without a commit deletes them.
    Raises BundleError if `name` cannot be a folder's name.
    """

    def __init__(self, parent: Path, name: str) -> None:
        if not name or name.startswith(".") or Path(name).name != name:
            raise BundleError(
                f"name: got {name!r}, expected a plain folder name that does not start with a dot"
            )
        self._target = parent / name
        parent.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=UNFINISHED_SUFFIX, dir=parent))
        self.path.chmod(0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def commit(self, manifest: Manifest) -> Bundle:
        """Hash every file, write the manifest, check the bundle and move it into place, replacing an existing bundle.

        Call it once. Raises BundleError if the result is a bundle that a server would refuse.
        """
        if (self.path / MANIFEST).exists() or not self.path.exists():
            raise BundleError(f"{self._target}: already committed, or {MANIFEST} was written by hand")
        (self.path / SIGNATURE).unlink(missing_ok=True)  # of an older manifest
        files = {name: file_info(self.path / name) for name in _relative_files(self.path)}
        whole = replace(manifest, files=files)
        write_text(self.path / MANIFEST, whole.to_json())
        load(self.path)  # a bundle that a server would refuse must not replace one that it serves
        try:
            self.path.rename(self._target)
        except OSError:
            if not self._target.exists():
                raise
            _exchange(self.path, self._target)  # the old bundle is now at self.path, and is deleted on exit
        return Bundle(self._target, whole, version_of(whole.to_json()))


def file_info(path: Path) -> FileInfo:
    """The hash and length of a file."""
    return FileInfo(sha256(path), path.stat().st_size)


def version_of(manifest_json: str) -> str:
    """The version of a bundle with this manifest.json, as `sha256sum manifest.json | cut -c-12` prints it."""
    return hashlib.sha256(manifest_json.encode()).hexdigest()[:VERSION_DIGITS]


def parse_manifest(text: str) -> Manifest:
    """Parse and check the JSON of a manifest. Raises BundleError naming each missing, unknown or malformed field."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST} is not JSON: {error}") from error
    format = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
    if type(format) is not int or format != FORMAT:
        raise BundleError(
            f"{MANIFEST}: format is {format!r}, this version reads {FORMAT}; build the bundle again"
        )
    try:
        manifest = FROM_JSON.validate_json(text)
    except ValidationError as error:
        raise BundleError(f"{MANIFEST}: {_explain(error)}; build the bundle again") from error
    check(manifest)
    return manifest


def _explain(error: ValidationError) -> str:
    """One sentence for each wrong field: its path, the value and what was expected."""
    problems = []
    for problem in error.errors(include_url=False):
        where = ".".join(map(str, problem["loc"]))
        came = "" if problem["type"] == "missing" else f"got {problem['input']!r:.60}, "
        problems.append(f"{where}: {came}{problem['msg'][:1].lower()}{problem['msg'][1:]}")
    return "; ".join(problems)


def check(manifest: Manifest) -> None:
    """Raises BundleError if a manifest's fields contradict each other or have values that no model can have."""
    unit, halo = manifest.size_multiple, manifest.halo
    problems = {
        "name": not manifest.name.strip() or not manifest.name.isprintable(),  # requests ask for it
        "inputs": not manifest.inputs,
        "outputs": len(manifest.outputs) != 1,
        "scale": manifest.scale < 1,
        "size_multiple": unit < 1,
        "least_side_px": manifest.least_side_px < 1,
        "tile_sizes": unit > 0
        and any(
            size % unit or (size - 2 * halo) // unit < 1 or size < manifest.least_side_px
            for size in manifest.tile_sizes
        ),
        "halo": halo < 0,
        "latent_size": manifest.latent_size < 0,
        "classes": manifest.classes < 0,
        "class_names": len(manifest.class_names) not in (0, manifest.classes),
    }
    wrong = [name for name, is_wrong in problems.items() if is_wrong]
    wrong = list(dict.fromkeys([*wrong, *tasks.of(manifest).problems(manifest)]))
    if wrong:
        values = ", ".join(f"{name} {getattr(manifest, name)!r}" for name in wrong)
        raise BundleError(
            f"{MANIFEST}: got {values}, which is not valid for a model of task {manifest.task}; build it again"
        )


def _load(path: Path, trust: Trust | None) -> Bundle:
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(
            f"there is no {MANIFEST}, so it is not a bundle; build one with python -m export.build"
        )
    content = manifest_path.read_bytes()
    if trust is not None:  # before anything in it is used
        trust.check(content, path / SIGNATURE)
    text = content.decode()
    manifest = parse_manifest(text)
    for name, info in manifest.files.items():
        _verify(path, name, info)
    if unlisted := [
        name for name in (GRAPH, *(e.path for e in manifest.engines)) if name not in manifest.files
    ]:
        raise BundleError(f"the manifest does not list {', '.join(unlisted)}; build the bundle again")
    _check_external_files(path, manifest)
    return Bundle(path, manifest, version_of(text))


def _identity(path: Path) -> tuple[int, int] | None:
    """Identifies the folder that is at `path` now; None if there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_mtime_ns


def _verify(root: Path, name: str, expected: FileInfo) -> None:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise BundleError(f"the manifest lists {name!r}, which lies outside the bundle")
    path = root / name
    # Resolving detects a symbolic link anywhere in the path.
    if path.resolve() != root.resolve() / name or not path.is_file():
        raise BundleError(f"{name} is listed in the manifest but is missing or not a regular file")
    actual = file_info(path)
    if actual != expected:
        raise BundleError(
            f"{name} was altered: sha256 {actual.sha256[:12]}… ({actual.bytes} bytes), the manifest says "
            f"{expected.sha256[:12]}… ({expected.bytes} bytes); build the bundle again"
        )


def _check_external_files(root: Path, manifest: Manifest) -> None:
    """Raises BundleError if the graph keeps tensors in files without a checked hash: an engine would load them."""
    names = external_files(root / GRAPH)
    listed = {PurePosixPath(name) for name in manifest.files}
    if unlisted := sorted(name for name in names if not name or PurePosixPath(name) not in listed):
        raise BundleError(
            f"{GRAPH} keeps tensors in {', '.join(map(repr, unlisted))}, which the manifest does not list; "
            "build the bundle again"
        )


def _relative_files(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path.relative_to(root).as_posix()


def _exchange(first: Path, second: Path) -> None:
    """Swap two folders: atomically on Linux (renameat2); elsewhere `second` does not exist for a moment."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    at_working_folder, exchange = -100, 2
    if renameat2 is not None:
        paths = os.fsencode(first.absolute()), os.fsencode(second.absolute())
        if renameat2(at_working_folder, paths[0], at_working_folder, paths[1], exchange) == 0:
            return
    aside = first.with_name(first.name + ".old")
    second.rename(aside)
    first.rename(second)
    aside.rename(first)
