"""A prepared catalog, opened: the two stores, the training pairs and the retrieval tasks of one folder.

`index.json` is the folder's commit mark: `prepare` writes it last, so a folder without it is not prepared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from gcl.data.catalog import Verify
from gcl.data.store.away import copy_here, is_away, local_folder
from gcl.data.store.remote_shards import ShardCache, place_of, url_of
from gcl.files.digest import text_sha256
from gcl.schema import SIDES, Field, Images, Modality, Schema, SideName, TextForm

if TYPE_CHECKING:  # what follows loads no pyarrow datasets for those who only read an index
    from gcl.data.store.records import Stored

FORMAT = 1  # raised whenever a folder written before can no longer be read
INDEX = "index.json"
NOT_RELEVANT = "not_relevant.parquet"  # is there only where a training pair has the score 0
PREFIX: dict[SideName, str] = {"document": "documents", "query": "queries"}  # of a side's shards and index table
PARTS = ("dev", "test")
SITUATIONS = ("in_domain", "novel_query", "novel_document", "zero_shot")


Fields = tuple[str, ...]


@dataclass
class Pairs:
    """Training pairs as row numbers of the two stores: query int[P], document int[P], score float32[P]. Rows are int64
    in files and where they are read, int32 while a catalog is prepared.

    Of a pair whose query was made from fields of its document, these are not shown: `hides[hidden[p]]` names the
    document fields that pair p lacks; hidden uint8[P], or None where every document is shown whole.
    """

    query: np.ndarray
    document: np.ndarray
    score: np.ndarray
    hidden: np.ndarray | None = None
    hides: tuple[Fields, ...] = ((),)

    def __len__(self) -> int:
        return len(self.query)

    def take(self, which: np.ndarray | slice) -> Pairs:
        """Some of the pairs, in the order given."""
        hidden = None if self.hidden is None else self.hidden[which]
        return Pairs(self.query[which], self.document[which], self.score[which], hidden, self.hides)

    def shows(self, fields: Iterable[str]) -> np.ndarray:
        """Which of these document fields pairs show, bool [len(hides), F], by `hidden`."""
        fields = list(fields)
        return np.array([[name not in hides for name in fields] for hides in self.hides], dtype=bool)

    def to_table(self, which: slice = slice(None)) -> pa.Table:
        """Some of them as pairs.parquet has them: the column `hidden` names fields, separated by commas, and is there
        only where any of all pairs hides some."""
        columns: dict[str, Any] = {name: getattr(self, name)[which].astype(np.int64) for name in ("query", "document")}
        columns["score"] = self.score[which]
        if self.hidden is not None and self.hidden.any():
            names = pa.array([",".join(hides) for hides in self.hides])
            columns["hidden"] = pa.DictionaryArray.from_arrays(pa.array(self.hidden[which].astype(np.int32)), names)
        return pa.table(columns)

    @classmethod
    def of_table(cls, table: pa.Table) -> Pairs:
        """What `to_table` wrote."""
        query, document, score = (table[name].to_numpy() for name in ("query", "document", "score"))
        if "hidden" not in table.column_names:
            return cls(query, document, score)
        written = table["hidden"].combine_chunks().cast(pa.string()).dictionary_encode()
        hides = tuple(tuple(filter(None, names.split(","))) for names in written.dictionary.to_pylist())
        return cls(query, document, score, written.indices.to_numpy().astype(np.uint8), hides)


NO_PAIRS = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


@dataclass
class PreparedTask:
    """One half of a retrieval task, in rows of the stores: corpus int64[M], then one judgment per position of
    query int64[J], document int64[J] and relevance float32[J]. Every query has a judgment above 0 and every judged
    document lies in the corpus; a relevance of 0 says "judged, not relevant"."""

    name: str
    part: str
    corpus: np.ndarray
    query: np.ndarray
    document: np.ndarray
    relevance: np.ndarray


@dataclass
class Prepared:
    """A prepared folder. `schema` carries the weights and prompts it was prepared with unless others were given on
    opening: they are not stored with the records, so changing them needs no new preparation."""

    folder: Path
    fingerprint: str
    schema: Schema
    documents: Stored
    queries: Stored
    pairs: Pairs
    counts: dict[str, Any] = field(default_factory=dict)
    not_relevant: Pairs = field(default_factory=lambda: NO_PAIRS)  # of training, with the score 0

    @property
    def task_names(self) -> list[str]:
        """The four situations that exist, then the explicit tasks."""
        return list(self.counts["tasks"])

    def check_tasks(self, names: Iterable[str], setting: str = "evaluate.tasks") -> None:
        """Raises ValueError for the first name in a setting that no task of this catalog has."""
        check_tasks(names, self.task_names, setting)

    def task(self, name: str, part: str = "test") -> PreparedTask:
        """One half of a task; raises KeyError for a task or a half that is not there."""
        if part not in PARTS:
            raise KeyError(f"A task's part is 'dev' or 'test', not {part!r}.")
        if name not in self.counts["tasks"]:
            known = ", ".join(self.task_names) or "none"
            raise KeyError(f"{self.folder} has no task {name!r}; its tasks: {known}.")
        path = self.folder / "tasks" / f"{name}.{part}.parquet"
        if not self.counts["tasks"][name][part]["queries"]:
            raise KeyError(
                f"The task {name!r} of {self.folder} has no query in its {part} half; data.split.dev sets the halves."
            )
        table = parquet.read_table(path)
        return PreparedTask(
            name=name,
            part=part,
            corpus=np.load(self.folder / "tasks" / f"{name}.corpus.npy"),
            query=table["query"].to_numpy(),
            document=table["document"].to_numpy(),
            relevance=table["relevance"].to_numpy(),
        )


def check_tasks(names: Iterable[str], known: Sequence[str], setting: str = "evaluate.tasks") -> None:
    """Raises ValueError for the first name in a setting that is not known."""
    for name in names:
        if name not in known:
            raise ValueError(f"{setting}: there is no task {name!r}; the tasks are {', '.join(known)}.")


DEV_AND_TEST = (
    "Of the searches held out for measuring, the dev half chooses (the best checkpoint, field weights) and the test "
    "half, by which nothing is chosen, gives the figures of the report."
)


def open_prepared(
    folder: str | Path,
    schema: Schema | None = None,
    *,
    verify: Verify = Verify.changed,
    cache_gb: float | None = None,
) -> Prepared:
    """Opens what `prepare` wrote, here or in an object store (by its URL). `schema`: today's weights and prompts, for
    the same fields. `verify`: whether shards are compared with their SHA-256; tables always are, and so is what comes
    from an object store when it arrives, of which at most `cache_gb` are kept on this machine.

    Raises FileNotFoundError for a folder that is not (or not completely) prepared and ValueError for one of another
    format, with other fields than `schema` names, or with a table or shard whose bytes changed since.
    """
    from gcl.data.store.store import RecordStore
    from gcl.data.store.verify import check_table, verify_shards

    if is_away(url := str(folder).rstrip("/")):
        folder = local_folder(url.rpartition("/")[0]) / url.rpartition("/")[2]
        if not folder.is_dir() and not copy_here(url, folder):
            raise FileNotFoundError(f"{url} is not a prepared catalog: {INDEX}, which is written last, is not there.")
    folder = Path(folder)
    index = read_index(folder)
    stored = schema_from_dict(index["schema"])
    if schema is None:
        schema = stored
    for name in SIDES:
        _check_same_fields(folder, name, schema.side(name), stored.side(name))
    tables = index["tables"]
    for name, table in tables.items():
        check_table(folder / name, table["sha256"])
    cache = ShardCache.below(folder.absolute().parent, cache_gb)
    stores = {side: RecordStore(folder, PREFIX[side], schema.side(side), cache=cache) for side in SIDES}
    if verify is not Verify.never:
        here = [(store, shard) for store in stores.values() for shard in store.shards_here]
        checks = {shard["name"]: partial(store.verify, [shard]) for store, shard in here}
        verify_shards(folder, checks, every=verify is Verify.always)
    return Prepared(
        folder=folder,
        fingerprint=index["fingerprint"],
        schema=schema,
        documents=stores["document"],
        queries=stores["query"],
        pairs=Pairs.of_table(parquet.read_table(folder / "pairs.parquet")),
        counts=index["counts"],
        not_relevant=Pairs.of_table(parquet.read_table(folder / NOT_RELEVANT)) if NOT_RELEVANT in tables else NO_PAIRS,
    )


def read_index(folder: Path) -> dict[str, Any]:
    """The commit mark of a prepared folder, checked: every file it names is there with its size."""
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not a prepared catalog: {INDEX}, which is written last, is not there. Prepare it again."
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] == FORMAT:
            _check_parts(index)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is damaged ({why}); delete {folder} and prepare again.") from error
    if index["format"] != FORMAT:
        raise ValueError(f"{folder} has format {index['format']}, this gcl reads format {FORMAT}: prepare it again.")
    if (digest := index.pop("sha256", digest_of(index))) != digest_of(index):
        raise ValueError(
            f"{path} has changed since it was written ({str(digest)[:12]}…): delete {folder} and prepare again."
        )
    place = place_of(folder)
    for shard in index["shards"]:
        if url_of(shard["name"], place) is None:
            _check_size(folder / shard["name"], shard["size"])
    for name, table in index["tables"].items():
        _check_size(folder / name, table["size"])
    return index


_PARTS = {"format", "name", "fingerprint", "schema", "counts", "shards", "tables"}


def _check_parts(index: dict[str, Any]) -> None:
    """Raises where parts of an index are not there or not as they are written: folders older than its own SHA-256 have
    nothing else that could tell. What is not known may be the key of that digest, with a bit that changed."""
    if unknown := sorted(index.keys() - _PARTS - {"sha256"}):
        raise ValueError(f"it has {unknown[0]!r}, which is never written")
    if missing := sorted(_PARTS - index.keys()):
        raise KeyError(missing[0])
    schema_from_dict(index["schema"])
    for name, shard in [(shard["name"], shard) for shard in index["shards"]] + list(index["tables"].items()):
        if not isinstance(name, str) or not isinstance(shard["size"], int) or not isinstance(shard["sha256"], str):
            raise ValueError(f"{name} has no size or no SHA-256")
    for name, task in index["counts"]["tasks"].items():
        if not all(isinstance(task[part]["queries"], int) for part in PARTS):
            raise ValueError(f"the task {name} has no number of queries")


def digest_of(index: dict[str, Any]) -> str:
    """SHA-256 over what an index says, whatever its spacing; index.json carries it since it is there."""
    return text_sha256(json.dumps(index, sort_keys=True))


def _check_size(path: Path, size: int) -> None:
    now = path.stat().st_size if path.is_file() else None
    if now != size:
        have = "is not there" if now is None else f"has {now} bytes"
        raise FileNotFoundError(f"{path} {have}, {size} bytes were written: delete {path.parent} and prepare again.")


def _check_same_fields(folder: Path, side: str, given: dict[str, Field], stored: dict[str, Field]) -> None:
    def named(fields: dict[str, Field]) -> dict[str, str]:
        return {name: spec.kind for name, spec in fields.items()}

    if named(given) != named(stored):
        raise ValueError(
            f"{folder} was prepared with the {side} fields {named(stored)}, not {named(given)}: prepare it again."
        )


def schema_to_dict(schema: Schema) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {
        side: {name: asdict(spec) | {"modality": spec.modality.value} for name, spec in schema.side(side).items()}
        for side in SIDES
    }


def schema_from_dict(values: dict[str, Any]) -> Schema:
    """The schema whose plain values `schema_to_dict` returned."""

    def fields(side: dict[str, Any]) -> dict[str, Field]:
        return {name: Field(**spec | _choices(spec)) for name, spec in side.items()}

    return Schema(query=fields(values["query"]), document=fields(values["document"]))


def _choices(spec: dict[str, Any]) -> dict[str, Any]:
    kinds = {"modality": Modality, "images": Images, "text": TextForm}
    return {name: kind(spec[name]) for name, kind in kinds.items() if name in spec}
