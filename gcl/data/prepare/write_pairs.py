"""pairs.parquet: the table of row numbers and scores that every folder of records has."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.data.store.prepared import Pairs


def write_pairs(pairs: Pairs, path: Path) -> None:
    table = pa.table({"query": pairs.query, "document": pairs.document, "score": pairs.score})
    parquet.write_table(table, path, compression="zstd")
