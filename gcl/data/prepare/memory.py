"""What a process has freed, handed back to the system between two pieces of work: its peak is that of one of them."""

from __future__ import annotations

import pyarrow as pa


def give_back() -> None:
    """Hands back Arrow's buffers and the holes that arrays leave as they grow (with glibc: malloc_trim)."""
    pool = pa.default_memory_pool()
    pool.release_unused()
    pa.set_memory_pool(pa.system_memory_pool())  # release_unused, of whatever pool, is about the one that is set
    try:
        pool.release_unused()
    finally:
        pa.set_memory_pool(pool)
