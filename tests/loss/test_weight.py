"""Score-to-weight functions: their ends, their order, and the ranges they refuse."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from gcl.config.explain import why_no_target
from gcl.loss import weight

ENDS = {
    "constant": (1.0, 1.0),
    "identity": (1.0, 100.0),
    "linear": (0.01, 1.0),
    "power": (0.01, 1.0),
    "reciprocal": (0.01, 1.0),
    "inverse_sqrt": (0.1, 1.0),
    "log": (0.15019, 1.0),
    "piecewise": (0.01, 1.0),
}
RANGED = ["linear", "power", "reciprocal", "inverse_sqrt", "log"]


@pytest.mark.parametrize("name", ENDS)
def test_ends_and_order(name):
    score = torch.arange(1.0, 101.0, dtype=torch.float64)
    w = getattr(weight, name)(score)
    assert w.shape == score.shape and w.dtype == score.dtype
    assert (w[0].item(), w[-1].item()) == pytest.approx(ENDS[name], abs=1e-5)
    assert (w.diff() >= 0).all() and (w > 0).all()


@pytest.mark.parametrize("name", RANGED)
def test_any_range_has_the_same_ends(name):
    function = partial(getattr(weight, name), low=-1, high=3)
    assert function(torch.tensor([-1.0, 3.0])).tolist() == pytest.approx(list(ENDS[name]), abs=1e-5)


@pytest.mark.parametrize("name", RANGED + ["piecewise"])
@pytest.mark.parametrize("score", [0.0, 101.0, float("nan")])
def test_scores_outside_the_range_are_refused(name, score):
    with pytest.raises(ValueError, match="Scores lie in .* outside low"):
        getattr(weight, name)(torch.tensor([50.0, score]))


def test_marqo_gs_columns():
    """Position p of a result list has score 101 - p; the reciprocal weight is 1 / p, the linear one falls by a
    hundredth a place.
    """
    score = 101 - torch.arange(1.0, 101.0, dtype=torch.float64)
    assert torch.allclose(weight.reciprocal(score), 1 / torch.arange(1.0, 101.0, dtype=torch.float64))
    assert torch.allclose(weight.linear(score), score / 100)


def test_wrong_parameters_are_refused():
    score = torch.tensor([1.0])
    for call in (
        lambda: weight.linear(score, low=5, high=5),
        lambda: weight.linear(score, floor=2),
        lambda: weight.power(score, 0),
        lambda: weight.reciprocal(score, ranks=0.5),
        lambda: weight.piecewise(score, points=[(1, 1)]),
        lambda: weight.piecewise(score, points=[(2, 1), (1, 1)]),
    ):
        with pytest.raises(ValueError):
            call()


def test_every_function_has_a_record_and_every_record_a_function():
    here = {n: f for n, f in vars(weight).items() if getattr(f, "__module__", "") == weight.__name__}
    named = {n for n, f in here.items() if not n.startswith("_") and list(f.__annotations__)[:1] == ["score"]}
    assert named == set(weight.FUNCTIONS) == set(ENDS)
    for name, record in weight.FUNCTIONS.items():
        assert why_no_target(record.target) is None and record.function is here[name] and record.explanation


@pytest.mark.parametrize("name", ENDS)
def test_a_range_refuses_before_training_what_the_function_refuses(name):
    record = weight.FUNCTIONS[name]
    node = {"_target_": record.target, "_partial_": True}
    for least, most in ((1.0, 100.0), (0.0, 100.0), (1.0, 101.0), (50.0, 60.0), (1.0, 100.0001)):
        try:
            record.function(torch.tensor([least, most], dtype=torch.float64))
            refused = False
        except ValueError:
            refused = True
        if refused:
            with pytest.raises(ValueError, match=f"The training scores lie in .* but {name} turns 1 … 100 into"):
                weight.check_range(node, least, most)
        else:
            weight.check_range(node, least, most)
    weight.check_range({"_target_": "somebody.elses.function"}, -5.0, 1e9)


def test_piecewise_is_numpys_interpolation():
    points = [(0.0, 0.1), (1.0, 0.5), (1.0, 0.7), (4.0, 1.0)]
    score = torch.rand(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    expected = np.interp(score, *zip(*points, strict=True))
    assert torch.allclose(weight.piecewise(score, points), torch.from_numpy(expected), atol=1e-12)


def test_ranges_are_known_without_torch():
    code = (
        "import sys, gcl.loss.weight as w, gcl.loss.settings\n"
        "w.check_range({'_target_': 'x'}, 1, 2)\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
