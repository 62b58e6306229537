"""Runs that mine: killed and resumed, read ahead by workers, and on two ranks they have the same batches."""

import signal

import pytest

from gcl.data.batches.negatives import read_mined
from helpers.training_jobs import batches, losses, read_steps

WORDS = ["plan.hard_negatives.source=model", "plan.hard_negatives.every=2", "plan.hard_negatives.ranks=[1,20]",
         "plan.hard_negatives.margin=null", "plan.hard_negatives.per_query=2",
         "train.validate_every=3 steps"]  # fmt: skip


@pytest.fixture(scope="module")
def mined(start):
    return start(*WORDS).done()


def digests(run):
    return {path.name: read_mined(path).digest for path in sorted((run.path / "mined").iterdir())}


def test_a_killed_run_goes_on_with_the_same_batches(start, mined, whole, tmp_path):
    assert list(digests(mined)) == ["00000000.parquet", "00000002.parquet", "00000004.parquet"]
    assert len(set(digests(mined).values())) > 1, "the model has changed, and so has what it finds"
    assert batches(mined) != batches(whole) and (mined.path / "mined.html").is_file()
    kill = "++callbacks={killer: {_target_: helpers.kill_callback.Killer, moment: validating, step: 3}}"
    words = [*WORDS, "train.workers=1", "train.checkpoint_every=1"]
    job = start(*words, kill, run_dir=tmp_path / "run")
    assert job.wait() == [-signal.SIGKILL] and len(read_steps(job.run)) == 3
    resumed = start(*words, "train.resume=auto", run_dir=tmp_path / "run").done()
    assert (batches(resumed), losses(resumed), digests(resumed)) == (batches(mined), losses(mined), digests(mined))


@pytest.mark.slow
def test_two_ranks_have_the_batches_of_one(start, mined):
    two = start(*WORDS, world=2).done()
    first = "00000000.parquet"
    assert digests(two)[first] == digests(mined)[first] and batches(two)[:2] == batches(mined)[:2]
    assert losses(two)[:2] == pytest.approx(losses(mined)[:2], abs=1e-5)
    if digests(two) == digests(mined):  # the weights of later rounds differ in their last bits, and so may ties
        assert batches(two) == batches(mined)
