"""Peak memory of the last steps of `gcl prepare`, which hold something of every row, at any number of rows.

    python tests/bench/data_division.py 20000000

Half of the rows are products, half are pairs with queries of their own, all different; keys, hashes and the index
tables are drawn, and shards are empty files of the right size. Reading the tables, which comes before, takes the same
memory from two million rows on (`python tests/bench/data_memory.py` measures all of it).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.data.catalog import Catalog
from gcl.data.prepare.gathered import gather
from gcl.data.prepare.memory import give_back
from gcl.data.prepare.split import Numbers, write_division
from gcl.data.store.key_table import Packed, RowOf
from gcl.data.store.prepared import Pairs
from gcl.data.store.shard_writer import FORMAT_VERSION, METADATA_KEY, index_columns
from gcl.data.store.store import RecordStore
from gcl.schema import Field

SHARD, RECORD, BLOCK = 256 << 20, 2048, 1 << 16


def write_store(folder, prefix, fields, count, draw):
    """An index table of `count` records, and shards of zeros."""
    each, (name,) = SHARD // RECORD - 1, fields
    shards = []
    for number in range(-(-count // each)):
        path = folder / f"{prefix}-{number:05d}.tar"
        path.touch()
        os.truncate(path, SHARD)
        shards.append({"name": path.name, "size": SHARD, "sha256": "0" * 64, "records": each})
    schema = index_columns(fields)
    with parquet.ParquetWriter(folder / f"{prefix}.parquet", schema, compression="zstd") as target:
        for start in range(0, count, BLOCK):
            row = np.arange(start, min(count, start + BLOCK))
            hashes = pa.py_buffer(draw.bytes(16 * len(row)))
            columns = [
                pa.array([f"sku-{number:09d}" for number in row.tolist()]),
                pa.array((row // each).astype(np.int32)),
                pa.array(row % each * RECORD + 512),
                pa.array(np.full(len(row), 40)),
                pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(row), [None, hashes]),
            ]
            target.write_table(pa.table(columns, schema=schema))
        kinds = {name: fields[name].kind}
        about = {"version": FORMAT_VERSION, "rows": count, "fields": kinds, "json_keys": {}, "shards": shards}
        target.add_key_value_metadata({METADATA_KEY: json.dumps(about).encode()})


def packed(width, count, draw):
    rows = Packed(width)
    for start in range(0, count, BLOCK):
        rows.append(draw.bytes(width * min(BLOCK, count - start)))
    return rows


def mebibytes(what):
    lines = Path("/proc/self/status").read_text().split("\n")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def measure(rows, folder):
    count, draw = rows // 2, np.random.default_rng(0)
    catalog = Catalog(name="text", query={"query": Field()}, document={"title": Field()})
    (folder / "tasks").mkdir()
    write_store(folder, "documents", catalog.document, count, draw)
    write_store(folder, "queries", catalog.query, count, draw)
    keys, numbers = packed(16, count, draw), Numbers(packed(8, count, draw), packed(8, count, draw))
    row_of = RowOf()  # as full as it is at most: it is needed until the tasks are read
    for number in range(min(count, (1 << 20) - 1)):
        row_of.add(str(number), number)
    row = np.arange(count)
    pairs = Pairs(row.astype(np.int32), (row * 7919 % count).astype(np.int32), (1 + row % 100).astype(np.float32))
    del row
    give_back()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    print(f"before: {mebibytes('VmRSS'):,.0f} MiB", flush=True)
    begun = time.process_time()
    store = RecordStore(folder, "documents", catalog.document)
    gathered = gather(pairs, count, store, (), own_table=False)
    del store
    write_division(folder, gathered, query_keys=keys, catalog=catalog, split=catalog.split, numbers=numbers)
    print(f"{rows:,} rows: {mebibytes('VmHWM'):,.0f} MiB at most, {time.process_time() - begun:.0f} CPU seconds")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        measure(int(sys.argv[1]), Path(place))
