"""Stopped anywhere, a command says so in a sentence, exits as the signal asks, and the same command finishes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gcl.files.atomic import DiskFull, names_full_disk, replacing
from gcl.lit.checkpoint import checkpoint_step, write_checkpoint
from helpers.signal_callback import signals

ROOT = Path(__file__).parents[2]
INTERRUPTED = "gcl: Interrupted. Finished work is kept: run the same command again (training needs train.resume=auto)."


def stopped(job):
    """The status and the last line of a job of one process; never a traceback."""
    (status,) = job.wait()
    assert "Traceback" not in job.log(), job.log()
    return status, job.log().strip().splitlines()[-1]


@pytest.mark.parametrize("phase, step", [("Measuring tiny as it comes", 0), ("Measuring the best checkpoint", 3)])
def test_interrupted_while_measuring(start, phase, step):
    words = "train.max_steps=3", "train.resume=auto"
    job = start(*words, signals("measuring", step, signal.SIGINT))
    assert stopped(job) == (130, INTERRUPTED)
    assert [line for line in job.log().splitlines() if line.startswith("Measuring")][-1].startswith(phase)
    again = start(*words, run_dir=job.run.path)
    assert checkpoint_step(again.done().last) == 3 and again.run.metrics.is_file()


def test_a_terminal_that_is_closed(start):
    """SIGHUP saves and ends as SIGTERM does."""
    words = "train.max_steps=100000", "train.workers=1"
    job = start(*words)
    job.until_step(2)
    job.kill(signal.SIGHUP)
    status, line = stopped(job)
    assert status == 143 and line.startswith("SIGHUP: training stopped after step "), line
    assert checkpoint_step(job.run.last) >= 2


def test_two_interruptions_in_a_row_never_speak_of_the_disk(start):
    job = start("train.max_steps=100000", "train.checkpoint_every=1")
    job.until_step(2)
    job.kill(signal.SIGINT)
    time.sleep(0.02)
    job.kill(signal.SIGINT)
    status, line = stopped(job)
    assert status == 130
    assert "space" not in job.log() and "saved" not in line


def test_an_interruption_inside_the_writing_of_a_checkpoint(tmp_path):
    class Interrupting:
        def __reduce__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint({"global_step": 1, "state": Interrupting()}, tmp_path / "last.ckpt")
    assert checkpoint_step(tmp_path / "last.ckpt") is None


@pytest.mark.slow
@pytest.mark.parametrize("command", ["prepare", "evaluate", "export"])
def test_interrupted_commands_can_be_run_again(shop, whole, tmp_path, command):
    words = {
        "prepare": ["prepare", "--config-dir", str(shop / "conf"), "data=shop"],
        "evaluate": ["evaluate", f"run={whole.path}", f"out={tmp_path / 'out'}"],
        "export": ["export", f"run={whole.path}", f"out={tmp_path / 'out'}", "formats=[open_clip]"],
    }[command]
    cache = [f"cache_dir={tmp_path / 'cache'}"] if command != "export" else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for seconds in (2, 4, 6):
        process = subprocess.Popen(
            [sys.executable, "-m", "gcl", *words, *cache], cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to its children, too
        said, _ = process.communicate(timeout=900)
        if process.returncode == 0:
            break  # it was faster
        if process.returncode != -signal.SIGINT:  # before Python runs, nobody can say anything
            assert process.returncode == 130 and "Traceback" not in said, said
            assert said.strip().splitlines()[-1] == INTERRUPTED
    done = subprocess.run([sys.executable, "-m", "gcl", *words, *cache], cwd=tmp_path, env=environment, text=True,
                          capture_output=True, timeout=900)  # fmt: skip
    assert done.returncode == 0 or "is not empty" in done.stderr or "exists" in done.stderr, done.stderr


def test_a_full_disk_names_the_file(disk):
    folder = disk("64k")
    with pytest.raises(DiskFull, match=rf"No space is left to write {folder / 'a'}"):
        with replacing(folder / "a") as path:
            path.write_bytes(bytes(1 << 20))
    assert list(folder.iterdir()) == []


def test_what_other_libraries_raise_on_a_full_disk(tmp_path):
    """Errors of any kind whose cause, or whose words, are those of a full disk; others stay what they are."""

    def write(error, cause=None):
        with names_full_disk(tmp_path / "model"):
            raise error from cause

    for error, cause in [
        (OSError(28, "No space left on device"), None),
        (RuntimeError("I/O error: No space left on device (os error 28)"), None),
        (RuntimeError("PytorchStreamWriter failed writing file"), OSError(28, "No space left on device")),
    ]:
        with pytest.raises(DiskFull, match="No space is left to write .*model"):
            write(error, cause)
    with pytest.raises(RuntimeError, match="another"):
        write(RuntimeError("another"))
