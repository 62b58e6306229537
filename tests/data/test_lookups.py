"""What is looked up for a batch: the scores of all training pairs among its queries and documents."""

import numpy as np
import pytest

from gcl.data.batches import lookups
from gcl.data.batches.lookups import ScoreTable
from gcl.data.store.prepared import Pairs


@pytest.mark.parametrize("at_once", [1, 5, 1 << 20])
def test_every_known_pair_of_the_batch_is_found_once(monkeypatch, at_once):
    """Against a loop: repeated pairs count by their highest score, order and repeats of the batch do not matter."""
    monkeypatch.setattr(lookups, "_AT_ONCE", at_once)
    draw = np.random.default_rng(0)
    query, document = draw.integers(0, 12, 90), draw.integers(0, 15, 90)
    pairs = Pairs(query, document, draw.integers(1, 100, 90).astype(np.float32))
    known: dict[tuple[int, int], float] = {}
    for q, d, score in zip(query.tolist(), document.tolist(), pairs.score.tolist(), strict=True):
        known[q, d] = max(score, known.get((q, d), 0.0))
    table = ScoreTable(pairs)
    for _ in range(5):
        q, d = query[draw.integers(0, 90, 20)], document[draw.integers(0, 90, 20)]
        found = [tuple(one) for one in zip(*(x.tolist() for x in table.among(q, d)), strict=True)]
        among = {pair for pair in known if pair[0] in q and pair[1] in d}
        assert found == [(*pair, known[pair]) for pair in sorted(among)]
    nothing = table.among(np.empty(0, np.int64), np.empty(0, np.int64))
    assert [len(x) for x in nothing] == [0, 0, 0]
