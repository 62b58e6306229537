"""Several real processes train what one process trains: same batches, same losses, same table."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gcl.data.demo.catalog import draw_catalog
from gcl.lit.checkpoint import checkpoint_step
from gcl.run.folder import RunFolder
from helpers.training_jobs import batches, losses

ROOT = Path(__file__).parents[2]


def same_run(one, many):
    assert batches(one) == batches(many)
    assert losses(many) == pytest.approx(losses(one), abs=1e-5)
    table, expected = (json.loads(run.metrics.read_text()) for run in (many, one))
    for task, values in expected["tuned"].items():
        assert table["tuned"][task]["ndcg@10"] == pytest.approx(values["ndcg@10"], abs=1e-3)


def test_two_ranks_are_one_process(whole, start, tmp_path):
    """From nothing: one rank prepares while the other waits, both train, rank 0 alone writes and speaks."""
    job = start("train.validate_every=3 steps", world=2, cache=tmp_path / "cache")
    run = job.done()
    same_run(whole, run)
    assert job.log(0).count("prepared in") + job.log(1).count("prepared in") <= 1
    assert "Training" in job.log(0) and job.log(1) == ""
    assert re.search(r"Trained at \d+ pairs per second, \d+ % of the time waiting for data", job.log(0))
    assert checkpoint_step(run.last) == 6
    assert json.loads(run.environment.read_text())["world_size"] == 2
    lines = (run.path / "metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + 6 + 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["train.micro_batch=3"],
        ["loss=gcl_sigmoid"],
        ["train.workers=1", "plan.drop_last=true"],
        ["loss.target=graded", "train.workers=1"],
        ["loss=gcl_sigmoid", "loss.target=sigmoid"],
    ],
)
@pytest.mark.parametrize("world", [2, 3])
def test_more_ranks_and_ways(start, world, words):
    same_run(start(*words).done(), start(*words, world=world).done())


@pytest.mark.slow
def test_frozen_trunks_are_computed_once(start, tmp_path):
    """Cached features: the first rank computes them, the second finds them."""
    one = start("optim.freeze=[visual.*]").done()
    same_run(one, start("optim.freeze=[visual.*]", world=2, cache=tmp_path).done())
    assert len(list((tmp_path / "features").glob("*.npy"))) == 1


@pytest.mark.slow
def test_torchrun(whole, shop, tmp_path):
    """The command of the documentation; the ranks agree on a run folder that nobody named."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(ROOT / "train.py"),
        "--config-dir", str(shop / "conf"), "data=shop", "model=tiny", "trainer=ddp_cpu",
        "optim.learning_rate=3e-4", "train.batch_size=16",
        "train.max_steps=6", "train.workers=0", "train.validate_every=3 steps", "evaluate.metrics=[ndcg@10]",
        "evaluate.headline=[ndcg@10]",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "outputs" / "shop" / "tiny").iterdir()
    same_run(whole, type(whole)(folder))


@pytest.mark.slow
def test_the_demo_on_two_ranks(tmp_path):
    """The documentation's two commands on an eighth of the embedded catalog: the same curve and the same table."""
    catalog, runs = draw_catalog(tmp_path / "demo", products=200, queries=60), []
    for name, command in (
        ("one", [sys.executable]),
        ("two", [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]),
    ):
        words = [f"trainer={'cpu' if name == 'one' else 'ddp_cpu'}", f"run_dir={tmp_path / name}", "train.max_steps=10",
                 "train.workers=0", "train.batch_size=64", f"cache_dir={tmp_path / 'cache'}",
                 "data.generator=null", f"data.root={catalog}"]  # fmt: skip
        done = subprocess.run(
            [*command, str(ROOT / "train.py"), *words], cwd=tmp_path, capture_output=True, text=True, timeout=900,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        runs.append(RunFolder(tmp_path / name))
    same_run(*runs)
    one, two = (json.loads(run.metrics.read_text())["tuned"] for run in runs)
    for task, values in one.items():
        assert two[task] == pytest.approx(values, abs=5e-4), task
