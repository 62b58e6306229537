"""Pairs of the score 0 in training: prepared, joined to batches by a pure function, the same on any number of ranks."""

import numpy as np
import pytest

from gcl.data.batches.batch import PairDataset, SideReader
from gcl.data.batches.negatives import Mined, Negatives, Rounds, read_mined
from gcl.data.batches.plan import Plan
from gcl.data.store.prepared import NO_PAIRS, Pairs
from helpers.small_catalog import catalog, pairs, prepared, products, write_table


class Letters:
    size = (2, 2)

    def text(self, texts):
        import torch

        return torch.tensor([[*map(ord, text[:12].ljust(12))] for text in texts])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Ten queries with six products each; of the even ones the first two were judged not relevant, of the last all."""
    root = tmp_path_factory.mktemp("tables")
    rows = pairs(10, 40)
    for row in rows:
        query = int(row["query"].split()[1])
        if (query % 2 == 0 and int(row["score"]) <= 2) or query == 9:
            row["score"] = "0"
    write_table(root / "products.csv", products(40))
    write_table(root / "pairs.csv", rows)
    return prepared(catalog(root, products="products.csv", pairs="pairs.csv", score="score"), root / "out")


def test_pairs_of_score_0_are_kept_for_training(found):
    names = {found.queries.ids[row] for row in found.not_relevant.query}
    assert len(found.not_relevant) == 10 and len(names) == 5  # a query without a relevant product has nothing to learn
    assert not found.not_relevant.score.any() and (found.pairs.score > 0).all()
    told = {
        (q, d) for q, d in zip(found.not_relevant.query.tolist(), found.not_relevant.document.tolist(), strict=True)
    }
    assert not told & set(zip(found.pairs.query.tolist(), found.pairs.document.tolist(), strict=True))


@pytest.fixture
def dataset(found):
    def make(rank=0, world=1, **options):
        plan = Plan(found.pairs, batch_size=16, seed=1)
        plan.negatives = Negatives(found.not_relevant, seed=1, **options)
        sides = [SideReader(store, store.side, Letters()) for store in (found.queries, found.documents)]
        return PairDataset(found.pairs, plan, query=sides[0], document=sides[1], rank=rank, world=world)

    return make


def test_each_query_brings_its_own_and_the_pairs_stay(dataset, found):
    own = {}
    for q, d in zip(found.not_relevant.query.tolist(), found.not_relevant.document.tolist(), strict=True):
        own.setdefault(q, set()).add(d)
    for per_query in (1, 5):
        data, drawn = dataset(per_query=per_query), set()
        for step in range(8):
            batch, rows = data[step], data.plan.batch(step)
            assert batch.document_id[: len(rows)].tolist() == found.pairs.document[rows].tolist()
            assert (batch.score[: len(rows)] > 0).all() and not batch.score[len(rows) :].any()
            more = list(zip(batch.query_id[len(rows) :].tolist(), batch.document_id[len(rows) :].tolist(), strict=True))
            asked = set(found.pairs.query[rows].tolist())
            assert len(set(more)) == len(more) == sum(min(per_query, len(own.get(q, ()))) for q in asked)
            assert all(d in own[q] for q, d in more)
            drawn |= set(more)
        assert len(drawn) == len(found.not_relevant)  # all have their turn


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_one_batch(dataset, world):
    for step in (0, 5):
        whole, parts = dataset()[step], [dataset(rank, world)[step] for rank in range(world)]
        texts = np.concatenate([part.document.fields["title"].numpy() for part in parts])
        for part in parts:
            assert part.score.tolist() == whole.score.tolist()
            assert part.document_id.tolist() == whole.document_id.tolist()
            assert (texts[part.document_row] == whole.document.fields["title"][whole.document_row].numpy()).all()


def test_mined_documents_follow_the_judged_and_the_file_of_their_round(found, tmp_path):
    rounds = Rounds(tmp_path / "mined", every=4)
    queries = np.unique(found.pairs.query)
    for step, shift in ((0, 0), (4, 3)):
        Mined(np.repeat(queries, 3), np.tile([130, 131, 132], len(queries)) + shift, np.zeros(3 * len(queries))).write(
            rounds(step)
        )
    assert [path.name for path in rounds.files()] == ["00000000.parquet", "00000004.parquet"]
    negatives = Negatives(found.not_relevant, per_query=3, seed=1, mined=rounds)
    judged = np.bincount(found.not_relevant.query, minlength=len(queries))
    for step in range(8):
        place, document = negatives.of_batch(step, queries)
        assert np.bincount(place).tolist() == [3] * len(queries)
        mined = np.isin(document, [130, 131, 132] if step < 4 else [133, 134, 135])
        assert (np.bincount(place, ~mined) == judged[queries]).all()
    state = negatives.state(5)
    negatives.check(state)
    read_mined(rounds(4))._replace(document=np.full(3 * len(queries), 7)).write(rounds(4))
    with pytest.raises(ValueError, match="00000004.parquet is not what the checkpoint was trained with"):
        negatives.check(state)
    with pytest.raises(ValueError, match="other pairs with the score 0"):
        Negatives(NO_PAIRS, seed=1).check(state)
    rounds(4).write_bytes(b"cut")
    with pytest.raises(ValueError, match="missing or damaged"):
        negatives.check(state)


def test_no_pairs_of_score_0_change_nothing():
    some = Pairs(np.arange(4), np.arange(4), np.ones(4, np.float32))
    plan = Plan(some, batch_size=2, seed=0)
    before = plan.state(1)
    plan.negatives = Negatives(NO_PAIRS)
    assert plan.state(1) == before and plan.step_of(before) == 1
