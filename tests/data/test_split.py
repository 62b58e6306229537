"""A half depends on nothing but the row itself; the four situations share nothing training has seen."""

import numpy as np
import pytest

from gcl.data.catalog import Split
from gcl.data.check import check_split
from gcl.data.prepare.split import divide, situations, training_pairs, uniform, whole_task
from gcl.data.store.prepared import SITUATIONS, Pairs

QUERIES = [f"query {number}".encode() for number in range(4000)]
DOCUMENTS = [f"document {number}" for number in range(3000)]


def drawn_pairs(count=20_000, seed=0):
    draw = np.random.default_rng(seed)
    return Pairs(
        draw.integers(0, len(QUERIES), count),
        draw.integers(0, len(DOCUMENTS), count),
        draw.integers(0, 4, count).astype(np.float32),
    )


def test_halves_have_their_shares():
    halves = divide(QUERIES, DOCUMENTS, Split(), held=set())
    assert abs(halves.train_query.mean() - 0.8) < 0.02
    assert abs(halves.train_document.mean() - 0.5) < 0.03
    assert abs(halves.dev_query.mean() - 0.5) < 0.03
    assert abs(halves.dev_query[halves.train_query].mean() - 0.5) < 0.03  # two cuts, two hashes


def test_a_half_depends_on_the_key_alone():
    keys = QUERIES[:50]
    (numbers,) = uniform(keys, seed=3, purpose="queries")
    (shuffled,) = uniform([b"new", *reversed(keys)], seed=3, purpose="queries")
    assert (shuffled[:0:-1] == numbers).all()
    assert not np.allclose(numbers, next(uniform(keys, seed=4, purpose="queries")))
    assert not np.allclose(numbers, next(uniform(keys, seed=3, purpose="dev")))


def test_numbers_stay_the_same_in_every_version():
    assert next(uniform([b"a", b"b"], seed=0, purpose="queries")).tolist() == pytest.approx(
        [0.5483547405, 0.7951555997], abs=1e-9
    )


def test_a_larger_share_only_adds():
    small = divide(QUERIES, DOCUMENTS, Split(queries=0.3, documents=0.2), held=set())
    large = divide(QUERIES, DOCUMENTS, Split(queries=0.6, documents=0.9), held=set())
    assert (large.train_query >= small.train_query).all()
    assert (large.train_document >= small.train_document).all()
    everything = divide(QUERIES, DOCUMENTS, Split(queries=1, documents=1), held=set())
    assert everything.train_query.all() and everything.train_document.all()


def test_held_queries_are_never_seen():
    held = set(QUERIES[::3])
    halves = divide(QUERIES, DOCUMENTS, Split(queries=1), held=held)
    assert not halves.train_query[::3].any() and halves.train_query[1::3].all()


def test_training_and_situations_partition_the_pairs():
    pairs, split = drawn_pairs(), Split(seed=5)
    halves = divide(QUERIES, DOCUMENTS, split, held=set())
    training = training_pairs(pairs, halves)
    assert halves.train_query[training.query].all() and halves.train_document[training.document].all()
    assert (training.score > 0).all()
    found = {task.name: task for task in situations(pairs, training, halves, split)[0]}
    assert tuple(found) == SITUATIONS
    for name, task in found.items():
        new_query, new_document = name in ("novel_query", "zero_shot"), name in ("novel_document", "zero_shot")
        assert (np.isin(task.judged.query, training.query) != new_query).all()
        assert (np.isin(task.judged.document, training.document) != new_document).all()
        known = np.isin(np.arange(len(DOCUMENTS)), training.document)
        assert (task.corpus == np.flatnonzero(known != new_document)).all()
    relevant = {(int(q), int(d)) for q, d, s in zip(pairs.query, pairs.document, pairs.score, strict=True) if s > 0}
    judged = [
        (int(q), int(d))
        for task in found.values()
        for q, d, s in zip(task.judged.query, task.judged.document, task.judged.score, strict=True)
        if s > 0
    ]
    assert len(judged) == len(set(judged)) and set(judged) == relevant


def test_judgments_are_qrels():
    judged = Pairs(
        np.array([7, 7, 7, 1, 2, 2, 3]),
        np.array([5, 5, 4, 4, 4, 9, 9]),
        np.array([1, 3, 0, 2, 0, 0, 1], np.float32),
    )
    task = whole_task("task", np.array([4, 5, 6]), judged)
    assert list(zip(task.judged.query, task.judged.document, task.judged.score, strict=True)) == [
        (1, 4, 2), (7, 4, 0), (7, 5, 3)
    ]  # fmt: skip
    assert (task.outside_corpus, task.without_relevant) == (2, 2)


def test_a_share_of_one_leaves_situations_out_but_for_what_no_training_pair_holds():
    pairs = drawn_pairs()
    for split, names in [
        (Split(queries=1), ["in_domain", "novel_document", "zero_shot"]),  # queries of held-out products alone
        (Split(documents=1), ["in_domain", "novel_query", "zero_shot"]),
        (Split(queries=1, documents=1), ["in_domain"]),
    ]:
        halves = divide(QUERIES, DOCUMENTS, split, held=set())
        training = training_pairs(pairs, halves)
        assert [task.name for task in situations(pairs, training, halves, split)[0]] == names


@pytest.mark.parametrize("name", ["queries", "documents", "dev"])
@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_are_shares(name, share):
    with pytest.raises(ValueError, match=f"data.split.{name} is"):
        check_split(Split(**{name: share}))


def test_training_needs_something():
    with pytest.raises(ValueError, match="no documents would be left"):
        check_split(Split(documents=0))
