"""Small catalogs that tests write themselves: tables in every format, drawn images, everything read back."""

import csv
import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

from gcl.data.catalog import Catalog, Split, Store
from gcl.data.prepare.prepare import prepare
from gcl.data.store.prepared import PARTS, open_prepared
from gcl.schema import Field, Modality

EVERYTHING = Split(queries=1.0, documents=1.0, dev=0.0)


def text(**options) -> Field:
    return Field(Modality.text, **options)


def image(**options) -> Field:
    return Field(Modality.image, **options)


def drawn(seed: int = 0, size: tuple[int, int] = (24, 20), mode: str = "RGB", form: str = "JPEG", **options) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(target, form, **options)
    return target.getvalue()


def shard(number: int, *, rows: int, queries: int) -> bytes:
    """The tar of shard `number`: a drawn picture and one of so many queries a sample, numbered over all shards."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for row in range(rows):
            for kind, data in (("jpg", drawn(rows * number + row)), ("txt", f"query {row % queries}".encode())):
                member = tarfile.TarInfo(f"{number}{row:03}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return target.getvalue()


def write_table(path: Path, rows: list[dict]) -> Path:
    """The format is the name's; None is an empty cell of a CSV and null elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    name = path.name.removesuffix(".gz")
    if name.endswith((".csv", ".tsv", ".txt")):
        target = io.StringIO()
        writer = csv.DictWriter(target, columns, delimiter="," if name.endswith(".csv") else "\t")
        writer.writeheader()
        writer.writerows(rows)
        data = target.getvalue().encode()
    elif name.endswith((".jsonl", ".ndjson", ".json")):
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    elif name.endswith(".xlsx"):
        book = openpyxl.Workbook()
        for cells in (columns, *([row.get(key) for key in columns] for row in rows)):
            book.active.append(cells)
        target = io.BytesIO()
        book.save(target)
        data = target.getvalue()
    else:
        target = io.BytesIO()
        cells = pa.table({key: [row.get(key) for row in rows] for key in columns})
        if name.endswith((".arrow", ".feather")):
            with pa.ipc.new_file(target, cells.schema) as writer:
                writer.write_table(cells)
        else:
            parquet.write_table(cells, target)
        data = target.getvalue()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def products(count: int) -> list[dict]:
    return [{"product_id": f"{number:04d}", "title": f"thing number {number}"} for number in range(count)]


def pairs(queries: int, documents: int, each: int = 6) -> list[dict]:
    return [
        {"query": f"query {query}", "product_id": f"{(query * 7 + step * 3) % documents:04d}", "score": str(1 + step)}
        for query in range(queries)
        for step in range(each)
    ]


def catalog(root: Path | None, **options) -> Catalog:
    given = {
        "name": "small",
        "root": root and str(root),
        "query": {"query": text()},
        "document": {"title": text()},
        "split": EVERYTHING,
        "store": Store(workers=2),
    }
    return Catalog(**given | options)


def prepared(given: Catalog, folder: Path):
    return open_prepared(prepare(given, folder, progress=False))


def contents(found) -> dict:
    """All that a prepared folder says, by ids, without row numbers."""

    def side(store):
        return {store.ids[row]: store[row] for row in range(len(store))}

    def name(store, rows):
        return [store.ids[row] for row in rows.tolist()]

    training = zip(
        name(found.queries, found.pairs.query),
        name(found.documents, found.pairs.document),
        found.pairs.score.tolist(),
        strict=True,
    )
    tasks = {}
    for task, counts in found.counts["tasks"].items():
        for part in PARTS:
            if counts[part]["queries"]:
                half = found.task(task, part)
                tasks[task, part] = (
                    name(found.documents, half.corpus),
                    list(
                        zip(
                            name(found.queries, half.query),
                            name(found.documents, half.document),
                            half.relevance.tolist(),
                            strict=True,
                        )
                    ),
                )
    return {"documents": side(found.documents), "queries": side(found.queries), "pairs": list(training), "tasks": tasks}


def quarantined(folder: Path) -> list[dict]:
    with open(folder / "quarantine.csv", newline="", encoding="utf-8") as source:
        return list(csv.DictReader(source))


def bad_images(folder: Path) -> list[dict]:
    with open(folder / "bad_images.csv", newline="", encoding="utf-8") as source:
        return list(csv.DictReader(source))
