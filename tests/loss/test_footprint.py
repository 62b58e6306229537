"""The formulas of gcl/loss/footprint.py against what sockets receive and processes hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gcl.loss.footprint import footprint, gradient_traffic

ROOT = Path(__file__).parents[2]
PAIRS, WIDTH, TILE = 4608, 1024, 256


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts what Linux tells of sockets and memory")
@pytest.mark.parametrize("ranks", [2, 3])
def test_what_ranks_receive_and_hold(ranks):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}",
        "-m", "helpers.loss_bytes_rank", str(PAIRS), str(WIDTH), str(TILE),
    ]  # fmt: skip
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    # Every large array is mapped, and what is freed leaves the process.
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(told) == ranks
    expected = footprint(
        2, pairs=PAIRS, rows=PAIRS, width=WIDTH, ranks=ranks, tile=TILE, buffers=2, summed_in_place=False
    )
    for received, held in told:
        assert received == pytest.approx(expected.received, rel=0.005)
        assert held == pytest.approx(expected.held + expected.blocks, rel=0.1)


def test_more_ranks_hold_the_same_and_move_hardly_more():
    two, many = (footprint(2, pairs=8192, rows=8192, width=64, ranks=ranks, tile=1024) for ranks in (2, 256))
    assert two.held == many.held and two.received < many.received < 2 * two.received
    assert footprint(2, pairs=8192, rows=8192, width=64, ranks=1, tile=None).received == 0
    assert gradient_traffic(1000, 1) == 0
