"""What the loss over N pairs holds on a rank, and what the ranks exchange for it: formulas for gather.py and tiled.py.

With one part of each side, N embeddings of width D are gathered twice. N = 131,072 and D = 768 on W = 256 ranks:

    held    4 N D numbers, both sides' embeddings and their gradients: 1.6 GB, whatever W
    moved   4 N D (W - 1) / W numbers to every rank, two gathers and two sums of gradients: 1.6 GB a step

A ring, in which each rank keeps its own queries and passes documents on, block by block, would hold next to nothing
and move 3 N D (softmax: the documents twice, their gradients once) or 2 N D (sigmoid). It would save 2 % of the memory
of an 80 GB GPU, and at 25 GB/s 16 to 32 ms of a step in which that rank encodes 512 pairs; but it would take 2 W
exchanges of 1.6 MB one after the other in the place of four, and products no larger than N / W. So there is none.
"""

from __future__ import annotations

from typing import NamedTuple

_ITEM = 4  # bytes of a number: the loss computes in float32


class Footprint(NamedTuple):
    """Bytes. held: embeddings of all ranks and their gradients, at the peak. blocks: similarities. received: by every
    rank for one loss, forward and backward."""

    held: int
    blocks: int
    received: int


def footprint(
    parts: int, *, pairs: int, rows: int, width: int, ranks: int, tile: int | None, buffers: int = 3,
    summed_in_place: bool = True,
) -> Footprint:  # fmt: skip
    """parts: T, tensors that the ranks gather, both sides together. pairs: N. rows: distinct records of a side that
    the ranks embed together, at most N. width: D. tile: side of a block; None: the whole matrix. buffers: blocks at a
    time. summed_in_place: gradients go back by a reduce-scatter (NCCL), or by an all-reduce, which moves twice as much
    (gloo).

    The peak is either in the loss, 2 T arrays [N, D], or in the gradient's way back, when the T gradients [N, D] are
    there and those of one part once more for its distinct rows, in gloo twice more.

    >>> footprint(2, pairs=131072, rows=131072, width=768, ranks=256, tile=4096)
    Footprint(held=1610612736, blocks=201326592, received=1604321280)
    """
    each, spread = _ITEM * pairs * width, _ITEM * rows * width
    if ranks == 1:
        return Footprint(2 * parts * each, _blocks(tile, pairs, buffers), 0)
    back = parts * each + (1 if summed_in_place else 2) * spread
    others = spread * (ranks - 1) // ranks
    received = parts * others * (2 if summed_in_place else 3)
    return Footprint(max(2 * parts * each, back), _blocks(tile, pairs, buffers), received)


def _blocks(tile: int | None, pairs: int, buffers: int) -> int:
    side = pairs if tile is None else min(tile, pairs)
    return _ITEM * side * side * buffers


def gradient_traffic(numbers: int, ranks: int) -> int:
    """Bytes that every rank receives to have the mean of a gradient of so many numbers, by a ring.

    >>> gradient_traffic(1000, 4)
    6000
    """
    return 2 * _ITEM * numbers * (ranks - 1) // ranks
