"""A model between two of one architecture: each weight the mean of both (WiSE-FT; Wortsman et al. 2022,
https://arxiv.org/abs/2109.01903), or the mean of several (model soups; https://arxiv.org/abs/2203.05482). Pure
functions of state dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

StateDict = Mapping[str, Tensor]
_LEARNED = "logit_bias"  # the one tensor that training may have added: a sigmoid loss on a model that came without


def interpolate(base: StateDict, tuned: StateDict, alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) base + alpha tuned for every floating tensor; alpha 0 is base and 1 is tuned, bit for bit.

    The temperature is a logarithm and is averaged as one (the scale's geometric mean); running statistics of a batch
    norm are averaged like weights, which is exact only at the ends. Integers (counters, position numbers) come
    from the nearer end, tuned at 0.5. A bias that training added has no base to be averaged with and is kept whole for
    alpha above 0. Sums are made in float64 where the tensors have less, and rounded once.

    Raises ValueError for an alpha outside of 0 to 1, and for states of different architectures.

    >>> interpolate({"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([1.0, 4.0])}, 0.25)["w"]
    tensor([0.2500, 2.5000])
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: expected a number from 0 (the base) to 1 (the tuned model).")
    _check(base, tuned)
    if alpha in (0, 1):
        return {name: value.detach().clone() for name, value in (tuned if alpha else base).items()}
    mixed = {}
    for name, value in tuned.items():
        before = base.get(name)
        if before is None:
            mixed[name] = value.detach().clone()
        elif value.is_floating_point() or value.is_complex():
            wide = torch.complex128 if value.is_complex() else torch.float64
            mean = (1 - alpha) * before.detach().to(value.device, wide) + alpha * value.detach().to(wide)
            mixed[name] = mean.to(value.dtype)
        else:
            mixed[name] = (value if alpha >= 0.5 else before).detach().clone()
    return mixed


def soup(states: Sequence[StateDict], weights: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of models of one architecture, by one `interpolate` after the other.

    >>> soup([{"w": torch.tensor([0.0])}, {"w": torch.tensor([1.0])}, {"w": torch.tensor([5.0])}], [1, 1, 2])["w"]
    tensor([2.7500])
    """
    mixed, total = {name: value.detach().clone() for name, value in states[0].items()}, weights[0]
    for state, weight in zip(states[1:], weights[1:], strict=True):
        total += weight
        mixed = interpolate(mixed, state, weight / total if total else 0.0)
    return mixed


def greedy_soup(
    states: Sequence[StateDict], alone: Sequence[float], measure: Callable[[StateDict], float]
) -> tuple[list[int], float]:
    """-> which models the greedy soup has, in the order they were added, and its value (Wortsman et al. 2022).

    From the best model on, each next best one stays in the mean if the mean is then not worse. So the soup is never
    below the best model. alone: the value of each model; measure: that of a state dict. Higher is better.

    >>> greedy_soup([{"w": torch.tensor([0.0])}, {"w": torch.tensor([1.0])}, {"w": torch.tensor([9.0])}],
    ...     [-0.5, -0.4, -8.5], lambda state: -abs(float(state["w"]) - 0.5))
    ([1, 0], -0.0)
    """
    first, *others = sorted(range(len(states)), key=lambda place: -alone[place])
    chosen, best = [first], alone[first]
    for place in others:
        tried = [*chosen, place]
        value = measure(soup([states[one] for one in tried], [1.0] * len(tried)))
        if value >= best:
            chosen, best = tried, value
    return chosen, best


def _check(base: StateDict, tuned: StateDict) -> None:
    missing = sorted(base.keys() - tuned.keys())
    added = sorted(name for name in tuned.keys() - base.keys() if name.rpartition(".")[2] != _LEARNED)
    if missing or added:
        name, where = (missing[0], "base") if missing else (added[0], "tuned model")
        raise ValueError(f"alpha: only the {where} has {name}; only models of the same architecture can be averaged.")
    for name, value in base.items():
        other = tuned[name]
        if value.shape != other.shape or value.dtype != other.dtype:
            raise ValueError(
                f"alpha: {name} is {list(value.shape)} {value.dtype} in the base and {list(other.shape)} {other.dtype} "
                "in the tuned model; only models of the same architecture can be averaged."
            )


@dataclass(frozen=True)
class Point:
    """One alpha of a sweep. dev: the mean over the dev tasks. retention: {set: its change against the base}. within:
    whether no set lost more than its limit (True without sets)."""

    alpha: float
    dev: float
    retention: Mapping[str, float]
    within: bool = True


def choose(curve: Sequence[Point]) -> Point:
    """The best dev value among those within the limits; of equals the smallest alpha, which forgets least.

    Raises ValueError for an empty curve, and where no alpha is within the limits (alpha 0, the base, always is).

    >>> choose([Point(0.0, 0.2, {}), Point(0.5, 0.6, {}), Point(1.0, 0.7, {"general": -0.1}, within=False)]).alpha
    0.5
    """
    allowed = [point for point in curve if point.within]
    if not allowed:
        raise ValueError("alpha=auto: no alpha is within the retention limits; the sweep must include 0, the base.")
    return max(allowed, key=lambda point: (point.dev, -point.alpha))
