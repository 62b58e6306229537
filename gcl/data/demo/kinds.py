"""What the catalog sells: kinds of products, the words people use for them, and what each can be made of."""

from __future__ import annotations

from dataclasses import dataclass

BRANDS = (
    "Nordvik", "Halden", "Lumera", "Tarnow", "Ostrava Mills", "Bellweather", "Kitto",
    "Maravel", "Greywick", "Solano", "Pinehurst", "Velora",
)  # fmt: skip
PLAIN_ONLY = {"denim", "leather", "suede", "steel", "wood", "glass", "concrete", "fleece", "silk"}
MAY_BE_PATTERNED = {("bottle", "steel"), ("lamp", "steel"), ("lamp", "wood"), ("dress", "silk")}
EARTH = ("red", "orange", "brown", "beige", "white", "black", "grey")
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
