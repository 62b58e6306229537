"""One rank that validates a small model through the LightningModule: `python -m helpers.validation_rank OUT`.

Started by torchrun on several ranks, or called in one process. Rank 0 writes the means that the module's metrics
computed and what evaluate says of the same model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

from gcl.distributed.ranks import own_rows
from gcl.lit.data import PairData
from gcl.lit.module import GCLModule, Measuring, Optimization
from gcl.loss.gcl import GCLLoss
from gcl.optim.schedule import warmup_constant
from gcl.retrieval.embedding.embed import EmbedOptions
from gcl.retrieval.evaluate import evaluate
from gcl.retrieval.metrics.torchmetric import RetrievalMetrics
from gcl.retrieval.tasks.task import RetrievalTask, task_from_qrels
from helpers.tiny_encoder import documents, queries, tiny_encoder

METRICS = ["ndcg@10", "mrr@10", "recall@20", "err_grades@10", "judged@10", "map"]


def tasks() -> list[RetrievalTask]:
    """An odd number of queries, and a task with fewer queries than ranks."""
    corpus = documents(60)
    qrels = {name: {corpus.ids[(7 * n + j) % 60]: j + 1.0 for j in range(3)} for n, name in enumerate(queries(21).ids)}
    return [
        task_from_qrels("many", queries(21), corpus, qrels),
        task_from_qrels("single", queries(1), corpus, {"q0": qrels["q0"]}),
    ]


class Dev(pl.LightningDataModule):
    val_dataloader = PairData.val_dataloader


def validate(ranks: int) -> dict:
    torch.manual_seed(0)
    encoder, measured = tiny_encoder(), tasks()

    def measure(encoder):
        results = evaluate(encoder, measured, METRICS, k=60, embedding=EmbedOptions(batch_size=16))
        return {name: result.values for name, result in results.items()}

    module = GCLModule(
        encoder,
        GCLLoss(),
        Optimization(torch.optim.SGD, warmup_constant, learning_rate=0.1, weight_decay=0, warmup=0, total_steps=1),
        measuring=Measuring(validate=measure),
    )
    trainer = pl.Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.validate(module, datamodule=Dev(), verbose=False)
    assert trainer.world_size == ranks
    means = {
        task: {name: float(mean).hex() for name, mean in metric.compute().items()}
        for task, metric in module.dev_metrics.items()
    }
    seen = {task: sum(map(len, metric.values)) for task, metric in module.dev_metrics.items()}
    results = evaluate(encoder, measured, METRICS, k=60, embedding=EmbedOptions(batch_size=16))
    fed = {}
    for task in measured:  # the other way in: gains and judgments of this rank's queries
        own = own_rows(len(task.queries))
        row, judgments = results[task.name].row, task.judgments
        arrays = judgments.gains(row, 60), judgments.by_query(len(task.queries)), judgments.status(row, 60)
        metric = RetrievalMetrics(METRICS)
        metric.update(*(torch.from_numpy(array[own.start : own.stop]) for array in arrays))
        fed[task.name] = {name: float(mean).hex() for name, mean in metric.compute().items()}
    return {
        "module": means,
        "fed": fed,
        "seen": seen,
        "evaluate": {name: {m: v.hex() for m, v in result.means.items()} for name, result in results.items()},
        "logged": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "rank": trainer.global_rank,
    }


if __name__ == "__main__":
    content = validate(2)
    if content["rank"] == 0:
        Path(sys.argv[1]).write_text(json.dumps(content))
