"""A small shop with judgments in every form that is read, whose products' texts repeat (so that scores tie)."""

import csv
import json
from pathlib import Path

import numpy as np

COLOURS = ("red", "blue", "green", "black", "white")
THINGS = ("shoe", "shirt", "mug", "lamp")
PRODUCTS, QUERIES = 60, 24


def write(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_shop(folder: Path) -> list[tuple[str, str, float]]:
    """products.csv, queries.csv, qrels.csv, qrels.trec, truth.json and conf/data/judged.yaml; returns the judgments as
    (query text, product id, score)."""
    random = np.random.default_rng(3)
    texts = [f"{COLOURS[n % 5]} {THINGS[n % 4]}" for n in range(PRODUCTS)]
    products = [
        {"product_id": f"p{n:02}", "title": text, "colour": COLOURS[n % 5], "kind": THINGS[n % 4] if n % 7 else ""}
        for n, text in enumerate(texts)
    ]
    asked = [f"{COLOURS[n % 5]} {THINGS[n % 4]}{' sale' if n % 3 else ''} {n // 8}" for n in range(QUERIES)]
    judged = [
        (f"q{n}", f"p{document:02}", round(float(random.random()) * 5, 3))
        for n in range(QUERIES)
        for document in random.permutation(PRODUCTS)[: 3 + n % 6]
    ]
    write(folder / "products.csv", products)
    write(folder / "queries.csv", [{"query_id": f"q{n}", "query": text} for n, text in enumerate(asked)])
    write(folder / "qrels.csv", [{"query_id": q, "product_id": d, "score": s} for q, d, s in judged])
    whole = [(q, d, int(s) - 1) for q, d, s in judged]
    (folder / "qrels.trec").write_text("".join(f"{q} 0 {d} {s}\n" for q, d, s in whole))
    truth: dict[str, dict[str, int]] = {}
    for query, document, score in judged:
        truth.setdefault(asked[int(query[1:])], {})[document] = 1 + int(score)
    (folder / "truth.json").write_text(json.dumps(truth))
    conf = folder / "conf" / "data"
    conf.mkdir(parents=True)
    (conf / "judged.yaml").write_text(
        f"name: judged\nroot: {folder}\nproducts: products.csv\ntraining: false\n"
        "query:\n  query: {modality: text}\n"
        "document:\n  title: {modality: text, weight: 0.9}\n  colour: {modality: text, weight: 0.1}\n"
        "tasks:\n"
        "  table: {queries: queries.csv, qrels: qrels.csv, corpus: all}\n"
        "  trec: {queries: queries.csv, qrels: qrels.trec, corpus: all}\n"
        "  truth: {qrels: truth.json, document: {colour: 1.0}}\n"
        "  kind: {column: kind, document: {title: 1.0}}\n"
    )
    return [(asked[int(query[1:])], document, score) for query, document, score in judged]


def means(folder, task, model="tiny"):
    return json.loads((folder / "metrics.json").read_text())[model][task]


def texts_of(folder):
    with open(folder / "queries.csv") as file:
        return {row["query_id"]: row["query"] for row in csv.DictReader(file)}
