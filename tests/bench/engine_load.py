"""How fast engines are loaded, compared with their own clients given everything at once from memory.

    python tests/bench/engine_load.py [rows=20000] [width=128] [engine …]

Ours reads the files of vectors and the payload, and adds a batch at a time, noting after each how far it is. Both make
the collection with the same schema, and neither builds an index that is built after the rows. Prints the client's
seconds divided by ours: 1 is as fast. On a busy machine, those of the processors say more than those of the clock.
"""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from gcl.data.store.vector_files import VectorWriter
from gcl.exports.engines.address import Place
from gcl.exports.engines.engine import Layout
from gcl.exports.engines.load import Load
from gcl.exports.engines.payload import batches, write_payload
from gcl.exports.engines.registry import engine_of
from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Field, Modality
from gcl.table import Table

SIDE = {"brand": Field(Modality.text)}


def qdrant(collection, ids, vectors, brands):
    from qdrant_client import models

    payload = [{"id": name, "brand": brand} for name, brand in zip(ids, brands, strict=True)]
    for start in range(0, len(ids), 1000):  # what upload_collection does, without its processes
        some = slice(start, start + 1000)
        numbers = list(range(len(ids)))[some]
        batch = models.Batch(ids=numbers, vectors=vectors[some].tolist(), payloads=payload[some])
        collection._client.upsert("products", batch)


def lancedb(collection, ids, vectors, brands):
    width = vectors.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width)
    collection._db.create_table("products", pa.table({"id": ids, "vector": column, "brand": brands}))


def duckdb(collection, ids, vectors, brands):
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    everything = pa.table({"id": ids, "vector": column, "brand": brands})  # noqa: F841
    collection._db.execute("INSERT INTO products BY NAME SELECT * FROM everything")


def milvus(collection, ids, vectors, brands):
    for start in range(0, len(ids), 2000):
        some = slice(start, start + 2000)
        rows = zip(ids[some], vectors[some], brands[some], strict=True)
        collection._client.insert("products", [{"id": i, "vector": v, "brand": b} for i, v, b in rows])


def chroma(collection, ids, vectors, brands):
    for start in range(0, len(ids), 5000):
        some = slice(start, start + 5000)
        metadatas = [{"brand": brand} for brand in brands[some]]
        collection._collection.add(ids[some], embeddings=vectors[some], metadatas=metadatas)


def pgvector(collection, ids, vectors, brands):
    with collection._db.cursor() as cursor:
        with cursor.copy("COPY products (id, brand, vector) FROM STDIN (FORMAT BINARY)") as rows:
            rows.set_types(["text", "text", "vector"])
            for row in zip(ids, brands, vectors, strict=True):
                rows.write_row(row)


def indexes(collection, ids, vectors, brands):
    for index in collection._filling.values():
        collection.fill(index, vectors)


CLIENTS: dict[str, Callable] = {
    "qdrant": qdrant, "lancedb": lancedb, "duckdb": duckdb, "milvus": milvus, "chroma": chroma, "pgvector": pgvector,
    "faiss": indexes, "usearch": indexes,
}  # fmt: skip


def timed(name: str, layout: Layout, load: Callable) -> np.ndarray:
    """Seconds of `load`, given an empty collection: of the clock, and of this process on all processors."""
    folder = Path(tempfile.mkdtemp())
    collection = engine_of(name).collection(layout, folder, None)
    collection.create()
    gc.collect()
    begun = np.array([time.perf_counter(), time.process_time()])
    load(collection, folder)
    took = np.array([time.perf_counter(), time.process_time()]) - begun
    collection.close()
    shutil.rmtree(folder, ignore_errors=True)
    return took


def main(words: list[str]) -> None:
    options = dict(word.split("=") for word in words if "=" in word)
    rows, width, times = (int(options.get(*of)) for of in (("rows", 20_000), ("width", 128), ("times", 3)))
    names = [word for word in words if "=" not in word] or list(CLIENTS)
    random, data = np.random.default_rng(0), Path(tempfile.mkdtemp())
    vectors = random.normal(size=(rows, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids, brands = [f"sku {n}" for n in range(rows)], [f"brand {n % 50}" for n in range(rows)]
    with VectorWriter(data / "v.parquet", ["vector"], width, about={}) as writer:
        for start in range(0, rows, 8192):
            writer.write(ids[start : start + 8192], {"vector": vectors[start : start + 8192]})
    documents = ListRecords(ids, [{"brand": brand} for brand in brands], SIDE)
    columns = write_payload(data / "p.parquet", documents, list, ["brand"], words=False)
    layout, table = Layout("products", width, rows, columns), []
    formats = {"client, rows/s": ",.0f", "gcl, rows/s": ",.0f", "ratio": ".2f", "ratio of CPU": ".2f"}
    for name in names:
        engine = engine_of(name)

        def ours(collection, folder, engine=engine):
            collection.finish = lambda: None
            load = Load(Place(engine, folder, None), layout, compared=False, replace=True)
            load.run(
                collection,
                lambda start: batches([data / "v.parquet"], data / "p.parquet", rows=engine.rows(width), start=start),
            )

        def theirs(collection, folder, client=CLIENTS[name]):
            client(collection, ids, vectors, brands)

        pairs = [(timed(name, layout, theirs), timed(name, layout, ours)) for _ in range(times)]
        client, own = np.min(pairs, axis=0)
        table.append([name, rows / client[0], rows / own[0], *(client / own)])
        print(Table(["engine", *formats], table[-1:], formats=formats).text(), flush=True)
    print(Table(["engine", *formats], table, f"{rows:,} rows of {width} numbers", formats=formats).text())
    shutil.rmtree(data)


if __name__ == "__main__":
    main(sys.argv[1:])
