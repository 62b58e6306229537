"""Several catalogs: shares exact over an epoch, batches of one never mix, any step at any time, ids never collide."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl.data.batches.mixed_plan import CatalogShare, MixedPlan
from gcl.data.catalog import Batches
from gcl.data.store.prepared import Pairs


def pairs_of(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    query = np.concatenate([100 * n + rng.integers(0, 40, size) for n, size in enumerate(sizes)])
    document = np.concatenate([200 * n + rng.integers(0, 90, size) for n, size in enumerate(sizes)])
    return Pairs(query, document, np.linspace(1, 100, sum(sizes), dtype=np.float32))


def plan_of(*sizes, shares=None, pairs=None, **options):
    shares = shares or {f"c{n}": 1.0 for n in range(len(sizes))}
    shards = options.pop("shard_of_document", [None] * len(sizes))
    first = options.pop("first_document", [0] * len(sizes))
    each = map(CatalogShare, shares.values(), sizes, shards, first)
    given = {"batch_size": 16, "seed": 0, "catalogs": dict(zip(shares, each, strict=True))}
    return MixedPlan(pairs or pairs_of(*sizes), **given | options)


def catalogs_of(sizes, rows):
    """Number of the catalog that each pair row is of."""
    return np.searchsorted(np.cumsum(sizes), rows, side="right")


def steps_of(plan, epochs):
    return [plan.batch(step) for step in range(epochs * plan.steps_per_epoch)]


@st.composite
def cases(draw):
    sizes = draw(st.lists(st.integers(40, 150), min_size=1, max_size=4))
    shares = {f"c{n}": draw(st.floats(0.05, 1.0)) for n in range(len(sizes))}
    return sizes, {
        "shares": shares,
        "batch_size": draw(st.integers(4, 20)),
        "seed": draw(st.integers(0, 2**40)),
        "documents_per_query": draw(st.sampled_from([None, 3])),
        "drop_last": draw(st.booleans()),
    }


@settings(max_examples=80, deadline=None)
@given(case=cases())
def test_mixed_batches_are_full_in_their_shares_and_every_run_shows_each_pair_once(case):
    sizes, options = case
    plan = plan_of(*sizes, **options)
    total, size = sum(sizes), options["batch_size"]
    assert plan.steps_per_epoch == (total // size if options["drop_last"] else -(-total // size))
    share = np.array(list(options["shares"].values())) / sum(options["shares"].values())
    batches = steps_of(plan, 5)
    seen: list[list[int]] = [[] for _ in sizes]
    for number, rows in enumerate(batches, 1):
        assert len(rows) == size == len(np.unique(rows)), "full, and no pair twice in it"
        for catalog, row in zip(catalogs_of(sizes, rows).tolist(), rows.tolist(), strict=True):
            seen[catalog].append(row)
        count = np.array([len(rows) for rows in seen])
        each = np.array([pairs for pairs, _ in plan.of_an_epoch.values()])
        assert (abs(count - each * number / plan.steps_per_epoch) <= max(len(sizes) / 2, 0.5) + 1e-9).all(), (
            "at any moment"
        )
        if number % plan.steps_per_epoch == 0:
            exact = share * plan.steps_per_epoch * size
            assert (abs(count - number // plan.steps_per_epoch * exact) < number // plan.steps_per_epoch).all()
    first = np.r_[0, np.cumsum(sizes)]
    for catalog, rows in enumerate(seen):
        for start in range(0, len(rows) - sizes[catalog] + 1, sizes[catalog]):
            run = sorted(rows[start : start + sizes[catalog]])
            assert run == list(range(first[catalog], first[catalog + 1])), "each pair once a run"


def test_the_shares_of_an_epoch_are_exact():
    plan = plan_of(1000, 500, 500, shares={"a": 0.5, "b": 0.3, "c": 0.2}, batch_size=20)
    counts = np.array([np.bincount(catalogs_of([1000, 500, 500], rows), minlength=3) for rows in steps_of(plan, 3)])
    assert counts.reshape(3, 100, 3).sum(axis=1).tolist() == [[1000, 600, 400]] * 3
    assert (counts == [10, 6, 4]).all(), "a share that divides the batch is met in every batch"
    assert plan.of_an_epoch == {"a": (1000, 1.0), "b": (600, 1.2), "c": (400, 0.8)}


@pytest.mark.parametrize(
    "options", [{}, {"unique": "query"}, {"unique": "document"}, {"documents_per_query": 3}], ids=str
)
def test_batches_of_one_never_mix(options):
    plan = plan_of(400, 150, 90, shares={"a": 5, "b": 3, "c": 2}, batches=Batches.one, batch_size=8, **options)
    batches = steps_of(plan, 4)
    owner = [np.unique(catalogs_of([400, 150, 90], rows)) for rows in batches]
    assert all(len(found) == 1 for found in owner)
    turns = np.concatenate(owner).reshape(4, plan.steps_per_epoch)
    assert [np.bincount(epoch).tolist() for epoch in turns] == [[40, 24, 16]] * 4, "shares of the batches, exactly"
    assert len({tuple(epoch) for epoch in turns.tolist()}) == 4, "the catalogs take turns in a new order every epoch"
    if key := options.get("unique"):
        column = getattr(plan.pairs, key)
        assert all(len(np.unique(column[rows])) == len(rows) for rows in batches)
    if not options:
        rows = np.concatenate([rows for rows, one in zip(batches, turns.ravel(), strict=True) if one == 2])
        assert np.sort(rows[:90]).tolist() == list(range(550, 640)), "a run through a catalog is its own plan's epoch"


@pytest.mark.parametrize("batches", Batches)
def test_any_step_can_be_asked_for_at_any_time(batches):
    options = {"shares": {"a": 0.6, "b": 0.3, "c": 0.1}, "batches": batches, "seed": 5}
    shards = [np.arange(90) // 9, np.arange(90) // 30, np.arange(90) // 90]
    options |= {"shard_of_document": shards, "first_document": [0, 200, 400]}
    straight = plan_of(700, 60, 90, **options)
    sequence = [rows.tolist() for rows in steps_of(straight, 4)]
    again = plan_of(700, 60, 90, **options)
    assert [rows.tolist() for rows in steps_of(again, 4)] == sequence, "the same words, the same sequence"
    for step in np.random.default_rng(0).permutation(len(sequence))[:50]:
        plan = pickle.loads(pickle.dumps(straight))
        assert plan.batch(int(step)).tolist() == sequence[step] == straight.batch(int(step)).tolist()
        state = straight.state(int(step))
        assert set(state) == {"fingerprint", "epoch", "position"} and plan.step_of(state) == step


def test_the_fingerprint_knows_shares_form_and_pairs():
    found = [
        plan_of(100, 60, **options).fingerprint
        for options in ({}, {"seed": 1}, {"batch_size": 15}, {"batches": Batches.one}, {"shares": {"a": 2, "b": 1}},
                        {"shares": {"x": 1, "c1": 1}}, {"documents_per_query": 2}, {"pairs": pairs_of(100, 60, seed=1)})
    ]  # fmt: skip
    assert len(set(found)) == len(found)
    assert plan_of(100, 60, shares={"c0": 5, "c1": 5}).fingerprint == found[0], "shares count relative to each other"
    with pytest.raises(ValueError, match="another sequence of batches"):
        plan_of(100, 60, seed=1).step_of(plan_of(100, 60).state(3))


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        ((100, 10), {}, "A batch of 16 takes up to 8 pairs of c1, which has 10; at least 16 are needed"),
        ((100, 10), {"batches": Batches.one}, "takes up to 16 pairs of c1, which has 10"),
        ((100, 90), {"shares": {"a": 1, "b": 1e-9}}, "data.mix.b is so small that no pair of an epoch's 192 is of b"),
        ((100, 90), {"shares": {"a": 1, "b": 1e-2}, "batches": Batches.one}, "no batch of an epoch's 12 is of b"),
        ((100, 90), {"batch_size": 191}, "there are only 190 training pairs"),
        ((100, 90), {"unique": "query"}, "unique needs data.batches=one"),
    ],
)
def test_what_cannot_be_is_refused(sizes, options, words):
    with pytest.raises(ValueError, match=words):
        plan_of(*sizes, **options)
