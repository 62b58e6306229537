"""Ready shards -> the files of a prepared folder: they are indexed in place, split and made into tasks like tables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as parquet

from gcl.data.catalog import Catalog
from gcl.data.importers.webdataset import index_shards
from gcl.data.prepare.write_split import Built, write_division
from gcl.data.store.store import RecordStore
from gcl.data.tables.images import own_pixel_limit
from gcl.data.tables.quarantine import Quarantine
from gcl.files.progress import counted

TABLE = "data.shards"  # what the quarantine counts their samples under


def build_shards(catalog: Catalog, shards: list[Path], folder: Path, *, report_at: Path, progress: bool) -> Built:
    """Writes everything but index.json. `report_at`: where the list of bad samples lies if there are too many."""
    if catalog.tasks:
        raise ValueError(
            "data.tasks needs tables (data.products, data.pairs); ready shards have the four situations only."
        )
    if catalog.store.image_side is not None:
        raise ValueError("data.store.image_side is set, but ready shards are used as they are: unset it.")
    threads, label = catalog.store.workers, f"{catalog.name}: shards"
    with Quarantine(folder / "quarantine.csv") as quarantine, own_pixel_limit(), ThreadPoolExecutor(threads) as pool:
        found = index_shards(
            shards,
            folder,
            catalog.schema,
            score=catalog.score,
            document_id=None if catalog.document_id == Catalog.document_id else catalog.document_id,
            max_pixels=catalog.max_image_pixels,
            map_shards=lambda read, paths: counted(pool.map(read, paths), label, shown=progress),
        )
        quarantine.rows[TABLE] = found.samples
        for refused in found.refused:
            if refused.key is None:
                raise ValueError(
                    f"{refused.shard}: {refused.bad.reason} ({refused.bad.detail}). Mend it or leave it out."
                )
            quarantine.add(TABLE, refused.shard, refused.number, refused.key, refused.bad)
        quarantine.check(TABLE, max_bad=catalog.max_bad, report_at=report_at)
        if negative := int((found.pairs.score < 0).sum()):
            raise ValueError(
                f"{negative:,} samples have a negative {catalog.score!r}: a score is a number of at least 0."
            )
        documents = RecordStore(folder, "documents", {})
        division = write_division(
            folder,
            found.pairs,
            query_keys=_keys(folder / "queries.parquet", catalog.query),
            document_ids=documents.ids,
            split=catalog.split,
        )
        counts = division.counts | quarantine.counts([TABLE])
    return Built(counts, documents.shards)


def _keys(index: Path, fields: Iterable[str]) -> list[bytes]:
    """The content of each record, 16 bytes, of the content hashes of its fields."""
    columns = [(name, parquet.read_table(index, columns=[f"{name}.hash"])[0].to_pylist()) for name in sorted(fields)]
    keys = []
    for row in zip(*(values for _, values in columns), strict=True):
        digest = hashlib.blake2b(digest_size=16)
        for (name, _), value in zip(columns, row, strict=True):
            if value is not None:
                digest.update(f"{len(name)},{name},".encode() + value)
        keys.append(digest.digest())
    return keys
