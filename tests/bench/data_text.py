"""Text-only training data end to end (records -> tokens -> batches): ours against stock webdataset, the same tars.

Tars of `txt` (the query) and `json` (title and score), as img2dataset writes them. Stock is what open_clip's training
does: WebDataset, a shuffle buffer, decode, the tokenizer for each sample, batched. Ours is a run's: the plan's global
batches, the store, the token cache. CPU time of one process for a whole pass, after one that warms both up.
"""

from __future__ import annotations

import io
import json
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
import webdataset
from inputs import WORDS

from gcl.data.batches.batch import PairDataset, SideReader
from gcl.data.batches.plan import Plan
from gcl.data.catalog import Catalog, Split
from gcl.data.prepare.prepare import prepare
from gcl.data.store.prepared import open_prepared
from gcl.model.preprocess import Preprocess
from gcl.model.tokens import Tokens
from gcl.schema import Field

GOAL, BATCH = 5.0, 256


def write(folder: Path, samples: int) -> list[str]:
    """Every query about eight times, every title of its own; 4 shards."""
    rng = np.random.default_rng(0)
    queries = [" ".join(rng.choice(WORDS, rng.integers(2, 5))) for _ in range(samples // 8)]
    paths = [str(folder / f"{number:05d}.tar") for number in range(4)]
    for number, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for row in range(number, samples, 4):
                title = " ".join(rng.choice(WORDS, rng.integers(5, 10))) + f" {row}"
                about = json.dumps({"title": title, "score": 1 + row % 100}).encode()
                for kind, data in (("txt", queries[row % len(queries)].encode()), ("json", about)):
                    member = tarfile.TarInfo(f"{row:09d}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return paths


def stock(paths: list[str]) -> tuple[int, int]:
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    data = (
        webdataset.WebDataset(paths, shardshuffle=False)
        .shuffle(2000)
        .decode()
        .map(lambda s: (tokenizer(s["txt"])[0], tokenizer(s["json"]["title"])[0], float(s["json"]["score"])))
        .batched(BATCH)
    )
    pairs = tokens = 0
    for query, title, _ in data:
        pairs, tokens = pairs + len(query), tokens + int((query > 0).sum() + (title > 0).sum())
    return pairs, tokens


class Ours:
    def __init__(self, folder: Path, samples: int) -> None:
        given = Catalog(name="text", root=str(folder), shards="*.tar", query={"query": Field(column="txt")},
                        document={"title": Field()}, score="score", split=Split(1.0, 1.0, 0.0))  # fmt: skip
        self.prepared = open_prepared(prepare(given, folder / "out", progress=False))
        assert len(self.prepared.pairs) == samples

    def __call__(self) -> tuple[int, int]:
        tokens = Tokens(open_clip.get_tokenizer("ViT-B-32"), 77)
        preprocess = Preprocess((224, 224), (0.0,) * 3, (1.0,) * 3, tokens=tokens)
        found = self.prepared
        plan = Plan(found.pairs, batch_size=BATCH, seed=0, shard_of_document=found.documents.shard)
        readers = {"query": SideReader(found.queries, found.schema.query, preprocess),
                   "document": SideReader(found.documents, found.schema.document, preprocess)}  # fmt: skip
        dataset, pairs, count = PairDataset(found.pairs, plan, **readers), 0, 0
        for step in range(plan.steps_per_epoch):
            batch = dataset[step]
            pairs += len(batch.score)
            for side, row in ((batch.query, batch.query_row), (batch.document, batch.document_row)):
                count += int((next(iter(side.fields.values())) > 0).sum(dim=1)[row].sum())
        return pairs, count


def run(samples: int = 20_000, rounds: int = 3) -> bool:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        paths = write(Path(place), samples)
        ways = {"gcl": Ours(Path(place), samples), "webdataset": lambda: stock(paths)}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            seen = {}
            for name, read in ways.items():
                begun = time.process_time()
                seen[name] = read()
                times[name].append((time.process_time() - begun) / samples * 1e6)
            assert len(set(seen.values())) == 1, f"not the same pairs and tokens: {seen}"
    median = {name: statistics.median(values) for name, values in times.items()}
    ratio = median["webdataset"] / median["gcl"]
    print("  " + ", ".join(f"{name} {value:.1f} us a pair" for name, value in median.items()))
    print(f"  webdataset / gcl: {ratio:.1f}x")
    return ratio >= GOAL
