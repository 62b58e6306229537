"""Extremes, precision, memory, bounds, frozen sides, compilation, and what must be refused."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gcl.loss import weight
from gcl.loss.gcl import GCLLoss, Term
from helpers.loss_inputs import RULES, TILES, assert_close, call, repeats, unit


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("kind", ["identical", "opposite", "perfect"])
def test_extreme_values_stay_finite_and_exact(form, tile, kind):
    """Scale 100 with cosines of 1 and -1: float32 within rounding of float64, loss and gradients."""
    basis = torch.eye(8)[:7]
    same = torch.nn.functional.normalize(torch.ones(7, 8), dim=-1)
    q, d = {"identical": (same, same), "opposite": (basis, -basis), "perfect": (basis, basis)}[kind]
    results = []
    for dtype in (torch.float64, torch.float32):
        loss = GCLLoss(form=form, tile=tile, scale=100.0, bias=-10.0).to(dtype)
        x, y = (v.to(dtype, copy=True).requires_grad_() for v in (q, d))
        value = call(loss, x, y).loss
        results.append([value.detach().double(), *(g.double() for g in torch.autograd.grad(value, [x, y]))])
    # The softmax gradient of identical rows is 0 and its rounding that of 100 * cosine; e^-100 is 0 in float32.
    least = 1e-4 if kind == "identical" else 1e-37
    for a, b in zip(*results, strict=True):
        assert b.isfinite().all() and float((a - b).abs().max()) <= 1e-5 * float(a.abs().max()) + least


@pytest.mark.parametrize("tile", TILES)
def test_loss_near_zero_keeps_its_digits_in_float32(tile):
    """At a loss of 1e-9 and less, where logsumexp(s) - s_ii is nothing but rounding."""
    noise = torch.randn(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q, d = torch.eye(16, dtype=torch.float64), torch.nn.functional.normalize(torch.eye(16) + 0.01 * noise, dim=-1)
    results = []
    for dtype in (torch.float64, torch.float32):
        loss = GCLLoss(tile=tile, scale=25.0).to(dtype)
        x, y = (v.to(torch.float32).to(dtype).requires_grad_() for v in (q, d))
        value = call(loss, x, y).loss
        results.append([value.detach().double(), *(g.double() for g in torch.autograd.grad(value, [x, y]))])
    assert 0 < results[0][0] < 1e-9
    assert_close(results[1], results[0], 1e-5)
    naive = (25 * q.float() @ d.float().T).logsumexp(1) - (25 * q.float() @ d.float().T).diagonal()
    assert abs(naive.mean() / results[0][0] - 1) > 0.5


class LargestTensor(TorchDispatchMode):
    """Records the most elements any operator returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return result


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("rule", [*RULES, "judged"])
def test_memory_is_linear_in_the_batch(form, rule):
    n, width, tile = 400, 8, 32
    judged = {"target": {"softmax": "graded", "sigmoid": "sigmoid"}[form]}
    options = judged if rule == "judged" else {"same_query": rule, "same_document": rule}
    loss = GCLLoss(form=form, tile=tile, **options)
    with LargestTensor() as seen:
        call(loss, unit(n, width), unit(n, width, seed=1), None, *repeats(n)).loss.backward()
    assert seen.elements <= n * width


@pytest.mark.parametrize("tile", [None, "auto"])
def test_autocast_and_half_precision_inputs_compute_in_float32(tile):
    q, d = unit(8, dtype=torch.bfloat16), unit(8, seed=1, dtype=torch.bfloat16)
    loss = GCLLoss(tile=tile)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = call(loss, q, d).loss
    assert value.dtype == torch.float32
    exact = call(loss, q.detach().float(), d.detach().float()).loss
    assert_close([value], [exact], 1e-6)
    assert [g.dtype for g in torch.autograd.grad(value, [q, d])] == [torch.bfloat16] * 2


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_frozen_sides_get_no_gradient_and_change_none(form):
    q, d = unit(9), unit(9, seed=1)
    loss = GCLLoss(form=form, tile=4, learn_scale=False, learn_bias=False).double()
    assert not list(loss.parameters())
    both = torch.autograd.grad(call(loss, q, d).loss, [q, d])
    assert_close(torch.autograd.grad(call(loss, q.detach(), d).loss, [d]), both[1:], 1e-15)
    assert_close(torch.autograd.grad(call(loss, q, d.detach()).loss, [q]), both[:1], 1e-15)
    with torch.no_grad():
        assert not call(loss, q, d).loss.requires_grad


def test_scale_is_projected_and_never_stuck():
    loss = GCLLoss(scale=90.0, max_scale=100.0)
    optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
    loss.log_scale.grad = torch.tensor(-5.0)
    optimizer.step()
    q, d = unit(8, dtype=torch.float32), unit(8, seed=1, dtype=torch.float32)
    output = call(loss, q, d)
    assert output.scale.item() == pytest.approx(100) and loss.log_scale.item() == pytest.approx(math.log(100))
    output.loss.backward()
    assert loss.log_scale.grad.item() != -5  # a gradient flows at the bound
    assert GCLLoss(scale=117.3).max_scale == 117.3  # SigLIP checkpoints start above 100 and must not jump
    assert GCLLoss(max_scale=None, scale=200.0).max_scale is None


def test_the_bias_is_a_parameter_only_where_it_has_a_gradient():
    assert {name for name, _ in GCLLoss(form="sigmoid").named_parameters()} == {"log_scale", "bias"}
    assert {name for name, _ in GCLLoss(form="softmax", bias=-3.0).named_parameters()} == {"log_scale"}
    assert GCLLoss(form="softmax", bias=-3.0).bias == -3 and "bias" in GCLLoss(form="softmax").state_dict()


def test_backward_twice_is_refused_in_words():
    q, d = unit(4), unit(4, seed=1)
    value = call(GCLLoss().double(), q, d).loss
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        value.backward()


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("tile", [None, "auto"])
def test_batches_of_one_and_none(n, form, tile):
    loss = GCLLoss(form=form, tile=tile)
    q, d = unit(n, dtype=torch.float32), unit(n, seed=1, dtype=torch.float32)
    value = call(loss, q, d).loss
    value.backward()
    assert value.isfinite() and q.grad.isfinite().all()


@pytest.mark.parametrize(
    "options, word",
    [
        ({"form": "clip"}, "form"),
        ({"direction": "left"}, "direction"),
        ({"same_query": "mask"}, "same_query"),
        ({"normalizer": "mean"}, "normalizer"),
        ({"terms": []}, "terms"),
        ({"terms": [Term(), Term()]}, "terms"),
        ({"terms": [Term(weight=-1.0)]}, "weight"),
        ({"scale": -1.0}, "scale"),
        ({"target": "all"}, "target"),
        ({"target": "graded", "form": "sigmoid"}, "target=sigmoid"),
        ({"target": "sigmoid", "form": "softmax"}, "target=graded"),
        ({"tile": 0}, "tile"),
        ({"tile": "big"}, "tile"),
    ],
)
def test_wrong_options_are_refused(options, word):
    with pytest.raises(ValueError, match=word):
        GCLLoss(**options)


def test_wrong_inputs_are_refused():
    loss, q, d = GCLLoss(score_to_weight=weight.identity), unit(4), unit(4, seed=1)
    with pytest.raises(ValueError, match="at least 0"):
        call(loss, q, d, torch.tensor([1.0, -1, 1, 1]))
    with pytest.raises(ValueError, match="at least 0"):
        call(loss, q, d, torch.tensor([1.0, math.nan, 1, 1]))
    with pytest.raises(ValueError, match="probabilities"):
        call(GCLLoss(form="sigmoid", target="sigmoid", score_to_weight=weight.identity), q, d, torch.full((4,), 2.0))
    with pytest.raises(ValueError, match="4 query rows, 3 document rows"):
        call(loss, q, d[:3])
    with pytest.raises(KeyError, match="title"):
        call(GCLLoss(terms=[{"query": "fused", "document": "title"}]), q, d)


@pytest.mark.slow
def test_torch_compile_does_not_break():
    torch._dynamo.reset()
    q, d = unit(8, dtype=torch.float32), unit(8, seed=1, dtype=torch.float32)
    loss = GCLLoss(target="graded")
    compiled = torch.compile(loss, backend="eager")
    ids = repeats(8)
    a, b = call(compiled, q, d, None, *ids).loss, call(loss, q, d, None, *ids).loss
    assert_close([a], [b], 1e-6)
    assert_close(torch.autograd.grad(a, [q, d, loss.log_scale]), torch.autograd.grad(b, [q, d, loss.log_scale]), 1e-6)
