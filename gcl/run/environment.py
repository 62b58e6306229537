"""What a run ran on: versions, commit, device, world size. Enough to explain a number a year later."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from gcl.config.secrets import without_secrets_in

_PACKAGES = (
    "gcl-trainer", "torch", "torchvision", "lightning", "open_clip_torch", "timm", "transformers", "webdataset",
    "hydra-core", "torchmetrics", "numpy", "pyarrow", "pillow", "simplejpeg",
)  # fmt: skip


def describe_environment() -> dict[str, Any]:
    import torch

    return {
        "command": without_secrets_in(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "commit": _git_commit(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def _git_commit() -> str | None:
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5)
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode:
        return None
    return commit.stdout.strip() + (" with uncommitted changes" if changed.stdout.strip() else "")
