"""Which pictures are sent, and which file each answer goes to.

The commands that turn images into images call `list_transfers` and then `remaining`; neither sends or writes
anything, and both refuse, with an InvalidInput that says what to do, whatever could cost the user a file.
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

READABLE_SUFFIXES = {*formats.SUFFIXES, ".gif", ".avif", ".heic", ".jxl", ".bmp"}
# The suffix of a file that the client names.
SUFFIX_OF_FORMAT = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tiff"}
# The first bytes of the formats that the server writes; it answers in the input's, and in PNG for every other.
SIGNATURES = {
    "png": rb"\x89PNG\r\n\x1a\n",
    "jpeg": rb"\xff\xd8\xff",
    "webp": rb"RIFF....WEBP",
    "tiff": rb"II[*+]\0|MM\0[*+]",
}
STREAM = Path("-")  # standard input as IN, standard output as OUT


class Existing(Enum):
    """What becomes of a picture whose answer's file exists."""

    REFUSE = "refuse"
    SKIP = "skip"
    OVERWRITE = "overwrite"


@dataclass(frozen=True)
class Transfer:
    """One picture to send. source: its path, or `-`. target: the file its answer goes to, or `-`.

    named: whether the user named that file; else it lies in a folder, and its suffix follows the answer's format.
    """

    source: Path
    target: Path
    named: bool

    def target_of(self, format: str) -> Path:
        """The file for an answer in `format`."""
        return self.target if self.named else self.target.with_suffix(SUFFIX_OF_FORMAT[format])


@dataclass(frozen=True)
class ResultSuffix:
    """What the name of an answer in a folder has behind its picture's.

    text: of this run, such as "-x4". pattern: matches, at the end of a stem, those of any run.
    """

    text: str
    pattern: re.Pattern[str]


@dataclass(frozen=True)
class Listing:
    """transfers: in the order of the sources. originals: the files that must not be written. notes: for the user."""

    transfers: tuple[Transfer, ...]
    originals: frozenset[FileId]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Picture:
    """A picture that was named, or that lies in a folder that was. folder: where in OUT its answer belongs."""

    path: Path
    folder: Path
    listed: bool


def is_folder(sources: Sequence[Path], out: str) -> bool:
    """Whether OUT is a folder for answers, and not the file of one."""
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
    """What to send for the given pictures and folders, and where each answer goes.

    recursive: folders with the folders inside them, which OUT then mirrors. format: of the answers; None: each
    picture's own. suffix: called only where OUT is a folder; results beside their sources are not sent again.
    Raises InvalidInput where there is no picture, or where two pictures would have one target.
    """
    if not is_folder(sources, out):
        if len(sources) > 1 or any(source.is_dir() for source in sources):
            raise InvalidInput("OUT", "got -, which takes the answer for one picture; name a folder")
        return Listing((Transfer(sources[0], Path(out), named=True),), _ids(sources), ())
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
        notes.append(f"Not sent, being named like results of other pictures beside them: {left_out}")
    return Listing(tuple(_named(chosen, result_suffix.text, format)), originals, tuple(notes))


def remaining(listing: Listing, existing: Existing) -> list[Transfer]:
    """The transfers that are still to do. Raises InvalidInput where one would write over a source or a file.

    A target is a source where both are one file, by whatever path, symbolic link or hard link.
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
            raise InvalidInput("OUT", f"{transfer.target} is no file that could be replaced")
        if file_id(transfer.target) in listing.originals:
            what, advice = (
                f"{transfer.target}, for the answer to {transfer.source},",
                "name another file or folder",
            )
            if file_id(transfer.target) not in sent:
                what = f"{transfer.target} lies among the pictures, and so"
                advice = "--skip-existing keeps it, and the result of an earlier run can be removed first"
            raise InvalidInput(
                "OUT", f"{what} is itself a source, and a source is never written over; {advice}"
            )
    if taken and existing is Existing.REFUSE:
        which = str(taken[0].target)
        if len(listing.transfers) > 1:
            which = f"{len(taken)} of {len(listing.transfers)} results ({which}, …)"
        raise InvalidInput(
            "OUT", f"{which} exist{'s' * (len(taken) == 1)}; --skip-existing keeps and --overwrite replaces"
        )
    return list(listing.transfers)


def format_of(picture: Path) -> str:
    """The format that the server answers a picture in, by its first bytes: its own, or PNG."""
    if not picture.is_file():  # a pipe can be opened and read once only
        return "png"
    try:
        with picture.open("rb") as file:
            head = file.read(16)
    except OSError:  # sending it will fail in the same way, and say why
        return "png"
    return next((name for name, start in SIGNATURES.items() if re.match(start, head, re.DOTALL)), "png")


def _ids(files: Sequence[Path]) -> frozenset[FileId]:
    return frozenset(identity for file in files if (identity := file_id(file)))


def _pictures(sources: Sequence[Path], target: Path, recursive: bool) -> tuple[list[_Picture], list[str]]:
    """Every picture once, in order, and notes on what was left out."""
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
            inside = "" if recursive else "; --recursive looks into the folders inside it"
            raise InvalidInput(
                "IN", f"{source} holds no picture ({', '.join(sorted(READABLE_SUFFIXES))}){inside}"
            )
        for picture in here:
            pictures.setdefault(os.path.abspath(picture.path), picture)
    return list(pictures.values()), notes


def _walk(folder: Path, target: Path, recursive: bool, notes: list[str]) -> Iterator[Path]:
    """The pictures in a folder, by name; hidden files, and the folder of the answers, are left out."""

    def fail(error: OSError) -> None:
        raise error

    for name, folders, files in os.walk(folder, onerror=fail):
        at = Path(name)
        for file in sorted(files):
            if not file.startswith(".") and Path(file).suffix.lower() in READABLE_SUFFIXES:
                yield at / file
        if not recursive:
            return
        own = [each for each in folders if target.is_dir() and (at / each).samefile(target)]
        notes += [f"Not read, as it takes the results: {at / each}" for each in own]
        folders[:] = sorted(each for each in folders if each not in own and not each.startswith("."))


def _without_results(pictures: Sequence[_Picture], pattern: re.Pattern[str]) -> list[_Picture]:
    """Leaves out what an earlier run made of another picture in the same folder: photo-x4.png beside photo.jpg."""
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
    """A name for each answer. a.png and a.gif, both of which become PNG, become a-png-x4.png and a-gif-x4.png."""

    endings = [suffix + SUFFIX_OF_FORMAT[format or format_of(picture.path)] for picture in pictures]
    stems = ["stdin" if picture.path == STREAM else picture.path.stem for picture in pictures]
    while True:
        transfers = [
            Transfer(picture.path, picture.folder / (stem + ending), named=False)
            for picture, stem, ending in zip(pictures, stems, endings, strict=True)
        ]
        times = Counter(each.target for each in transfers)
        unambiguous = [
            stem if times[each.target] == 1 else _unambiguous(each.source)
            for each, stem in zip(transfers, stems, strict=True)
        ]
        if unambiguous == stems:
            break
        stems = unambiguous
    sources: dict[Path, Path] = {}
    for each in transfers:
        if each.target in sources:
            raise InvalidInput(
                "IN",
                f"{sources[each.target]} and {each.source} would both become {each.target}; "
                "send them into different folders",
            )
        sources[each.target] = each.source
    return transfers


def _unambiguous(picture: Path) -> str:
    """photo.jpg → photo-jpg: a stem that a photo.png in the same folder does not share."""
    return picture.name.replace(".", "-")
