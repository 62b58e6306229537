"""Titles, descriptions and categories, as shops write them: not always complete, not always the same words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gcl.data.demo.products import WORDS, Product, stream

MISSING = {"brand": 0.05, "description": 0.20, "category": 0.08, "title": 0.01, "image": 0.02}
MADE_OF = {"wood": "wooden", "wool": "woollen"}
PATTERN_PHRASES = {
    "striped": ("with stripes", "with wide stripes", "in a striped look"),
    "dotted": ("with polka dots", "with round dots", "covered in dots"),
    "checked": ("with checks", "in a checked pattern", "with a checked weave"),
    "floral": ("with flowers", "with a floral print", "printed with flowers"),
}


@dataclass(frozen=True)
class Row:
    """One line of products.csv; an empty string is a gap. image: path beside the table."""

    product_id: str
    title: str
    brand: str
    category: str
    color: str
    pattern: str
    material: str
    size: str
    description: str
    image: str


def write_title(product: Product, rng: np.random.Generator) -> str:
    """The attributes in one line; now and then one is left to the picture."""
    noun = product.sort.nouns[0 if rng.random() < 0.65 else 1]
    color = product.color.title() if rng.random() < 0.75 else ""
    pattern = product.pattern.title() if product.pattern != "plain" and rng.random() < 0.75 else ""
    material = MADE_OF.get(product.material, product.material).title() if rng.random() < 0.75 else ""
    size = product.size if rng.random() < 0.8 else ""
    form = rng.random()
    if form < 0.5:
        front, tail = (product.brand, pattern, material, noun), (color, size)
    elif form < 0.75:
        front, tail = (product.brand, color, pattern, material, noun), (size,)
    else:
        front, tail = (color, pattern, material, noun, "by", product.brand), (size,)
    return ", ".join(part for part in (" ".join(word for word in front if word), *tail) if part)


def write_description(product: Product, rng: np.random.Generator) -> str:
    kind = product.sort
    noun = kind.nouns[int(rng.integers(2))].lower()
    words = [product.color] if rng.random() < 0.6 else []
    made_of = MADE_OF.get(product.material, product.material)
    if rng.random() < 0.6:
        words.append(made_of)
    thing = " ".join([*words, noun])
    phrases = PATTERN_PHRASES.get(product.pattern)
    if phrases and rng.random() < 0.75:
        thing += " " + phrases[int(rng.integers(len(phrases)))]
    several = noun.endswith("s") and not noun.endswith("ss")
    article = "an" if thing[0] in "aeiou" else "a"
    openings = ("These", "Our", "A pair of") if several else (article.title(), "Our", "This")
    first = f"{openings[int(rng.integers(3))]} {thing}"
    remark = kind.remarks[int(rng.integers(len(kind.remarks)))]
    return f"{first}. {remark}" if rng.random() < 0.7 else f"{remark} {first} from {product.brand}."


def write_row(product: Product, *, seed: int) -> Row:
    """The product as the shop lists it. A product without a title keeps its picture, so that something is left."""
    rng = stream(seed, WORDS, product.number)
    title, description = write_title(product, rng), write_description(product, rng)
    missing = {name: rng.random() < share for name, share in MISSING.items()}
    kind = product.sort
    return Row(
        product_id=product.product_id,
        title="" if missing["title"] else title,
        brand="" if missing["brand"] else product.brand,
        category="" if missing["category"] else f"{kind.shelf} > {kind.category}",
        color=product.color,
        pattern=product.pattern,
        material=product.material,
        size=product.size,
        description="" if missing["description"] else description,
        image="" if missing["image"] and not missing["title"] else f"images/{product.product_id}.jpg",
    )
