"""What every test needs: no hub, one thread, and (once per session) a small shop with a finished run on it."""

import gc
import os
import signal
import subprocess
from pathlib import Path

import pytest

from helpers.browser import chromium  # noqa: F401
from helpers.trained_shop import write_shop

gc.set_threshold(50_000)  # a sixth of the time would go into looking through what libraries leave for good
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "offline")
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:  # begun in the background, by nohup: children would inherit it
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()


@pytest.fixture
def disk(tmp_path):
    """disk("64k"): a file system of its own of that size, which is gone after the test."""
    folder = tmp_path / "disk"

    def mount(size: str) -> Path:
        folder.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.name == "nt" or subprocess.run(["mount", *options], capture_output=True).returncode:
            pytest.skip("mounting a file system needs root")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # what failed may still hold files open


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def train(shop, tmp_path_factory):
    """train(*words, run_dir=…): a training run on the shop in this process, on one CPU core; returns its folder."""
    from gcl.cli import main
    from gcl.run.folder import RunFolder

    cache = tmp_path_factory.mktemp("cache")

    def call(*words: str, run_dir: Path | None = None) -> RunFolder:
        run_dir = run_dir or tmp_path_factory.mktemp("runs") / "run"
        main(
            ["train", "--config-dir", str(shop / "conf"), "data=shop", "model=tiny", "trainer=cpu",
             "optim.learning_rate=3e-4",
             f"run_dir={run_dir}", f"cache_dir={cache}", "train.batch_size=16", "train.max_steps=6", "train.workers=0",
             "trainer.log_every_n_steps=1", *words]
        )  # fmt: skip
        return RunFolder(run_dir)

    return call


@pytest.fixture(scope="session")
def finished(train):
    """The folder of a finished run of 6 steps."""
    return train("train.validate_every=3 steps")


@pytest.fixture(scope="session")
def exported_run(finished, tmp_path_factory) -> Path:
    """The finished run, exported in every format that its model has. Only to be read: tests that change it copy it."""
    from gcl.cli import main

    out = tmp_path_factory.mktemp("exports") / "my_model"
    main(["export", f"run={finished.path}", f"out={out}", "license=apache-2.0", "latency=0.2"])
    return out
