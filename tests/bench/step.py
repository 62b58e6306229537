"""What watching a run costs: the demo's step with all that is logged, checked and agreed, against a bare Trainer.

    python tests/bench/step.py [--steps 12] [--repeat 2] [--batch-size 64] [--cache-dir prepared]

Prints the ratio of the median step (CPU seconds of this process; both in one run, in turns). Goal: at most 1.1.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import lightning.pytorch as pl

from gcl.config.compose import Overrides
from gcl.data.prepare.prepare import prepare
from gcl.data.store.prepared import open_prepared
from gcl.run.folder import RunFolder
from gcl.run.training import Fitting


class StepTimes(pl.Callback):
    """CPU seconds from one step's end to the next one's."""

    def __init__(self):
        self.moments = []

    def on_train_batch_end(self, *_):
        self.moments.append(time.process_time())

    @property
    def seconds(self):
        later = self.moments[2:]  # the first two allocate the optimiser's state and the caches
        return [b - a for a, b in itertools.pairwise(later)]


def fit(prepared, options, folder, *, watched):
    config = Overrides([*options, f"run_dir={folder}"]).config()
    fitting = Fitting(config, RunFolder(Path(folder)), prepared)
    times = StepTimes()
    trainer = fitting.trainer
    if watched:
        trainer.callbacks.append(times)
    else:
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_progress_bar=False, callbacks=[times],
            enable_checkpointing=False, enable_model_summary=False, gradient_clip_val=config.optim.clip_norm,
            limit_val_batches=0, use_distributed_sampler=False, log_every_n_steps=10**9,
        )  # fmt: skip
    trainer.limit_val_batches = 0
    trainer.fit(fitting.module, fitting.data)
    return times.seconds


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--steps", type=int, default=12)
    words.add_argument("--repeat", type=int, default=2)
    words.add_argument("--batch-size", type=int, default=64)
    words.add_argument("--cache-dir", default="prepared")
    given = words.parse_args()
    options = [
        "data=demo", "model=tiny", "trainer=cpu", f"cache_dir={given.cache_dir}",
        f"train.batch_size={given.batch_size}", f"train.max_steps={given.steps}", "train.workers=0",
        "trainer.log_every_n_steps=1",
    ]  # fmt: skip
    config = Overrides(options).config()
    prepared = open_prepared(prepare(config.data, given.cache_dir), config.data.schema)
    seconds = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(given.repeat):
            for watched in (False, True):
                seconds[watched] += fit(prepared, options, f"{folder}/{turn}-{watched}", watched=watched)
    bare, watched = (statistics.median(seconds[key]) for key in (False, True))
    print(f"bare {bare * 1e3:.1f} ms a step, watched {watched * 1e3:.1f} ms: {watched / bare:.3f}x (at most 1.1)")


if __name__ == "__main__":
    main()
