"""Asked to stop through any one rank, all ranks save the same step and end; a kill at any moment costs only time."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gcl.lit.checkpoint import checkpoint_step
from gcl.run.folder import RunFolder
from helpers.signal_callback import signals
from helpers.training_jobs import batches, read_steps

ROOT = Path(__file__).parents[2]


def log_of(run):
    return (run.path / "steps.csv").read_bytes()


def curve(run):
    """metrics.csv without what a clock measured."""
    rows = (run.path / "metrics.csv").read_text().splitlines()
    kept = [i for i, name in enumerate(rows[0].split(",")) if not name.startswith("speed/")]
    return [[row.split(",")[i] for i in kept] for row in rows]


@pytest.fixture(scope="module")
def three(start):
    """Three ranks, 12 steps, not interrupted."""
    return start("train.max_steps=12", "train.validate_every=5 steps", world=3).done()


@pytest.mark.slow
@pytest.mark.parametrize("signum, rank", [(signal.SIGTERM, 2), (signal.SIGUSR1, 1)])
def test_a_signal_to_one_of_three_ranks(start, three, tmp_path, signum, rank):
    words = ["train.max_steps=12", "train.validate_every=5 steps"]
    job = start(*words, signals("training", 4, signum, rank), world=3, run_dir=tmp_path / "run")
    assert job.wait() == [143, 143, 143]
    assert f"{signum.name}: training stopped after step" in job.log(0)
    done = len(read_steps(job.run))
    assert checkpoint_step(job.run.last) == done and 4 <= done < 12
    resumed = start(*words, "train.resume=auto", world=3, run_dir=tmp_path / "run").done()
    assert batches(resumed) == batches(three)
    assert log_of(resumed) == log_of(three)
    assert curve(resumed) == curve(three)
    assert json.loads(resumed.metrics.read_text()) == json.loads(three.metrics.read_text())


def test_a_signal_to_the_other_of_two_ranks_and_a_requeue(start, tmp_path):
    """SIGUSR1 under SLURM: saved, queued again by rank 0 alone, status 0. scontrol is a script that notes its call."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IEXEC)
    env = {"SLURM_JOB_ID": "71", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "4",
           "PATH": f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}"}  # fmt: skip
    job = start("train.max_steps=100000", world=2, env=env)
    job.until_step(1)
    job.kill(signal.SIGUSR1, ranks=[1])
    assert job.wait() == [0, 0]
    assert (tmp_path / "called").read_text() == "requeue 70_4\n"
    assert checkpoint_step(job.run.last) == len(read_steps(job.run)) < 100000
    assert not job.run.metrics.exists()


def killed_and_resumed(start, words, run_dir, moments):
    """Runs to the end, with a kill -9 at each of the moments: a step's line is written, then some milliseconds more."""
    for step, delay in moments:
        job = start(*words, "train.resume=auto", run_dir=run_dir)
        try:
            job.until_step(step)
            time.sleep(delay)
        finally:
            job.kill()
        assert job.wait() in ([-signal.SIGKILL], [0])
    return start(*words, "train.resume=auto", run_dir=run_dir).done()


def test_killed_at_random_steps_is_uninterrupted(start, tmp_path):
    """kill -9 after a random step, which may be in a step, a validation or the writing of a checkpoint."""
    words = ["train.max_steps=10", "train.checkpoint_every=2", "train.validate_every=5 steps"]
    whole = start(*words).done()
    draw = random.Random(0)
    found = killed_and_resumed(start, words, tmp_path / "run", [(3, 0.0), (4, draw.random() * 0.5)])
    assert log_of(found) == log_of(whole)
    assert curve(found) == curve(whole)
    assert json.loads(found.metrics.read_text()) == json.loads(whole.metrics.read_text())


@pytest.mark.slow
def test_killed_often_is_uninterrupted(start, tmp_path):
    words = ["train.max_steps=16", "train.checkpoint_every=3", "train.validate_every=4 steps", "train.workers=1"]
    whole = start(*words).done()
    draw = random.Random(1)
    moments = [(step, draw.random() * 0.8) for step in (0, 3, 3, 5, 7, 11, 11, 14, 15)]
    found = killed_and_resumed(start, words, tmp_path / "run", moments)
    assert log_of(found) == log_of(whole)
    assert curve(found) == curve(whole)
    assert json.loads(found.metrics.read_text()) == json.loads(whole.metrics.read_text())


@pytest.mark.slow
def test_a_scheduler_signals_every_process(shop, tmp_path):
    """SIGTERM to the whole process group of a real command, loader workers included."""
    command = [
        sys.executable, str(ROOT / "train.py"), "--config-dir", str(shop / "conf"), "data=shop",
        "model=tiny", "trainer=cpu",
        f"run_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}", "train.batch_size=16",
        "train.max_steps=100000", "train.workers=2",
    ]  # fmt: skip
    run = RunFolder(tmp_path / "run")
    process = subprocess.Popen(
        command, start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 900
    while len(read_steps(run)) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(900) == 143
    assert checkpoint_step(run.last) == len(read_steps(run)) >= 3
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        os.killpg(process.pid, 0)
