"""Ranks: who this process is, sharing rows, exchanging values, agreeing. One way each.

Without torch.distributed there is one rank, and every function here is a plain one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as distributed

from gcl.errors import ProcessLost

_CHUNK = 1 << 24  # values per broadcast
_PATIENCE = timedelta(days=30)
_alone: ContextVar[bool] = ContextVar("alone", default=False)
T = TypeVar("T")


def world() -> tuple[int, int]:
    """This process's rank and the number of ranks; (0, 1) outside torch.distributed, and `alone`."""
    if not _alone.get() and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@contextmanager
def alone() -> Iterator[None]:
    """Every rank works for itself, as if there were no others. At the end it waits for them, longer than an exchange
    may take: a rank may have more to do. One that is lost ends the others even so (see group.py)."""
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE) if world()[1] > 1 else None
    before = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(before)
    if isinstance(group, distributed.ProcessGroup):
        distributed.barrier(group)


def share(items: int, rank: int, ranks: int) -> range:
    """The contiguous share of `items` that belongs to `rank`; shares differ by at most one and may be empty.

    >>> [share(7, rank, 3) for rank in range(3)]
    [range(0, 2), range(2, 4), range(4, 7)]
    """
    return range(items * rank // ranks, items * (rank + 1) // ranks)


def own_rows(items: int) -> range:
    """The share of `items` that belongs to this rank.

    >>> own_rows(5)
    range(0, 5)
    """
    return share(items, *world())


def max_over_ranks(values: Sequence[int], device: torch.device) -> list[int]:
    """Elementwise maximum over ranks of a few whole numbers, by one all-reduce on `device`."""
    if world()[1] == 1:
        return list(values)
    votes = torch.tensor(values, dtype=torch.int64, device=device)
    distributed.all_reduce(votes, op=distributed.ReduceOp.MAX)
    return votes.tolist()


def gather_objects(value: T) -> list[T]:
    """The value of every rank, in rank order; pickled."""
    _, ranks = world()
    if ranks == 1:
        return [value]
    values: list[Any] = [None] * ranks
    distributed.all_gather_object(values, value)
    return values


def of_first_rank(value: T) -> T:
    """The first rank's value, on every rank; pickled."""
    if world()[1] == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def agree(error: Exception | None) -> None:
    """Raises on every rank if any rank failed: otherwise the others would wait for it until a timeout."""
    messages = gather_objects(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    for rank, message in enumerate(messages):
        if message is not None:
            raise ProcessLost(f"Rank {rank} failed: {message}")


def check_same(facts: Sequence[Mapping[str, Any]]) -> None:
    """facts: of every rank, {name: plain value}. Raises ValueError naming the ranks and keys that differ from rank 0.

    >>> check_same([{"torch": "2.6", "seed": 0}, {"torch": "2.7", "seed": 0}])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: The ranks do not agree: torch is '2.7' on rank 1 and '2.6' on rank 0. Start all of them with ...
    """

    def shown(rank: int, key: str) -> str:
        return repr(facts[rank][key]) if key in facts[rank] else "not set"

    different = [
        f"{key} is {shown(rank, key)} on rank {rank} and {shown(0, key)} on rank 0"
        for rank in range(1, len(facts))
        for key in dict.fromkeys([*facts[0], *facts[rank]])
        if shown(rank, key) != shown(0, key)
    ]
    if different:
        more = f" (and {len(different) - 5} more)" if len(different) > 5 else ""
        raise ValueError(
            f"The ranks do not agree: {'; '.join(different[:5])}{more}. "
            "Start all of them with the same command, files and packages."
        )


def fill_from_ranks(array: np.ndarray, rows: Sequence[range]) -> None:
    """Each rank holds array[rows[rank]]; afterwards every rank holds all of it. In place, without a second copy."""
    if world()[1] == 1:
        return
    nccl = distributed.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
    width = max(1, int(np.prod(array.shape[1:], dtype=np.int64)))
    step = max(1, _CHUNK // width)
    for source, owned in enumerate(rows):
        for start in range(owned.start, owned.stop, step):
            part = torch.from_numpy(array[start : min(start + step, owned.stop)])
            moving = part.to(device)
            distributed.broadcast(moving, src=source)
            if moving is not part:
                part.copy_(moving)
