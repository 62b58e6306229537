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
from gcl.schema import Modality
from gcl.table import Table, Value

# A row of the table is a named set of settings on top of the experiment's.
ROWS: dict[str, list[str]] = {
    "constant": ["loss=constant"],
    "gcl": [],
    "graded targets": ["loss.target=graded"],
    "ema": ["train.ema=0.99"],
    "stages": ["model.head=stages"],
    "learned field weights": ["train.field_weights=learned"],
}
AGAINST = "gcl"
SMALL = ["data=demo", "model=tiny", "train.max_steps=12", "train.validate_every=6 steps", "train.batch_size=64",
         "evaluate.metrics=[ndcg@10]", "evaluate.headline=[ndcg@10]", "evaluate.tasks=[zero_shot]"]  # fmt: skip

Values = dict[str, list[float]]  # {document: the watched metric of each query}


@dataclass(frozen=True)
class Bench:
    """common: the settings of every run; out: the folder of the runs."""

    common: list[str]
    out: Path

    def values(self, row: str, seed: int) -> Values:
        """The run of a row and a seed, trained and measured unless it was."""
        run = RunFolder(self.out / f"{row.replace(' ', '_')}-{seed}")
        if not run.metrics.is_file():
            words = [*self.common, *ROWS[row], f"seed={seed}", f"run_dir={run.path}", "train.resume=auto"]
            print(f"--- gcl train {' '.join(words)}", flush=True)
            gcl(["train", *words])
        return self._measured(run, "tuned")

    def merged(self, seeds: int) -> Values:
        """The soup of the first runs of `AGAINST`."""
        run = RunFolder(self.out / f"merge-of-{seeds}")
        if not run.metrics.is_file():
            runs = [str(self.out / f"{AGAINST}-{seed}") for seed in range(seeds)]
            gcl(["merge", f"runs=[{','.join(runs)}]", f"out={run.path}"])
        return self._measured(run, "tuned")

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
    """By the image alone, the weights the run was given and those it chose, on the test half of the watched tasks."""
    config = load_config(run.config, trust=None)
    prepared, metric = open_catalog(config.data, config.cache_dir), config.evaluate.monitor
    features = frozen_features(encoder, prepared, config)
    measurement = measurement_of(config.evaluate, config.data, prepared, features=features)
    fields = config.data.schema.document
    image = next(name for name, field in fields.items() if field.modality is Modality.image)
    documents = {
        "image alone": {name: float(name == image) for name in fields},
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
    common = [*common, f"cache_dir={given.cache or given.out / 'prepared'}", "train.workers=0"]
    bench = Bench(common, given.out)
    results: dict[str, list[Values]] = {}
    for seed in range(1 if given.small else given.seeds):  # seed by seed: what is stopped early has every row
        for row in dict.fromkeys([AGAINST, *rows]):
            results.setdefault(row, []).append(bench.values(row, seed))
            say(results)
    base = [bench.base(seed) for seed in range(len(results[AGAINST]))]
    results = {"base": base, **results}
    if len(base) > 1:
        results[f"merge of {len(base)}"] = [bench.merged(len(base))]
    text = table(results)
    (given.out / "quality.md").write_text(text.markdown(), encoding="utf-8")
    print(text.text())
    if given.small and any(np.mean(results[AGAINST][0][name]) <= np.mean(base[0][name]) for name in base[0]):
        sys.exit("The trained model is not better than the base.")


def say(results: dict[str, list[Values]]) -> None:
    row = next(reversed(results))
    print({row: {document: round(float(np.mean(v)), 4) for document, v in results[row][-1].items()}}, flush=True)


if __name__ == "__main__":
    main()
