"""Ready shards (img2dataset, WebDataset) -> the files of a prepared folder; the tars stay where and as they are.

1. `index_shards` reads every tar once (gcl/data/importers/webdataset.py): each sample becomes one pair, (its query, its
   document), or is refused with shard, key and reason; the index tables say where in the tars each record lies
2. of those in an object store at most data.cache_gb are here at a time. A query of many products is where the first of
   them is, and would have to be read from there again and again: queries that are texts are written down here
3. `build_shards` counts what was refused, and splits the pairs as those of tables are split
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcl.data.catalog import Catalog, SameProduct
from gcl.data.importers.webdataset import (
    Meaning,
    Place,
    Refused,
    Sample,
    Shard,
    ShardContent,
    ShardReader,
    find_layout,
    has_key,
)
from gcl.data.prepare.bad_images import ImageList
from gcl.data.prepare.gathered import PairList, gather
from gcl.data.prepare.rows import Scores
from gcl.data.prepare.split import Built, write_division
from gcl.data.store.key_table import KeyTable, Packed, text_key
from gcl.data.store.prepared import PREFIX, Pairs
from gcl.data.store.records import Record
from gcl.data.store.remote_shards import RemoteShard
from gcl.data.store.shard_writer import IndexWriter, ShardWriter
from gcl.data.store.store import RecordStore
from gcl.data.tables.quarantine import Bad, Quarantine, most_frequent
from gcl.files.progress import counted
from gcl.schema import SIDES, Field, Modality, Schema, SideName, TextForm, fields_of
from gcl.table import cut

REPEATED = "document id repeated with other content"
TABLE = "data.shards"  # what the quarantine counts their samples under


def build_shards(catalog: Catalog, shards: list[Shard], folder: Path, *, report_at: Path, progress: bool) -> Built:
    """Writes everything but index.json. `report_at`: where the list of bad samples lies if there are too many."""
    if catalog.tasks:
        raise ValueError(
            "data.tasks needs tables (data.products, data.pairs); ready shards have the four situations only."
        )
    if catalog.split.group:
        raise ValueError("data.split.group names columns of tables; ready shards have none.")
    if catalog.store.image_side is not None:
        raise ValueError("data.store.image_side is set, but ready shards are used as they are: unset it.")
    if catalog.duplicates.products in (SameProduct.last, SameProduct.merge):
        raise ValueError(
            f"data.duplicates.products is {catalog.duplicates.products}, but of ready shards only the first sample of "
            "a product can count: set it to first, or to refuse."
        )
    html = [name for side in SIDES for name, spec in catalog.schema.side(side).items() if spec.text == TextForm.html]
    if html:
        raise ValueError(f"The field {html[0]} is html, but ready shards are used as they are: leave out its `text`.")
    scores = Scores("data.grades", catalog.grades)
    threads, label = catalog.store.workers, f"{catalog.name}: reading shards"
    quarantine = Quarantine(folder / "quarantine.csv", max_bad=catalog.max_bad, report_at=report_at)
    images = ImageList(quarantine, catalog.bad_images)
    with quarantine, images, ThreadPoolExecutor(threads) as pool:
        index = index_shards(
            shards,
            folder,
            catalog.schema,
            score=catalog.score,
            document_id=_document_id(catalog, shards),
            meaning=Meaning(
                scores, catalog.decimal, tuple(catalog.missing), catalog.bad_images, catalog.duplicates.products
            ),
            max_pixels=catalog.max_image_pixels,
            map_shards=lambda read, paths: counted(
                pool.map(read, paths), label, shown=progress, total=len(shards), unit="shard"
            ),
        )
        quarantine.rows[TABLE] = index.samples
        for refused in index.refused:
            if refused.key is None:
                raise ValueError(
                    f"{refused.shard}: {refused.bad.reason} ({refused.bad.detail}). Fix it or leave it out."
                )
            quarantine.add(TABLE, refused.shard, refused.number, refused.key, refused.bad)
        repeated = [refused for refused in index.refused if refused.bad.reason == REPEATED]
        if repeated:
            raise ValueError(_repeated(repeated, catalog.document_id))
        quarantine.check(TABLE, scores.advice(TABLE, catalog.score) if catalog.score else None)
        _list_images(index, images, catalog.schema)
        for side in SIDES:
            images.check(side)
        queries, documents = (RecordStore(folder, PREFIX[side], catalog.schema.side(side)) for side in SIDES)
        hides = catalog.hidden_fields(catalog.own_columns.values())
        division = write_division(
            folder,
            gather(index.pairs, len(index.pairs), documents, hides, own_table=True),
            query_keys=list(RecordStore(folder, PREFIX["query"], catalog.query).content_keys()),
            catalog=catalog,
            split=catalog.split,
        )
        counts = division.counts | quarantine.counts([TABLE]) | images.counts()
        if index.repeated:
            counts["notes"].append(
                f"{index.repeated:,} samples bring other content for a product than its first sample, which counts "
                "(data.duplicates.products=first)"
            )
    own = [shard for shard in queries.shards if shard not in documents.shards]
    return Built(counts, documents.shards + own)


def _list_images(index: ShardIndex, images: ImageList, schema: Schema) -> None:
    """What is known of the samples' images, as of tables. Raises ValueError for one that cannot be used where that is
    refused."""
    for side in SIDES:
        for name in fields_of(schema.side(side), Modality.image):
            if index.given[f"{side}.{name}"]:
                images.records[f"{side}.{name}"].update(given=index.given[f"{side}.{name}"], several=0, most=1)
    for shard, sample, name, bad in index.lost:
        images.check_rule(name, shard, sample.number, sample.key, bad)
        images.add(name, shard, sample.number, sample.key, bad)
        images.records[name].update(given=1, absent=1)


def _document_id(catalog: Catalog, shards: list[Shard]) -> str | None:
    """The key of the samples' JSON that names the product. As of tables, only the default name may be missing."""
    named = catalog.document_id != Catalog.document_id or has_key(_fetched(shards), catalog.document_id)
    return catalog.document_id if named else None


def _repeated(repeated: list[Refused], key: str) -> str:
    such = ", ".join(f"{one.bad.detail!r} ({one.shard.name}, sample {one.number}, {one.key})" for one in repeated[:3])
    return (
        f"{REPEATED[0].upper()}{REPEATED[1:]}, in {len(repeated):,} samples, for example {such}. An id "
        f"(data.document_id={key}) must name one product: name a key that tells them apart, or let the first sample of "
        "each count: data.duplicates.products=first."
    )


@dataclass
class ShardIndex:
    """pairs: rows of the two index tables that were written. samples: how many were read, used or refused.

    others: members that belong to no field of the schema, by extension; they are never opened. repeated: samples that
    bring other content for a document than its first. lost: (shard, sample, field, why) of images that their samples
    do without. given: samples that have a value of a field, by `<side>.<field>`.
    """

    pairs: Pairs
    samples: int
    refused: list[Refused]
    others: Counter[str]
    repeated: int = 0
    lost: list[tuple[Shard, Sample, str, Bad]] = field(default_factory=list)
    given: Counter[str] = field(default_factory=Counter)

    @property
    def reasons(self) -> Counter[str]:
        """Why samples were refused, counted."""
        return Counter(refused.bad.reason for refused in self.refused)


def index_shards(
    shards: Iterable[str | Shard],
    folder: str | Path,
    schema: Schema,
    *,
    score: str | None = None,
    document_id: str | None = None,
    meaning: Meaning | None = None,
    max_pixels: int = 100_000_000,
    map_shards: Callable[..., Iterable[ShardContent]] = map,
) -> ShardIndex:
    """Writes `queries.parquet` and `documents.parquet` over shards, in the order given.

    score, document_id: keys of the samples' JSON. Without `score` every pair counts the same. Records of equal
    content are one record; with `document_id` the id decides, and a sample that brings a known id with other content
    is refused unless the first counts. meaning: how values are read; None: numbers with a decimal point, and images
    that cannot be used make their sample unusable. map_shards: `map`, or that of a pool. Raises ValueError when no
    sample can be used.
    """
    folder = Path(folder).resolve()
    paths: list[Shard] = [one if isinstance(one, RemoteShard) else Path(one).resolve() for one in shards]
    folder.mkdir(parents=True, exist_ok=True)
    layout = find_layout(_fetched(paths), schema, score=score, document_id=document_id)
    meaning = meaning or Meaning(Scores())
    texts = all(spec.modality is Modality.text for spec in schema.query.values())
    own = texts and any(isinstance(path, RemoteShard) for path in paths)
    read = ShardReader(layout, schema, max_pixels, meaning, queries=own)
    queries = _DistinctRecords(folder, "query", schema.query, own=own)
    documents = _DistinctRecords(folder, "document", schema.document)
    refused: list[Refused] = []
    others: Counter[str] = Counter()
    listed: list[dict[str, Any]] = []
    pairs, repeated = PairList(), 0
    lost: list[tuple[Shard, Sample, str, Bad]] = []
    given: Counter[str] = Counter()
    try:
        for number, content in enumerate(map_shards(read, paths)):
            for place, sample in enumerate(content.samples):
                document, equal = documents.add(sample, number, sample.document_id)
                if not equal and meaning.same != SameProduct.first:
                    bad = Bad(REPEATED, sample.document_id or "")
                    refused.append(Refused(content.path, sample.number, sample.key, bad))
                    continue
                repeated += not equal
                query = queries.add(sample, number, record=content.queries[place] if own else None)[0]
                pairs.add(query, document, sample.score)
                lost += [(content.path, sample, f"{side}.{name}", bad) for (side, name), bad in sample.lost]
                given.update(f"{side}.{name}" for side, name in sample.places)
            listed.append(_listing(content, folder))
            refused += content.refused
            others += content.others
        if not len(pairs):
            words = meaning.score.advice(TABLE, score) if score and isinstance(meaning.score, Scores) else None
            raise ValueError(f"{words}." if words else _no_sample(paths, refused, others))
        for records in (queries, documents):
            keys = {name: key for (side, name), key in layout.json_keys.items() if side == records.side}
            records.close(listed, keys)
    except BaseException:
        for records in (queries, documents):
            records.writer.abandon()
        raise
    samples = len(pairs) + sum(bad.key is not None for bad in refused)
    return ShardIndex(pairs.pairs(), samples, refused, others, repeated, lost, given)


def _fetched(shards: Iterable[Shard]) -> Iterator[Shard]:
    """All of them; of an object store when their turn comes, so that what is wrong there is raised."""
    for shard in shards:
        if isinstance(shard, RemoteShard):
            shard.fetch()
        yield shard


class _DistinctRecords:
    """The records of one side, each indexed once: where it was first seen. own: in shards of our own instead."""

    def __init__(self, folder: Path, side: SideName, fields: Mapping[str, Field], *, own: bool = False) -> None:
        path = folder / f"{PREFIX[side]}.parquet"
        self.writer = ShardWriter(folder, PREFIX[side], side=fields) if own else IndexWriter(path, fields)
        self.side, self._fields = side, list(fields)
        self._row = KeyTable()
        self._content = Packed()

    def add(
        self, sample: Sample, shard: int, identifier: str | None = None, *, record: Record | None = None
    ) -> tuple[int, bool]:
        """The record's row, and whether what is there has the same content: of an identifier the first counts."""
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
            if isinstance(self.writer, ShardWriter):
                row = self.writer.write(identifier or content.hex(), record or {})
            else:
                row = self.writer.append(identifier or content.hex(), shard, places)
            self._row.add(key, row)
            self._content.append(content)
        return row, self._content[row] == content

    def close(self, shards: list[dict[str, Any]], json_keys: Mapping[str, str]) -> None:
        if isinstance(self.writer, ShardWriter):
            self.writer.close()
        else:
            self.writer.close(shards, json_keys)


def _listing(content: ShardContent, folder: Path) -> dict[str, Any]:
    path = content.path
    if isinstance(path, Path) and path.is_relative_to(folder):  # a folder that is renamed keeps what lies in it
        path = path.relative_to(folder)
    return {
        "name": str(path),
        "size": content.size,
        "sha256": content.sha256,
        "records": len(content.samples),
    }


def _no_sample(paths: list[Shard], refused: list[Refused], others: Counter[str]) -> str:
    why = most_frequent(Counter(sample.bad.reason for sample in refused), 3) or "there are none"
    unknown = ", ".join(f"{count:,} .{extension}" for extension, count in others.most_common(5)) or "none"
    first = refused[0] if refused else None
    shown = f" The first: sample {first.number}, {first.key!r}: {cut(str(first.bad), 200)}." if first else ""
    sentence = (
        f"No sample of the {len(paths):,} shards (first: {paths[0] if paths else 'none'}) can be used ({why}; "
        f"members of no field: {unknown}).{shown}"
    )
    if refused and all(sample.bad.reason not in ("no query", "no document") for sample in refused):
        return sentence
    return (
        f"{sentence} A field is found as <key>.<field>.<extension>, as <key>.<column> where its column is an extension "
        "(jpg, txt), or, for a text, as a key of <key>.json: set data.<side>.<field>.column."
    )
