"""Real training processes on the small shop: started, watched, killed and resumed by the tests of this folder."""

import pytest

from gcl.run.folder import RunFolder
from helpers.training_jobs import Job, Zygote


@pytest.fixture(scope="session")
def zygote():
    zygote = Zygote()
    yield zygote
    zygote.process.stdin.close()
    zygote.process.wait(900)


@pytest.fixture(scope="session")
def start(zygote, shop, tmp_path_factory):
    """start(*words, world=1, run_dir=…, env={}, rank_words={rank: words}) -> Job: a run of `world` real processes.

    absent: a rank whose process ends before it has begun.
    """
    shared_cache = tmp_path_factory.mktemp("lit-cache")

    def call(*words, world=1, run_dir=None, cache=None, env=None, rank_words=None, absent=None):
        run_dir = run_dir or tmp_path_factory.mktemp("lit") / "run"
        logs = tmp_path_factory.mktemp("logs")
        common = [
            "--config-dir", str(shop / "conf"), "data=shop", "model=tiny", f"run_dir={run_dir}",
            "optim.learning_rate=3e-4",
            f"cache_dir={cache or shared_cache}", f"trainer={'cpu' if world == 1 else 'ddp_cpu'}",
            "train.batch_size=16", "train.max_steps=6", "train.workers=0", "train.validate_every=100 steps",
            "trainer.log_every_n_steps=1", "evaluate.metrics=[ndcg@10]", "evaluate.headline=[ndcg@10]",
        ]  # fmt: skip
        ranks = [[*common, *words, *(rank_words or {}).get(rank, [])] for rank in range(world)]
        if absent is not None:
            ranks[absent] = None
        pids = zygote.ask({"start": ranks, "env": env or {}, "log": str(logs)})["pids"]
        return Job(zygote, RunFolder(run_dir), pids, logs)

    return call


@pytest.fixture(scope="session")
def whole(start):
    """One uninterrupted process, 6 steps of 16 of 55 pairs (the fourth batch has 7), validated in the middle."""
    return start("train.validate_every=3 steps").done()
