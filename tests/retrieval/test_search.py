"""Search against brute force in float64: same documents, same bits, whatever the block, the ranks and the order."""

import math
import multiprocessing
import os
import time

import numpy as np
import pytest
import torch
import torch.distributed as distributed
from hypothesis import given, settings, strategies

from gcl.retrieval.search import int8 as int8_module
from gcl.retrieval.search import search as module
from gcl.retrieval.search.candidates import capacity
from gcl.retrieval.search.exact import exact_scores
from gcl.retrieval.search.int8 import Int8Scan
from gcl.retrieval.search.search import search
from gcl.retrieval.search.ties import id_ranks, pack, unpack


def vectors(rows: int, width: int, seed: int, *, repeats: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    made = generator.standard_normal((rows, width)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    copies = generator.random(rows) < repeats
    made[copies] = made[generator.integers(0, rows, int(copies.sum()))]
    return made


def brute_force(query, corpus, k, rank):
    score = np.array([[math.fsum(q.astype(float) * d.astype(float)) for d in corpus] for q in query]).astype(np.float32)
    row = np.lexsort((np.broadcast_to(rank, score.shape), -score), axis=1)[:, :k]
    return np.take_along_axis(score, row, 1), row


@pytest.mark.parametrize(("documents", "k"), [(3000, 1), (3000, 10), (3000, 1500), (200, 200), (50, 1000), (1, 1)])
def test_equals_brute_force_for_every_block_size(documents, k):
    query, corpus = vectors(7, 24, 0), vectors(documents, 24, 1, repeats=0.3)
    rank = np.random.default_rng(2).permutation(documents)
    score, row = brute_force(query, corpus, k, rank)
    for block in (1, 37, 512, 5000)[0 if documents < 500 else 1 :]:
        found = search(query, corpus, k, rank=rank, block=block)
        assert (found[1] == row).all() and (found[0] == score).all()
        assert found[0].dtype == np.float32 and found[1].dtype == np.int64


def test_a_small_memory_means_more_passes_and_the_same_result():
    query, corpus, rank = vectors(9, 16, 0), vectors(4000, 16, 1), np.arange(4000)
    whole = search(query, corpus, 5, rank=rank)
    passes = search(query, corpus, 5, rank=rank, memory=8 * 2 * capacity(5, 2048))
    assert (whole[0] == passes[0]).all() and (whole[1] == passes[1]).all()


def test_equal_documents_tie_and_the_lower_id_comes_first():
    ids = [f"sku-{number}" for number in np.random.default_rng(0).permutation(6000)]
    corpus = np.repeat(vectors(60, 32, 1), 100, axis=0)  # every vector a hundred times, 37 to a block
    score, row = search(vectors(5, 32, 2), corpus, 250, rank=id_ranks(ids), block=37)
    for scores, rows in zip(score, row, strict=True):
        assert len(set(scores.tolist())) == 3  # two whole groups and half of the third
        for value in set(scores.tolist()):
            names = [ids[r] for r in rows[scores == value]]
            assert names == sorted(names)
            if len(names) == 50:
                group = np.flatnonzero((corpus == corpus[rows[scores == value][0]]).all(axis=1))
                assert names == sorted(ids[r] for r in group)[:50]


def test_a_corpus_of_one_vector_only_needs_no_more_memory():
    corpus = np.repeat(vectors(1, 16, 0), 20_000, axis=0)
    rank = np.random.default_rng(1).permutation(20_000)
    score, row = search(vectors(2, 16, 3), corpus, 10, rank=rank)
    assert (rank[row] == np.arange(10)).all()
    assert (score == score[:, :1]).all()


def test_order_of_documents_changes_nothing_but_their_rows():
    query, corpus, ids = vectors(20, 48, 0), vectors(5000, 48, 1, repeats=0.2), [f"d{n}" for n in range(5000)]
    mixed = np.random.default_rng(3).permutation(5000)
    score, row = search(query, corpus, 100, rank=id_ranks(ids))
    other_score, other_row = search(query, corpus[mixed], 100, rank=id_ranks([ids[r] for r in mixed]))
    assert (score == other_score).all() and (row == mixed[other_row]).all()


def test_a_query_alone_gets_the_bits_it_gets_among_others():
    query, corpus, rank = vectors(30, 64, 0), vectors(3000, 64, 1), np.arange(3000)
    score, row = search(query, corpus, 20, rank=rank)
    for q in (0, 13, 29):
        alone = search(query[q : q + 1], corpus, 20, rank=rank)
        assert (alone[0][0] == score[q]).all() and (alone[1][0] == row[q]).all()


@pytest.mark.parametrize("kind", ["map", "half", "strided"])
def test_other_kinds_of_corpus(tmp_path, kind):
    query, corpus, rank = vectors(5, 16, 0), vectors(3000, 16, 1), np.arange(3000)
    if kind == "map":
        np.save(tmp_path / "corpus.npy", corpus)
        given = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    elif kind == "half":
        given = corpus.astype(np.float16)
        corpus = given.astype(np.float32)
    else:
        given = np.concatenate([corpus, corpus], axis=1)[:, :16]
    score, row = brute_force(query, corpus, 10, rank)
    found = search(query, given, 10, rank=rank)
    assert (found[0] == score).all() and (found[1] == row).all()


def test_long_short_and_zero_vectors():
    generator = np.random.default_rng(0)
    scale = 10.0 ** generator.integers(-12, 12, (2000, 1))
    corpus = (vectors(2000, 16, 1) * scale).astype(np.float32)
    corpus[::50] = 0
    query = vectors(4, 16, 2) * np.float32([[1e-10], [1], [1e6], [0]])
    score, row = brute_force(query, corpus, 1900, np.arange(2000))
    found = search(query, corpus, 1900, rank=np.arange(2000), block=100)
    assert (found[0] == score).all() and (found[1] == row).all()


def test_scores_at_the_edge_of_rounding_are_exact():
    one = np.float32(1)
    tiny = np.float32(2.0**-24)  # 1 + 2^-24 lies halfway between two floats, a little more rounds up
    corpus = np.float32([[one, tiny, 0], [one, tiny, 2.0**-60], [one, tiny, -(2.0**-60)]])
    score = exact_scores(np.float32([[1, 1, 1]]), corpus, np.array([0, 3]), np.arange(3), 2.0)
    exact = [math.fsum(map(float, row)) for row in corpus]
    assert score.tolist() == np.array(exact).astype(np.float32).tolist()


def test_packed_keys_read_back_and_sort():
    score = np.float32([3e38, 1.5, 1e-40, 0.0, -1e-40, -2.5, -3e38])
    keys = pack(score, np.full(7, 2**31 - 1))
    assert (np.diff(keys) > 0).all()
    assert unpack(keys)[0].tolist() == score.tolist() and (unpack(keys)[1] == 2**31 - 1).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(bad):
    query, corpus, rank = vectors(3, 8, 0), vectors(2000, 8, 1), np.arange(2000)
    corpus[1500, 3] = bad
    with pytest.raises(ValueError, match="Document row 1500"):
        search(query, corpus, 5, rank=rank)
    query[2, 1] = bad
    with pytest.raises(ValueError, match="Query row 2"):
        search(query, corpus, 5, rank=rank)


def test_wrong_arguments_are_named():
    query, corpus = vectors(3, 8, 0), vectors(10, 8, 1)
    with pytest.raises(ValueError, match="9 id ranks for 10 documents"):
        search(query, corpus, 5, rank=np.arange(9))
    with pytest.raises(ValueError, match=r"given \[3, 8\] and \[10, 7\]"):
        search(query, corpus[:, :7], 5, rank=np.arange(10))
    with pytest.raises(ValueError, match="k = 0"):
        search(query, corpus, 0, rank=np.arange(10))
    with pytest.raises(ValueError, match="'b' is in the corpus twice"):
        id_ranks(["a", "b", "b"])
    score, row = search(query[:0], corpus, 5, rank=np.arange(10))
    assert score.shape == row.shape == (0, 5)


def one_rank(rank: int, world: int, file: str, results) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    query, corpus = vectors(11, 24, 0), vectors(2500, 24, 1, repeats=0.3)
    found = [
        search(query, corpus[:m], k, rank=np.arange(m)[::-1].copy(), int8=m > 2)
        for m, k in ((2500, 100), (2500, 2000), (2, 5))
    ]
    corpus[2400] = np.nan  # only the last rank sees it; every rank must say so
    try:
        search(query, corpus, 5, rank=np.arange(2500))
    except (ValueError, RuntimeError) as error:
        results.put((rank, found, str(error)))
    distributed.destroy_process_group()


@pytest.mark.parametrize("world", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_ranks_find_what_one_process_finds(tmp_path, world):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=one_rank, args=(r, world, str(tmp_path / "meet"), results)) for r in range(world)
    ]
    for process in processes:
        process.start()
    answers = [results.get(timeout=900) for _ in processes]
    for process in processes:
        process.join()
    query, corpus = vectors(11, 24, 0), vectors(2500, 24, 1, repeats=0.3)
    for _, found, error in answers:
        assert "row 2400 is not finite" in error
        for (m, k), (score, row) in zip(((2500, 100), (2500, 2000), (2, 5)), found, strict=True):
            alone = search(query, corpus[:m], k, rank=np.arange(m)[::-1].copy())
            assert (alone[0] == score).all() and (alone[1] == row).all()


def shaped(kind: str, rows: int, width: int) -> np.ndarray:
    """Corpora that are hard on 8 bits, each in its way."""
    generator = np.random.default_rng(7)
    made = vectors(rows, width, 8, repeats=0.2)
    if kind == "outlier dimensions":
        made[:, :3] += 4.0
        made[:, 5] *= 60
    elif kind == "narrow":
        made = made * 0.05 + vectors(1, width, 9)
    elif kind == "lengths":
        made *= (10.0 ** generator.uniform(-3, 3, (rows, 1))).astype(np.float32)
    elif kind == "near duplicates":
        made = made[generator.integers(0, min(40, rows), rows)] + generator.normal(0, 1e-6, (rows, width))
    elif kind == "signs":
        made = np.where(made > 0, np.float32(1), np.float32(-1))
    elif kind == "sparse":
        made[generator.random(made.shape) < 0.97] = 0
    return np.ascontiguousarray(made, dtype=np.float32)


needs_exact = pytest.mark.skipif(not int8_module.exact(), reason="sums of 8-bit products saturate on this processor")
KINDS = ["plain", "outlier dimensions", "narrow", "lengths", "near duplicates", "signs", "sparse"]


@pytest.mark.parametrize("kind", KINDS)
def test_integers_find_what_float32_finds_to_the_bit(kind):
    corpus, query = shaped(kind, 9000, 72), np.concatenate([vectors(20, 72, 3), shaped(kind, 20, 72)])
    rank = np.random.default_rng(2).permutation(9000)
    for k, block in ((1, 512), (10, 1000), (100, 2048), (700, 2048)):
        score, row = search(query, corpus, k, rank=rank, block=block, int8=False)
        found = search(query, corpus, k, rank=rank, block=block, int8=True)
        assert (found[0] == score).all() and (found[1] == row).all(), (k, block)


@given(
    seed=strategies.integers(0, 2**31), width=strategies.integers(1, 90), k=strategies.integers(1, 60),
    scale=strategies.floats(1e-6, 1e6), shift=strategies.floats(-100, 100), step=strategies.sampled_from([0, 0.25, 1]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_integers_are_exact_for_any_vectors(seed, width, k, scale, shift, step):
    generator = np.random.default_rng(seed)
    corpus = (generator.standard_normal((700, width)) + shift * generator.random(width)) * scale
    corpus = (np.round(corpus / (scale * step)) * scale * step if step else corpus).astype(np.float32)  # ties, too
    query = generator.standard_normal((6, width)).astype(np.float32)
    rank = generator.permutation(700)
    score, row = search(query, corpus, k, rank=rank, block=64, int8=False)
    found = search(query, corpus, k, rank=rank, block=64, int8=True)
    assert (found[0] == score).all() and (found[1] == row).all()


@needs_exact
@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_of_the_integers_holds(kind):
    """Every approximate score against the product in float64; the bound is never more than 30 times too wide."""
    corpus, query = shaped(kind, 3000, 72), vectors(50, 72, 3)
    scan = Int8Scan(query, corpus[:500])
    everything, out = slice(0, 50), torch.empty(50 * 500, dtype=torch.int32)
    worst = 0.0
    for start in range(0, 3000, 500):
        block = corpus[start : start + 500]
        small, step, rest, longest = scan.small(block)
        scores = scan.scores(everything, small, out) * (scan.scale * step)[:, None]
        true = query.astype(float) @ (block.astype(float) - scan.centre.astype(float)).T
        error = np.abs(scores - true).max(axis=1) / scan.margin(everything, rest, longest)
        assert (error <= 1).all()
        worst = max(worst, float(error.max()))
    assert worst > 1 / 30


def test_a_later_block_with_longer_documents_does_not_lose_earlier_ones():
    """The threshold was raised with a narrower margin than the longer documents have."""
    generator = np.random.default_rng(0)
    query = vectors(3, 64, 1)
    corpus = vectors(6000, 64, 2)
    corpus[5000:] *= 1000.0
    corpus[5000:] -= (corpus[5000:] @ query[0])[:, None] * query[0] * np.float32(1 - 1e-7)
    rank = generator.permutation(6000)
    score, row = brute_force(query, corpus, 20, rank)
    for int8 in (False, True):
        found = search(query, corpus, 20, rank=rank, block=100, int8=int8)
        assert (found[0] == score).all() and (found[1] == row).all()


def test_where_8_bits_tell_nothing_apart_float32_does(monkeypatch):
    """All documents within a step of the grid: the integers give up instead of settling every query one by one."""
    corpus = vectors(1, 64, 0) + np.random.default_rng(1).normal(0, 2e-3, (30_000, 64)).astype(np.float32)
    corpus[0] += 5  # so that the grid is coarse
    query, rank = vectors(40, 64, 2), np.arange(30_000)
    gave_up = []
    whole = module._Share.by_float32
    monkeypatch.setattr(module._Share, "by_float32", lambda self: gave_up.append(1) or whole(self))
    found = search(query, corpus, 10, rank=rank, int8=True)
    assert gave_up
    score, row = search(query, corpus, 10, rank=rank, int8=False)
    assert (found[0] == score).all() and (found[1] == row).all()


def alike(kind: str, rows: int, width: int) -> np.ndarray:
    values = vectors(3, width, 4)
    random = np.random.default_rng(6)
    if kind in ("nearly one", "nearly three"):  # a few units in the last place
        bits = values[random.integers(0, 1 if kind == "nearly one" else 3, rows)].view(np.int32)
        return (bits + random.integers(-2, 3, bits.shape).astype(np.int32)).view(np.float32)
    if kind == "one number":  # each differs in one number alone, from all the others by less than a score can say
        made, place = np.repeat(values[:1], rows, axis=0), random.integers(0, width, rows)
        made[np.arange(rows), place] = np.nextafter(made[np.arange(rows), place], np.float32(np.inf))
        return made
    if kind == "close":
        return (values[:1] + random.standard_normal((rows, width)) * 1e-6).astype(np.float32)
    if kind == "zeros":
        return np.zeros((rows, width), np.float32)
    if kind == "one value":
        return np.repeat(values[:1], rows, axis=0)
    made = vectors(rows, width, 5)
    many = np.random.default_rng(6).random(rows) < 0.6
    made[many] = 0 if kind == "many zeros" else values[np.arange(many.sum()) % 3]
    made[::97] *= np.float32(-0.0) if kind == "many zeros" else 1
    return made


NEARLY = ["nearly one", "nearly three", "one number", "close"]


@pytest.mark.parametrize("kind", ["zeros", "one value", "many zeros", "three values", *NEARLY])
@pytest.mark.parametrize("int8", [False, True])
def test_equal_documents_rank_as_brute_force_ranks_them(kind, int8):
    corpus, query = alike(kind, 1500, 17), np.concatenate([vectors(4, 17, 0), np.zeros((1, 17), np.float32)])
    rank = np.random.default_rng(2).permutation(1500)
    for k in (1, 10, 400, 1500):
        score, row = brute_force(query, corpus, k, rank)
        found = search(query, corpus, k, rank=rank, block=256, int8=int8)
        assert (found[1] == row).all() and (found[0] == score).all(), k
        nothing = search(query[4:], corpus, k, rank=rank, int8=int8)
        assert (nothing[1] == row[4:]).all() and not nothing[0].any()


@pytest.mark.parametrize("int8", [False, True])
def test_equal_vectors_cost_no_more_than_twice_what_others_cost(int8):
    query, rank = vectors(200, 64, 0), np.random.default_rng(2).permutation(20_000)

    usual = vectors(20_000, 64, 1)
    cases = {kind: (query, alike(kind, 20_000, 64)) for kind in ("zeros", "one value", *NEARLY)}
    cases |= {"usual": (query, usual), "no query": (np.zeros_like(query), usual)}
    cases["one query"] = np.repeat(query[:1], 200, axis=0), usual
    seconds = dict.fromkeys(cases, math.inf)
    for _ in range(5):  # in turn, so that a machine that is busy for a while slows all of them
        for name, (asked, corpus) in cases.items():
            begun = time.process_time()
            search(asked, corpus, 10, rank=rank, int8=int8)
            seconds[name] = min(seconds[name], time.process_time() - begun)
    times = {name: taken / seconds["usual"] for name, taken in seconds.items()}
    assert max(times[name] for name in NEARLY) < 6, times  # 20 to 30 before they had a search of their own
    assert max(taken for name, taken in times.items() if name not in NEARLY) < 2, times


@needs_exact
@pytest.mark.parametrize("wrong", ["one shape", "refused"])
def test_integer_products_that_are_wrong_for_a_shape_are_noticed(monkeypatch, wrong):
    """As on processors whose products of some shapes are garbage: every shape is probed when it first occurs."""
    own, called = torch._int_mm, []

    def product(left, right, *, out):
        called.append(right.shape)
        if right.shape[1] != 40:  # of the last block, which is shorter
            return own(left, right, out=out)
        if wrong == "refused":
            raise RuntimeError("no kernel for this shape")
        return out.copy_(own(left, right) + 1)

    monkeypatch.setattr(torch, "_int_mm", product)
    monkeypatch.setattr(int8_module, "_SOUND", set())
    query, corpus, rank = vectors(20, 32, 0), vectors(1000, 32, 1), np.arange(1000)
    found = search(query, corpus, 10, rank=rank, block=320, int8=True)
    score, row = search(query, corpus, 10, rank=rank, block=320, int8=False)
    assert called and (found[0] == score).all() and (found[1] == row).all()


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6, 1e15])
def test_nearly_equal_documents_among_others_of_any_length(scale):
    """Some lie close together, some anywhere; queries that are documents, short, long, or on a coarse grid."""
    corpus, query = alike("nearly three", 1200, 17), vectors(5, 17, 0)
    far = np.random.default_rng(3).random(1200) < 0.4
    corpus[far] = vectors(int(far.sum()), 17, 8)
    query[0], query[1], query[2], query[3] = corpus[0], query[1] * 1e-15, query[2] * 1e15, np.round(query[3] * 4) / 4
    corpus, rank = (corpus * scale).astype(np.float32), np.random.default_rng(2).permutation(1200)
    for k in (1, 60, 700):
        score, row = brute_force(query, corpus, k, rank)
        for int8 in (False, True):
            found = search(query, corpus, k, rank=rank, int8=int8)
            assert (found[1] == row).all() and (found[0] == score).all(), (k, int8)


def test_a_product_that_is_less_precise_than_promised_is_noticed(monkeypatch):
    own = np.matmul

    def coarse(left, right, *, out):
        return np.copyto(out, own(left, right) * np.float32(1.01))

    monkeypatch.setattr(np, "matmul", coarse)
    for corpus in (vectors(3000, 32, 1), alike("close", 3000, 32)):
        with pytest.raises(RuntimeError, match="less precise here"):
            search(vectors(50, 32, 0), corpus, 10, rank=np.arange(3000), int8=False)


def test_vectors_of_one_number_are_searched_exactly():
    query, corpus, rank = vectors(300, 1, 0) * 3, np.random.default_rng(1).standard_normal((5000, 1)), np.arange(5000)
    corpus = corpus.astype(np.float32)
    score, row = search(query, corpus, 7, rank=rank, int8=False)
    found = search(query, corpus, 7, rank=rank, int8=True)
    assert (found[0] == score).all() and (found[1] == row).all()


@pytest.mark.parametrize("k", [5, 400])
def test_a_rank_that_holds_its_own_part_alone(k):
    """The best of the rows it holds, by their rows in the whole corpus and the ranks of their ids among all."""
    query, corpus = vectors(7, 24, 0), vectors(3000, 24, 1, repeats=0.3)
    rank, held = np.random.default_rng(2).permutation(3000), range(900, 2100)
    score, row = search(query, corpus[900:2100], k, rank=rank, held=held)
    expected, places = brute_force(query, corpus[900:2100], k, rank[900:2100])
    assert (score == expected).all() and (row == places + 900).all()
