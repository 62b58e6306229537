"""Real runs that learn from what is judged and from a teacher: on several ranks, resumed, with another teacher."""

import csv
import json
import signal

import numpy as np
import pytest

from gcl.data.batches.lookups import Lookups
from gcl.data.batches.plan import Plan
from gcl.data.store.prepared import Pairs
from gcl.lit.data import PairData
from helpers.training_jobs import batches, losses

JUDGED = "loss.target=graded"


@pytest.fixture(scope="module")
def reranked(start, whole, tmp_path_factory):
    """Scores of a reranker for every second training pair, its queries by their texts, and one of an unknown query."""
    from gcl.config.compose import load_config
    from gcl.data.prepare.mixed import open_catalog
    from gcl.retrieval.embedding.precomputed import texts_of

    config = load_config(whole.config)
    prepared = open_catalog(config.data, config.cache_dir)
    texts, documents = texts_of(prepared.queries), prepared.documents.ids
    path = tmp_path_factory.mktemp("reranker") / "scores.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["query", "product_id", "score"])
        for query, document in list(zip(prepared.pairs.query, prepared.pairs.document, strict=True))[::2]:
            rows.writerow([texts[query], documents[document], f"{-1.5 + 0.1 * int(document):.3f}"])
        rows.writerow(["nobody asks this", documents[0], "0.5"])
    return path


def test_killed_and_resumed_with_a_teacher_are_the_same_bytes(start, whole, reranked, tmp_path):
    """Lists of a reranker and every known judgment."""
    words = [JUDGED, f"teacher.scores={reranked}", "train.checkpoint_every=2"]
    job = start(*words)
    straight = job.done()
    assert "rows name queries or products outside the catalog" in job.log()
    assert losses(straight) != losses(whole) and batches(straight) == batches(whole)
    killer = "++callbacks={killer: {_target_: helpers.kill_callback.Killer, moment: writing, step: 4}}"
    job = start(*words, killer, run_dir=tmp_path / "run")
    assert job.wait() == [-signal.SIGKILL]
    resumed = start(*words, "train.resume=auto", run_dir=tmp_path / "run").done()
    assert losses(resumed) == losses(straight)


def test_a_run_goes_on_with_its_own_teacher_alone():
    pairs = Pairs(np.arange(8), np.arange(8), np.ones(8, np.float32))
    plan = Plan(pairs, batch_size=4, seed=0)

    def data(digest, **options):
        return PairData(plan, query=None, document=None, steps=4, lookups=Lookups(digest=digest), **options)

    state = {**plan.state(1), "step": 1}
    data(None).load_state_dict(state)  # of a version that knew no teachers
    data("a").load_state_dict(state | {"teacher": "a"})
    for digest in (None, "b"):
        with pytest.raises(ValueError, match="what its teacher says has changed"):
            data(digest).load_state_dict(state | {"teacher": "a"})
        data(digest, may_change=["teacher"]).load_state_dict(state | {"teacher": "a"})


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("kind", ["run", "scores"])
def test_ranks_learn_from_a_teacher_as_one_process(start, whole, reranked, world, kind):
    """A run whose titles teach, and a reranker; vectors are embedded once and shared."""
    words = {
        "run": [f"teacher.run={whole.path}", "teacher.document={title: 1}", "teacher.weight=0.5"],
        "scores": [f"teacher.scores={reranked}", "loss.form=sigmoid", "loss.target=sigmoid"],
    }[kind]
    one, many = start(*words).done(), start(*words, world=world).done()
    assert losses(many) == pytest.approx(losses(one), abs=1e-5) and batches(many) == batches(one)
    digests = {json.loads(run.environment.read_text())["teacher_digest"] for run in (one, many)}
    assert len(digests) == 1
    assert losses(one) != losses(whole)
