"""Reads pictures for generators of samples, with labels where there are any, from any known format: `read_labelled`.

Recipes call it to train and the evaluation to compare with. A format is one Reader in a file of its own; READERS lists
them.
"""

from __future__ import annotations

from pathlib import Path

from export.data import cifar, folders, idx, npz
from export.data.sets import Labelled, Split
from runtime.errors import InvalidInput

# The first that recognises a path reads it. A folder of pictures comes last: it recognises every folder.
READERS = (npz.READER, idx.READER, *cifar.READERS, folders.READER)


def read_labelled(path: Path, size: int, channels: int, split: Split = "train") -> Labelled:
    """The pictures at `path`, [N, channels, size, size] uint8, whichever format of READERS it has.

    split: for sources that have both; others (a folder, an .npz with `images`, one file of IDX) are read whole.
    Pictures smaller than `size` are centred on black; larger ones are reduced where they come from a folder and refused
    where they come from an archive. Raises InvalidInput naming what came and what was expected.
    """
    for reader in READERS:
        if reader.recognises(path):
            return reader.read(path, size, channels, split)
    got = f"{path} is of another kind" if path.exists() else f"nothing at {path}"
    raise InvalidInput("data", f"{got}, expected {'; '.join(reader.expected for reader in READERS)}")
