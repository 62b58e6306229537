"""Ranks that would do different things are stopped before they exchange anything; a changed config is not resumed."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from gcl.cli import main
from gcl.config.compose import Overrides, load_config
from gcl.run.resume import check_unchanged
from helpers.signal_callback import signals
from helpers.training_jobs import batches, losses, read_steps


def test_a_rank_with_another_config_is_named(start):
    job = start(world=2, rank_words={1: ["train.batch_size=12", "optim.weight_decay=0.5"]})
    assert job.wait() == [2, 2]
    for rank in (0, 1):
        assert "The ranks do not agree" in job.log(rank)
        assert "train.batch_size is 12 on rank 1 and 16 on rank 0" in job.log(rank)
        assert "optim.weight_decay is 0.5 on rank 1" in job.log(rank)


def test_a_changed_config_is_listed_and_needs_leave(whole, shop, tmp_path, capsys):
    run_dir = tmp_path / "run"
    shutil.copytree(whole.path, run_dir)
    begun = load_config(run_dir / "config.yaml")
    words = ["--config-dir", str(shop / "conf"), "data=shop", f"run_dir={run_dir}", f"cache_dir={begun.cache_dir}",
             "train.resume=auto", "train.batch_size=8"]  # fmt: skip
    with pytest.raises(SystemExit):
        main(["train", *words])
    said = capsys.readouterr().err
    assert "train.batch_size was 16, is now 8" in said and "train.allow_change=[" in said


def test_with_leave_a_run_goes_on_with_other_batches(start, whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "run")
    words = ["train.resume=auto", "train.max_steps=9", "train.batch_size=8", "train.validate_every=3 steps"]
    leave = "train.allow_change=[train.batch_size,train.max_steps]"
    job = start(*words, leave, run_dir=tmp_path / "run")
    run = job.done()
    assert "From step 6 on, batches follow the changed settings." in job.log()
    fresh = start(*words[1:]).done()  # the same settings from the beginning
    assert read_steps(run)[:6] == read_steps(whole)
    assert batches(run)[6:] == batches(fresh)[6:] and len(batches(run)) == 9


def test_what_may_change_freely_and_by_leave():
    begun = Overrides(["seed=1"]).config()
    free = [
        "seed=1",
        "train.workers=7",
        "trainer=ddp_cpu",
        "logger=none",
        "train.resume=auto",
        "run_dir=x",
        "train.micro_batch=4",
    ]
    check_unchanged(begun, Overrides(free).config())
    changed = ["seed=2", "optim.learning_rate=0.5"]
    with pytest.raises(
        ValueError, match=f"optim.learning_rate was {begun.optim.learning_rate}, is now 0.5\n  seed was 1, is now 2"
    ):
        check_unchanged(begun, Overrides(changed).config())
    check_unchanged(begun, Overrides([*changed, "train.allow_change=[seed,optim]"]).config())


def test_a_loader_that_hangs_says_where(start):
    """The loader's worker process is stopped for a while."""
    job = start("train.workers=1", "train.max_steps=100000", "train.loader_patience=0.5")
    job.until_step(0)
    children = Path(f"/proc/{job.pids[0]}/task/{job.pids[0]}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGSTOP)
    try:
        job.until(lambda: "given no batch" in job.log())
    finally:
        for child in children:
            os.kill(int(child), signal.SIGCONT)
    said = next(line for line in job.log().splitlines() if "given no batch" in line)
    assert "Rank 0" in said and "documents-00000.tar, row" in said and "id 'p0" in said
    job.kill(signal.SIGTERM)
    assert job.wait() == [143]


@pytest.mark.slow
def test_ranks_and_workers_may_change_at_every_resume(start, tmp_path):
    """1 -> 2 -> 3 -> 2 ranks, 0 -> 2 -> 1 workers: the same global batches, the same losses."""
    words = ["train.max_steps=24", "train.validate_every=9 steps", "optim.learning_rate=1e-4"]
    whole = start(*words).done()
    for world, workers, until in ((1, 0, 3), (2, 2, 8), (3, 1, 13), (2, 0, None)):
        stop = [] if until is None else [signals("training", until, signal.SIGTERM, rank=world - 1)]
        words_now = [*words, *stop, f"train.workers={workers}", "train.resume=auto"]
        job = start(*words_now, world=world, run_dir=tmp_path / "run")
        if until is None:
            run = job.done()
        else:
            assert job.wait() == [143] * world
    assert batches(run) == batches(whole)
    assert losses(run) == pytest.approx(losses(whole), abs=1e-4)
