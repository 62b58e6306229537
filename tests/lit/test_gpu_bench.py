"""The benchmark for a GPU machine runs here in miniature: every part of it, on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_gpu_bench_runs_on_a_cpu():
    command = [sys.executable, str(ROOT / "tests" / "bench" / "gpu.py"), "--device", "cpu", "--small"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 1 + 4 + 4 + 2 + 2
    assert sum("x the plain loop" in row[2] for row in rows) == 2 and "do not fit" not in done.stdout
