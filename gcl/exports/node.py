"""Packages of node, as its own `require` finds them from the folder in which a command is run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

NODE, TRANSFORMERS_JS = "node", "@huggingface/transformers"


def node_package(name: str) -> Path | None:
    """The folder of an installed package; None without the package, and without node."""
    found = (Path(place) / name for place in node_path().split(os.pathsep))
    return next((folder for folder in found if (folder / "package.json").is_file()), None)


def node_path() -> str:
    """For NODE_PATH of a process in another folder: where packages of the working folder and those above it are, what
    NODE_PATH is now, and the global ones. Empty without node."""
    node, here = shutil.which(NODE), Path.cwd()
    if node is None:
        return ""
    own = [str(folder / "node_modules") for folder in (here, *here.parents)]
    shared = Path(node).resolve().parent.parent / "lib" / "node_modules"  # where `npm install -g` puts them
    return os.pathsep.join([*own, *filter(None, [os.environ.get("NODE_PATH")]), str(shared)])
