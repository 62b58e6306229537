"""A made-up shop that the examples use in the place of yours: products with pictures, searches, and a log of clicks."""

import random

from PIL import Image

COLORS = {"red": (200, 30, 30), "green": (30, 150, 40), "blue": (40, 60, 200), "black": (20, 20, 20)}
THINGS = ("boots", "mug", "lamp", "shirt", "bag")
BRANDS = ("Nord", "Lumera", "Kitto")


def products(count=120):
    """One dict per product; the picture is a PIL image, and could be a path, a URL or bytes."""
    rows = []
    for number in range(count):
        color, thing = list(COLORS)[number % 4], THINGS[number // 4 % 5]
        shade = tuple(min(255, value + number % 7) for value in COLORS[color])
        rows.append(
            {
                "product_id": f"p{number:03}",
                "title": f"{BRANDS[number % 3]} {color} {thing}, style {number}",
                "brand": BRANDS[number % 3],
                "price": 5.0 + number,
                "image": Image.new("RGB", (48, 48), shade),
            }
        )
    return rows


def pairs(rows):
    """Searches with products that answer them, and how well: 100 for color and thing, 40 for the thing alone."""
    found = []
    for row in rows:
        _, color, thing = row["title"].partition(",")[0].split()
        found.append({"query": f"{color} {thing}", "product_id": row["product_id"], "score": 100})
        found.append({"query": thing, "product_id": row["product_id"], "score": 40})
        found.append({"query": f"{thing} {row['brand']}", "product_id": row["product_id"], "score": 70})
    return found


def judged(rows):
    """Searches to measure with, and their judgments."""
    texts = list(dict.fromkeys(pair["query"] for pair in pairs(rows)))[::2]
    names = {text: f"q{number}" for number, text in enumerate(texts)}
    qrels = [
        {"query_id": names[pair["query"]], "product_id": pair["product_id"], "score": pair["score"]}
        for pair in pairs(rows)
        if pair["query"] in names
    ]
    return [{"query_id": name, "query": text} for text, name in names.items()], qrels


def clicks(rows, seed=0):
    """What was shown at which place, and clicked: people look at the first places more than at later ones."""
    random.seed(seed)
    log, by_query = [], {}
    for pair in pairs(rows):
        by_query.setdefault(pair["query"], []).append(pair)
    for query, answers in by_query.items():
        shown = random.sample(answers, min(8, len(answers)))
        for position, pair in enumerate(shown, 1):
            seen = 400 // position
            clicked = round(seen * pair["score"] / 400)
            log.append({"query": query, "product_id": pair["product_id"], "position": position,
                        "impressions": 400, "clicks": clicked})  # fmt: skip
    return log
