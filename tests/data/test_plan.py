"""Every pair exactly once an epoch, whatever the options; nothing but pairs, options and seed decides the sequence."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl.data.batches.plan import Plan
from gcl.data.store.prepared import Pairs


def pairs_of(query, document):
    query, document = np.asarray(query, dtype=np.int64), np.asarray(document, dtype=np.int64)
    return Pairs(query, document, np.linspace(1, 100, len(query), dtype=np.float32))


def random_pairs(count, queries, documents, seed=0):
    rng = np.random.default_rng(seed)
    return pairs_of(rng.integers(0, queries, count), rng.integers(0, documents, count))


def epoch(plan, number=0):
    return [plan.batch(step) for step in range(number * plan.steps_per_epoch, (number + 1) * plan.steps_per_epoch)]


OPTIONS = [
    {},
    {"documents_per_query": 3},
    {"unique": "query"},
    {"unique": "document"},
]


@st.composite
def cases(draw):
    count = draw(st.integers(1, 150))
    key = st.integers(0, draw(st.integers(0, 60)))
    query = draw(st.lists(key, min_size=count, max_size=count))
    document = draw(st.lists(key, min_size=count, max_size=count))
    shards = draw(st.none() | st.lists(st.integers(0, 9), min_size=61, max_size=61))
    return pairs_of(query, document), {
        "batch_size": draw(st.integers(1, count)),
        "seed": draw(st.integers(0, 2**40)),
        "shard_of_document": None if shards is None else np.array(shards),
        "shuffle_shards": draw(st.integers(1, 4)),
        **draw(st.sampled_from(OPTIONS)),
    }


@settings(max_examples=150, deadline=None)
@given(case=cases(), number=st.integers(0, 3))
def test_every_pair_exactly_once_an_epoch(case, number):
    pairs, options = case
    plan = Plan(pairs, **options)
    batches = epoch(plan, number)
    assert np.sort(np.concatenate(batches)).tolist() == list(range(len(pairs.query)))
    assert all(1 <= len(batch) <= options["batch_size"] for batch in batches)
    if options.get("unique") is None:
        assert all(len(batch) == options["batch_size"] for batch in batches[:-1])
    else:
        key = getattr(pairs, options["unique"])
        assert all(len(np.unique(key[batch])) == len(batch) for batch in batches)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_any_step_can_be_asked_for_at_any_time(options):
    pairs = random_pairs(500, 60, 80)
    options = {"batch_size": 32, "seed": 3, "shard_of_document": np.arange(80) // 8, "shuffle_shards": 4, **options}
    straight = Plan(pairs, **options)
    sequence = [straight.batch(step).tolist() for step in range(3 * straight.steps_per_epoch)]
    for step in np.random.default_rng(0).permutation(len(sequence))[:40]:
        plan = pickle.loads(pickle.dumps(straight))
        assert plan.batch(int(step)).tolist() == sequence[step]
        assert straight.batch(int(step)).tolist() == sequence[step]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_epochs_and_seeds_differ(options):
    pairs = random_pairs(500, 60, 80)
    plan, other = Plan(pairs, batch_size=50, seed=0, **options), Plan(pairs, batch_size=50, seed=1, **options)
    firsts = [plan.batch(0), plan.batch(plan.steps_per_epoch), other.batch(0)]
    assert len({tuple(first) for first in firsts}) == 3


def test_the_order_is_the_one_of_earlier_versions():
    """Pinned: a checkpoint's position means nothing if this changes (raise plan._FORMAT then)."""
    pairs = pairs_of([0, 0, 1, 1, 2, 2, 3, 4, 5, 5, 5, 5], range(12))
    shards = np.arange(12) // 3
    orders = [
        np.concatenate(epoch(Plan(pairs, batch_size=5, seed=7, shard_of_document=shards, shuffle_shards=2, **o), 1))
        for o in OPTIONS
    ]
    assert [order.tolist() for order in orders] == PINNED


PINNED = [
    [9, 11, 5, 3, 10, 4, 2, 7, 6, 8, 0, 1],
    [5, 4, 9, 11, 10, 3, 1, 0, 2, 7, 6, 8],
    [4, 0, 2, 5, 1, 3, 7, 9, 8, 6, 10, 11],
    [5, 4, 2, 1, 3, 0, 9, 10, 8, 6, 7, 11],
]


def test_few_shards_give_a_uniform_permutation():
    """Position of every pair over many epochs: chi-square against uniform, 143 degrees of freedom, 6 sigma."""
    pairs = random_pairs(12, 5, 12)
    for options in ({}, {"shard_of_document": np.arange(12) // 2}):
        plan = Plan(pairs, batch_size=12, seed=0, **options)
        count = np.zeros((12, 12))
        for number in range(1200):
            count[np.arange(12), plan.batch(number)] += 1
        chi_square = ((count - 100) ** 2 / 100).sum()
        assert abs(chi_square - 121) < 6 * np.sqrt(2 * 121)


def test_shards_are_read_a_window_at_a_time():
    pairs = random_pairs(20_000, 500, 4000)
    shard = np.arange(4000) // 100  # 40 shards, 8 at a time: 5 windows
    plan = Plan(pairs, batch_size=200, seed=0, shard_of_document=shard, shuffle_shards=8)
    touched = [np.unique(shard[pairs.document[batch]]) for batch in epoch(plan)]
    assert max(len(shards) for shards in touched) <= 16, "two windows at most"
    assert np.median([len(shards) for shards in touched]) == 8
    order = np.concatenate(epoch(plan))
    last = {number: position for position, number in enumerate(shard[pairs.document[order]])}
    first = {number: -position for position, number in enumerate(shard[pairs.document[order[::-1]]], -len(order) + 1)}
    spans = [last[number] - first[number] for number in range(40)]
    assert max(spans) < len(order) / 4, "a shard is done with once its window is over"
    next_epoch = np.unique(shard[pairs.document[plan.batch(plan.steps_per_epoch)]])
    assert next_epoch.tolist() != touched[0].tolist(), "windows are drawn anew every epoch"


def test_groups_hold_up_to_k_documents_of_one_query():
    pairs = random_pairs(3000, 100, 900)
    plan = Plan(pairs, batch_size=60, seed=0, documents_per_query=4)
    for batch in epoch(plan):
        query = pairs.query[batch]
        runs = np.split(query, np.flatnonzero(np.diff(query)) + 1)
        assert np.median([len(run) for run in runs]) == 4, "groups are kept together"
    assert sum(len(np.unique(pairs.query[batch])) for batch in epoch(plan)) < 0.6 * sum(
        len(np.unique(pairs.query[batch])) for batch in epoch(Plan(pairs, batch_size=60, seed=0))
    )
    groups = np.concatenate(epoch(plan)), np.concatenate(epoch(plan, 1))
    together = [{frozenset(g) for g in np.split(o, np.flatnonzero(np.diff(pairs.query[o])) + 1)} for o in groups]
    assert len(together[0] & together[1]) < 0.2 * len(together[0]), "groups are drawn anew every epoch"


def test_unique_batches_are_full_where_keys_allow_it():
    pairs = random_pairs(5000, 1500, 3000)
    plan = Plan(pairs, batch_size=128, seed=0, unique="query")
    sizes = [len(batch) for batch in epoch(plan)]
    assert len(sizes) == plan.steps_per_epoch == -(-5000 // 128) and min(sizes) >= 125


def test_unique_moves_only_the_excess_of_a_frequent_query_to_the_end():
    query = np.r_[np.zeros(40, dtype=np.int64), np.arange(1, 961)]
    plan = Plan(pairs_of(query, np.arange(1000)), batch_size=100, seed=0, unique="query")
    sizes = [len(batch) for batch in epoch(plan)]
    assert sizes == [97] * 10 + [1] * 30
    assert all((query[batch] == 0).sum() == 1 for batch in epoch(plan))


def test_unique_mixes_keys_independently():
    """Two frequent queries meet in a batch as often as chance says."""
    query = np.repeat(np.arange(200), 10)
    plan = Plan(pairs_of(query, np.arange(2000)), batch_size=40, seed=0, unique="query")
    met = np.zeros((200, 200))
    for number in range(30):
        for batch in epoch(plan, number):
            met[np.ix_(query[batch], query[batch])] += 1
    others = met[~np.eye(200, dtype=bool)]
    expected = 30 * 50 * 40 * 39 / (200 * 199)
    assert abs(others.mean() - expected) < 1e-9
    assert 0.5 < others.var() / expected < 0.8  # chance (hypergeometric): 0.65; keys that travel together: far above


def test_the_last_batch_may_be_dropped():
    pairs = random_pairs(105, 10, 100)
    plan = Plan(pairs, batch_size=25, seed=0, drop_last=True)
    assert plan.steps_per_epoch == 4 and [len(batch) for batch in epoch(plan)] == [25] * 4
    assert Plan(pairs, batch_size=25, seed=0).steps_per_epoch == 5
    whole = np.concatenate(epoch(Plan(pairs, batch_size=25, seed=0)))
    assert np.concatenate(epoch(plan)).tolist() == whole[:100].tolist()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 101}, "batch_size is 101, but there are only 100 training pairs"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"unique": "product"}, "unique is one of query, document; given 'product'"),
        ({"documents_per_query": 0}, "documents_per_query=0: a number of at least 1"),
        ({"shuffle_shards": 0}, "shuffle_shards is 0"),
        ({"unique": "query", "documents_per_query": 2}, "exclude each other"),
        ({"unique": "query", "drop_last": True}, "exclude each other"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Plan(random_pairs(100, 10, 10), **{"batch_size": 10, "seed": 0, **options})


def test_the_fingerprint_knows_pairs_and_options():
    base = {"batch_size": 10, "seed": 0}
    pairs, shards = random_pairs(100, 10, 40), np.arange(40)
    variants = [base | change for change in (
        {}, {"seed": 1}, {"batch_size": 11}, {"unique": "query"}, {"unique": "document"}, {"documents_per_query": 2},
        {"drop_last": True}, {"shard_of_document": shards}, {"shard_of_document": shards, "shuffle_shards": 3},
    )]  # fmt: skip
    found = [Plan(pairs, **variant).fingerprint for variant in variants]
    other = random_pairs(100, 10, 40)
    other.score[3] += 1
    found += [Plan(other, **base).fingerprint, Plan(random_pairs(100, 10, 40, seed=1), **base).fingerprint]
    assert len(set(found)) == len(found)
    assert Plan(random_pairs(100, 10, 40), **base).fingerprint == found[0]
    assert Plan(pairs, **base, shard_of_document=shards // 10).fingerprint == found[0], "one window: the same order"


def test_state_brings_back_the_step_or_refuses():
    pairs = random_pairs(100, 10, 40)
    plan = Plan(pairs, batch_size=9, seed=0)
    for step in (0, 11, 12, 500):
        state = plan.state(step)
        assert set(state) == {"fingerprint", "epoch", "position"}
        assert (state["epoch"], state["position"]) == (plan.epoch_of(step), plan.position_of(step)) == divmod(step, 12)
        assert Plan(pairs, batch_size=9, seed=0).step_of(state) == step
    with pytest.raises(ValueError, match="another sequence of batches"):
        Plan(pairs, batch_size=10, seed=0).step_of(plan.state(7))
    with pytest.raises(ValueError, match="step is -1"):
        plan.batch(-1)
