"""A prepared folder as a WebDataset pipeline, for a training loop of one's own.

    from gcl.data.store.webdataset import open_webdataset, open_webdataset_pairs

    for sample in open_webdataset("prepared/demo-cc67e4da7e52", "document"):
        sample["__id__"], sample["title"], sample["image"]  # str, str or None, a file's bytes or None

    pairs = open_webdataset_pairs("prepared/demo-cc67e4da7e52", shuffle=10_000)
    loader = webdataset.WebLoader(pairs, batch_size=None, num_workers=4)  # continue with .map(…), .batched(…)

Shards are divided among ranks, then among a loader's workers, as WebDataset does. For random access by row, or for
exactly the batches of a training run, see gcl.data.store.store and gcl.data.batches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from gcl.data.store.prepared import PREFIX, Prepared, open_prepared
from gcl.data.store.store import RecordStore
from gcl.schema import Field, Modality, SideName

Sample = dict[str, Any]


def open_webdataset(
    folder: str | Path, side: SideName, *, shuffle: int = 0, seed: int = 0, **options: Any
) -> webdataset.WebDataset:
    """The records of one side, each once: `__key__` (its row, nine digits), `__id__`, and every field of the schema.

    A text is a str, an image the bytes of its file, a set of images a tuple of these, an absent value None. With
    shuffle=0 records come in the order of their rows; otherwise shards are shuffled, and records in a buffer of
    `shuffle`: give every epoch another `seed`, and all ranks the same. options: webdataset.WebDataset's.

    Raises FileNotFoundError for a folder that is not prepared, ValueError for one whose files changed since, or whose
    records lie in ready shards of somebody else's layout.
    """
    prepared = open_prepared(folder)
    store = RecordStore(prepared.folder, PREFIX[side], prepared.schema.side(side))
    urls = [str(store.folder / shard["name"]) for shard in store.shards]
    if any(Path(url).name != f"{PREFIX[side]}-{number:05d}.tar" for number, url in enumerate(urls)):
        raise ValueError(
            f"{prepared.folder} was prepared from ready shards ({urls[0]} …), whose samples are not one record "
            "each: open those with webdataset.WebDataset, or this folder with open_webdataset_pairs."
        )
    defaults = {
        "shardshuffle": len(urls) if shuffle else False,
        "seed": seed,
        "nodesplitter": webdataset.split_by_node,
        "empty_check": False,  # there may be more workers than shards
    }
    dataset = webdataset.WebDataset(urls, **{**defaults, **options})
    present = store.present(store.rows)  # a placeholder's bytes are in the shard, and not its product's image
    dataset = dataset.map(partial(_record, fields=prepared.schema.side(side), present=present))
    return dataset.shuffle(shuffle, seed=seed) if shuffle else dataset


def open_webdataset_pairs(folder: str | Path, *, shuffle: int = 0, seed: int = 0) -> webdataset.DataPipeline:
    """The training pairs with their records: `__key__` (the pair's row), `query` and `document` (as open_webdataset
    gives them, without `__key__`) and `score`.

    Every pair comes once, in the order of its document; the queries are read where they lie. shuffle and seed: as in
    open_webdataset, for pairs. Ready shards will do, too.
    """
    prepared = open_prepared(folder)
    number = int(prepared.documents.shard.max(initial=0)) + 1
    stages: list[Any] = [webdataset.SimpleShardList([str(shard) for shard in range(number)])]
    stages += [webdataset.shuffle(number, seed=seed)] if shuffle else []
    stages += [webdataset.split_by_node, webdataset.split_by_worker, partial(_pairs, prepared=prepared)]
    stages += [webdataset.shuffle(shuffle, seed=seed)] if shuffle else []
    return webdataset.DataPipeline(*stages)


def _record(sample: Sample, *, fields: Mapping[str, Field], present: np.ndarray) -> Sample:
    """A record of the members of one sample, `{"title.txt": …, "image.jpg": …, "json": …}`.

    WebDataset writes extensions, and with them the fields' names, in lower case."""
    members = {name.rpartition(".")[0]: data for name, data in sample.items()}
    record = {name: value for name, value in sample.items() if name.startswith("__")}
    record["__id__"] = json.loads(sample["json"])["id"]
    for place, (name, field) in enumerate(fields.items()):
        data = members.get(name.lower()) if present[int(sample["__key__"]), place] else None
        if data is not None and field.modality is Modality.text:
            record[name] = data.decode()
        elif data is not None and field.is_set:
            others = takewhile(lambda member: member in members, (f"{name.lower()}.{n}" for n in count(1)))
            record[name] = (data, *(members[member] for member in others))
        else:
            record[name] = data
    return record


def _pairs(shards: Iterable[Sample], *, prepared: Prepared) -> Iterator[Sample]:
    pairs = prepared.pairs
    hides = [()] * len(pairs) if pairs.hidden is None else [pairs.hides[code] for code in pairs.hidden]
    shard = prepared.documents.shard[pairs.document]
    for sample in shards:
        rows = np.flatnonzero(shard == int(sample["url"]))
        for row in rows[np.argsort(pairs.document[rows], kind="stable")].tolist():
            query, document = int(pairs.query[row]), int(pairs.document[row])
            yield {
                "__key__": f"{row:09d}",
                "query": {"__id__": prepared.queries.ids[query], **prepared.queries[query]},
                "document": {
                    "__id__": prepared.documents.ids[document],
                    **prepared.documents[document],
                    **dict.fromkeys(hides[row]),
                },
                "score": float(pairs.score[row]),
            }
