"""Octrees as sorted Morton keys: keys and neighbours, the octree of a grid, convolutions on a level's cells.

Everything is vectorised torch, on any device. The keys of a level index its dense grid in Morton order: what is
known of every cell (a label, a composed value) is looked up by plain indexing.
"""

from reconlab.kernels.octree.conv import octree_conv, octree_deconv
from reconlab.kernels.octree.keys import child_neighbours, children, decode, encode, neighbours, side_bits
from reconlab.kernels.octree.labels import (
    EMPTY,
    FILLED,
    IGNORE,
    MIXED,
    Below,
    from_morton,
    level_sides,
    octree_labels,
    to_morton,
)

__all__ = [
    "EMPTY",
    "FILLED",
    "IGNORE",
    "MIXED",
    "Below",
    "child_neighbours",
    "children",
    "decode",
    "encode",
    "from_morton",
    "level_sides",
    "neighbours",
    "octree_conv",
    "octree_deconv",
    "octree_labels",
    "side_bits",
    "to_morton",
]
