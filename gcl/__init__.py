"""Fine-tunes product-search models on a catalog with generalized contrastive learning. Importing it loads nothing."""

from __future__ import annotations


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module 'gcl' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gcl-trainer")
    except PackageNotFoundError:  # a checkout on the path, not installed
        return "unknown"
