"""The micro-batch that is chosen fits its budget and changes no loss; compiled towers train the same."""

import re

import pytest
import torch
from torch import nn

from gcl.lit.auto_micro_batch import saved_bytes
from gcl.lit.checkpoint import read_checkpoint
from helpers.training_jobs import losses


def test_saved_bytes_are_what_autograd_keeps():
    layers = nn.Sequential(nn.Linear(100, 200), nn.GELU(), nn.Linear(200, 50), nn.Tanh())
    few, many = (
        saved_bytes(lambda n=n: layers(torch.randn(n, 100)).sum().backward(), layers.parameters()) for n in (10, 20)
    )
    assert many == pytest.approx(2 * few, rel=0.01)
    assert few >= 10 * 4 * (200 + 200 + 50)  # both activations' inputs and tanh's output


def test_auto_is_the_whole_batch_where_it_fits_and_smaller_where_not(start, whole):
    plenty = start("train.micro_batch=auto", "train.validate_every=3 steps")
    assert losses(plenty.done()) == losses(whole)
    assert "Micro-batches of all" in plenty.log()
    scarce = start(
        "train.micro_batch=auto", "callbacks.fit={_target_: gcl.lit.auto_micro_batch.FitMicroBatch, budget: 4000000}",
        "train.validate_every=3 steps",
    )  # fmt: skip
    assert losses(scarce.done()) == pytest.approx(losses(whole), abs=2e-5)
    assert 1 <= int(re.findall(r"Micro-batches of (\d+) rows", scarce.log())[-1]) < 16


@pytest.mark.slow
def test_compiled_towers_train_the_same(start, whole):
    """Captured forward and backward, run by PyTorch's own kernels: inductor's C++ would take minutes to build here."""
    run = start("train.compile=aot_eager", "train.validate_every=3 steps").done()
    assert losses(run) == pytest.approx(losses(whole), abs=1e-3)
    assert all("_orig_mod" not in name for name in read_checkpoint(run.last)["state_dict"])
