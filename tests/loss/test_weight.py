"""Score-to-weight functions: their ends, their order, and the ranges they refuse."""

from functools import partial

import pytest
import torch

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
