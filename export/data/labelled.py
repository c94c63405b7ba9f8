"""Reads pictures, with their labels if there are any, in any known format: `read_labelled` returns them as Labelled.

The recipes of DCGAN and ACGAN call it, and so does the evaluation. A format is a Reader in a file of its own, listed in
READERS.
"""

from __future__ import annotations

from pathlib import Path

from export.data import cifar, folders, idx, npz
from export.data.sets import Labelled, Split
from runtime.errors import InvalidInput

# The first reader that recognises a path reads it. folders.READER comes last, since it recognises every folder.
READERS = (npz.READER, idx.READER, *cifar.READERS, folders.READER)


def read_labelled(path: Path, size: int, channels: int, split: Split = "train") -> Labelled:
    """The pictures at `path`, [N, channels, size, size] uint8, and their labels, in whichever of the formats they are.

    split: which part to read of data that has both; others (a folder, an .npz with `images`, a single IDX file) are read
    whole. Smaller pictures are centred on black. Larger ones are reduced if they come from a folder, and refused if they
    come from an archive. Raises InvalidInput naming what came and what was expected.
    """
    for reader in READERS:
        if reader.recognises(path):
            return reader.read(path, size, channels, split)
    got = f"{path} is of another kind" if path.exists() else f"nothing at {path}"
    raise InvalidInput("data", f"{got}, expected {'; '.join(reader.expected for reader in READERS)}")
