"""The rule that says what to do with a model: what it claims, and what it names in counts."""

import numpy as np
import pytest

from gcl.retrieval.analysis.verdict import Decision, verdicts
from gcl.retrieval.metrics.statistics import compare

TITLES = {"zero_shot": "new searches", "novel_query": "known products", "in_domain": "known searches",
          "title": "title searches"}  # fmt: skip


def changes(better: int, same: int, worse: int, size: float = 0.2):
    """A comparison in which so many queries changed by `size`, give or take a little."""
    rng = np.random.default_rng(0)
    change = np.repeat([size, 0.0, -size], [better, same, worse])
    return compare(np.full(len(change), 0.5), 0.5 + change * rng.uniform(0.9, 1.1, len(change)))


def verdict_of(forgotten=(), **tasks):
    return verdicts({("tuned", name): c for name, c in tasks.items()}, TITLES, {"tuned": list(forgotten)})["tuned"]


UP, DOWN, FLAT = changes(56, 1, 1), changes(3, 5, 50), changes(30, 40, 30)


@pytest.mark.parametrize(
    ("tasks", "decision", "sentence"),
    [
        ({"zero_shot": UP}, "ship", "Better on new searches (56 of 58 searches got better, 1 worse): ship"),
        ({"zero_shot": UP, "novel_query": UP, "title": changes(0, 15, 2)}, "ship",
         "Better on 2 of 3 tasks (new searches; known products), worse on title searches (2 of 17 searches, too few to "
         "be sure): ship"),
        ({"zero_shot": UP, "title": changes(25, 0, 30)}, "ship",
         "Better on 1 of 2 tasks (new searches), worse on title searches (30 of 55 searches, perhaps by chance): ship"),
        ({"zero_shot": UP, "novel_query": UP, "in_domain": UP}, "ship",
         "Better on both tasks (new searches; known products): ship"),
        ({"zero_shot": UP, "novel_query": DOWN}, "mixed",
         "Better on 1 of 2 tasks (new searches), worse on known products (50 of 58 searches): mixed"),
        ({"zero_shot": changes(60, 0, 40, 0.4)}, "unclear", "No clear difference on new searches (60 of 100 searches "
         "got better, 40 worse)"),
        ({"zero_shot": changes(120, 0, 70)}, "mixed",
         "Better on new searches, but worse for 70 of 190 searches: mixed"),
        ({"zero_shot": DOWN}, "worse", "Worse on new searches (50 of 58 searches): do not ship"),
        ({"zero_shot": UP, "novel_query": DOWN, "title": DOWN}, "worse",
         "Better on 1 of 3 tasks (new searches), worse on known products (50 of 58 searches) and title searches (50 of "
         "58 searches): do not ship"),
        ({"zero_shot": FLAT, "novel_query": changes(1, 0, 2)}, "unclear",
         "No clear difference on any of 2 tasks (30 of 100 searches got better, 30 worse on new searches)"),
        ({"zero_shot": changes(17, 0, 0)}, "unclear",
         "No clear difference on new searches: 17 searches are too few to tell (20 are the least)"),
        # what training has seen is learned by heart: no reason to ship, but one not to
        ({"in_domain": UP}, "unclear",
         "No clear difference: only searches and products of the training data were measured"),
        ({"zero_shot": FLAT, "in_domain": UP}, "unclear",
         "No clear difference on new searches (30 of 100 searches got better, 30 worse)"),
        ({"zero_shot": UP, "in_domain": DOWN}, "mixed",
         "Better on new searches (56 of 58 searches got better, 1 worse), worse on known searches (50 of 58 searches): "
         "mixed"),
    ],
)  # fmt: skip
def test_the_rule_and_its_sentence(tasks, decision, sentence):
    verdict = verdict_of(**tasks)
    assert (verdict.decision, verdict.sentence) == (Decision[decision], sentence)


def test_a_retention_limit_stops_a_better_model():
    verdict = verdict_of(["photos (0.0412 of hit@1 lost, the limit is 0.02)"], zero_shot=UP)
    assert verdict.decision is Decision.worse
    assert verdict.sentence.endswith("worse), forgot photos (0.0412 of hit@1 lost, the limit is 0.02): do not ship")


def test_the_more_is_tested_the_more_a_difference_has_to_show():
    slight = changes(34, 0, 16)
    assert 0.01 < slight.p < 0.05 and slight.low > 0
    assert verdict_of(zero_shot=slight).better == ("new searches",)
    tasks = {f"task {n}": slight if n == 0 else FLAT for n in range(6)}
    found = verdicts({("tuned", name): c for name, c in tasks.items()}, {name: name for name in tasks})["tuned"]
    assert found.decision is Decision.unclear  # Holm's correction over six tasks
    alone = {("a", "zero_shot"): slight, **{(f"model {n}", "zero_shot"): FLAT for n in range(5)}}
    assert verdicts(alone, TITLES)["a"].decision is Decision.unclear  # and over six models


def test_better_and_worse_are_mirror_images_of_each_other():
    for better, worse in ((56, 2), (30, 30), (34, 16), (12, 1)):
        up, down = verdict_of(zero_shot=changes(better, 5, worse)), verdict_of(zero_shot=changes(worse, 5, better))
        assert bool(up.better) == bool(down.worse)
