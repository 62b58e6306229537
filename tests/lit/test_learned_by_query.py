"""Field weights that each query gives: scores and gradients against loops in float64, ranks, resuming."""

import copy

import numpy as np
import pytest
import torch

from gcl.lit.checkpoint import read_checkpoint
from gcl.lit.learned_weights import LearnedByQuery
from gcl.lit.settings import FieldWeights, TrainConfig, check_field_weights
from gcl.loss.gcl import GCLLoss, Part
from gcl.loss.settings import Term
from gcl.model.query_weights import QueryWeights
from gcl.schema import Field, Schema
from helpers.training_jobs import losses

SCHEMA = Schema(
    {"query": Field()},
    {"image": Field(weight=0.6), "note": Field(weight=0), "title": Field(weight=0.3), "brand": Field(weight=0.1)},
)
GIVEN = SCHEMA.weights["document"]
BY_QUERY = "train.field_weights=learned_by_query"


def inputs(records=6, width=8):
    """embedding[n, F, D], present[n, F], query[n, D], matrix[K, D], bias[K], in float64."""
    draw = np.random.default_rng(0)
    embedding, query = draw.standard_normal((records, 4, width)), draw.standard_normal((records, width))
    embedding /= np.linalg.norm(embedding, axis=2, keepdims=True)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    present = draw.random((records, 4)) < 0.6
    present[:, 2] = True
    present[0] = [False, True, True, False]
    embedding[~present] = 0
    return embedding, present, query, draw.standard_normal((3, width)), draw.standard_normal(3)


def scores_by_loops(embedding, present, query, matrix, bias):
    """sum_k w_k(q) cos(q, v_k), field by field; what is absent is the mean of what counts and is there."""
    given = np.float64(np.float32([*GIVEN.values()]))
    counts = [f for f, weight in enumerate(given) if weight > 0]
    scores = np.zeros((len(query), len(embedding)))
    for i, q in enumerate(query):
        unscaled = [given[f] * np.exp(matrix[k] @ q + bias[k]) for k, f in enumerate(counts)]
        for j, record in enumerate(embedding):
            mean = sum(given[f] * record[f] for f in counts if present[j, f])
            others = mean / np.linalg.norm(mean)
            for weight, f in zip(unscaled, counts, strict=True):
                vector = record[f] if present[j, f] else others
                scores[i, j] += weight / sum(unscaled) * (q @ vector)
    return scores


def entropy_by_loops(scores, scale):
    total = 0.0
    for i in range(len(scores)):
        for line in (scores[i], scores[:, i]):
            total += np.log(np.exp(scale * (line - scores[i, i])).sum()) / 2
    return total / len(scores)


def test_scores_are_the_inner_products_of_loops():
    embedding, present, query, matrix, bias = inputs()
    gate = QueryWeights(GIVEN, torch.from_numpy(matrix), torch.from_numpy(bias))
    documents = gate.side_by_side(torch.from_numpy(embedding), torch.from_numpy(present))
    found = gate.spread(torch.from_numpy(query)) @ documents.T
    assert np.abs(found.numpy() - scores_by_loops(embedding, present, query, matrix, bias)).max() < 1e-12
    alone = torch.from_numpy(embedding[0, 2]) @ torch.from_numpy(query).T  # the first has one field that counts
    assert torch.allclose(found[:, 0], alone, atol=1e-12)


def test_it_begins_with_the_given_weights_and_turns_with_the_vectors():
    *_, query, matrix, bias = inputs()
    learned = LearnedByQuery(SCHEMA, 8, GCLLoss())
    assert torch.allclose(learned.learned.weights(torch.from_numpy(query)), torch.tensor([0.6, 0.3, 0.1]).double())
    gate = QueryWeights(GIVEN, torch.from_numpy(matrix), torch.from_numpy(bias))
    axes = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0]
    turned = gate.turned(axes).weights(torch.from_numpy(query @ axes.T))
    assert torch.allclose(turned, gate.weights(torch.from_numpy(query)), atol=1e-12)


@pytest.mark.parametrize("tile", [None, 4])
def test_the_gradient_is_that_of_loops_in_float64(tile):
    embedding, present, query, matrix, bias = inputs()
    learned = LearnedByQuery(SCHEMA, 8, GCLLoss(scale=10.0, tile=tile)).double()
    with torch.no_grad():
        learned.matrix.copy_(torch.from_numpy(matrix))
        learned.bias.copy_(torch.from_numpy(bias))
    documents = learned.gate.side_by_side(torch.from_numpy(embedding), torch.from_numpy(present))
    spread = learned.gate.spread(torch.from_numpy(query))
    loss = learned.loss({"fused": Part(spread)}, {"fused": Part(documents)}, score=torch.ones(6)).loss
    loss.backward()

    def by_loops(matrix, bias):
        return entropy_by_loops(scores_by_loops(embedding, present, query, matrix, bias), learned.loss.scale.item())

    assert float(loss.detach()) == pytest.approx(by_loops(matrix, bias), abs=1e-10)
    step = 1e-5
    for k in range(3):
        ends = [by_loops(matrix, bias + sign * step * np.eye(3)[k]) for sign in (1, -1)]
        assert float(learned.bias.grad[k]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)
        moved = np.zeros((3, 8))
        moved[k, k] = step
        ends = [by_loops(matrix + sign * moved, bias) for sign in (1, -1)]
        assert float(learned.matrix.grad[k, k]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def test_one_field_has_nothing_to_be_weighed_against():
    train = TrainConfig(batch_size=4, epochs=1, field_weights=FieldWeights.learned_by_query)
    check_field_weights(train, SCHEMA, [Term(document="title")])  # it needs no term of the loss
    one = copy.deepcopy(SCHEMA)
    one.document["image"].weight = one.document["brand"].weight = 0
    with pytest.raises(ValueError, match="there is only title"):
        check_field_weights(train, one, [Term()])


def gate_of(run):
    return {name: value for name, value in read_checkpoint(run.last)["state_dict"].items() if "query_weights" in name}


WORDS = ["train.validate_every=3 steps", BY_QUERY]


@pytest.fixture(scope="module")
def gated(start):
    """One uninterrupted process."""
    return start(*WORDS).done()


@pytest.mark.slow
def test_the_towers_are_those_of_a_run_without(gated, whole):
    assert losses(gated) == losses(whole)
    one, other = (read_checkpoint(run.last)["state_dict"] for run in (gated, whole))
    assert all(torch.equal(one[name], value) for name, value in other.items())
    assert gate_of(gated)["query_weights.matrix"].abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_micro_batches_and_tiles_learn_the_same_gate(start, gated, world):
    many = gate_of(start(*WORDS, "train.micro_batch=3", "loss.tile=4", world=world).done())
    for name, value in gate_of(gated).items():
        assert torch.allclose(many[name], value, atol=2e-5), name


@pytest.mark.slow
def test_a_killed_run_learns_the_same_bits(start, gated):
    words = [*WORDS, "train.checkpoint_every=1"]
    job = start(*words)
    job.until_step(2)
    job.kill()
    job.wait()
    again = start(*words, "train.resume=auto", run_dir=job.run.path).done()
    assert losses(again) == losses(gated)
    one, other = gate_of(gated), gate_of(again)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
