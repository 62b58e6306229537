"""One process: every option against explicit loops, constant weights against open_clip, extremes, and what must be
refused.
"""

import itertools
import math
from functools import partial

import pytest
import torch
from loss_reference import entry, loop_loss
from open_clip.loss import ClipLoss, SigLipLoss
from torch.utils._python_dispatch import TorchDispatchMode

from gcl.loss import weight
from gcl.loss.gcl import GCLLoss, LossOutput, Part, Term

RULES = ("ignore", "negative", "positive")
TILES = (None, "auto", 5, 1)


def unit(n, d=8, seed=0, dtype=torch.float64):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=-1).to(dtype).requires_grad_()


def call(loss, q, d, score=None, query_id=None, document_id=None) -> LossOutput:
    ids = torch.arange(len(q))
    return loss(
        {"fused": Part(q)},
        {"fused": Part(d)},
        score=torch.ones(len(q)) if score is None else score,
        query_id=ids if query_id is None else query_id,
        document_id=ids if document_id is None else document_id,
    )


def repeats(n, seed=3):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, n // 2, (n,), generator=g), torch.randint(0, n // 2, (n,), generator=g)


def assert_close(actual, expected, tolerance):
    """Largest difference relative to the largest entry of the expected tensor."""
    for a, b in zip(actual, expected, strict=True):
        a, b = a.detach(), b.detach()
        worst = float((a - b).abs().max() / b.abs().max().clamp_min(1e-300))
        assert worst <= tolerance, worst


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("constant", [1.0, 0.3])
def test_constant_weights_are_open_clip(form, tile, constant):
    q, d = unit(13), unit(13, seed=1)
    loss = GCLLoss(form=form, tile=tile, score_to_weight=partial(weight.constant, value=constant)).double()
    learned = [q, d, loss.log_scale] + ([loss.bias] if form == "sigmoid" else [])
    ours = call(loss, q, d).loss
    theirs = ClipLoss()(q, d, loss.scale) if form == "softmax" else SigLipLoss()(q, d, loss.scale, loss.bias)
    assert_close([ours], [theirs], 1e-14)
    assert_close(torch.autograd.grad(ours, learned), torch.autograd.grad(theirs, learned), 1e-12)


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("same_query", RULES)
@pytest.mark.parametrize("same_document", RULES)
def test_every_option_is_the_loop(form, same_query, same_document):
    n = 9
    query_id, document_id = torch.tensor([0, 0, 1, 2, 0, 3, 4, 4, 5]), torch.tensor([0, 1, 1, 2, 0, 2, 3, 3, 4])
    query = {"a": unit(n, seed=1), "b": unit(n, seed=2)}
    document = {"c": unit(n, seed=3), "e": unit(n, seed=4)}
    present = torch.tensor([1, 1, 1, 0, 1, 1, 1, 1, 0]).bool()
    score = torch.tensor([100.0, 20, 70, 5, 40, 0, 33, 66, 1])  # one weight is 0
    to_weight = partial(weight.linear, low=0, high=100, floor=0)
    terms = [("a", "c", 1.0), ("a", "e", 0.25), ("b", "c", 0.0)]
    for direction, normalizer, sigmoid_weight in itertools.product(
        ("both", "query", "document"), ("weight", "count"), ("pair", "target") if form == "sigmoid" else ("pair",)
    ):
        options = {
            "form": form,
            "direction": direction,
            "normalizer": normalizer,
            "sigmoid_weight": sigmoid_weight,
            "same_query": same_query,
            "same_document": same_document,
        }
        for tile in TILES:
            loss = GCLLoss(**options, score_to_weight=to_weight, terms=[Term(*t) for t in terms], tile=tile).double()
            learned = [*query.values(), *document.values(), loss.log_scale]
            learned += [loss.bias] if form == "sigmoid" else []
            if tile is None:
                w = to_weight(score.double())
                sides = ({k: (x, present if k == "e" else None) for k, x in side.items()} for side in (query, document))
                expected = loop_loss(
                    *sides, terms, w, query_id, document_id, **options, scale=loss.scale, bias=loss.bias
                )
                gradients = torch.autograd.grad(expected, learned, materialize_grads=True)
            output = loss(
                {name: Part(x) for name, x in query.items()},
                {"c": Part(document["c"]), "e": Part(document["e"], present)},
                score=score,
                query_id=query_id,
                document_id=document_id,
            )
            assert_close(
                [output.loss, output.terms @ output.terms.new_tensor([t[2] for t in terms])], [expected] * 2, 1e-13
            )
            assert_close(torch.autograd.grad(output.loss, learned, materialize_grads=True), gradients, 1e-12)


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("tile", [None, 3])
def test_gradcheck(form, tile):
    query_id, document_id = repeats(6)
    loss = GCLLoss(
        form=form, tile=tile, same_query="positive", score_to_weight=weight.linear, scale=4.0, bias=-1.0
    ).double()
    score = torch.tensor([1.0, 100, 30, 60, 80, 10])

    def value(q, d, log_scale, bias):
        names = {"log_scale": log_scale, "bias": bias}
        names = {name: x for name, x in names.items() if name in dict(loss.named_parameters())}
        parts = ({"fused": Part(q)}, {"fused": Part(d)})
        ids = {"score": score, "query_id": query_id, "document_id": document_id}
        return torch.func.functional_call(loss, names, parts, ids).loss

    class Fresh(torch.autograd.Function):
        """gradcheck goes backward several times; each time from a forward pass of its own."""

        @staticmethod
        def forward(ctx, *inputs):
            ctx.save_for_backward(*inputs)
            return value(*inputs)

        @staticmethod
        def backward(ctx, gradient):
            inputs = [
                x.detach().requires_grad_(asked)
                for x, asked in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=True)
            ]
            with torch.enable_grad():
                value(*inputs).backward(gradient)
            return tuple(x.grad for x in inputs)

    inputs = (unit(6, 4), unit(6, 4, seed=1), loss.log_scale.detach().clone().requires_grad_())
    bias = loss.bias.detach().clone().requires_grad_(form == "sigmoid")
    assert torch.autograd.gradcheck(Fresh.apply, (*inputs, bias), check_undefined_grad=False)


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


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("tile", [None, 4])
def test_absent_parts_are_as_if_the_pairs_were_not_there(form, tile):
    q, d, present = unit(10), unit(10, seed=1), torch.tensor([1, 1, 0, 1, 1, 0, 1, 1, 1, 1]).bool()
    query_id, document_id = repeats(10)
    score = torch.linspace(1, 100, 10)
    loss = GCLLoss(form=form, tile=tile, score_to_weight=weight.reciprocal).double()
    ids = {"score": score, "query_id": query_id, "document_id": document_id}
    one = loss({"fused": Part(q, present)}, {"fused": Part(d)}, **ids)
    other = call(loss, q[present], d[present], score[present], query_id[present], document_id[present])
    assert one.absent == pytest.approx(0.2) and one.masked == other.masked > 0
    assert_close([one.loss], [other.loss], 1e-15)
    nobody = loss({"fused": Part(q, present & False)}, {"fused": Part(d)}, **ids)
    assert nobody.loss == 0 and nobody.absent == 1
    assert all((g == 0).all() for g in torch.autograd.grad(nobody.loss, [q, d, loss.log_scale]))


@pytest.mark.parametrize("same_query", RULES)
@pytest.mark.parametrize("same_document", RULES)
def test_masked_share_is_counted(same_query, same_document):
    query_id, document_id = repeats(12)
    output = call(
        GCLLoss(same_query=same_query, same_document=same_document),
        *(unit(12, seed=k) for k in (0, 1)),
        None,
        query_id,
        document_id,
    )
    everything = itertools.product(range(12), repeat=2)
    ids = query_id.tolist(), document_id.tolist()
    kinds = [entry(i, j, [1.0] * 12, *ids, same_query, same_document)[0] for i, j in everything]
    assert output.masked == pytest.approx(kinds.count("ignored") / (12 * 11))


def test_positive_of_identical_queries_is_negative_along_rows():
    """Soft targets proportional to weights, summed over a query's rows: sum_j w_j CE(row, j), each document in turn."""
    query_id = torch.tensor([0, 0, 0, 1, 2])
    q, d, score = unit(5)[query_id], unit(5, seed=1), torch.tensor([100.0, 50, 25, 80, 10])
    values = [
        call(
            GCLLoss(direction="query", same_query=rule, score_to_weight=weight.linear).double(), q, d, score, query_id
        ).loss
        for rule in ("positive", "negative")
    ]
    assert_close(values[:1], values[1:], 1e-14)


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
@pytest.mark.parametrize("rule", RULES)
def test_memory_is_linear_in_the_batch(form, rule):
    n, width, tile = 400, 8, 32
    loss = GCLLoss(form=form, tile=tile, same_query=rule, same_document=rule)
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
    with pytest.raises(RuntimeError, match="backward once"):
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
    with pytest.raises(ValueError, match="4 query rows, 3 document rows"):
        call(loss, q, d[:3])
    with pytest.raises(KeyError, match="title"):
        call(GCLLoss(terms=[{"query": "fused", "document": "title"}]), q, d)


@pytest.mark.slow
def test_torch_compile_does_not_break():
    torch._dynamo.reset()
    q, d = unit(8, dtype=torch.float32), unit(8, seed=1, dtype=torch.float32)
    loss = GCLLoss(same_query="positive")
    compiled = torch.compile(loss, backend="eager")
    ids = repeats(8)
    a, b = call(compiled, q, d, None, *ids).loss, call(loss, q, d, None, *ids).loss
    assert_close([a], [b], 1e-6)
    assert_close(torch.autograd.grad(a, [q, d, loss.log_scale]), torch.autograd.grad(b, [q, d, loss.log_scale]), 1e-6)
