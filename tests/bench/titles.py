"""A causal text tower at the batch's longest title beside open_clip's encode_text at the full context, one thread.

    python tests/bench/titles.py                                   # made-up titles, mean 7.4 tokens
    python tests/bench/titles.py --products fashion/products.csv   # the column `title` of a table of one's own

Forward and backward of a CLIP text tower with random weights, process CPU time, in turns, median. Goals: at least 2 x,
embeddings equal to 1e-5.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import torch.nn.functional as F
from train_inputs import titles

from gcl.data.batches.batch import SideBatch
from gcl.model.load import load_model
from gcl.schema import Field, Schema


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", help="a CSV with a column `title`")
    parser.add_argument("--model", default="RN50", help="an open_clip architecture with a causal text tower")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    count = given.batch * given.batches
    if given.products:
        with open(given.products, newline="", encoding="utf-8") as file:
            found = list(dict.fromkeys(row["title"] for row in csv.DictReader(file) if row.get("title")))
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
        texts = [found[number] for number in order[:count]]
    else:
        texts = titles(count)
    encoder = load_model(given.model, schema=Schema({"query": Field()}, {"title": Field()}))
    tokens = encoder.preprocess.text(texts)
    lengths = (tokens != 0).sum(1) - 2  # the start and the end of a text are not counted
    present = torch.ones(given.batch, 1, dtype=torch.bool)
    parameters = list(encoder.model.parameters())

    def ours(part: torch.Tensor) -> torch.Tensor:
        return encoder(SideBatch({"title": part}, present), "document")

    def theirs(part: torch.Tensor) -> torch.Tensor:
        return F.normalize(encoder.model.encode_text(part), dim=-1)

    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    off = 0.0
    for repeat in range(given.repeats + 1):
        for part in tokens.split(given.batch):
            for name, encode in (("ours", ours), ("theirs", theirs)):
                begun = time.process_time()
                encode(part).sum().backward()
                seconds[name].append(time.process_time() - begun)
                for parameter in parameters:
                    parameter.grad = None
            if not repeat:
                with torch.no_grad():
                    off = max(off, float((ours(part) - theirs(part)).abs().max()))
    fast, slow = (statistics.median(values[given.batches :]) for values in seconds.values())
    print(
        f"{count} titles of {lengths.double().mean():.1f} tokens on average, batches of {given.batch}, {given.model}: "
        f"gcl {fast * 1e3:.0f} ms   open_clip {slow * 1e3:.0f} ms   {slow / fast:.2f}x   goal 2\n"
        f"largest difference of an embedding's entry {off:.1e}   goal 1e-5"
    )


if __name__ == "__main__":
    main()
