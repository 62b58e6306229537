"""One contender of tests/bench/train.py in a process of its own: answers requests, one JSON line each.

    python train_side.py ours|peer MODEL      {"shards": …, "batch": …, "steps": …} -> {"seconds": …}

"seconds" is the process CPU time of one whole run of so many steps, building model and loader included. With
"record" the peer also writes the batches it saw, in order, and its losses; with "replay" ours trains on those.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OPTIMISER = {"lr": 5e-4, "wd": 0.02, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6}


def peer(model: str, folder: Path, shards: str, batch: int, steps: int, record: str | None = None) -> dict[str, Any]:
    """open_clip_train's own main, as its command line calls it."""
    import open_clip_train.main as program

    words = ["--model", f"local-dir:{model}", "--train-data", shards, "--dataset-type", "webdataset"]
    words += ["--train-num-samples", str(steps * batch), "--batch-size", str(batch), "--epochs", "1", "--workers", "0"]
    words += ["--device", "cpu", "--precision", "fp32", "--lr-scheduler", "const", "--warmup", "0", "--logs", "none"]
    words += ["--name", folder.name, *(word for key, value in OPTIMISER.items() for word in (f"--{key}", str(value)))]
    if record is None:
        begun = time.process_time()
        program.main(words)
        return {"seconds": time.process_time() - begun}
    # The whole picture instead of a random part, so that both sides see the same pixels.
    return record_run(program, [*words, "--aug-cfg", "scale=(1.0,1.0)"], Path(record))


def record_run(program, words: list[str], path: Path) -> dict[str, Any]:
    """A run with a tap on its loader and on its loss; nothing it computes is changed."""
    import torch

    batches, losses = [], []
    get_data, create_loss = program.get_data, program.create_loss

    class Tap:
        def __init__(self, loader):
            self.loader, self.num_batches, self.num_samples = loader, loader.num_batches, loader.num_samples

        def __iter__(self):
            for images, texts in self.loader:
                batches.append((images.clone(), texts.clone()))
                yield images, texts

    def tapped_data(*arguments, **options):
        data = get_data(*arguments, **options)
        data["train"].dataloader = Tap(data["train"].dataloader)
        return data

    def tapped_loss(arguments):
        loss = create_loss(arguments)
        loss.register_forward_hook(lambda _, __, output: losses.append(float(output["contrastive_loss"])))
        return loss

    program.get_data, program.create_loss = tapped_data, tapped_loss
    try:
        program.main(words)
    finally:
        program.get_data, program.create_loss = get_data, create_loss
    torch.save(batches, path)
    return {"losses": losses}


def fitting_of(model: str, folder: Path, shards: str, batch: int, steps: int, *more: str):
    from gcl.config.compose import Overrides
    from gcl.data.prepare.prepare import prepare
    from gcl.data.store.prepared import open_prepared
    from gcl.run.folder import RunFolder
    from gcl.run.training import Fitting

    catalog = folder / "conf" / "data" / "bench.yaml"
    catalog.parent.mkdir(parents=True)
    catalog.write_text(
        f"name: bench\nroot: {Path(shards).parent}\nshards: '{Path(shards).name}'\n"
        "query: {text: {modality: text, column: txt}}\ndocument: {image: {modality: image}}\n"
        "split: {queries: 1.0, documents: 1.0}\n"
    )
    words = [
        "data=bench", "model=tiny", f"model.name=local-dir:{model}", "model.resize=null", "loss=constant",
        "trainer=cpu", f"run_dir={folder / 'run'}", f"cache_dir={folder.parent / 'prepared'}",
        f"train.batch_size={batch}", f"train.max_steps={steps}", "train.workers=0", "plan.drop_last=true",
        f"optim.learning_rate={OPTIMISER['lr']}", f"optim.weight_decay={OPTIMISER['wd']}", "optim.clip_norm=null",
        "optim.warmup=0", "optim.schedule._target_=gcl.optim.schedule.warmup_constant", *more,
    ]  # fmt: skip
    config = Overrides(words, config_dir=str(folder / "conf")).config()
    prepared = open_prepared(prepare(config.data, config.cache_dir, progress=False), config.data.schema)
    return Fitting(config, RunFolder(folder / "run"), prepared)


def ours(model: str, folder: Path, shards: str, batch: int, steps: int, replay: str | None = None) -> dict[str, Any]:
    """What `gcl train` does between its two measurements, random parts of the pictures included."""
    if replay is not None:
        return replay_run(fitting_of(model, folder, shards, batch, steps), replay)
    begun = time.process_time()
    fitting = fitting_of(model, folder, shards, batch, steps, "train.augment=true")
    fitting.trainer.limit_val_batches = 0
    fitting.fit(None)
    return {"seconds": time.process_time() - begun}


def replay_run(fitting, path: str) -> dict[str, Any]:
    """The peer's batches, found again by their texts, through our own reading, encoder, loss and optimiser."""
    import lightning.pytorch as pl
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from gcl.data.batches.batch import PairBatch, share

    recorded = torch.load(path)
    pairs, query, document = fitting.prepared.pairs, fitting.data.query, fitting.data.document
    name = next(iter(query.side))
    tokens = query(pairs.query).fields[name]
    place = {tuple(row): number for number, row in enumerate(tokens.tolist())}
    batches, pixels = [], 0.0
    for step, (images, texts) in enumerate(recorded):
        rows = np.array([place[tuple(row)] for row in texts.tolist()])
        (own_query, query_row), (own, row) = share(pairs.query[rows], 0, 1), share(pairs.document[rows], 0, 1)
        ids = (torch.from_numpy(pairs.query[rows]), torch.from_numpy(pairs.document[rows]))
        score = torch.from_numpy(np.asarray(pairs.score[rows], dtype=np.float32))
        batch = PairBatch(query(own_query), document(own), query_row, row, score, *ids, step)
        seen = fitting.encoder._pixels(next(iter(batch.document.fields.values())))[row]
        pixels = max(pixels, float((seen - images).abs().max()) * 255 * fitting.encoder.preprocess.std[0])
        batches.append(batch)
    losses = []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            losses.append(float(module.last_loss))

    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_progress_bar=False, callbacks=[Losses()],
        enable_checkpointing=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(fitting.module, DataLoader(batches, batch_size=None))
    return {"losses": losses, "pixels": pixels}


def main() -> None:
    side, model = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print goes elsewhere
    import torch

    torch.set_num_threads(1)
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for line in sys.stdin:
            number += 1
            own = Path(folder) / f"run-{number}"
            own.mkdir()
            request = json.loads(line)
            answer = {"ours": ours, "peer": peer}[side](model, own, **request)
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
