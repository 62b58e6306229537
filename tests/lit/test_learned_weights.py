"""Field weights that are trained with the loss: the gradient against loops in float64, ranks, micro-batches, tiles."""

import json

import numpy as np
import pytest
import torch

from gcl.lit.learned_weights import LearnedWeights
from gcl.lit.settings import FieldWeights, TrainConfig, check_field_weights
from gcl.loss.settings import Term
from gcl.model.fusion import fuse
from gcl.schema import Field, Schema
from helpers.training_jobs import losses

SCHEMA = Schema(
    {"query": Field()}, {"image": Field(weight=0.6), "title": Field(weight=0.3), "brand": Field(weight=0.1)}
)


def loss_by_loops(log, given, embedding, present, query):
    """Cross-entropy of each query against all documents, record by record."""
    documents = []
    for record, there in zip(embedding, present, strict=True):
        total = sum(given[f] * np.exp(log[f]) * record[f] for f in range(len(log)) if there[f])
        documents.append(total / np.linalg.norm(total))
    loss = 0.0
    for n, one in enumerate(query):
        scores = [5 * float(one @ other) for other in documents]
        loss += np.log(sum(np.exp(score) for score in scores)) - scores[n]
    return loss / len(query)


def test_the_gradient_is_that_of_loops_in_float64():
    draw = np.random.default_rng(0)
    embedding = draw.standard_normal((6, 3, 8))
    embedding /= np.linalg.norm(embedding, axis=2, keepdims=True)
    query = draw.standard_normal((6, 8))
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    present = draw.random((6, 3)) < 0.7
    present[:, 1] = True
    learned = LearnedWeights(SCHEMA, ["document"]).double()
    with torch.no_grad():
        learned.log["document"].copy_(torch.tensor([0.3, -0.2, 0.5]))
    fused = fuse(torch.from_numpy(embedding), learned("document"), torch.from_numpy(present))
    loss = torch.nn.functional.cross_entropy(5 * torch.from_numpy(query) @ fused.T, torch.arange(6))
    loss.backward()
    given = [np.float64(np.float32(one.weight)) for one in SCHEMA.document.values()]
    log, step = np.array([0.3, -0.2, 0.5]), 1e-5
    log = learned.log["document"].detach().numpy().copy()
    assert float(loss.detach()) == pytest.approx(loss_by_loops(log, given, embedding, present, query), abs=1e-12)
    for f in range(3):
        ends = [log + sign * step * np.eye(3)[f] for sign in (1, -1)]
        high, low = (loss_by_loops(end, given, embedding, present, query) for end in ends)
        assert float(learned.log["document"].grad[f]) == pytest.approx((high - low) / (2 * step), abs=1e-8)


FAST = ["train.field_weights=learned", "optim.rules={field_weights.*: {rate: 100}}"]


@pytest.fixture(scope="module")
def one(start):
    return start(*FAST).done()


@pytest.mark.slow
@pytest.mark.parametrize("words", [["train.micro_batch=3"], ["loss.tile=4"]])
def test_ranks_micro_batches_and_tiles_learn_the_same_weights(start, one, words):
    learned = json.loads(one.field_weights.read_text())
    assert learned["why"] == "learned with the loss" and learned["used"]["document"] != learned["given"]["document"]
    for world in (1, 2, 3):
        many = start(*FAST, *words, world=world).done()
        assert losses(many) == pytest.approx(losses(one), abs=1e-5)
        assert json.loads(many.field_weights.read_text())["used"]["document"] == pytest.approx(
            learned["used"]["document"], abs=1e-5
        )


def test_where_nothing_could_be_learned_it_is_refused():
    train = TrainConfig(batch_size=4, epochs=1, field_weights=FieldWeights.learned)
    check_field_weights(train, SCHEMA, [Term(query="fused", document="title"), Term()])
    for schema, terms in (
        (SCHEMA, [Term(query="fused", document="title")]),
        (Schema({"query": Field()}, {"title": Field(), "brand": Field(weight=0)}), [Term()]),
    ):
        with pytest.raises(ValueError, match="there is nothing to learn"):
            check_field_weights(train, schema, terms)
