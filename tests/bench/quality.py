"""What a model learns under each recipe: the table of the README's Results, on a catalog with graded queries.

    python tests/bench/quality.py --data path/to/fashion --out DIR     # experiment=fashion_lite, 5 seeds of every row
    python tests/bench/quality.py --data … --out DIR --rows constant,gcl,ema --seeds 3
    python tests/bench/quality.py --small --out DIR                    # two short runs on the demo, for .ci/run

Every run lies in DIR/<row>-<seed> and is neither trained nor measured again: a bench that was stopped goes on where it
was. Test half; p: paired sign flips over queries of each one's mean over the seeds, Holm-corrected over the table.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import numpy as np

from gcl.cli import main as gcl
from gcl.config.compose import load_config
from gcl.data.prepare.mixed import open_catalog
from gcl.files.atomic import write_json
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.metrics.statistics import compare, holm
from gcl.run.contestants import base_encoder, tuned_encoder
from gcl.run.folder import RunFolder
from gcl.run.measurement import frozen_features, measurement_of
from gcl.table import Table, Value

# What the recipe adds is taken away from every other row.
PLAIN = ["model.head=linear", "loss.target=pair", "optim.learning_rate=3e-3", "optim.rules={text.*: {rate: 1}}",
         "loss.scale=null", "loss.learn_scale=true", "optim.weight_decay=0.02",
         "loss.terms=[{query: fused, document: image}, {query: fused, document: title, weight: 0.3}]"]  # fmt: skip
RECIPE = "recipe"
# A row of the table is a named set of settings; <row> stands for the folder of that row's run with the same seed.
ROWS: dict[str, list[str]] = {
    "constant": ["loss=constant"],
    "gcl": [],
    RECIPE: [],
    "stages": ["model.head=stages"],
    "mlp": ["model.head=mlp"],
    "graded targets": ["loss.target=graded"],
    "sigmoid": ["loss.form=sigmoid"],
    "sigmoid targets": ["loss.form=sigmoid", "loss.target=sigmoid"],
    "hard negatives": ["plan.hard_negatives.source=model", "plan.hard_negatives.every=100"],
    "bm25 negatives": ["plan.hard_negatives.source=bm25"],
    "false negatives out": ["loss.false_negative=0.1"],
    "titles only": ["loss.terms=[{query: fused, document: title}]", "data.document.image.weight=0.001",
                    "data.document.title.weight=1"],
    "titles teach": ["teacher.run=<titles only>", "teacher.document={title: 1}"],
    "ema": ["train.ema=0.99"],
    "learned field weights": ["train.field_weights=learned", "loss.terms=[{query: fused, document: fused}]"],
}  # fmt: skip
AGAINST = "gcl"
SMALL = ["data=demo", "model=tiny", "train.max_steps=12", "train.validate_every=6 steps", "train.batch_size=64",
         "evaluate.metrics=[ndcg@10]", "evaluate.headline=[ndcg@10]", "evaluate.tasks=[zero_shot]"]  # fmt: skip

Values = dict[str, list[float]]  # {document: the watched metric of each query}


@dataclass(frozen=True)
class Bench:
    """common: the settings of every run; plain: those of every run but the recipe's; out: the folder of the runs."""

    common: list[str]
    plain: list[str]
    out: Path

    def run(self, row: str, seed: int) -> RunFolder:
        """The run of a row and a seed, trained unless it was."""
        run = RunFolder(self.out / f"{row.replace(' ', '_')}-{seed}")
        if not run.metrics.is_file():
            words = [
                *self.common,
                *([] if row == RECIPE else self.plain),
                *ROWS[row],
                f"seed={seed}",
                f"run_dir={run.path}",
                "train.resume=auto",
            ]
            words = [re.sub("<(.+)>", lambda other: str(self.run(other[1], seed).path), word) for word in words]
            print(f"--- gcl train {' '.join(words)}", flush=True)
            gcl(["train", *words])
        return run

    def values(self, row: str, seed: int) -> Values:
        return self._measured(self.run(row, seed), "tuned")

    def base(self, seed: int) -> Values:
        return self._measured(RunFolder(self.out / f"{AGAINST}-{seed}"), "base")

    def _measured(self, run: RunFolder, which: str) -> Values:
        """Kept next to the run."""
        kept = run.path / f"quality.{which}.json"
        if not kept.is_file():
            encoder = base_encoder(run) if which == "base" else tuned_encoder(run)
            write_json(kept, measured(run, encoder))
        return json.loads(kept.read_text(encoding="utf-8"))


def measured(run: RunFolder, encoder: DualEncoder) -> Values:
    """By each field alone, the weights the run was given and those it chose, on the test half of the watched tasks."""
    config = load_config(run.config, trust=None)
    prepared, metric = open_catalog(config.data, config.cache_dir), config.evaluate.monitor
    features = frozen_features(encoder, prepared, config)
    measurement = measurement_of(config.evaluate, config.data, prepared, features=features)
    fields = config.data.schema.document
    documents = {
        **{f"{only} alone": {name: float(name == only) for name in fields} for only in fields},
        "given weights": {name: field.weight for name, field in fields.items()},
        "chosen weights": {name: field.weight for name, field in run.read_config().data.schema.document.items()},
    }
    values: Values = {}
    for one in measurement.embedded(encoder, "test"):
        if one.task.name.removesuffix(".test") not in (config.evaluate.monitor_tasks or [one.task.name[:-5]]):
            continue
        for document, weights in documents.items():
            found = one.measured(None, weights, [metric], 10).values[metric]
            values.setdefault(document, []).extend(map(float, found))
    return values


def table(results: dict[str, list[Values]]) -> Table:
    """results: {row: the values of each seed}. One line per document and row, compared with `AGAINST`."""
    lines: list[list[Value]] = []
    changes, p_values = {}, {}
    for document in next(iter(results.values()))[0]:
        for row, seeds in results.items():
            if row != AGAINST:
                before, after = (mean_over_seeds(which, document) for which in (results[AGAINST], seeds))
                changes[document, row] = compare(before, after)
                p_values[document, row] = changes[document, row].p
    corrected = holm(p_values)
    for document in next(iter(results.values()))[0]:
        for row, seeds in results.items():
            means = [float(np.mean(values[document])) for values in seeds]
            change = changes.get((document, row))
            lines.append(
                [document, row, len(means), float(np.mean(means)), min(means), max(means)]
                + ([None] * 5 if change is None else
                   [change.change, change.low, change.high, corrected[document, row], f"{change.wins}/{change.losses}"])
            )  # fmt: skip
    header = [
        "document",
        "model",
        "seeds",
        "nDCG@10",
        "lowest",
        "highest",
        f"- {AGAINST}",
        "from",
        "to",
        "p",
        "up/down",
    ]
    return Table(header, lines, align="ll", formats=dict.fromkeys((f"- {AGAINST}", "from", "to"), "+.4f"))


def mean_over_seeds(seeds: list[Values], document: str) -> np.ndarray:
    return np.mean([values[document] for values in seeds], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="data.root of experiment=fashion_lite")
    parser.add_argument("--out", required=True, type=Path, help="the folder of the runs")
    parser.add_argument("--cache", help="cache_dir of the runs; by default OUT/prepared")
    parser.add_argument("--rows", default=",".join(ROWS), help="some of: %(default)s")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="short runs on the demo")
    given = parser.parse_args()
    if not given.small and not given.data:
        parser.error("--data path/to/fashion, or --small")
    rows = given.rows.split(",") if not given.small else ["constant", AGAINST]
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        parser.error(f"--rows {','.join(unknown)}: the rows are {', '.join(ROWS)}")
    common = SMALL if given.small else ["experiment=fashion_lite", f"data.root={given.data}"]
    plain = [] if given.small else PLAIN
    common = [*common, f"cache_dir={given.cache or given.out / 'prepared'}", "train.workers=0"]
    bench = Bench(common, plain, given.out)
    results: dict[str, list[Values]] = {}
    for seed in range(1 if given.small else given.seeds):  # seed by seed: what is stopped early has every row
        for row in dict.fromkeys([AGAINST, *rows]):
            results.setdefault(row, []).append(bench.values(row, seed))
            say(row, results[row][-1])
    base = [bench.base(seed) for seed in range(len(results[AGAINST]))]
    results = {"base": base, **results}
    text = table(results)
    (given.out / "quality.md").write_text(text.markdown(), encoding="utf-8")
    print(text.text())
    if given.small and any(np.mean(results[AGAINST][0][name]) <= np.mean(base[0][name]) for name in base[0]):
        sys.exit("The trained model is not better than the base.")


def say(row: str, values: Values) -> None:
    print(row, {document: round(float(np.mean(v)), 4) for document, v in values.items()}, flush=True)


if __name__ == "__main__":
    main()
