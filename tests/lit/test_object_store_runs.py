"""Runs whose prepared catalog lies in an object store are those of a local folder, bit for bit, killed or not."""

import os
import signal

import pytest

from helpers.bucket import s3_bucket
from helpers.training_jobs import read_steps

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_a_run_on_a_bucket_killed_and_resumed_is_one_on_the_disk(start, tmp_path, world):
    words = ["train.workers=1", "data.cache_gb=0.01"]
    here = start(*words, world=world).done()
    with s3_bucket() as store:
        keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        away = {"cache": "s3://shop/prepared", "env": keys | {"XDG_CACHE_HOME": str(tmp_path)}, "world": world}
        words = [*words, "train.checkpoint_every=1"]
        kill = "++callbacks={killer: {_target_: helpers.kill_callback.Killer, moment: writing, step: 3}}"
        assert -signal.SIGKILL in start(*words, kill, run_dir=tmp_path / "run", **away).wait()
        for path in tmp_path.glob("gcl/*/shards/*.tar"):  # another machine goes on
            path.unlink()
        run = start(*words, "train.resume=auto", run_dir=tmp_path / "run", **away).done()
        (prepared,) = {name.split("/")[2] for name in store.find("shop/prepared")}
        assert store.exists(f"shop/prepared/{prepared}/documents-00000.tar")
        assert not list(tmp_path.glob(f"gcl/*/{prepared}/*.tar")) and list(tmp_path.glob("gcl/*/shards/*.tar"))
    assert read_steps(run) == read_steps(here)
