"""Which rank the launcher (torchrun, SLURM, Lightning) gave this process, before there is a process group."""

from __future__ import annotations

import os


def launched_rank() -> int:
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", "0"))))
