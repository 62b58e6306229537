"""conf/trainer and the SLURM and Optuna plugins: what composes where the plugin is installed."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from gcl.config.compose import register
from gcl.config.folder import conf_folder

ROOT = Path(__file__).parents[2]


def installed(plugin):
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{plugin}") is not None


def hydra_part(*words):
    register()
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        return compose("config", overrides=list(words), return_hydra_config=True).hydra


@pytest.mark.skipif(not installed("hydra_submitit_launcher"), reason="needs gcl-trainer[slurm]")
def test_slurm_launcher_composes():
    launcher = hydra_part("hydra/launcher=slurm", "hydra.launcher.gpus_per_node=4", "trainer=slurm").launcher
    assert launcher._target_.endswith("SlurmLauncher") and launcher.tasks_per_node == 4
    assert hydra_part("hydra/launcher=submitit_slurm").launcher._target_ == launcher._target_


@pytest.mark.skipif(not installed("hydra_optuna_sweeper"), reason="needs gcl-trainer[sweep]")
def test_optuna_sweeper_composes():
    sweeper = hydra_part("hydra/sweeper=search").sweeper
    assert sweeper._target_.endswith("OptunaSweeper") and sweeper.direction == "maximize"
    assert "optim.learning_rate" in sweeper.params
    assert hydra_part("hydra/sweeper=optuna").sweeper._target_ == sweeper._target_


def swept(shop, cache, folder, *words):
    common = [
        "--multirun", "--config-dir", str(shop / "conf"), "data=shop", "model=tiny", "trainer=cpu",
        f"cache_dir={cache}", "train.batch_size=16", "train.max_steps=2", "train.workers=0",
        "evaluate.metrics=[ndcg@10]", "evaluate.headline=[ndcg@10]",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(ROOT / "train.py"), *common, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    assert not (folder / "multirun.yaml").exists()
    return done, folder / "outputs" / "shop"


@pytest.mark.slow
def test_a_multirun_has_a_folder_for_each_run(shop, tmp_path):
    done, outputs = swept(shop, tmp_path / "cache", tmp_path, "seed=0,1", "name=seeds")
    assert done.returncode == 0, done.stderr[-3000:]
    sweep = outputs / "seeds"
    assert sorted(path.name for path in sweep.iterdir()) == ["multirun.yaml", "seed=0", "seed=1"]
    assert all((sweep / f"seed={n}" / "report.html").is_file() for n in (0, 1))
    table = done.stdout.partition("Runs of the sweep outputs/shop/seeds:\n")[2]
    assert re.search(r"seeds/seed=1 +shop +tiny +seed=1 +ndcg@10", table) and "2 runs:" in table


@pytest.mark.slow
def test_a_run_of_a_sweep_that_is_refused_is_told_in_a_sentence(shop, tmp_path):
    words = ["train.max_steps=1", "train.batch_size=16,5000", "name=sizes"]  # the shop has fewer pairs
    done, _ = swept(shop, tmp_path / "cache", tmp_path, *words)
    assert done.returncode == 2
    assert "gcl: outputs/shop/sizes/batch_size=5000: " in done.stderr and "training pairs" in done.stderr
    assert "sizes/batch_size=16" in done.stdout.partition("Runs of the sweep outputs/shop/sizes:\n")[2]


@pytest.mark.slow
@pytest.mark.skipif(not installed("hydra_optuna_sweeper"), reason="needs gcl-trainer[sweep]")
def test_optuna_tries_learning_rates(shop, tmp_path):
    words = ["hydra/sweeper=search", "hydra.sweeper.n_trials=2", "train.batch_size=16",
             "hydra.sweeper.params={optim.learning_rate: 'tag(log, interval(1e-5, 1e-3))'}"]  # fmt: skip
    done, outputs = swept(shop, tmp_path / "cache", tmp_path, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = list(outputs.glob("sweep_*/learning_rate=*/report.html"))
    assert len(runs) == 2


@pytest.mark.slow
def test_debug_runs_one_step(start):
    run = start("trainer=debug").done()
    assert len((run.path / "steps.csv").read_text().splitlines()) == 2
    assert "optimizer_step" in (run.path / "fit-profile.txt").read_text()
