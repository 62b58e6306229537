"""Which parameter learns how fast: groups by name pattern, no decay on norms, layer-wise rates, frozen parts."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from gcl.optim.settings import Rule

_LAYER = re.compile(r"(?:^|\.)(?:blocks|resblocks|layers|layer)\.(\d+)\.")
_EMBEDDING = re.compile(
    r"(?:^|\.)(?:patch_embed|conv_stem|conv1|token_embedding|positional_embedding|embeddings)(?:\.|$)"
)


def freeze(module: nn.Module, patterns: Sequence[str]) -> int:
    """Takes the parameters whose names match any pattern out of training; returns how many numbers that is.

    >>> freeze(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), ["0.*"])
    9
    """
    names = [name for name, _ in module.named_parameters()]
    for pattern in patterns:
        _require_match(pattern, names, "optim.freeze")
    frozen = 0
    for name, parameter in module.named_parameters():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    return frozen


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    weight_decay: float,
    rules: Mapping[str, Rule] | None = None,
    layer_decay: float = 1.0,
) -> list[dict]:
    """Groups for an optimiser: `[{"params", "lr", "weight_decay", "names"}]`, one per distinct (lr, weight decay).

    Vectors and scalars (norms, biases, scale) never decay. The last rule that matches a name wins. `layer_decay` d
    multiplies a tower's rate by d once per block counted from its top (Clark et al. 2020, ELECTRA, section 3.1).
    """
    rules = dict(rules or {})
    trained = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
    if not trained:
        raise ValueError("Every parameter is frozen, so nothing is left to train: shorten optim.freeze.")
    for pattern in rules:
        _require_match(pattern, [name for name, _ in trained], "optim.rules")
    depth = _tower_depths(name for name, _ in trained)
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in trained:
        rule = next((rules[p] for p in reversed(rules) if fnmatch.fnmatchcase(name, p)), Rule())
        decay = 0.0 if parameter.ndim <= 1 else weight_decay
        if rule.weight_decay is not None:
            decay = rule.weight_decay
        rate = learning_rate * rule.rate * layer_decay ** _layers_from_top(name, depth)
        group = groups.setdefault((rate, decay), {"params": [], "names": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _tower(name: str) -> str:
    """open_clip keeps the image tower under `visual`; everything else with blocks is text."""
    return "image" if "visual" in name.split(".") else "text"


def _tower_depths(names: Iterable[str]) -> dict[str, int]:
    """How many numbered blocks each tower has."""
    depth: dict[str, int] = {}
    for name in names:
        if match := _LAYER.search(name):
            depth[_tower(name)] = max(depth.get(_tower(name), 0), int(match.group(1)) + 1)
    return depth


def _layers_from_top(name: str, depth: Mapping[str, int]) -> int:
    blocks = depth.get(_tower(name), 0)
    if match := _LAYER.search(name):
        return blocks - int(match.group(1))
    return blocks + 1 if _EMBEDDING.search(name) and blocks else 0


def _require_match(pattern: str, names: Sequence[str], where: str) -> None:
    if any(fnmatch.fnmatchcase(name, pattern) for name in names):
        return
    prefixes = {".".join(name.split(".")[:n]) + ".*" for name in names for n in (1, 2, 3)} | set(names)
    near = difflib.get_close_matches(pattern, sorted(prefixes), n=3, cutoff=0.3)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    raise ValueError(f"{where}: the pattern {pattern!r} matches no parameter of this model.{hint}")
