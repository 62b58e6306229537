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
import itertools
import math
import re
import sys
import types
import typing
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any

MISSING: Any = "???"  # what OmegaConf calls a value that a YAML or the command line must give


class Choice(str, Enum):
    """A setting that has a few possible values: `Resize("squash")` is one of them or raises ValueError with all.

    A member equals and prints as its value.

    >>> class Resize(Choice):
    ...     squash = "squash"
    ...     longest = "longest"
    >>> Resize("longest") is Resize.longest, Resize.longest == "longest", f"{Resize.longest}"
    (True, True, 'longest')
    >>> Resize("crop")
    Traceback (most recent call last):
    ...
    ValueError: resize is one of squash, longest; given 'crop'.
    """

    @classmethod
    def _missing_(cls, value: object) -> Choice:
        name = re.sub("(?<=[a-z])(?=[A-Z])", " ", cls.__name__).lower()
        raise ValueError(f"{name} is one of {', '.join(member.value for member in cls)}; given {value!r}.")

    def __str__(self) -> str:
        return self.value

    def __format__(self, format_spec: str) -> str:
        return format(self.value, format_spec)

    __hash__ = str.__hash__


class Kind(Enum):
    """How the command line may write a field, where that is not obvious from its type."""

    path = "path"  # any character may be in it, so it is quoted for Hydra
    mapping = "mapping"  # named entries: `key={…}` and `key.name={…}` add one
    node = "node"  # free keys below it, `_target_` for example: `key.name=value` adds one
    typed = "typed"  # a person's words: taken as they are, `null` too


def path(default: Any = None) -> Any:
    """A field that holds the path of a file or folder, a pattern of them, or a URL."""
    return dataclasses.field(default=default, metadata={"kind": Kind.path})


def typed() -> Any:
    """A field that holds what a person would type into a search box; None by default."""
    return dataclasses.field(default=None, metadata={"kind": Kind.typed})


def mapping(**bounds: float) -> Any:
    """A field that holds named entries, empty by default; bounds: of their numbers, as `number` has them."""
    return dataclasses.field(default_factory=dict, metadata={"kind": Kind.mapping, "range": Range(**bounds)})


def node(default: Any = None) -> Any:
    """A field below which keys are free: a `_target_` with its arguments, or the options of a library."""
    metadata = {"kind": Kind.node}
    if default == {}:
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def free(default: Any, values: str, *choices: str) -> Any:
    """A field whose type does not say what it may be.

    values: what it may be, in plain English. choices: values that completion offers and help takes as examples.
    """
    return dataclasses.field(default=default, metadata={"values": values, "choices": choices})


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a setting may be: `above` and `below` are not among them, `least` and `most` are."""

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None

    def __contains__(self, value: float) -> bool:
        """
        >>> 0.5 in Range(above=0, most=1), 0 in Range(above=0), math.nan in Range(), math.inf in Range(least=0)
        (True, False, False, False)
        """
        return (
            -math.inf < value < math.inf
            and (self.above is None or value > self.above) and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below) and (self.most is None or value <= self.most)
        )  # fmt: skip

    def __str__(self) -> str:
        """
        >>> str(Range(above=0, most=1)), str(Range(least=1)), str(Range())
        ('a number above 0 and at most 1', 'a number of at least 1', 'a finite number')
        """
        words = {"above": self.above, "of at least": self.least, "below": self.below, "at most": self.most}
        told = [f"{word} {_plain(value)}" for word, value in words.items() if value is not None]
        return f"a number {' and '.join(told)}" if told else "a finite number"


def _plain(bound: float) -> str:
    """
    >>> _plain(86_400), _plain(1e6), _plain(0.001)
    ('86,400', '1,000,000', '0.001')
    """
    return f"{int(bound):,}" if bound == int(bound) else f"{bound:g}"


def number(default: Any, **bounds: float) -> Any:
    """A field that holds a number in a `Range`: number(0.9, above=0, most=1). What is not finite is never meant."""
    return dataclasses.field(default=default, metadata={"range": Range(**bounds)})


def check_numbers(settings: Any, prefix: str = "") -> None:
    """Raises ValueError, with the key, for the first number in a dataclass, or in what is below it, that is outside of
    its range or not finite.

    >>> @dataclasses.dataclass
    ... class Options:
    ...     rate: float = number(0.1, above=0, most=1)
    >>> check_numbers(Options(rate=-1.0), "optim.")
    Traceback (most recent call last):
    ...
    ValueError: optim.rate=-1.0: a number above 0 and at most 1.
    """
    for field in dataclasses.fields(settings):
        _check_value(prefix + field.name, getattr(settings, field.name), field.metadata.get("range", Range()))


def _check_value(key: str, value: Any, allowed: Range) -> None:
    if dataclasses.is_dataclass(value):
        check_numbers(value, f"{key}.")
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_value(f"{key}.{name}", item, allowed)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _check_value(f"{key}[{place}]", item, allowed)
    elif is_number(value) and value not in allowed:
        raise ValueError(f"{key}={value}: {allowed}.")


def is_number(value: Any) -> typing.TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_given(prefix: str, node: Any, ranges: dict[str, Range]) -> None:
    """Raises ValueError, with the key, for the first number in `node`, free keys or a dataclass, outside of its range.

    >>> check_given("optim.optimizer.", {"betas": [0.9, 1.0]}, {"betas": Range(least=0, below=1)})
    Traceback (most recent call last):
    ...
    ValueError: optim.optimizer.betas[1]=1.0: a number of at least 0 and below 1.
    """
    values = vars(node) if dataclasses.is_dataclass(node) else node if isinstance(node, dict) else {}
    for name, allowed in ranges.items():
        _check_value(prefix + name, values.get(name), allowed)


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
        if dataclasses.is_dataclass(base):
            documented |= _documented(base.__module__).get(base.__qualname__, {})
    return documented


@cache
def _documented(module: str) -> dict[str, dict[str, str]]:
    """{class: {field: the string below it}} of a module, whose source is parsed once."""
    found: dict[str, dict[str, str]] = {}

    def look(statements: list[ast.stmt], prefix: str) -> None:
        for one in statements:
            if isinstance(one, ast.FunctionDef):
                look(one.body, f"{prefix}{one.name}.<locals>.")
            elif isinstance(one, ast.ClassDef):
                look(one.body, f"{prefix}{one.name}.")
                found[prefix + one.name] = dict(_fields_with_texts(one.body))

    try:
        look(ast.parse(inspect.getsource(sys.modules[module])).body, "")
    except (OSError, TypeError, KeyError):  # there is no source file
        pass
    return found


def _fields_with_texts(statements: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, below in itertools.pairwise(statements):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())


@dataclasses.dataclass(frozen=True)
class Option:
    """One key that a YAML or a command line may set, as help, completion and the documentation need it.

    key: dotted; `<name>` is an entry's own name, `[]` for an item of a list. values: what it may be, in plain English.
    default: MISSING where a value must be given. below: the dataclass whose fields are the keys below this one.
    type: the field's annotation.
    """

    key: str
    documentation: str
    values: str
    default: Any
    choices: tuple[str, ...] = ()
    kind: Kind | None = None
    below: type | None = None
    type: Any = None

    @property
    def name(self) -> str:
        return self.key.rpartition(".")[2]

    @property
    def is_optional(self) -> bool:
        return _members(self.type)[1]

    @property
    def is_text(self) -> bool:
        return _members(self.type)[0] == [str]

    @property
    def is_texts(self) -> bool:
        """A list of texts."""
        return _members(self.type)[0] == [list[str]]

    @property
    def entries(self) -> Any:
        """The type of the values of a mapping with named entries; None for other fields."""
        (first, *_) = _members(self.type)[0]
        return typing.get_args(first)[1] if typing.get_origin(first) is dict else None


def options_of(settings: type, prefix: str = "") -> Iterator[Option]:
    """The fields of a dataclass and of the dataclasses in it, each before what is below it.

    >>> from gcl.schema import Schema
    >>> [(option.key, option.values, shown(option.default)) for option in options_of(Schema)][:2]
    [('query', 'entries by name', '{}'), ('query.<name>.modality', 'text, image', 'text')]
    """
    documented, hints = documentation(settings), typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        key, hint, kind = prefix + field.name, hints[field.name], field.metadata.get("kind")
        below, suffix = _below(hint)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        said, choices = _said(hint, kind)
        if "range" in field.metadata:
            said = said.replace("number", str(field.metadata["range"]).removeprefix("a "), 1)
        said, choices = field.metadata.get("values", said), field.metadata.get("choices", choices)
        yield Option(key, documented.get(field.name, ""), said, default, choices, kind, below, hint)
        if below is not None:
            yield from options_of(below, f"{key}{suffix}.")


def _members(hint: Any) -> tuple[list[Any], bool]:
    """The types of a union, and whether None is one of them."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    members = list(typing.get_args(hint)) if union else [hint]
    return [member for member in members if member is not type(None)], type(None) in members


def _below(hint: Any) -> tuple[type | None, str]:
    """The dataclass in a type, and what is written between the field's key and its fields."""
    for member in _members(hint)[0]:
        inner = typing.get_args(member)[-1:]
        if isinstance(member, type) and dataclasses.is_dataclass(member):
            return member, ""
        if inner and isinstance(inner[0], type) and dataclasses.is_dataclass(inner[0]):
            return inner[0], ".<name>" if typing.get_origin(member) is dict else "[]"
    return None, ""


_SAID = {bool: "true or false", int: "whole number", float: "number", str: "text", Any: "any value"}


def _said(hint: Any, kind: Kind | None) -> tuple[str, tuple[str, ...]]:
    """A type in plain English, and the values it allows, where they can be listed."""
    members, optional = _members(hint)
    said, choices = [], []
    for member in members:
        if isinstance(member, type) and issubclass(member, Enum):
            choices += [str(item.value) for item in member]
            said.append(", ".join(str(item.value) for item in member))
        elif typing.get_origin(member) is list:
            said.append(f"list of {_said(typing.get_args(member)[0], None)[0]}")
        elif typing.get_origin(member) is dict:
            said.append("entries by name")
        elif dataclasses.is_dataclass(member):
            said.append("settings")
        else:
            choices += ["true", "false"] if member is bool else []
            said.append("path" if kind is Kind.path else _SAID.get(member, "any value"))
    if optional:
        choices += ["null"] if choices else []
        said.append("null")
    return " or ".join(dict.fromkeys(said)), tuple(choices)


def shown(value: Any) -> str:
    """A value as YAML and the command line write it.

    >>> shown(None), shown(True), shown([1, "a"]), shown({"image": 0.9}), shown({})
    ('null', 'true', '[1, a]', '{image: 0.9}', '{}')
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return shown({name: below for name, below in vars(value).items() if below is not None})
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value.value if isinstance(value, Enum) else value)


def plain(value: Any) -> Any:
    """Settings as dictionaries, lists, texts and numbers, an enum's member by its name.

    >>> @dataclasses.dataclass
    ... class Options:
    ...     kind: Kind = Kind.path
    ...     sizes: tuple = (1, 2)
    >>> plain({"a": [Options()]})
    {'a': [{'kind': 'path', 'sizes': [1, 2]}]}
    """
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(below) for key, below in value.items()}
    return value.name if isinstance(value, Enum) else value


def dotted(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested mappings with its dotted key; an empty mapping is a value.

    >>> dict(dotted({"a": {"b": [1], "c": {}}, "d": None}))
    {'a.b': [1], 'a.c': {}, 'd': None}
    """
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
