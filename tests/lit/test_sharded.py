"""Fully sharded training on two CPU processes: what one process trains, in a checkpoint that one process opens."""

import json

import pytest

from gcl.lit.checkpoint import read_checkpoint
from helpers.training_jobs import batches, losses

WORDS = ["trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", "train.validate_every=3 steps"]


@pytest.mark.slow
def test_micro_batches_under_fsdp(whole, start):
    run = start(*WORDS, "train.micro_batch=3", world=2).done()
    assert batches(run) == batches(whole)
    assert losses(run) == pytest.approx(losses(whole), abs=1e-4)
    refused = start(*WORDS, "train.micro_batch=auto", world=2)
    assert all(refused.wait())
    assert "train.micro_batch=auto cannot probe the memory with trainer=fsdp" in refused.log(0)


@pytest.mark.slow
def test_fsdp_on_two_ranks_is_one_process(whole, start, tmp_path):
    words = WORDS
    run = start(*words, world=2).done()
    assert batches(run) == batches(whole)
    assert losses(run) == pytest.approx(losses(whole), abs=1e-4)
    ours, theirs = (read_checkpoint(r.last) for r in (run, whole))
    assert {k: v.shape for k, v in ours["state_dict"].items()} == {k: v.shape for k, v in theirs["state_dict"].items()}
    from gcl.cli import main

    main(["evaluate", f"run={run.path}", f"out={tmp_path}"])
    measured = json.loads((tmp_path / "metrics.json").read_text())["tuned"]
    for task, values in json.loads(run.metrics.read_text())["tuned"].items():
        assert measured[task]["ndcg@10"] == pytest.approx(values["ndcg@10"], abs=1e-6)
