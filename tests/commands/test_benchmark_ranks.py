"""The published benchmark on several processes, killed and begun again: the same files as from one that never was."""

import random
import subprocess
import sys

import pytest

from bench.published import FILES, command, environment, kept, kill_after, write_published
from gcl.cli import main
from helpers.ports import free_port

SMALL = ("evaluate.batch_size=8", "evaluate.queries=100")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    write_published(root, 2000, per_group=20, per_file=600)
    return root


@pytest.mark.slow
def test_killed_twice_on_two_ranks_it_is_what_one_process_gives(published, tmp_path):
    """The third try has three ranks, of nobody's launcher: variables alone, as Ray sets them."""
    whole = tmp_path / "whole"
    main(command(published, whole, tmp_path / "alone", *SMALL))

    killed, cache = tmp_path / "killed", tmp_path / "cache"
    draw = random.Random(0)
    for _ in range(2):
        kill_after(command(published, killed, cache, *SMALL), cache, draw.randint(4, 15))
    assert not (killed / "metrics.json").exists() and kept(cache) >= 8

    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "3",
             "LOCAL_WORLD_SIZE": "3", "NODE_RANK": "0"}  # fmt: skip
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "gcl", *command(published, killed, cache, *SMALL)],
            env=environment(**place, RANK=str(rank), LOCAL_RANK=str(rank)), stdout=subprocess.PIPE, text=True,
        )
        for rank in range(3)
    ]  # fmt: skip
    told = [rank.communicate()[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0]
    assert "or more images of each model are embedded already" in told[0] and told[1] == told[2] == ""
    for name in FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
