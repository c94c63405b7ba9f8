"""Decides which pictures a command sends and to which file each answer goes.

image_commands.py calls `list_transfers`, which returns a Listing, and then `remaining`, which returns the transfers that
are still to be done. Neither sends or writes anything. Both raise InvalidInput, saying what to do, if a source or an
existing file would be overwritten.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from runtime.errors import InvalidInput
from server import formats
from server.client.answer_file import FileId, file_id
from server.client.moving.kinds import ANIMATED, CLIP_SUFFIXES, Kind, kind_of, suffix_in_folder

READABLE_SUFFIXES = {*formats.SUFFIXES, ".avif", ".heic", ".jxl", ".bmp", *ANIMATED, *CLIP_SUFFIXES}
# The suffixes of files that the client names.
SUFFIX_OF_FORMAT = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tiff"}
# The first bytes of the formats that the server writes. It answers in the input's format if it can, else in PNG.
SIGNATURES = {
    "png": rb"\x89PNG\r\n\x1a\n",
    "jpeg": rb"\xff\xd8\xff",
    "webp": rb"RIFF....WEBP",
    "tiff": rb"II[*+]\0|MM\0[*+]",
}
STREAM = Path("-")  # standard input as IN, standard output as OUT


class Existing(Enum):
    """What to do about results that already exist."""

    REFUSE = "refuse"
    SKIP = "skip"
    OVERWRITE = "overwrite"


@dataclass(frozen=True)
class Transfer:
    """One picture to send.

    source: its path, or `-` for standard input. target: path of the answer, or `-` for standard output.
    named: whether the user named that file; else it is in a folder and its suffix follows the answer's format.
    kind: whether it is a picture, or moves and is sent frame by frame.
    """

    source: Path
    target: Path
    named: bool
    kind: Kind = Kind.PICTURE

    def target_of(self, format: str) -> Path:
        """The path of an answer in `format`."""
        return self.target if self.named else self.target.with_suffix(SUFFIX_OF_FORMAT[format])


@dataclass(frozen=True)
class ResultSuffix:
    """The suffix of results in a folder: photo.jpg becomes photo-x4.jpg.

    text: of this run, such as "-x4". pattern: matches the suffix of any earlier run at the end of a stem.
    """

    text: str
    pattern: re.Pattern[str]


@dataclass(frozen=True)
class Listing:
    """What a command would send.

    transfers: in the order of the sources. originals: the sources, which must not be overwritten. notes: messages for
    the user about files that were left out.
    """

    transfers: tuple[Transfer, ...]
    originals: frozenset[FileId]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Picture:
    """A source. folder: in OUT, for its answer. listed: whether it was found in a folder; else the user named it."""

    path: Path
    folder: Path
    listed: bool


def is_folder(sources: Sequence[Path], out: str) -> bool:
    """Whether OUT is a folder for answers; else it is the file of a single answer, or `-`."""
    if out == str(STREAM):
        return False
    several = len(sources) > 1 or any(source.is_dir() for source in sources)
    target = Path(out)
    is_new_name = not target.suffix and not target.exists()
    return several or out.endswith(("/", os.sep)) or target.is_dir() or is_new_name


def list_transfers(
    sources: Sequence[Path],
    out: str,
    *,
    recursive: bool,
    format: str | None,
    suffix: Callable[[], ResultSuffix],
) -> Listing:
    """List the pictures to send for the given files and folders, with the path of each answer.

    recursive: include subfolders; OUT gets the same ones. format: of the answers; None for each picture's own.
    suffix: returns the suffix of results; called only if OUT is a folder. Earlier results in the same folder as their
    sources are not sent.
    Raises InvalidInput if a folder holds no picture, or if two pictures would have the same target.
    """
    if not is_folder(sources, out):
        if len(sources) > 1 or any(source.is_dir() for source in sources):
            raise InvalidInput("OUT", "got -, which is for a single picture; name a folder for several")
        transfer = Transfer(sources[0], Path(out), named=True, kind=kind_of(sources[0]))
        return Listing((transfer,), _ids(sources), ())
    target = Path(out)
    if target.exists() and not target.is_dir():
        raise InvalidInput("OUT", f"{out} is a file; more than one picture needs a folder")
    if not target.exists() and target.suffix.lower() in READABLE_SUFFIXES and not out.endswith("/"):
        raise InvalidInput("OUT", f"{out} is named like a picture; more than one picture needs a folder")
    pictures, notes = _pictures(sources, target, recursive)
    originals = _ids([picture.path for picture in pictures])
    result_suffix = suffix()
    chosen = _without_results(pictures, result_suffix.pattern)
    if left_out := len(pictures) - len(chosen):
        notes.append(
            f"Not sent, because they look like results of other pictures in their folder: {left_out}"
        )
    return Listing(tuple(_named(chosen, result_suffix.text, format)), originals, tuple(notes))


def remaining(listing: Listing, existing: Existing) -> list[Transfer]:
    """The transfers that are still to be done.

    Raises InvalidInput if a target is a source (the same file by any path, symbolic link or hard link), or exists and
    `existing` is REFUSE.
    """
    taken = [
        transfer
        for transfer in listing.transfers
        if transfer.target != STREAM and os.path.lexists(transfer.target)
    ]
    if existing is Existing.SKIP:
        kept = set(taken)
        return [transfer for transfer in listing.transfers if transfer not in kept]
    sent = _ids([transfer.source for transfer in listing.transfers])
    for transfer in taken:
        if not transfer.target.is_file():
            raise InvalidInput("OUT", f"{transfer.target} exists and is not a regular file; name another one")
        if file_id(transfer.target) in listing.originals:
            subject, advice = (
                f"{transfer.target}, for the answer to {transfer.source},",
                "name another file or folder",
            )
            if file_id(transfer.target) not in sent:
                subject = f"{transfer.target} is in the folder of the pictures, and so"
                advice = "--skip-existing keeps it, and the result of an earlier run can be removed first"
            raise InvalidInput(
                "OUT", f"{subject} is itself a source, and sources are never overwritten; {advice}"
            )
    if taken and existing is Existing.REFUSE:
        which = str(taken[0].target)
        if len(listing.transfers) > 1:
            which = f"{len(taken)} of {len(listing.transfers)} results ({which}, …)"
        raise InvalidInput(
            "OUT",
            f"{which} exist{'s' * (len(taken) == 1)}; --skip-existing keeps existing files, --overwrite replaces them",
        )
    return list(listing.transfers)


def format_of(picture: Path) -> str:
    """The format in which the server answers a picture: its own, judged by its first bytes, or PNG."""
    if not picture.is_file():  # a pipe can be opened and read only once
        return "png"
    try:
        with picture.open("rb") as file:
            head = file.read(16)
    except OSError:  # sending the picture will fail with the same error and report it
        return "png"
    return next((name for name, start in SIGNATURES.items() if re.match(start, head, re.DOTALL)), "png")


def _ids(files: Sequence[Path]) -> frozenset[FileId]:
    return frozenset(identity for file in files if (identity := file_id(file)))


def _pictures(sources: Sequence[Path], target: Path, recursive: bool) -> tuple[list[_Picture], list[str]]:
    """Every picture once, in order, and notes about what was left out."""
    pictures: dict[str, _Picture] = {}
    notes: list[str] = []
    for source in sources:
        if not source.is_dir():
            pictures.setdefault(os.path.abspath(source), _Picture(source, target, listed=False))
            continue
        here = [
            _Picture(path, target / path.parent.relative_to(source), listed=True)
            for path in _walk(source, target, recursive, notes)
        ]
        if not here:
            inside = "" if recursive else "; --recursive includes its subfolders"
            raise InvalidInput(
                "IN", f"{source} holds no picture ({', '.join(sorted(READABLE_SUFFIXES))}){inside}"
            )
        for picture in here:
            pictures.setdefault(os.path.abspath(picture.path), picture)
    return list(pictures.values()), notes


def _walk(folder: Path, target: Path, recursive: bool, notes: list[str]) -> Iterator[Path]:
    """The pictures in a folder, sorted by name, without hidden files and without the folder `target`."""

    def fail(error: OSError) -> None:
        raise error

    for name, folders, files in os.walk(folder, onerror=fail):
        at = Path(name)
        for file in sorted(files):
            if not file.startswith(".") and Path(file).suffix.lower() in READABLE_SUFFIXES:
                yield at / file
        if not recursive:
            return
        outputs = [inner for inner in folders if target.is_dir() and (at / inner).samefile(target)]
        notes += [f"Not read, because it is the folder of the results: {at / inner}" for inner in outputs]
        folders[:] = sorted(inner for inner in folders if inner not in outputs and not inner.startswith("."))


def _without_results(pictures: Sequence[_Picture], pattern: re.Pattern[str]) -> list[_Picture]:
    """Leave out results of earlier runs that are in the same folder as their sources: photo-x4.png beside photo.jpg."""
    stems: dict[Path, set[str]] = {}
    for picture in pictures:
        names = {picture.path.stem, _unambiguous(picture.path)}
        stems.setdefault(picture.path.parent, set()).update(names)

    def is_result(picture: _Picture) -> bool:
        parent, stem = picture.path.parent, picture.path.stem
        if not picture.listed or not picture.folder.is_dir() or not picture.folder.samefile(parent):
            return False
        ending = pattern.search(stem)
        return ending is not None and stem[: ending.start()] in stems[parent]

    return [picture for picture in pictures if not is_result(picture)]


def _named(pictures: Sequence[_Picture], suffix: str, format: str | None) -> list[Transfer]:
    """Choose a name for each answer. If a.png and a.gif both become PNG, they get a-png-x4.png and a-gif-x4.png.

    Raises InvalidInput if two answers would still have the same name.
    """

    kinds = [kind_of(picture.path) for picture in pictures]
    endings = [
        suffix + _suffix(picture.path, kind, format) for picture, kind in zip(pictures, kinds, strict=True)
    ]
    stems = ["stdin" if picture.path == STREAM else picture.path.stem for picture in pictures]
    while True:
        transfers = [
            Transfer(picture.path, picture.folder / (stem + ending), named=False, kind=kind)
            for picture, stem, ending, kind in zip(pictures, stems, endings, kinds, strict=True)
        ]
        times = Counter(transfer.target for transfer in transfers)
        unambiguous = [
            stem if times[transfer.target] == 1 else _unambiguous(transfer.source)
            for transfer, stem in zip(transfers, stems, strict=True)
        ]
        if unambiguous == stems:
            break
        stems = unambiguous
    sources: dict[Path, Path] = {}
    for transfer in transfers:
        if transfer.target in sources:
            raise InvalidInput(
                "IN",
                f"{sources[transfer.target]} and {transfer.source} would both become {transfer.target}; "
                "send them into different folders",
            )
        sources[transfer.target] = transfer.source
    return transfers


def _suffix(path: Path, kind: Kind, format: str | None) -> str:
    """The suffix of the answer to a source in a folder. format: of pictures, if the user chose one."""
    if kind is Kind.PICTURE:
        return SUFFIX_OF_FORMAT[format or format_of(path)]
    return suffix_in_folder(path, kind, format)


def _unambiguous(picture: Path) -> str:
    """photo.jpg → photo-jpg: a stem that differs from that of photo.png in the same folder."""
    return picture.name.replace(".", "-")
