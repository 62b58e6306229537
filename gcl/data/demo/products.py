"""What the shop sells: kinds of products, products drawn by lot, and the texts that describe them.

Product `number` of a seed is the same in a catalog of any size. Texts are written as shops write them: not always
complete, not always in the same words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BRANDS = (
    "Nordvik", "Halden", "Lumera", "Tarnow", "Ostrava Mills", "Bellweather", "Kitto",
    "Maravel", "Greywick", "Solano", "Pinehurst", "Velora",
)  # fmt: skip
PLAIN_ONLY = {"denim", "leather", "suede", "steel", "wood", "glass", "concrete", "fleece", "silk"}
MAY_BE_PATTERNED = {("bottle", "steel"), ("lamp", "steel"), ("lamp", "wood"), ("dress", "silk")}
LIMITED_COLORS = {
    "denim": ("blue", "black", "grey", "white"),
    "terracotta": ("orange", "brown", "red", "beige"),
    "concrete": ("grey", "black", "white", "beige"),
    "suede": ("brown", "beige", "black", "grey", "blue", "red"),
}
FABRIC_PATTERNS = {"plain": 8, "striped": 4, "checked": 3, "dotted": 3, "floral": 3}
TURNED_PATTERNS = {"plain": 8, "striped": 4, "dotted": 4, "floral": 3}
NO_PATTERN = {"plain": 1}


@dataclass(frozen=True)
class Kind:
    """name: the key; nouns: what shops and people call it, the commonest first; shelf, category: two-level category;
    materials, patterns: weights; sizes; use: what it is good for, as people ask for it; remark: as shops praise it."""

    name: str
    nouns: tuple[str, ...]
    shelf: str
    category: str
    materials: dict[str, int]
    patterns: dict[str, int]
    sizes: tuple[str, ...]
    colors: tuple[str, ...]
    uses: tuple[str, ...]
    remarks: tuple[str, ...]
    standing: bool = True
    tilt: float = 2.0
    may_mirror: bool = True


ALL = ("black", "white", "grey", "red", "blue", "green", "yellow", "orange", "pink", "purple", "brown", "beige")
BRIGHT = ("black", "white", "red", "blue", "green", "yellow", "pink", "purple", "orange")
CALM = ("black", "white", "grey", "red", "blue", "green", "brown", "beige")
WEAR = ("S", "M", "L", "XL")
SHOE = ("37", "38", "39", "40", "41", "42", "43", "44")

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("t-shirt", ("T-Shirt", "Tee"), "Clothing", "T-Shirts", {"cotton": 5, "linen": 3}, FABRIC_PATTERNS,
             ("XS", *WEAR), BRIGHT, ("light top for hot days", "short sleeve top for the beach"),
             ("A light short sleeve top for hot days.", "Soft on the skin and easy to wash."),
             standing=False, tilt=9),
        Kind("hoodie", ("Hoodie", "Hooded Sweatshirt"), "Clothing", "Hoodies", {"cotton": 4, "fleece": 3, "wool": 3},
             {"plain": 8, "striped": 4, "checked": 3}, WEAR, CALM,
             ("warm layer for cold evenings", "something cosy with a hood"),
             ("A warm layer for cold evenings.", "A cosy top with a hood and a roomy pocket."), standing=False, tilt=7),
        Kind("dress", ("Dress", "Sundress"), "Clothing", "Dresses", {"cotton": 4, "linen": 3, "silk": 2},
             {"plain": 6, "striped": 3, "dotted": 4, "checked": 2, "floral": 5}, WEAR,
             ("black", "white", "red", "blue", "green", "yellow", "pink", "purple"),
             ("outfit for a summer wedding", "something pretty for a garden party"),
             ("An outfit for a summer wedding or a garden party.", "It falls beautifully and has a pretty belt."),
             standing=False, tilt=6),
        Kind("trousers", ("Trousers", "Pants"), "Clothing", "Trousers",
             {"cotton": 3, "denim": 4, "linen": 2, "wool": 2},
             {"plain": 8, "striped": 3, "checked": 4}, WEAR, CALM, ("comfortable bottoms for the office",),
             ("Comfortable bottoms for the office and the weekend.", "A straight leg and deep pockets."),
             standing=False, tilt=5),
        Kind("cap", ("Cap", "Baseball Cap"), "Accessories", "Hats", {"cotton": 4, "denim": 2, "wool": 3},
             {"plain": 8, "checked": 3, "striped": 3}, ("one size", "kids"), BRIGHT,
             ("keeps the sun out of my eyes", "headwear for sunny games"),
             ("Keeps the sun out of your eyes.", "Headwear for sunny games, with a curved brim."),
             standing=False, tilt=8),
        Kind("sneakers", ("Sneakers", "Trainers"), "Shoes", "Sneakers", {"canvas": 5, "leather": 3, "suede": 2},
             {"plain": 8, "striped": 2, "checked": 3, "floral": 2}, SHOE, BRIGHT,
             ("light shoes for jogging", "comfortable shoes for walking in the city"),
             ("Light shoes for jogging and walking in the city.", "A springy sole carries you all day.")),
        Kind("boots", ("Boots", "Ankle Boots"), "Shoes", "Boots", {"leather": 4, "suede": 3, "rubber": 3},
             {"plain": 6, "dotted": 3, "floral": 2}, SHOE,
             ("black", "brown", "beige", "red", "blue", "green", "yellow"),
             ("sturdy shoes for muddy walks", "footwear for snow and puddles"),
             ("Sturdy shoes for muddy walks.", "Footwear that takes snow and puddles with ease.")),
        Kind("handbag", ("Handbag", "Purse"), "Bags", "Handbags", {"leather": 5, "canvas": 3, "velvet": 2},
             {"plain": 8, "striped": 3, "checked": 3, "floral": 2}, ("small", "medium", "large"),
             ("black", "white", "red", "blue", "green", "pink", "purple", "brown", "beige"),
             ("elegant bag for an evening out", "carry my phone and keys in style"),
             ("An elegant bag for an evening out.", "Carries phone and keys in style.")),
        Kind("backpack", ("Backpack", "Rucksack"), "Bags", "Backpacks", {"canvas": 4, "nylon": 4, "leather": 2},
             {"plain": 8, "striped": 3, "checked": 3, "dotted": 3}, ("15 l", "20 l", "30 l"),
             ("black", "grey", "red", "blue", "green", "yellow", "orange", "brown"),
             ("bag for laptop and school books", "carry everything on a hike"),
             ("A bag for laptop and school books.", "Carries everything you need on a hike.")),
        Kind("umbrella", ("Umbrella", "Rain Umbrella"), "Accessories", "Umbrellas", {"polyester": 3, "nylon": 3},
             {"plain": 7, "striped": 3, "dotted": 4, "checked": 3, "floral": 2}, ("compact", "large"), BRIGHT,
             ("something to keep rain off", "stay dry in wet weather"),
             ("Keeps the rain off on wet days.", "Stay dry in wet weather, even in strong wind."),
             standing=False, tilt=16),
        Kind("mug", ("Mug", "Cup"), "Kitchen", "Mugs", {"ceramic": 5, "enamel": 3, "glass": 1}, TURNED_PATTERNS,
             ("250 ml", "350 ml", "450 ml"), ALL, ("gift for coffee lovers", "something to drink hot chocolate from"),
             ("A gift for coffee lovers.", "Just right for hot chocolate or a slow breakfast.")),
        Kind("teapot", ("Teapot", "Tea Kettle"), "Kitchen", "Teapots", {"ceramic": 5, "enamel": 3}, TURNED_PATTERNS,
             ("800 ml", "1.2 l"), ("black", "white", "red", "blue", "green", "yellow", "pink", "grey"),
             ("brew tea for the whole family", "present for a tea drinker"),
             ("Brews tea for the whole family.", "A present for a tea drinker, pours without a drop.")),
        Kind("bottle", ("Water Bottle", "Drinking Bottle"), "Kitchen", "Bottles",
             {"steel": 5, "plastic": 3, "glass": 2},
             {"plain": 8, "striped": 3, "dotted": 3, "floral": 2}, ("500 ml", "750 ml", "1 l"), BRIGHT,
             ("keeps my drink cold at the gym", "carry water on a bike ride"),
             ("Keeps your drink cold at the gym.", "Carry water on a bike ride without a leak.")),
        Kind("lamp", ("Table Lamp", "Desk Lamp"), "Home", "Lamps", {"ceramic": 3, "wood": 4, "steel": 3},
             {"plain": 8, "striped": 3, "dotted": 2, "floral": 2}, ("35 cm", "45 cm", "60 cm"),
             ("white", "red", "blue", "green", "yellow", "orange", "pink", "beige"),
             ("soft light for reading in bed", "brighten up a dark corner"),
             ("Soft light for reading in bed.", "Brightens up any dark corner."), may_mirror=False),
        Kind("plant pot", ("Plant Pot", "Planter"), "Home", "Plant Pots",
             {"ceramic": 4, "terracotta": 3, "concrete": 2},
             {"plain": 8, "striped": 3, "dotted": 3}, ("12 cm", "18 cm", "25 cm"),
             ("white", "black", "grey", "red", "blue", "yellow", "orange", "pink", "brown", "beige"),
             ("greenery for the window sill", "home for my houseplants"),
             ("Greenery for the window sill.", "A good home for houseplants, with a hole for water.")),
        Kind("clock", ("Wall Clock", "Clock"), "Home", "Clocks", {"wood": 3, "steel": 3, "plastic": 4}, NO_PATTERN,
             ("25 cm", "30 cm", "40 cm"), ALL, ("tell the time in the kitchen", "never be late for breakfast again"),
             ("Tells the time in kitchen or office.", "A silent movement, so nobody is late again."),
             standing=False, tilt=3),
        Kind("chair", ("Chair", "Dining Chair"), "Furniture", "Chairs",
             {"wood": 5, "plastic": 3, "velvet": 3}, NO_PATTERN,
             ("45 cm", "48 cm"), ALL, ("somewhere to sit at the dining table", "seat for my home office"),
             ("Somewhere to sit at the dining table.", "A steady seat for the home office.")),
        Kind("sofa", ("Sofa", "Couch"), "Furniture", "Sofas", {"leather": 3, "velvet": 4, "linen": 4},
             {"plain": 8, "striped": 2, "checked": 3, "floral": 3}, ("1-seater", "2-seater", "3-seater"),
             ("black", "grey", "red", "blue", "green", "yellow", "pink", "brown", "beige"),
             ("comfy place to watch films together", "furniture for a nap in the living room"),
             ("A comfy place to watch films together.", "Deep cushions invite you to a nap.")),
        Kind("headphones", ("Headphones", "Headset"), "Electronics", "Headphones",
             {"plastic": 5, "leather": 3, "steel": 2}, NO_PATTERN, ("wireless", "wired"),
             ("black", "white", "grey", "red", "blue", "green", "pink", "orange"),
             ("listen to music on the train", "block out noise while working"),
             ("Listen to music on the train.", "Blocks out noise while you work."), tilt=7),
    )
}  # fmt: skip

# Kinds that a shopper would rather see than nothing when the right one is missing.
SIBLINGS = (
    {"t-shirt", "hoodie", "dress"}, {"hoodie", "trousers"}, {"sneakers", "boots"}, {"handbag", "backpack"},
    {"mug", "teapot"}, {"mug", "bottle"}, {"cap", "umbrella"}, {"chair", "sofa"}, {"lamp", "clock"},
    {"lamp", "plant pot"},
)  # fmt: skip
NEAR_COLORS = (
    {"black", "grey"}, {"white", "beige"}, {"white", "grey"}, {"red", "orange"}, {"red", "pink"}, {"orange", "yellow"},
    {"brown", "beige"}, {"pink", "purple"}, {"blue", "purple"}, {"brown", "orange"},
)  # fmt: skip


def are_siblings(first: str, second: str) -> bool:
    return first != second and any(first in group and second in group for group in SIBLINGS)


def are_near(first: str, second: str) -> bool:
    return first != second and any(first in group and second in group for group in NEAR_COLORS)


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
    """One line of products.csv; an empty string is a gap. image: path from the table's folder."""

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
    front: tuple[str, ...]
    tail: tuple[str, ...]
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
