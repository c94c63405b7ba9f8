"""Pictures for generators that draw samples, with labels where the source has them: one door, whatever the format.

All are kept in memory as uint8. A format is one Reader in a file of its own; READERS lists them.
"""

from __future__ import annotations

from pathlib import Path

from export.data import cifar, folders, idx, npz
from export.data.sets import Labelled, Split
from runtime.errors import InvalidInput

# The first that recognises a path reads it; a folder that none before it knows is a folder of pictures.
READERS = (npz.READER, idx.READER, *cifar.READERS, folders.READER)


def read_labelled(path: Path, size: int, channels: int, split: Split = "train") -> Labelled:
    """The pictures at `path`, [N, channels, size, size] uint8, in whichever format of READERS they are.

    split: of sources that have two. One without (a folder, an .npz with `images`, one file of IDX) is read whole.
    Pictures smaller than `size` are set in the middle of black ones; larger ones in a folder are reduced, those in
    an archive are not. Raises InvalidInput naming what came and what was expected.
    """
    for reader in READERS:
        if reader.recognises(path):
            return reader.read(path, size, channels, split)
    got = f"{path} is of another kind" if path.exists() else f"nothing at {path}"
    raise InvalidInput("data", f"{got}, expected {'; '.join(reader.expected for reader in READERS)}")
