"""Same seed, same bytes: sample ids, losses, weights and results of processes run apart, killed and resumed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gcl.lit.checkpoint import checkpoint_step, read_checkpoint
from gcl.run.folder import RunFolder
from helpers.training_jobs import batches, read_steps

ROOT = Path(__file__).parents[2]
WORDS = ["train.max_steps=8", "train.checkpoint_every=3", "train.validate_every=4 steps", "evaluate.batch_size=4"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def bytes_of(run) -> dict[str, str]:
    """SHA-256 of all that a run computes: every step's pairs and loss, the weights, the curve, metrics and rankings."""
    found = {"steps.csv": sha256((run.path / "steps.csv").read_bytes())}
    for path in (run.best, run.last):
        state = read_checkpoint(path)
        digest = hashlib.sha256(str(state["global_step"]).encode())
        for name, value in sorted(state["state_dict"].items()):
            digest.update(name.encode() + value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        for key, slots in sorted(state["optimizer_states"][0]["state"].items()):
            for name, value in sorted(slots.items()):
                digest.update(
                    f"{key} {name}".encode() + value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
                )
        found[path.name] = digest.hexdigest()
    rows = [line.split(",") for line in (run.path / "metrics.csv").read_text().splitlines()]
    kept = [place for place, name in enumerate(rows[0]) if not name.startswith("speed/")]
    found["metrics.csv"] = sha256(json.dumps([[row[place] for place in kept] for row in rows]).encode())
    found["metrics.json"] = sha256(run.metrics.read_bytes())
    return found | {
        str(path.relative_to(run.path)): sha256(path.read_bytes()) for path in sorted(run.tasks.rglob("*.trec"))
    }


@pytest.fixture(scope="module")
def straight(start):
    """One process, never interrupted."""
    return bytes_of(start(*WORDS).done())


def test_another_process_gives_the_same_bytes(start, straight, tmp_path):
    """From nothing, too: the catalog is prepared anew; the batches are read by two worker processes."""
    again = bytes_of(start(*WORDS, "train.workers=2", cache=tmp_path).done())
    assert again == straight and len(straight) >= 5 + 4 * 3
    assert bytes_of(start(*WORDS, "seed=1").done())["steps.csv"] != straight["steps.csv"]


@pytest.mark.parametrize(
    ("moment", "step", "left", "kept"),
    [
        ("writing", 5, ["last.ckpt.new"], 4),
        ("writing", 4, ["best.ckpt.new"], 3),  # a better result: best.ckpt is written before last.ckpt
        ("renaming", 5, ["last.ckpt.new.DONE"], 6),
        ("validating", 4, [], 3),
    ],
)
def test_killed_in_the_middle_of_it(start, straight, tmp_path, moment, step, left, kept):
    """kill -9 inside a checkpoint's write, between its renames, inside a validation; then resumed."""
    kill = f"++callbacks={{killer: {{_target_: helpers.kill_callback.Killer, moment: {moment}, step: {step}}}}}"
    job = start(*WORDS, kill, run_dir=tmp_path / "run")
    assert job.wait() == [-signal.SIGKILL]
    run = RunFolder(tmp_path / "run")
    assert sorted(path.name for path in run.checkpoints.glob("*.new*")) == left
    assert checkpoint_step(run.last) == kept
    resumed = start(*WORDS, "train.resume=auto", run_dir=tmp_path / "run").done()
    assert bytes_of(resumed) == straight


@pytest.mark.slow
def test_workers_may_change_at_every_resume(start, straight, tmp_path):
    """0 -> 2 -> 4 workers, killed in between: the same bytes; nothing twice, nothing missing."""
    for workers, until in ((0, 2), (2, 5)):
        job = start(*WORDS, f"train.workers={workers}", "train.resume=auto", run_dir=tmp_path / "run")
        job.until_step(until)
        job.kill()
        assert job.wait() in ([-signal.SIGKILL], [0])
    run = start(*WORDS, "train.workers=4", "train.resume=auto", run_dir=tmp_path / "run").done()
    assert bytes_of(run) == straight
    assert [int(step) for step, *_ in read_steps(run)] == list(range(8)) and len(set(batches(run))) == 8


@pytest.mark.slow
def test_two_commands_give_the_same_bytes(shop, tmp_path):
    """`python train.py …` twice from a shell, with other hash seeds: nothing hangs on the order of a set."""
    found = []
    for number in (1, 2):
        run = tmp_path / str(number)
        command = [
            sys.executable, str(ROOT / "train.py"), "--config-dir", str(shop / "conf"), "data=shop", "model=tiny",
            "trainer=cpu", f"run_dir={run}", f"cache_dir={tmp_path / f'cache{number}'}", "train.batch_size=16",
            "train.workers=1", "evaluate.metrics=[ndcg@10]", "evaluate.headline=[ndcg@10]", *WORDS,
        ]  # fmt: skip
        env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(number), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found.append(bytes_of(RunFolder(run)))
    assert found[0] == found[1]
