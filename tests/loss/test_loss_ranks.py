"""Any number of ranks is one process: loss and gradients on 1 to 4 real gloo processes against explicit float64 loops.

A difference is relative to the largest entry (max norm) of the reference: of the value, of the gradient of the scale,
of that of the bias, and of the towers' gradients after averaging over the ranks. In float64 those are one tensor a
parameter; in float32 they are one vector, because where a single parameter's gradient cancels, float32 towers alone,
behind a float64 loss, lose more than 1e-6.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.loss_cases import CASES, FEW, REFUSED, TAUGHT, TINY, reference
from helpers.loss_rank import run

TOLERANCE = {"torch.float64": 1e-12, "torch.float32": 1e-6}
TESTS = Path(__file__).parents[1]


def start(ranks: int, cases, folder: Path) -> list[subprocess.Popen]:
    torch.save([tuple(case) for case in cases], folder / "cases.pt")
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    files = [str(folder / f"{name}{ranks}") for name in ("store", "result")]
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "helpers.loss_rank",
                str(rank),
                str(ranks),
                files[0],
                str(folder / "cases.pt"),
                files[1],
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


def finish(processes: list[subprocess.Popen], ranks: int, folder: Path) -> dict:
    errors = [process.communicate(timeout=1800)[1] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(errors)
    return torch.load(folder / f"result{ranks}")


def join_towers(tensors: dict) -> dict:
    towers = [tensors[name].flatten() for name in sorted(tensors) if name.startswith("towers")]
    return {"towers": torch.cat(towers), **{name: x for name, x in tensors.items() if not name.startswith("towers")}}


def check(found: dict, expected: dict) -> list[str]:
    """What is off in the matrix, in words; also that nothing is missing."""
    off = []
    for (case, dtype), tensors in found["matrix"].items():
        wanted = expected[case]
        assert tensors.keys() == wanted.keys(), (case, tensors.keys() ^ wanted.keys())
        if dtype == "torch.float32":
            tensors, wanted = join_towers(tensors), join_towers(wanted)
        for name, tensor in tensors.items():
            difference = float((tensor.double() - wanted[name]).abs().max() / wanted[name].abs().max())
            # explicit negatives pull apart what targets pull together: more of a float32 gradient cancels
            if not difference <= TOLERANCE[dtype] * (2 if case[-1] == "refused" and dtype == "torch.float32" else 1):
                off.append(f"{case} {dtype} {name}: {difference:.1e}")
    return off


def expectations(cases) -> dict:
    by_problem = {case.problem: None for case in cases}
    for problem in by_problem:
        by_problem[problem] = reference(problem)
    return {tuple(case): by_problem[case.problem] for case in cases}


def check_all(ranks: int, cases, folder: Path) -> None:
    processes = start(ranks, cases, folder) if ranks > 1 else []
    expected = expectations(cases)
    found = finish(processes, ranks, folder) if ranks > 1 else run(cases)
    assert len(found["matrix"]) == 2 * len(cases) - len(TINY)
    assert not check(found, expected)
    assert found["steps"] or cases is FEW
    for case, steps in found["steps"].items():
        both = steps["scale and bias"]
        assert both.shape == (ranks, 2) and (both == both[0]).all(), case
        assert abs(both[0, 0] - steps["start"]) > 0.01, case
    assert len(found["peers"]) == 4
    for name, (ours, theirs) in found["peers"].items():
        assert ours.keys() == theirs.keys()
        for key in ours:
            difference = float((ours[key] - theirs[key]).abs().max() / theirs[key].abs().max())
            assert difference <= 1e-12, (name, key, difference)
    assert ("pad them" in found["refusal"]) == (ranks > 1)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_are_one_process(ranks, tmp_path):
    check_all(ranks, FEW, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_every_case(ranks, tmp_path):
    """Forms x paths x terms x rules x weights x batches, and teachers, each in float64 and float32."""
    check_all(ranks, CASES + TAUGHT + REFUSED + TINY, tmp_path)
