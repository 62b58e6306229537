"""One process: every option against explicit loops, constant weights against open_clip, absent parts, gradcheck."""

import itertools
from functools import partial

import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss

from gcl.data.batches.lookups import KnownScores, TeacherVectors
from gcl.loss import weight
from gcl.loss.gcl import GCLLoss, Part, Term
from gcl.loss.margin import margin_of
from gcl.loss.targets import relate
from gcl.loss.terms import Teaching
from helpers.loss_cases import make_batch
from helpers.loss_inputs import RULES, TILES, assert_close, call, repeats, unit
from helpers.loss_rank import said
from helpers.loss_reference import entry, loop_loss


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
    score = torch.tensor([100.0, 20, 70, 5, 40, 1, 33, 66, 2])  # one weight is 0
    to_weight = partial(weight.linear, low=1, high=100, floor=0)
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
@pytest.mark.parametrize("rule", ["ignore", "negative", "judged"])
@pytest.mark.parametrize("margin", [None, 0.1])
def test_pairs_that_are_not_relevant_and_false_negatives_are_the_loop(form, rule, margin):
    """Pairs of score 0 stand anywhere: a refused document of a query with other pairs and of one without, one that is
    another pair's document, and one that was judged both ways."""
    n = 11
    query_id = torch.tensor([0, 0, 1, 2, 0, 3, 4, 4, 5, 6, 1])
    document_id = torch.tensor([0, 1, 1, 2, 3, 2, 3, 4, 5, 1, 1])
    score = torch.tensor([100.0, 0, 70, 5, 40, 0, 33, 66, 50, 0, 0])
    q, d = unit(n, seed=1), {"c": unit(n, seed=3), "e": unit(n, seed=4)}
    present = torch.tensor([1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 1]).bool()
    parts = {"c": Part(d["c"]), "e": Part(d["e"], present)}
    to_weight = partial(weight.linear, low=0, high=100, floor=0.1)
    terms = [("fused", "c", 1.0), ("fused", "e", 0.25)]
    known = {(q, d): s for q, d, s in zip(query_id.tolist(), document_id.tolist(), score.tolist(), strict=True) if s}
    known |= {(2, 1): 30.0, (5, 3): 80.0}
    judged = KnownScores(*torch.tensor(list(known)).T, torch.tensor(list(known.values())))
    weights = {pair: float(to_weight(torch.tensor(s, dtype=torch.float64))) for pair, s in known.items()}
    for direction, spread in itertools.product(
        ("both", "query", "document"), ("pair", "target") if form == "sigmoid" else ("pair",)
    ):
        options = {"form": form, "direction": direction, "sigmoid_weight": spread}
        if rule == "judged":
            options["target"] = {"softmax": "graded", "sigmoid": "sigmoid"}[form]
        else:
            options["same_query"] = rule
        for tile in TILES:
            loss = GCLLoss(
                **options, score_to_weight=to_weight, terms=[Term(*t) for t in terms], tile=tile, false_negative=margin
            ).double()
            learned = [q, *d.values(), loss.log_scale] + ([loss.bias] if form == "sigmoid" else [])
            if tile is None:
                expected = loop_loss(
                    {"fused": (q, None)}, {"c": (d["c"], None), "e": (d["e"], present)}, terms,
                    to_weight(score.double()), query_id, document_id, score == 0, **options,
                    scale=loss.scale, bias=loss.bias, margin=margin, known=weights,
                )  # fmt: skip
                gradients = torch.autograd.grad(expected, learned, materialize_grads=True)
            output = loss(
                {"fused": Part(q)}, parts, score=score, query_id=query_id, document_id=document_id, judged=judged
            )
            assert_close([output.loss], [expected], 1e-13)
            assert_close(torch.autograd.grad(output.loss, learned, materialize_grads=True), gradients, 1e-12)


def test_a_document_that_is_not_relevant_is_pushed_from_its_query():
    q, d = unit(4), unit(4, seed=1)
    ids = {"query_id": torch.tensor([0, 1, 2, 0]), "document_id": torch.arange(4)}
    for form in ("softmax", "sigmoid"):
        loss = GCLLoss(form=form, direction="query").double()
        gradient = torch.autograd.grad(call(loss, q, d, torch.tensor([1.0, 1, 1, 0]), **ids).loss, d)[0]
        pushed = gradient[3] @ q[:3].T @ torch.linalg.pinv(q[:3] @ q[:3].T)  # in terms of the three queries
        assert (pushed > 0).all()


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_planted_false_negatives_are_left_out(form):
    """Queries of groups that share their answers, of which only one is judged: copies of it, with noise."""
    g = torch.Generator().manual_seed(0)
    n, group = 240, torch.arange(240) // 2
    centre = torch.nn.functional.normalize(torch.randn(n, 64, generator=g), dim=-1)[group]
    d = torch.nn.functional.normalize(centre + 0.02 * torch.randn(n, 64, generator=g), dim=-1)
    q = torch.nn.functional.normalize(centre + 0.08 * torch.randn(n, 64, generator=g), dim=-1)
    d[::2] = torch.nn.functional.normalize(
        d[::2] + 0.12 * torch.randn(n // 2, 64, generator=g), dim=-1
    )  # judged, worse
    s, eye = q @ d.T, torch.eye(n).bool()
    relations = relate(torch.arange(n), torch.arange(n), "ignore", "ignore")
    margin = margin_of(s.diagonal(), torch.tensor(1.0), 0.1, relations)
    close = margin.too_close(s.masked_fill(eye, -torch.inf), slice(0, n), slice(0, n), 1)
    left_out = torch.zeros(n, n).bool()
    close.fill_(left_out, 1, True)
    planted = (group[:, None] == group) & ~eye
    planted[1::2] = False  # whose own target is the better of the two
    assert float((left_out & planted).sum() / planted.sum()) >= 0.95 and not (left_out & ~planted).any()
    loss = GCLLoss(form=form, direction="query", false_negative=0.1)
    kept = [i for i in range(n) if i % 2 == 0]
    more = call(loss, q[[*kept, 1]], d[[*kept, 1]]).loss  # a false negative of query 0, and its own pair
    without = call(GCLLoss(form=form, direction="query"), q[[*kept, 1]], d[[*kept, 1]]).loss
    assert more < without


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("tile", [None, 3])
def test_gradcheck(form, tile):
    query_id, document_id = repeats(6)
    loss = GCLLoss(
        form=form,
        tile=tile,
        target={"softmax": "graded", "sigmoid": "sigmoid"}[form],
        score_to_weight=weight.linear,
        scale=4.0,
        bias=-1.0,
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


def test_graded_targets_of_identical_queries_are_each_document_in_turn():
    """Soft targets proportional to weights, summed over a query's rows: sum_j w_j CE(row, j)."""
    query_id = torch.tensor([0, 0, 0, 1, 2])
    q, d, score = unit(5)[query_id], unit(5, seed=1), torch.tensor([100.0, 50, 25, 80, 10])
    values = [
        call(GCLLoss(direction="query", score_to_weight=weight.linear, **options).double(), q, d, score, query_id).loss
        for options in ({"target": "graded"}, {"same_query": "negative"})
    ]
    assert_close(values[:1], values[1:], 1e-14)


@pytest.mark.parametrize("target", ["positives", "graded", "sigmoid"])
def test_targets_of_what_is_judged_are_the_loop(target):
    """More is known than the batch's pairs say, also of records that the batch lacks, and one judgment counts 0."""
    n, form = 9, "sigmoid" if target == "sigmoid" else "softmax"
    query_id, document_id = torch.tensor([0, 0, 1, 2, 0, 3, 4, 4, 5]), torch.tensor([0, 1, 1, 2, 0, 2, 3, 3, 4])
    q, d = unit(n, seed=1), unit(n, seed=2)
    present = torch.tensor([1, 1, 1, 0, 1, 1, 1, 1, 0]).bool()
    known = {(0, 0): 100.0, (0, 1): 20.0, (1, 1): 70.0, (2, 2): 5.0, (3, 2): 1.0, (4, 3): 66.0, (5, 4): 2.0}
    score = torch.tensor([known[pair] for pair in zip(query_id.tolist(), document_id.tolist(), strict=True)])
    known |= {(1, 3): 50.0, (5, 0): 10.0, (3, 4): 99.0, (2, 77): 3.0, (88, 1): 4.0, (0, 4): 1.0}
    judged = KnownScores(*torch.tensor(sorted(known)).T, torch.tensor([known[pair] for pair in sorted(known)]))
    to_weight = partial(weight.linear, low=1, high=100, floor=0)
    weights = {pair: (value - 1) / 99 for pair, value in known.items()}
    for direction, normalizer, tile in itertools.product(("both", "query", "document"), ("weight", "count"), TILES):
        options = {"form": form, "direction": direction, "normalizer": normalizer, "target": target}
        loss = GCLLoss(**options, score_to_weight=to_weight, tile=tile, scale=5.0, bias=-1.0).double()
        sides = {"fused": (q, None)}, {"fused": (d, present)}
        expected = loop_loss(
            *sides, [("fused", "fused", 1.0)], to_weight(score.double()), query_id, document_id, known=weights,
            scale=loss.scale, bias=loss.bias, **options,
        )  # fmt: skip
        output = loss(
            {"fused": Part(q)}, {"fused": Part(d, present)}, score=score, query_id=query_id, document_id=document_id,
            judged=judged,
        )  # fmt: skip
        learned = [q, d, loss.log_scale, *([loss.bias] if form == "sigmoid" else [])]
        assert output.masked == 0
        assert_close([output.loss], [expected], 1e-13)
        assert_close(torch.autograd.grad(output.loss, learned), torch.autograd.grad(expected, learned), 1e-12)


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("rule", ["vectors", "lists"])
def test_a_teacher_is_the_loop(form, rule):
    """In every direction, with absent parts; a student that has the teacher's similarities learns nothing from it."""
    batch = make_batch(11)
    q, d, present = unit(11, seed=1), unit(11, seed=2), torch.arange(11) % 5 != 2
    teacher, ids = batch.teacher(rule), (batch.query_row, batch.document_row)
    for direction, tile in itertools.product(("both", "query", "document"), TILES):
        loss = GCLLoss(form=form, direction=direction, tile=tile, scale=5.0, teaching=Teaching(0.7, 0.2)).double()
        expected = loop_loss(
            {"fused": (q, None)}, {"fused": (d, present)}, [("fused", "fused", 1.0)], torch.ones(11), *ids, form=form,
            direction=direction, scale=loss.scale, bias=loss.bias, teacher=teacher, teaching=(0.7, 0.2),
        )  # fmt: skip
        output = loss(
            {"fused": Part(q)}, {"fused": Part(d, present)}, query_id=ids[0], document_id=ids[1],
            teacher=said(teacher, torch.float64),
        )  # fmt: skip
        assert_close([output.loss, output.terms.sum() + 0.7 * output.teacher], [expected] * 2, 1e-13)
        learned = [q, d, loss.log_scale]
        assert_close(torch.autograd.grad(output.loss, learned), torch.autograd.grad(expected, learned), 1e-12)
        same = GCLLoss(form=form, scale=5.0, direction=direction, tile=tile, teaching=Teaching(1.0, 0.2)).double()
        nothing = same({"fused": Part(q)}, {"fused": Part(d)}, teacher=TeacherVectors(q.detach(), d.detach())).teacher
        assert abs(nothing) < 1e-14


def test_the_config_says_what_a_weight_counts_for():
    from gcl.config.compose import Overrides
    from gcl.errors import ConfigError

    def given(*words):
        return Overrides(["loss=gcl_sigmoid", *words]).config().loss.sigmoid_weight.value

    assert given() == "pair" and given("loss.sigmoid_weight=target") == "target"
    with pytest.raises(ConfigError, match="sigmoid_weight"):
        given("loss.sigmoid_weight=targets")
