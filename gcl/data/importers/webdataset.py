"""Ready shards (img2dataset, WebDataset) -> the index tables and pairs that `prepare` makes of tables.

The tars stay where and as they are and are indexed in place. Every sample becomes one pair, (its query, its
document), or is reported with shard, key and reason.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gcl.data.importers.webdataset_layout import find_layout
from gcl.data.importers.webdataset_samples import Place, Refused, Sample, ShardContent, read_shard
from gcl.data.store.key_table import Keys, KeyTable, text_key
from gcl.data.store.prepared import Pairs
from gcl.data.store.shard_writer import IndexWriter
from gcl.data.tables.quarantine import Bad
from gcl.schema import SIDES, Field, Schema, SideName

PREFIX = {"query": "queries", "document": "documents"}


@dataclass
class ForeignIndex:
    """pairs: rows of the two index tables that were written. samples: how many were found, used or refused.

    others: members that belong to no field of the schema, by extension; they are never opened.
    """

    pairs: Pairs
    samples: int
    refused: list[Refused]
    others: Counter[str]

    @property
    def reasons(self) -> Counter[str]:
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
) -> ForeignIndex:
    """Writes `queries.parquet` and `documents.parquet` over shards that lie on this machine, in the order given.

    score, document_id: keys of the samples' JSON. Without `score` every pair counts the same. Records of equal
    content are one record; with `document_id` the id decides, and a sample that brings a known id with other content
    is refused. map_shards: `map`, or that of a process pool. Raises ValueError when no sample can be used.
    """
    folder, paths = Path(folder).resolve(), [Path(path).resolve() for path in shards]
    folder.mkdir(parents=True, exist_ok=True)
    layout = find_layout(paths, schema, score=score, document_id=document_id)
    read = partial(read_shard, layout=layout, schema=schema, max_pixels=max_pixels)
    records = {name: _DistinctRecords(folder, name, schema.side(name)) for name in SIDES}
    refused: list[Refused] = []
    others: Counter[str] = Counter()
    listed: list[dict[str, str | int]] = []
    query, documents, scores = array("q"), array("q"), array("f")
    try:
        for number, content in enumerate(map_shards(read, paths)):
            for sample in content.samples:
                document = records["document"].add(sample, number, sample.document_id)
                if document is None:
                    bad = Bad("document id repeated with other content", sample.document_id or "")
                    refused.append(Refused(content.path, sample.number, sample.key, bad))
                else:
                    query.append(records["query"].add(sample, number))
                    documents.append(document)
                    scores.append(sample.score)
            listed.append(_listing(content, folder))
            refused += content.refused
            others += content.others
        if not query:
            raise ValueError(_nothing(paths, refused, others))
        for name in SIDES:
            keys = {target[1]: key for target, key in layout.json_keys.items() if target[0] == name}
            records[name].writer.close(listed, keys)
    except BaseException:
        for name in SIDES:
            records[name].writer.abandon()
        raise
    pairs = Pairs(np.array(query, np.int64), np.array(documents, np.int64), np.array(scores, np.float32))
    return ForeignIndex(pairs, len(pairs) + sum(bad.key is not None for bad in refused), refused, others)


class _DistinctRecords:
    """The records of one side, each indexed once: where it was first seen."""

    def __init__(self, folder: Path, side: SideName, fields: Mapping[str, Field]) -> None:
        self.writer = IndexWriter(folder / f"{PREFIX[side]}.parquet", fields)
        self._side, self._fields = side, list(fields)
        self._row = KeyTable()
        self._content = bytearray()  # of row i: [16 i, 16 (i + 1))

    def add(self, sample: Sample, shard: int, identifier: str | None = None) -> int | None:
        """The record's row; None when its identifier already stands for other content."""
        places: dict[str, Place] = {
            name: sample.places[self._side, name] for name in self._fields if (self._side, name) in sample.places
        }
        digest = hashlib.sha256()
        for name, (_, _, content) in places.items():
            digest.update(name.encode() + b"\0" + content)
        content = digest.digest()[:16]
        key = content if identifier is None else text_key(identifier)
        row = self._row.get(key)
        if row is None:
            row = self.writer.append(identifier or content.hex(), shard, places)
            self._row.add(key, row)
            self._content += content
        return row if Keys(self._content)[row] == content else None


def _listing(content: ShardContent, folder: Path) -> dict[str, str | int]:
    inside = content.path.is_relative_to(folder)  # a folder that is renamed keeps what lies in it
    return {
        "name": str(content.path.relative_to(folder) if inside else content.path),
        "size": content.size,
        "sha256": content.sha256,
        "records": len(content.samples),
    }


def _nothing(paths: list[Path], refused: list[Refused], others: Counter[str]) -> str:
    reasons = Counter(bad.bad.reason for bad in refused).most_common(3)
    found = "; ".join(f"{reason}: {count:,}" for reason, count in reasons) or "there are none"
    unknown = ", ".join(f"{count:,} .{extension}" for extension, count in others.most_common(5)) or "none"
    return (
        f"No sample of the {len(paths):,} shards (first: {paths[0] if paths else 'none'}) can be used ({found}; "
        f"members of no field: {unknown}). A field is found as <key>.<field>.<extension>, as <key>.<column> where its "
        "column is an extension (jpg, txt), or, for a text, as a key of <key>.json: set data.<side>.<field>.column."
    )
