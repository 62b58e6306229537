"""Products by their attributes, drawn by lot: product `number` of a seed is the same in a catalog of any size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gcl.data.demo.kinds import BRANDS, KINDS, LIMITED_COLORS, MAY_BE_PATTERNED, PLAIN_ONLY, Kind

ATTRIBUTES, WORDS, PICTURE, QUERIES, JUDGMENTS = range(5)


def stream(seed: int, part: int, number: int = 0) -> np.random.Generator:
    """A source of chance of its own for every product and purpose: drawing one thing differently moves no other."""
    return np.random.default_rng([seed, part, number])


@dataclass(frozen=True)
class Product:
    number: int
    kind: str
    brand: str
    color: str
    pattern: str
    material: str
    size: str

    @property
    def product_id(self) -> str:
        return f"P{self.number:05d}"

    @property
    def sort(self) -> Kind:
        return KINDS[self.kind]


def _weighted(rng: np.random.Generator, weights: dict[str, int]) -> str:
    share = np.array(list(weights.values()), dtype=np.float64)
    return list(weights)[int(rng.choice(len(share), p=share / share.sum()))]


def draw_product(number: int, *, seed: int) -> Product:
    rng = stream(seed, ATTRIBUTES, number)
    # A deck of all kinds, shuffled anew each round: equally many of each, in no order.
    deck = stream(seed, ATTRIBUTES, 1_000_000 + number // len(KINDS)).permutation(len(KINDS))
    kind = list(KINDS.values())[deck[number % len(KINDS)]]
    brand = BRANDS[int(rng.integers(len(BRANDS)))]
    material = _weighted(rng, kind.materials)
    possible = [color for color in kind.colors if color in LIMITED_COLORS.get(material, kind.colors)]
    popular = 1 / np.arange(2, len(possible) + 2)
    popular = popular[np.random.default_rng([kind.name.encode()[0], len(material)]).permutation(len(possible))]
    color = possible[int(rng.choice(len(possible), p=popular / popular.sum()))]
    bare = material in PLAIN_ONLY and (kind.name, material) not in MAY_BE_PATTERNED
    pattern = "plain" if bare else _weighted(rng, kind.patterns)
    size = kind.sizes[int(rng.integers(len(kind.sizes)))]
    return Product(number, kind.name, brand, color, pattern, material, size)
