"""Ready shards (img2dataset, WebDataset) -> the files of a prepared folder; the tars stay where and as they are.

1. `index_shards` reads every tar once (gcl/data/importers/webdataset.py): each sample becomes one pair, (its query, its
   document), or is refused with shard, key and reason; the index tables say where in the tars each record lies
2. `build_shards` counts what was refused, and splits the pairs as those of tables are split
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from gcl.data.catalog import Catalog
from gcl.data.importers.webdataset import Place, Refused, Sample, ShardContent, ShardReader, find_layout
from gcl.data.prepare.split import NO_PAIRS, Built, PairList, gather, write_division
from gcl.data.store.key_table import Keys, KeyTable, text_key
from gcl.data.store.prepared import Pairs
from gcl.data.store.shard_writer import IndexWriter
from gcl.data.store.store import RecordStore
from gcl.data.tables.quarantine import Bad, Quarantine
from gcl.files.progress import counted
from gcl.schema import SIDES, Field, Schema, SideName

PREFIX = {"query": "queries", "document": "documents"}
TABLE = "data.shards"  # what the quarantine counts their samples under


def build_shards(catalog: Catalog, shards: list[Path], folder: Path, *, report_at: Path, progress: bool) -> Built:
    """Writes everything but index.json. `report_at`: where the list of bad samples lies if there are too many."""
    if catalog.tasks:
        raise ValueError(
            "data.tasks needs tables (data.products, data.pairs); ready shards have the four situations only."
        )
    if catalog.split.group:
        raise ValueError("data.split.group names columns of tables; ready shards have none.")
    if catalog.store.image_side is not None:
        raise ValueError("data.store.image_side is set, but ready shards are used as they are: unset it.")
    threads, label = catalog.store.workers, f"{catalog.name}: shards"
    quarantine = Quarantine(folder / "quarantine.csv", max_bad=catalog.max_bad, report_at=report_at)
    with quarantine, ThreadPoolExecutor(threads) as pool:
        index = index_shards(
            shards,
            folder,
            catalog.schema,
            score=catalog.score,
            document_id=None if catalog.document_id == Catalog.document_id else catalog.document_id,
            max_pixels=catalog.max_image_pixels,
            map_shards=lambda read, paths: counted(pool.map(read, paths), label, shown=progress),
        )
        quarantine.rows[TABLE] = index.samples
        for refused in index.refused:
            if refused.key is None:
                raise ValueError(
                    f"{refused.shard}: {refused.bad.reason} ({refused.bad.detail}). Fix it or leave it out."
                )
            quarantine.add(TABLE, refused.shard, refused.number, refused.key, refused.bad)
        quarantine.check(TABLE)
        if negative := int((index.pairs.score < 0).sum()):
            raise ValueError(
                f"{negative:,} samples have a negative {catalog.score!r}: a score is a number of at least 0."
            )
        documents = RecordStore(folder, "documents", catalog.document)
        hides = catalog.hidden_fields(catalog.own_columns.values())
        division = write_division(
            folder,
            gather(index.pairs, NO_PAIRS, documents, hides, own_table=True),
            query_keys=_keys(folder / "queries.parquet", catalog.query),
            catalog=catalog,
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


@dataclass
class ShardIndex:
    """pairs: rows of the two index tables that were written. samples: how many were read, used or refused.

    others: members that belong to no field of the schema, by extension; they are never opened.
    """

    pairs: Pairs
    samples: int
    refused: list[Refused]
    others: Counter[str]

    @property
    def reasons(self) -> Counter[str]:
        """Why samples were refused, counted."""
        return Counter(refused.bad.reason for refused in self.refused)


def index_shards(
    shards: Iterable[str | Path],
    folder: str | Path,
    schema: Schema,
    *,
    score: str | None = None,
    document_id: str | None = None,
    max_pixels: int = 100_000_000,
    map_shards: Callable[..., Iterable[ShardContent]] = map,
) -> ShardIndex:
    """Writes `queries.parquet` and `documents.parquet` over shards that lie on this machine, in the order given.

    score, document_id: keys of the samples' JSON. Without `score` every pair counts the same. Records of equal
    content are one record; with `document_id` the id decides, and a sample that brings a known id with other content
    is refused. map_shards: `map`, or that of a process pool. Raises ValueError when no sample can be used.
    """
    folder, paths = Path(folder).resolve(), [Path(path).resolve() for path in shards]
    folder.mkdir(parents=True, exist_ok=True)
    layout = find_layout(paths, schema, score=score, document_id=document_id)
    read = ShardReader(layout, schema, max_pixels)
    queries, documents = (_DistinctRecords(folder, side, schema.side(side)) for side in SIDES)
    refused: list[Refused] = []
    others: Counter[str] = Counter()
    listed: list[dict[str, Any]] = []
    pairs = PairList()
    try:
        for number, content in enumerate(map_shards(read, paths)):
            for sample in content.samples:
                document = documents.add(sample, number, sample.document_id)
                if document is None:
                    bad = Bad("document id repeated with other content", sample.document_id or "")
                    refused.append(Refused(content.path, sample.number, sample.key, bad))
                    continue
                query = queries.add(sample, number)
                assert query is not None  # its identity is its content
                pairs.add(query, document, sample.score)
            listed.append(_listing(content, folder))
            refused += content.refused
            others += content.others
        if not len(pairs):
            raise ValueError(_no_sample(paths, refused, others))
        for records in (queries, documents):
            keys = {name: key for (side, name), key in layout.json_keys.items() if side == records.side}
            records.writer.close(listed, keys)
    except BaseException:
        for records in (queries, documents):
            records.writer.abandon()
        raise
    return ShardIndex(pairs.pairs(), len(pairs) + sum(bad.key is not None for bad in refused), refused, others)


class _DistinctRecords:
    """The records of one side, each indexed once: where it was first seen."""

    def __init__(self, folder: Path, side: SideName, fields: Mapping[str, Field]) -> None:
        self.writer = IndexWriter(folder / f"{PREFIX[side]}.parquet", fields)
        self.side, self._fields = side, list(fields)
        self._row = KeyTable()
        self._content = bytearray()  # of row i: [16 i, 16 (i + 1))

    def add(self, sample: Sample, shard: int, identifier: str | None = None) -> int | None:
        """The record's row; None when its identifier is already that of other content."""
        places: dict[str, Place] = {
            name: sample.places[self.side, name] for name in self._fields if (self.side, name) in sample.places
        }
        digest = hashlib.sha256()
        for name, (_, _, value) in places.items():
            digest.update(name.encode() + b"\0" + value)
        content = digest.digest()[:16]
        key = content if identifier is None else text_key(identifier)
        row = self._row.get(key)
        if row is None:
            row = self.writer.append(identifier or content.hex(), shard, places)
            self._row.add(key, row)
            self._content += content
        return row if Keys(self._content)[row] == content else None


def _listing(content: ShardContent, folder: Path) -> dict[str, Any]:
    inside = content.path.is_relative_to(folder)  # a folder that is renamed keeps what lies in it
    return {
        "name": str(content.path.relative_to(folder) if inside else content.path),
        "size": content.size,
        "sha256": content.sha256,
        "records": len(content.samples),
    }


def _no_sample(paths: list[Path], refused: list[Refused], others: Counter[str]) -> str:
    reasons = Counter(sample.bad.reason for sample in refused).most_common(3)
    why = "; ".join(f"{reason}: {count:,}" for reason, count in reasons) or "there are none"
    unknown = ", ".join(f"{count:,} .{extension}" for extension, count in others.most_common(5)) or "none"
    return (
        f"No sample of the {len(paths):,} shards (first: {paths[0] if paths else 'none'}) can be used ({why}; "
        f"members of no field: {unknown}). A field is found as <key>.<field>.<extension>, as <key>.<column> where its "
        "column is an extension (jpg, txt), or, for a text, as a key of <key>.json: set data.<side>.<field>.column."
    )
