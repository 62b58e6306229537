"""What the tiled losses share: blocks of the similarities, buffers that they reuse, and gradients adding up."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gcl.loss.targets import Relations


class Gradients(NamedTuple):
    """Where a term adds the gradient of this rank's rows, in place; None where nobody asks for it.

    query[N, D], document[N, D]; scale and bias are scalars.
    """

    query: Tensor | None
    document: Tensor | None
    scale: Tensor | None
    bias: Tensor | None

    def add_rows(self, r: slice, query: Tensor, step: Tensor, scale: Tensor) -> None:
        """step[R, D]: the gradient of scale * query[r]. Overwrites it."""
        if self.scale is not None:
            self.scale.add_(row_products(query[r], step).sum(dtype=self.scale.dtype))
        if self.query is not None:
            self.query[r].add_(step.mul_(scale))

    def add_block(self, g: Tensor, r: slice, c: slice, left: Tensor, right: Tensor, step: Tensor) -> None:
        """g[R, C]: the gradient of left @ right.T, left[R, D] being scale * query[r] and right document[c]."""
        if self.query is not None or self.scale is not None:
            step.addmm_(g, right)
        if self.document is not None:
            self.document[c].addmm_(g.T, left)

    def add_diagonal(self, g: Tensor, r: slice, left: Tensor) -> None:
        """g[R]: the gradient of the similarities of pairs r; the query's part is in `step` from the start."""
        if self.document is not None:
            self.document[r].add_(g[:, None] * left)


class Buffers:
    """Flat buffers of side x side numbers, handed out in the shape of the block at hand; the same for all terms."""

    def __init__(self, side: int, like: Tensor, count: int) -> None:
        self.side = side
        self._flat = [like.new_empty(side * side) for _ in range(count)]

    def view(self, which: int, rows: int, columns: int) -> Tensor:
        return self._flat[which][: rows * columns].view(rows, columns)


def choose_tile(tile: int | str, pairs: int, device: torch.device) -> int:
    """Side of the blocks. "auto": one block while that is small, then equal blocks at which products run at full speed.

    Off powers of two on a CPU: rows of 4 KiB fall on the same cache lines, which costs a product 8 %.

    >>> [choose_tile("auto", pairs, torch.device("cpu")) for pairs in (256, 1536, 4096, 32768)]
    [256, 1536, 832, 896]
    """
    if tile == "auto":
        most, usual = (1536, 896) if device.type == "cpu" else (6144, 4096)
        tile = pairs if pairs <= most else 16 * math.ceil(pairs / math.ceil(pairs / usual) / 16)
    return max(1, min(int(tile), pairs))


def split(start: int, stop: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, stop)) for i in range(start, stop, size)]


def row_products(x: Tensor, y: Tensor) -> Tensor:
    """x[N, D], y[N, D] -> x_i . y_i [N], a thousand rows at a time: without an N x D temporary."""
    return torch.cat([(x[r] * y[r]).sum(1) for r in split(0, len(x), 1024)] or [x.new_zeros(0)])


def blank(s: Tensor, rows: slice, columns: slice, relations: Relations, value: float = -torch.inf) -> Tensor:
    """Sets the diagonal and the ignored entries of the block s[R, C] to -inf, in place: they leave every sum of exp."""
    ignored = relations.ignored(rows, columns)
    if ignored is not None:
        s.masked_fill_(ignored, value)
    diagonal(s, rows, columns).fill_(value)
    return s


def logsumexp(s: Tensor, dim: int, scratch: Tensor | None = None, largest: Tensor | None = None) -> Tensor:
    """s[R, C] -> [R] or [C]; -inf where all entries are. Like torch.logsumexp, in a buffer that is there already.
    largest: s.amax(dim, keepdim=True), where that is known."""
    largest = (s.amax(dim, keepdim=True) if largest is None else largest).clamp_min(torch.finfo(s.dtype).min)
    return torch.sub(s, largest, out=scratch).exp_().sum(dim).log() + largest.squeeze(dim)


def diagonal(s: Tensor, rows: slice, columns: slice) -> Tensor:
    """The part of the whole matrix's diagonal that crosses the block s[R, C]: a view, perhaps an empty one."""
    start, stop = max(rows.start, columns.start), min(rows.stop, columns.stop)
    if start >= stop:
        return s[:0, :0].diagonal()
    return s[start - rows.start : stop - rows.start, start - columns.start : stop - columns.start].diagonal()


def wide(device: torch.device) -> torch.dtype:
    """Sums over blocks are kept in float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def log1p_exp(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to the last digits of float64 as well: unless told, torch's softplus goes over to x at 20."""
    return torch.nn.functional.softplus(x, 1.0, 50.0)
