"""Sharing rows among ranks. Without torch.distributed there is one rank, and every function here is a plain one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as distributed

_CHUNK = 1 << 24  # values a broadcast


def rank_and_world() -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) outside torch.distributed."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def share(items: int, rank: int, world: int) -> range:
    """The contiguous share of `items` that belongs to `rank`; the shares differ by at most one.

    >>> [share(7, rank, 3) for rank in range(3)]
    [range(0, 2), range(2, 4), range(4, 7)]
    """
    return range(items * rank // world, items * (rank + 1) // world)


def agree(error: Exception | None) -> None:
    """Raises on every rank if any rank failed: otherwise the others would wait for it until a timeout."""
    _, world = rank_and_world()
    if world > 1:
        messages: list[str | None] = [None] * world
        distributed.all_gather_object(messages, None if error is None else f"{type(error).__name__}: {error}")
        failed = next(((rank, message) for rank, message in enumerate(messages) if message is not None), None)
        if error is None and failed is not None:
            raise RuntimeError(f"Rank {failed[0]} failed: {failed[1]}")
    if error is not None:
        raise error


def gather_objects(value: Any) -> list[Any]:
    """The value of every rank, in rank order."""
    _, world = rank_and_world()
    if world == 1:
        return [value]
    values: list[Any] = [None] * world
    distributed.all_gather_object(values, value)
    return values


def fill_from_ranks(array: np.ndarray, rows: list[range]) -> None:
    """Each rank holds array[rows[rank]]; afterwards every rank holds all of it. In place, no second copy."""
    _, world = rank_and_world()
    if world == 1:
        return
    device = (
        torch.device("cuda", torch.cuda.current_device())
        if distributed.get_backend() == "nccl"
        else torch.device("cpu")
    )
    width = max(1, int(np.prod(array.shape[1:], dtype=np.int64)))
    step = max(1, _CHUNK // width)
    for source, owned in enumerate(rows):
        for start in range(owned.start, owned.stop, step):
            part = torch.from_numpy(array[start : min(start + step, owned.stop)])
            moving = part.to(device)
            distributed.broadcast(moving, src=source)
            if moving is not part:
                part.copy_(moving)
