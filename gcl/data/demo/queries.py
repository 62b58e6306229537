"""What people type, and how well each product answers it: scores from 1 to 100 derived from the attributes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gcl.data.demo.products import JUDGMENTS, KINDS, MADE_OF, QUERIES, Kind, Product, are_near, are_siblings, stream

IMPORTANCE = {"color": 3.0, "pattern": 2.0, "material": 2.0, "brand": 2.0, "size": 1.5}
EXACT, KIND_ONLY, ALMOST = 100, 28, 86
FEWEST_EXACT, MOST_EXACT = 2, 24
# Judged beyond the exact answers: the next best up to BEST in all, at least BEST_BEYOND; then a number from each band.
BEST, BEST_BEYOND = 12, 3
WEAKER = ((KIND_ONLY, EXACT, 1), (5, KIND_ONLY, 2), (1, 5, 1))
PATTERN_PHRASES = {
    "striped": ("with stripes",),
    "dotted": ("with polka dots", "with dots"),
    "checked": ("with checks",),
    "floral": ("with flowers",),
}
SHELF_WORDS = {
    "Clothing": ("clothes", "clothing"),
    "Shoes": ("shoes", "footwear"),
    "Bags": ("bag", "bags"),
    "Kitchen": ("kitchen things", "kitchenware"),
    "Home": ("home decor", "decoration"),
    "Furniture": ("furniture", "seating"),
}
OTHER_NAMES = {
    "t-shirt": ("shirt",),
    "dress": ("gown",),
    "sneakers": ("running shoes",),
    "backpack": ("school bag",),
    "mug": ("coffee mug",),
    "bottle": ("flask",),
    "lamp": ("lamp",),
    "plant pot": ("flower pot",),
    "headphones": ("earphones",),
    "cap": ("hat",),
    "umbrella": ("brolly",),
    "boots": ("winter boots",),
}


@dataclass(frozen=True)
class Query:
    """A query's text and what it asks for: any of `kinds`, and the attributes that are given (attribute, value)."""

    text: str
    kinds: frozenset[str]
    wanted: tuple[tuple[str, str], ...]


def score_product(query: Query, product: Product) -> int:
    """100: everything as asked; 28 to 86: the right kind, some of it as asked; up to 20: a related kind; below 5:
    only the looks agree. 0: nothing does, no judgment.

    >>> mug = Product(0, "mug", "Nordvik", "blue", "striped", "ceramic", "350 ml")
    >>> wish = Query("blue dotted mug", frozenset({"mug"}), (("color", "blue"), ("pattern", "dotted")))
    >>> score_product(wish, mug)
    63
    """
    total = sum(IMPORTANCE[name] for name, _ in query.wanted)
    met = sum(IMPORTANCE[name] * _agreement(name, value, getattr(product, name)) for name, value in query.wanted)
    share = met / total if total else 1.0
    if product.kind in query.kinds:
        return EXACT if share == 1 else round(KIND_ONLY + (ALMOST - KIND_ONLY) * share)
    if any(are_siblings(product.kind, kind) for kind in query.kinds):
        return round(5 + 15 * share)
    if not query.wanted:
        return 1
    return round(1 + 3 * share) if share >= 0.5 else 0


def _agreement(name: str, wanted: str, given: str) -> float:
    if wanted == given:
        return 1.0
    return 0.5 if name == "color" and are_near(wanted, given) else 0.0


def _nouns(kind: Kind) -> list[str]:
    return [noun.lower() for noun in kind.nouns] + list(OTHER_NAMES.get(kind.name, ()))


def _phrasings(product: Product, rng: np.random.Generator) -> Iterator[tuple[str, Query]]:
    """Queries, by form, that this product answers exactly."""
    kind = product.sort
    nouns = _nouns(kind)
    noun = nouns[int(rng.integers(len(nouns)))]
    one = frozenset({kind.name})
    color, brand, size = ("color", product.color), ("brand", product.brand), ("size", product.size)
    pattern, material = ("pattern", product.pattern), ("material", product.material)
    made_of = MADE_OF.get(product.material, product.material)
    maker = product.brand.lower()
    yield "color", Query(f"{product.color} {noun}", one, (color,))
    yield "color in", Query(f"{noun} in {product.color}", one, (color,))
    yield "material", Query(f"{made_of} {noun}", one, (material,))
    yield "color material", Query(f"{product.color} {made_of} {noun}", one, (color, material))
    yield "brand", Query(f"{maker} {noun}", one, (brand,))
    yield "by brand", Query(f"{noun} by {maker}", one, (brand,))
    yield "brand color", Query(f"{maker} {product.color} {noun}", one, (brand, color))
    yield "size", Query(f"{noun} {'size ' if kind.shelf in ('Clothing', 'Shoes') else ''}{product.size}", one, (size,))
    yield "color size", Query(f"{product.color} {noun} {product.size}", one, (color, size))
    use = kind.uses[int(rng.integers(len(kind.uses)))]
    yield "use", Query(use, one, ())
    yield "use color", Query(f"{use}, {product.color}", one, (color,))
    yield "use material", Query(f"{use}, {made_of}", one, (material,))
    if product.pattern != "plain":
        phrases = PATTERN_PHRASES[product.pattern]
        phrase = phrases[int(rng.integers(len(phrases)))]
        yield "pattern", Query(f"{product.pattern} {noun}", one, (pattern,))
        yield "pattern with", Query(f"{noun} {phrase}", one, (pattern,))
        yield "color pattern", Query(f"{product.color} {product.pattern} {noun}", one, (color, pattern))
        yield "color with", Query(f"{product.color} {noun} {phrase}", one, (color, pattern))
        yield "use pattern", Query(f"{use}, {product.pattern}", one, (pattern,))
    elif len(kind.patterns) > 1:
        yield "plain", Query(f"plain {product.color} {noun}", one, (color, pattern))
    if kind.shelf in SHELF_WORDS:
        shelf = frozenset(name for name, other in KINDS.items() if other.shelf == kind.shelf)
        words = SHELF_WORDS[kind.shelf]
        word = words[int(rng.integers(len(words)))]
        yield "shelf color", Query(f"{product.color} {word}", shelf, (color,))
        yield "shelf both", Query(f"{made_of} {word} in {product.color}", shelf, (material, color))


# How many of a hundred queries have each form.
SHARES = {
    "color": 8, "color in": 4, "material": 4, "color material": 12, "brand": 4, "by brand": 2, "brand color": 6,
    "size": 3, "color size": 5, "use": 2, "use color": 7, "use material": 3, "use pattern": 2, "pattern": 5,
    "pattern with": 4, "color pattern": 10, "color with": 7, "plain": 7, "shelf color": 2, "shelf both": 3,
}  # fmt: skip


def draw_queries(products: Sequence[Product], count: int, *, seed: int) -> list[Query]:
    """`count` distinct queries, each with FEWEST_EXACT to MOST_EXACT exact answers (a wish without any attribute may
    have more). Fewer where the catalog is too small."""
    rng = stream(seed, QUERIES)
    drawn: dict[str, dict[str, Query]] = defaultdict(dict)
    for at in rng.permutation(len(products)):
        for form, query in _phrasings(products[at], rng):
            drawn[form].setdefault(query.text, query)
    fewest = FEWEST_EXACT if len(products) >= 500 else 1
    good: dict[str, list[Query]] = {}
    for form, queries in drawn.items():
        every = list(queries.values())
        every = [every[at] for at in rng.permutation(len(every))][: 6 * count]
        most = {"use": len(products), "shelf color": 2 * MOST_EXACT}.get(form, MOST_EXACT)
        good[form] = [query for query in every if fewest <= _exact(query, products) <= most]
    chosen: dict[str, Query] = {}
    for form, share in SHARES.items():
        for query in good.get(form, [])[: round(count * share / 100)]:
            chosen.setdefault(query.text, query)
    for query in (query for form in SHARES for query in good.get(form, [])):
        if len(chosen) >= count:
            break
        chosen.setdefault(query.text, query)
    texts = list(chosen)[:count]
    return [chosen[texts[at]] for at in rng.permutation(len(texts))]


def _exact(query: Query, products: Sequence[Product]) -> int:
    return sum(
        product.kind in query.kinds and all(getattr(product, name) == value for name, value in query.wanted)
        for product in products
    )


def judge(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which of the products with these scores a log would hold: every exact answer, the best of the others, and a few
    of each weaker sort, so that all grades are seen."""
    exact = int((scores == EXACT).sum())
    shuffled = rng.permutation(len(scores))
    ranked = shuffled[np.argsort(-scores[shuffled], kind="stable")]
    best = min(max(exact + BEST_BEYOND, BEST), int((scores >= KIND_ONLY).sum()))
    picked, rest = [ranked[:best]], ranked[best:]
    for low, high, count in WEAKER:
        picked.append(rng.permutation(rest[(scores[rest] >= low) & (scores[rest] < high)])[:count])
    return np.sort(np.concatenate(picked))


Judgment = tuple[Query, Product, int]


def draw_judgments(
    queries: Sequence[Query], products: Sequence[Product], *, seed: int
) -> tuple[list[Judgment], list[Judgment]]:
    """What a log would hold of the queries, to train on; and every product of the right kind, to measure with: all
    others are irrelevant."""
    pairs: list[Judgment] = []
    judgments: list[Judgment] = []
    for number, query in enumerate(queries):
        scores = np.array([score_product(query, product) for product in products])
        held = judge(scores, stream(seed, JUDGMENTS, number))
        pairs += [(query, products[row], int(scores[row])) for row in held.tolist()]
        judgments += [(query, products[row], int(scores[row])) for row in np.flatnonzero(scores >= KIND_ONLY).tolist()]
    return pairs, judgments
