"""Validation through the LightningModule's torchmetrics is evaluate, to the bit, on one rank and on two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.retrieval as theirs

from gcl.retrieval.embedding.embed import EmbedOptions
from gcl.retrieval.evaluate import evaluate
from helpers.tiny_encoder import tiny_encoder
from helpers.validation_rank import tasks, validate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def one():
    return validate(1)


def test_the_module_validates_with_what_evaluate_measures(one):
    assert one["module"] == one["fed"] == one["evaluate"]
    assert one["seen"] == {"many": 21, "single": 1}
    for task, means in one["evaluate"].items():
        for name, mean in means.items():
            assert one["logged"][f"dev/{task}/{name}"] == np.float32(float.fromhex(mean))
    both = [float.fromhex(means["ndcg@10"]) for means in one["evaluate"].values()]
    assert one["logged"]["dev/ndcg@10"] == np.float32(sum(both) / 2)


def test_two_ranks_share_the_queries_and_agree_to_the_bit(one, tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m",
        "helpers.validation_rank", str(tmp_path / "two.json"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]),
                   "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((tmp_path / "two.json").read_text())
    assert two["module"] == two["fed"] == two["evaluate"] == one["evaluate"]
    assert two["logged"] == one["logged"]


@pytest.mark.parametrize(
    "ours, metric",
    [
        ("mrr@10", theirs.RetrievalMRR(top_k=10)),
        ("recall@20", theirs.RetrievalRecall(top_k=20)),
        ("precision@10", theirs.RetrievalPrecision(top_k=10)),
        ("hit@5", theirs.RetrievalHitRate(top_k=5)),
        ("map", theirs.RetrievalMAP()),
        ("rprec", theirs.RetrievalRPrecision()),
        ("ndcg@10", theirs.RetrievalNormalizedDCG(top_k=10)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_torchmetrics_says_the_same_where_every_document_was_retrieved(ours, metric):
    """With whole result lists, no judged document outside them and distinct scores, its definitions are ours."""
    task = tasks()[0]
    result = evaluate(tiny_encoder(), [task], [ours], k=60, embedding=EmbedOptions(batch_size=16))["many"]
    gains = torch.from_numpy(task.judgments.gains(result.row, 60))
    target = gains if ours.startswith("ndcg") else gains > 0
    place = torch.arange(60, 0, -1, dtype=torch.float64).expand(gains.shape)  # ties are ours to break
    index = torch.arange(len(gains))[:, None].expand(gains.shape)
    assert float(metric(place, target, indexes=index)) == pytest.approx(result.means[ours], abs=1e-6)
