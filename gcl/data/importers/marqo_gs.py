"""Marqo-GS-10M as it is published -> tables that a catalog names (conf/data/marqo_gs.yaml).

Its folder holds two corpora, corpus_1.json and corpus_2.json ({product id: {title, image_local, ...}}), and for both
halves of the queries and both of the products query_Q_product_id_P.csv with _gt_dev.json and _gt_test.json next to it
({query: {product id: grade}}). Products of half 0 are corpus 1. Training sees query_0_product_id_0.csv; the four
ground truths are the four situations, each with the corpus of its products and with the published dev and test halves.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

from gcl.data.tables.json_file import json_entries

SITUATIONS = {
    "gs_in_domain": ("query_0_product_id_0", 1),
    "gs_novel_query": ("query_1_product_id_0", 1),
    "gs_novel_document": ("query_0_product_id_1", 2),
    "gs_zero_shot": ("query_1_product_id_1", 2),
}
TRAINING = "query_0_product_id_0.csv"


def translate(folder: Path, root: Path) -> None:
    """Writes products.jsonl, corpus_1.csv, corpus_2.csv, pairs.csv and <situation>.queries.csv, <situation>.qrels.csv
    into `folder`. Raises FileNotFoundError for what `root` lacks, ValueError for a file of another form."""
    with open(folder / "products.jsonl", "w", encoding="utf-8") as products:
        for number in (1, 2):
            with open(folder / f"corpus_{number}.csv", "w", newline="", encoding="utf-8") as listed:
                ids = csv.writer(listed)
                ids.writerow(["product_id"])
                for identifier, about in json_entries(find(root, f"corpus_{number}.json")):
                    if not isinstance(about, dict):
                        raise ValueError(
                            f"corpus_{number}.json: product {identifier!r} is {about!r:.60}, not an object."
                        )
                    ids.writerow([identifier])
                    fields = {key: value for key, value in about.items() if not isinstance(value, dict | list)}
                    products.write(json.dumps(fields | {"product_id": identifier}, ensure_ascii=False) + "\n")
    place(find(root, TRAINING), folder / "pairs.csv")
    for name, (prefix, _) in SITUATIONS.items():
        _write_task(folder, name, {part: find(root, f"{prefix}_gt_{part}.json") for part in ("test", "dev")})


def _write_task(folder: Path, name: str, files: dict[str, Path]) -> None:
    seen: set[str] = set()
    with (
        open(folder / f"{name}.queries.csv", "w", newline="", encoding="utf-8") as queries_file,
        open(folder / f"{name}.qrels.csv", "w", newline="", encoding="utf-8") as qrels_file,
    ):
        queries, qrels = csv.writer(queries_file), csv.writer(qrels_file)
        queries.writerow(["query_id", "query", "part"])
        qrels.writerow(["query_id", "product_id", "score"])
        for part, file in files.items():
            for query, judged in json_entries(file):
                if query in seen:  # test comes first: a query of both is tested with, never tuned on
                    continue
                seen.add(query)
                queries.writerow([query, query, part])
                qrels.writerows([query, product, grade] for product, grade in judged.items())


def find(root: Path, name: str) -> Path:
    """The file in `root` or in one of its folders. Raises FileNotFoundError, or ValueError for several."""
    paths = [root / name] if (root / name).is_file() else sorted(root.glob(f"*/{name}"))
    if not paths:
        raise FileNotFoundError(f"There is no {name} in {root} or in a folder of it (data.root).")
    if len(paths) > 1:
        raise ValueError(f"{name} is in {root} several times: {', '.join(map(str, paths))}.")
    return paths[0]


def place(source: Path, target: Path) -> None:
    """A large table under another name, without copying it where links exist."""
    try:
        os.symlink(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
