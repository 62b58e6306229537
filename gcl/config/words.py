"""What a person types as key=value, read by the type of the setting: a text or a path is taken as it is.

for_hydra   a setting of a run, in Hydra's grammar
value_of    an option of a command, or a setting on top of a run's own config, as a plain value
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import yaml

from gcl.config.explain import not_a_setting
from gcl.config.schema import RunConfig
from gcl.config.shape import known_options, option_at, shaped
from gcl.config.yaml import parse
from gcl.errors import ConfigError
from gcl.options import Kind, Option
from gcl.schema import SIDES, SideName

_SPECIAL = re.compile(r"[={}\[\]()'\"\\$,:]")
_OPEN, _CLOSE = "{[", "}]"


_WEIGHT = re.compile(r"\+*data\.(query|document)(?:\.[^.=]+(?:\.weight=.*|=.*\bweight\b.*)|=.*\bweight\b.*)", re.DOTALL)


def weighed_by_hand(settings: Iterable[str]) -> set[SideName]:
    """The sides of which a setting, `key=value`, gives the weight of a field.

    >>> weighed_by_hand(["data.document.title.weight=0", "~data.query.brand", "data.root=weight"])
    {'document'}
    >>> weighed_by_hand(["++data.document={brand: {weight: 1}}", "data.query.query.prompt=weight {}"])
    {'document'}
    """
    matches = map(_WEIGHT.fullmatch, settings)
    return {side for match in matches if match for side in SIDES if side == match[1]}


def for_hydra(argument: str, *, sweep: bool = False) -> str:
    """A `key=value` of the command line in Hydra's grammar, which wants quotes around a text with a comma or `=` in
    it, and "++" before a key that is new: where new keys belong, it is understood.

    sweep: a comma separates the values of several runs.

    >>> for_hydra("data.image_root=a,b (1)"), for_hydra("loss.score_to_weight.floor=0.1")
    ("data.image_root='a,b (1)'", '++loss.score_to_weight.floor=0.1')
    >>> for_hydra("optim.rules={visual.*: {rate: 0.1}}"), for_hydra("data.document.brand={modality: text}")
    ('++optim.rules={visual.*: {rate: 0.1}}', '++data.document={brand: {modality: text}}')
    >>> for_hydra("models=[run:a=1, tiny]"), for_hydra("train.epochs=3")
    ("models=['run:a=1','tiny']", 'train.epochs=3')
    """
    key, equals, value = argument.partition("=")
    if not equals or key.startswith("~"):
        return argument
    if not key:
        raise not_a_setting(argument)
    name = key.lstrip("+")
    if value[:1] == "{":
        value = _shaped_whole(name, value)
    option, parent = option_at(RunConfig, name), name.rpartition(".")[0]
    if not (sweep and _is_sweep(value)):
        value = _in_grammar(name, value, option)
    if holder := _unset(name):  # which cannot be merged into while it is null: what is above it can
        return _whole(holder, name, value)
    is_free = any(name.startswith(f"{node}.") for node in _nodes())
    above = None if is_free else option_at(RunConfig, parent)
    if above is not None and above.entries is not None and value[:1] == "{":  # a named entry, which may be new
        return f"++{parent}={{{name.removeprefix(parent + '.')}: {value}}}"
    is_entry = above is not None and above.entries is not None and above.below is None
    is_whole = value[:1] == "{" and option is not None and (option.entries is not None or option.kind is Kind.node)
    return f"++{name}={value}" if is_free or is_entry or is_whole else f"{key}={value}"


def one_by_one(argument: str) -> list[str]:
    """`data.grades={1: 4, Exact: 2}` as a setting for each name: in Hydra's grammar a name of digits is a number.

    >>> one_by_one("data.grades={1: 4}"), one_by_one("data.grades={Exact: 2}")
    (['data.grades.1=4'], ['data.grades={Exact: 2}'])
    """
    key, _, value = argument.partition("=")
    option = option_at(RunConfig, key.lstrip("+"))
    if value[:1] != "{" or option is None or option.entries is None or option.below is not None:
        return [argument]
    try:
        content = parse(value)
    except yaml.YAMLError:
        return [argument]
    if not isinstance(content, dict) or all(isinstance(name, str) for name in content):
        return [argument]
    entries = shaped(content, key.lstrip("+"))
    if fraction := next((name for name in entries if "." in name), None):
        raise ConfigError(f"{argument}: here {fraction} cannot be a name, as a dot separates keys: write it in a YAML.")
    return [f"{key}.{name}={_literal(below)}" for name, below in entries.items()]


def value_of(settings: type, key: str, text: str) -> Any:
    """The value that a text means for this key of a dataclass of settings.

    >>> from gcl.schema import Field
    >>> value_of(Field, "column", "007"), value_of(Field, "column", "null"), value_of(Field, "weight", "12e5")
    ('007', None, 1200000.0)
    """
    option = option_at(settings, key)
    if option is not None and option.is_text:
        return None if text == "null" and option.is_optional and option.kind is not Kind.typed else text
    if option is not None and option.is_texts and text.startswith("[") and text.endswith("]"):
        return [_unquoted(item) for item in _items(text)]
    if option is not None and _is_one_text(option, text):
        return [_unquoted(text)]
    try:
        return shaped(parse(text), key, settings)
    except yaml.YAMLError as error:
        raise ConfigError(_why_unreadable(key, text)) from error


def _is_one_text(option: Option, value: str) -> bool:
    """Whether it is one text where several belong; with a comma it may be meant as several, or as a sweep."""
    return option.is_texts and value not in ("", "null") and not re.search(r"[,\[{]", value)


def _shaped_whole(key: str, value: str) -> str:
    """A mapping as its settings hold it, as it was where nothing changes."""
    try:
        content = parse(value)
    except yaml.YAMLError:
        return value
    fitting = shaped(content, key)
    return value if fitting == content else _literal(fitting)


def quoted(text: str) -> str:
    r"""A text in Hydra's grammar.

    >>> print(quoted("it's"), quoted("C:\\a\\"))
    'it\'s' 'C:\a\\'
    """
    text = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", text)
    return "'" + re.sub(r"\\+$", lambda match: match[0] * 2, text) + "'"


def _in_grammar(key: str, value: str, option: Option | None) -> str:
    if option is not None and option.is_text:
        return value if value == "null" or _is_quoted(value) else quoted(value)
    if option is not None and option.is_texts and value.startswith("[") and value.endswith("]"):
        return f"[{','.join(item if _is_quoted(item) else quoted(item) for item in _items(value))}]"
    if option is not None and _is_one_text(option, value):
        return f"[{value if _is_quoted(value) else quoted(value)}]"
    if not _SPECIAL.search(value) or ("." not in key and option is None):  # a choice of a group
        return value
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(f"key={value}")
        return value
    except HydraException:
        if value[:1] not in _OPEN:
            return value if "${" in value else quoted(value)
    try:
        return _literal(parse(value))
    except yaml.YAMLError as error:
        raise ConfigError(_why_unreadable(key, value)) from error


def _literal(content: Any) -> str:
    """A plain value in Hydra's grammar."""
    if isinstance(content, dict):
        return "{" + ", ".join(f"{key}: {_literal(below)}" for key, below in content.items()) + "}"
    if isinstance(content, list):
        return f"[{', '.join(map(_literal, content))}]"
    if isinstance(content, str):
        return quoted(content)
    return "null" if content is None else str(content).lower() if isinstance(content, bool) else str(content)


def _items(text: str) -> list[str]:
    """What the commas of `[a, "b,c", {1,2}]` separate, those in quotes and brackets left alone."""
    items, depth, quote = [""], 0, ""
    for character in text[1:-1]:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and not items[-1].strip():
            quote = character
        elif character in _OPEN + _CLOSE:
            depth += 1 if character in _OPEN else -1
        elif character == "," and depth <= 0:
            items.append("")
            continue
        items[-1] += character
    items = [item.strip() for item in items]
    return items if items != [""] else []


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]


def _unquoted(text: str) -> str:
    return text[1:-1] if _is_quoted(text) else text


def _is_sweep(value: str) -> bool:
    return "," in value or re.match(r"(choice|range|interval|glob)\(", value) is not None


def _why_unreadable(key: str, value: str) -> str:
    opened = sum(value.count(character) for character in _OPEN)
    closed = sum(value.count(character) for character in _CLOSE)
    if opened != closed:
        which = "is not closed" if opened > closed else "is not opened"
        return f"{key}={value}: a bracket {which}."
    return f"{key}={value}: this cannot be read. A mapping is written {{name: value}}, a list [a, b]; text in quotes."


@cache
def _nodes() -> list[str]:
    return [option.key for _, option in known_options(RunConfig) if option.kind is Kind.node]


def _unset(key: str) -> str | None:
    """The group of settings at or above the key that is null unless something sets it."""
    for _, option in known_options(RunConfig):
        if option.below is not None and option.is_optional and (key == option.key or key.startswith(f"{option.key}.")):
            return option.key
    return None


def _whole(holder: str, key: str, value: str) -> str:
    """`data.clicks.position=p` as `++data={clicks: {position: p}}`."""
    top, *rest = key.split(".")
    if key == holder and value[:1] != "{":
        return f"{key}={value}"
    for name in reversed(rest):
        value = f"{{{name}: {value}}}"
    return f"++{top}={value}"
