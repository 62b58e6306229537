"""What a dataclass of settings says about its fields: their documentation, and how a command line may write them.

A field is documented by the string below it, as attributes of a class are:

    batch_size: int = MISSING
    \"\"\"Pairs of one contrastive batch, over all GPUs.\"\"\"

`gcl <command> --help`, `gcl help <setting>` and the documentation read these strings; nothing repeats them.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from enum import Enum
from typing import Any

MISSING: Any = "???"  # what OmegaConf calls a value that a YAML or the command line must give


class Kind(Enum):
    """How the command line may write a field, where that is not obvious from its type."""

    path = "path"  # any character may be in it, so it is quoted for Hydra
    mapping = "mapping"  # named entries: `key={…}` and `key.name={…}` add one
    node = "node"  # free keys below it, `_target_` for example: `key.name=value` adds one


def path(default: Any = None) -> Any:
    """A field that holds the path of a file or folder, a pattern of them, or a URL."""
    return dataclasses.field(default=default, metadata={"kind": Kind.path})


def mapping() -> Any:
    """A field that holds named entries, empty by default."""
    return dataclasses.field(default_factory=dict, metadata={"kind": Kind.mapping})


def node(default: Any = None) -> Any:
    """A field below which keys are free: a `_target_` with its arguments, or the options of a library."""
    metadata = {"kind": Kind.node}
    if default == {}:
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def keys_of(settings: type, kind: Kind, prefix: str = "") -> list[str]:
    """The dotted keys of a dataclass, and of the dataclasses in it, whose fields are of this kind.

    >>> @dataclasses.dataclass
    ... class Inner:
    ...     root: str | None = path()
    >>> @dataclasses.dataclass
    ... class Outer:
    ...     out: str | None = path()
    ...     data: Inner = dataclasses.field(default_factory=Inner)
    >>> keys_of(Outer, Kind.path)
    ['out', 'data.root']
    """
    keys = []
    for field in dataclasses.fields(settings):
        if field.metadata.get("kind") is kind:
            keys.append(prefix + field.name)
        if dataclasses.is_dataclass(field.default_factory):
            keys += keys_of(field.default_factory, kind, f"{prefix}{field.name}.")
    return keys


def documentation(settings: type) -> dict[str, str]:
    """{field: the string below it, on one line}, inherited fields included; fields without one are left out."""
    documented: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for field, below in zip(statements, statements[1:], strict=False):
            is_field = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if is_field and is_text and isinstance(below.value.value, str):
                documented[field.target.id] = " ".join(below.value.value.split())
    return documented
