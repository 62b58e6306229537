"""A process that is missing, fails or is killed never leaves the others waiting: they end with its name or sentence."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gcl.lit.checkpoint import checkpoint_step
from helpers.signal_callback import signals
from helpers.training_jobs import children_of

ROOT = Path(__file__).parents[2]
TIMEOUT = 600  # seconds of trainer.timeout, after which a collective would end the others anyway, with other words


def ended(job, *ranks):
    """The last lines of ranks that end long before a collective would, with a sentence and without a traceback."""
    begun = time.monotonic()
    status = job.wait()
    took = time.monotonic() - begun
    assert took < TIMEOUT / 2, f"{took:.0f} s"
    for rank in ranks:
        assert status[rank] not in (0, None) and status[rank] > 0, job.log(rank)
        assert "Traceback" not in job.log(rank), job.log(rank)
    return [job.log(rank).strip().splitlines()[-1] for rank in ranks]


def test_a_rank_that_never_begins(start):
    job = start("trainer.start_timeout=20", world=3, absent=1)
    for rank, line in zip((0, 2), ended(job, 0, 2), strict=True):
        assert f"gcl: Rank {rank}: rank 1 of 3 did not begin within 20 s (trainer.start_timeout)" in line


def test_rank_zero_never_begins(start):
    job = start("trainer.start_timeout=3", world=2, absent=0)
    (line,) = ended(job, 1)
    assert "gcl: Rank 1: rank 0 does not answer at 127.0.0.1:" in line


def test_a_rank_that_fails_before_training_takes_the_others_along(start, tmp_path):
    """Rank 1 finds no table; rank 0 would prepare, load a model and wait for it."""
    job = start(world=2, rank_words={1: [f"data.root={tmp_path}"]})
    other, own = ended(job, 0, 1)
    assert own.startswith("gcl: data.p")
    assert other == f"gcl: Rank 1 failed: {own.removeprefix('gcl: ')}"


@pytest.mark.parametrize("lost, world", [(0, 2), (1, 2), pytest.param(2, 3, marks=pytest.mark.slow)])
def test_a_rank_that_is_killed_in_training(start, lost, world):
    job = start("train.max_steps=100000", world=world)
    job.until_step(3)
    job.kill(ranks=[lost])
    line, *others = ended(job, *(rank for rank in range(world) if rank != lost))
    assert all(other == line for other in others)
    assert line.startswith(f"gcl: Rank {lost}")
    assert "was lost: it no longer answers" in line
    assert lost == 0 or f"process {job.pids[lost]} on " in line


def test_a_loader_worker_that_is_killed(start):
    job = start("train.max_steps=100000", "train.workers=1")
    job.until_step(3)
    (worker,) = children_of(job.pids[0])
    os.kill(worker, signal.SIGKILL)
    (line,) = ended(job, 0)
    assert line.replace(f" (pid {worker})", "").startswith("gcl: A process that reads data was killed")


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


STEP, READ, KILLED = (
    ("step", "RuntimeError: no such number"),
    ("worker", "no such picture"),
    ("killed", "A process that reads data was"),
)


@pytest.mark.parametrize("how, sentence, failing, world", [
    (*STEP, 1, 2), slow(*READ, 0, 2), (*KILLED, 1, 2),
    slow(*STEP, 0, 3), slow(*READ, 2, 3), slow(*KILLED, 1, 3), slow(*KILLED, 0, 3),
])  # fmt: skip
def test_the_others_end_soon_after_a_failure(start, tmp_path, how, sentence, failing, world):
    """With the sentence of the rank that failed, wherever they wait; on an idle machine within ten seconds."""
    fail = f"{{_target_: helpers.fail_callback.Fail, how: {how}, rank: {failing}, step: 3, path: {tmp_path / 'at'}}}"
    job = start("train.max_steps=100000", "train.workers=1", f"++callbacks.fail={fail}", world=world)
    status = job.wait()
    took = [ended - float((tmp_path / "at").read_text()) for ended in job.ended]
    assert all(code > 0 for code in status) and max(took) < TIMEOUT / 2, (status, took)
    for rank in range(world):
        line = re.sub(r" \(pid [\d, ]+\)", "", job.log(rank).strip().splitlines()[-1])
        if rank == failing:
            assert line.removeprefix("gcl: ").startswith(sentence), job.log(rank)
        else:
            assert line.startswith(f"gcl: Rank {failing} failed: {sentence}"), job.log(rank)
            assert "Traceback" not in job.log(rank), job.log(rank)


def test_a_rank_that_is_interrupted_before_training(start):
    job = start("train.max_steps=100000", signals("measuring", 0, signal.SIGTERM, rank=1), world=2)
    other, own = ended(job, 0, 1)
    assert other == "gcl: Rank 1 was interrupted." and own.startswith("gcl: Interrupted.")


@pytest.mark.slow
def test_processes_that_nobody_launched(shop, tmp_path):
    """trainer.devices=2 without torchrun: this process starts the other one before it prepares anything."""
    command = [
        sys.executable, str(ROOT / "train.py"), "--config-dir", str(shop / "conf"), "data=shop", "model=tiny",
        "trainer=ddp_cpu", "trainer.devices=2", "train.batch_size=16", "train.max_steps=6", "train.workers=0",
        f"run_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert checkpoint_step(tmp_path / "run" / "checkpoints" / "last.ckpt") == 6
