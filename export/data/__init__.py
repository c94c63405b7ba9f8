"""Reads pictures to train on and to measure with: labelled pictures (labelled.py), crops and pairs for super-resolution
(crops.py, pairs.py), photographs made worse as they really are (degradation.py), two sets of pictures with pairs
(paired.py) and without (unpaired.py).

Recipes, the training loop and the evaluation import from here. Pictures are kept in memory as uint8. Crops may come from
more pictures than fit in memory: the others are decoded again for each crop.
"""

from export.data.batches import Prefetcher, generator
from export.data.crops import Crops
from export.data.degradation import DegradationOptions
from export.data.labelled import read_labelled
from export.data.paired import Paired, read_paired
from export.data.pairs import Pair, read_held_out, read_pairs
from export.data.pictures import (
    as_floats,
    as_grid,
    as_picture,
    mirrored,
    pictures_under,
    planes,
    read_picture,
    saved_as_jpeg,
    write_picture,
)
from export.data.sets import Labelled, Split
from export.data.unpaired import Unpaired, read_sides

__all__ = [
    "Crops",
    "DegradationOptions",
    "Labelled",
    "Pair",
    "Paired",
    "Prefetcher",
    "Split",
    "Unpaired",
    "as_floats",
    "as_grid",
    "as_picture",
    "generator",
    "mirrored",
    "pictures_under",
    "planes",
    "read_held_out",
    "read_labelled",
    "read_paired",
    "read_pairs",
    "read_picture",
    "read_sides",
    "saved_as_jpeg",
    "write_picture",
]
