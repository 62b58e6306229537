"""What is in the file, before any browser opens it."""

import html
import json
import re

import numpy as np
import pytest

from gcl.data.titles import title_within
from gcl.retrieval.analysis.verdict import Decision, Verdict, verdicts_of
from gcl.retrieval.evaluate import result_of
from gcl.retrieval.metrics.statistics import Comparison
from gcl.retrieval.page.browser import chosen
from gcl.retrieval.page.curve import read_curves, thinned
from gcl.retrieval.page.markup import round_ticks
from gcl.retrieval.page.page import write_page
from gcl.retrieval.page.sections import all_slices, query_slices
from gcl.retrieval.page.thumbnails import Album, thumbnail
from gcl.retrieval.page.words import outcome
from gcl.retrieval.tasks.task import ListRecords, task_from_qrels
from gcl.schema import Field
from helpers.page_shop import ATTACK, answers, picture, shop, shop_task


def data_of(path) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)[1])


@pytest.fixture
def written(tmp_path, tasks, models):
    def write(**options):
        return write_page(tmp_path / "report.html", title="A shop", tasks=tasks, models=models, **options)

    return write


def test_it_is_one_file_that_asks_for_nothing(written, curve):
    text = written(curve=curve, facts={"catalog": "shop", "packages": {"torch": "2.6"}}).read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//|file:)""", text)
    policy = re.search('Content-Security-Policy" content="(.*?)"', text)[1]
    assert "default-src &#x27;none&#x27;" in policy and "unsafe" not in policy and "http" not in policy
    assert text.count("<script") == 2 and text.count("<style") == 1, "a catalog's text opened a tag of its own"
    assert "packages: torch" in text


def test_what_is_embedded_is_what_was_measured(written, tasks, models):
    data = data_of(written(details=1000, metrics=["ndcg@10", "recall@10"]))
    assert data["tasks"] == ["Photo", "New searches, new products", "Known searches, known products"]
    rows = [row for row in data["rows"] if row[0] == 1]
    for label, values in enumerate(("base", "tuned")):
        expected = models[values]["zero_shot"].values["ndcg@10"]
        assert np.allclose([row[4][label][0] for row in rows], expected, atol=1e-6)
    position = 7
    view = data["details"][rows[position][3]]
    result = models["tuned"]["zero_shot"]
    ids = [data["products"][item[0]][1] for item in view["lists"][1]]
    assert ids == [tasks[1].corpus.ids[row] for row in result.row[position][:10]]
    qrels = tasks[1].qrels[rows[position][2]]
    for name, item in zip(ids, view["lists"][1], strict=True):
        assert item[2] == qrels[name] if name in qrels else item[2] in (None, "twin")
        assert item[3][1] == ids.index(name) + 1
    assert view["relevant"] == 3 and view["highest"] == 3


def test_each_picture_is_embedded_once_and_broken_ones_not_at_all(written):
    data = data_of(written(details=1000))
    assert len(set(data["pictures"])) == len(data["pictures"])
    by_id = {product[1]: product for product in data["products"]}
    assert by_id["p1"][2] == by_id["p2"][2] == -1
    assert by_id["p3"][2] == by_id["p4"][2] >= 0
    assert len(data["pictures"]) == 40 - 3 + 12  # products but 1, 2, and 3 = 4; one a picture query


def test_twins_are_marked(written):
    data = data_of(written(details=1000))
    number = {product[1]: i for i, product in enumerate(data["products"])}
    seen = set()
    for view in data["details"]:
        for found in view["lists"]:
            places = {item[0]: place for place, item in enumerate(found, 1)}
            for name, twin, kind in (("p3", "p4", "content"), ("p4", "p3", "content"), ("p5", "p6", "title")):
                one, other = places.get(number[name]), places.get(number[twin])
                if one and other and other < one:
                    assert found[one - 1][4:] == [other, kind]
                    seen.add(kind)
    assert seen == {"content", "title"}


def test_an_unjudged_twin_of_a_relevant_product_is_told_from_other_unjudged_ones(tmp_path):
    corpus = shop()
    task = shop_task("t", corpus, ["one"])
    task.judgments.document[:] = [4, 10, 11, 12]
    results = {"base": {"t": answers(task, 5.0)}, "tuned": {"t": answers(task, 5.0, k=40)}}
    data = data_of(write_page(tmp_path / "r.html", title="t", tasks=[task], models=results, top=40))
    relevance = {data["products"][item[0]][1]: item[2] for item in data["details"][0]["lists"][1]}
    assert relevance["p4"] == 3 and relevance["p3"] == "twin" and relevance["p20"] is None


@pytest.mark.parametrize("limit", [120_000, 140_000, 160_000, 190_000])
def test_the_file_stays_within_its_limit_and_says_what_it_left_out(written, limit):
    assert written(details=1000).stat().st_size > 190_000
    path = written(details=1000, limit_bytes=limit)
    data = data_of(path)
    assert path.stat().st_size <= limit
    assert data["wanted"] == len(data["rows"]) and data["total"] == 132
    assert len(data["details"]) < 132
    if limit > 130_000:
        changes = [row[4][1][0] - row[4][0][0] for row in data["rows"] if row[3] >= 0]
        assert min(changes) < 0 < max(changes)
        assert max(item[0] for view in data["details"] for found in view["lists"] for item in found) < len(
            data["products"]
        )
        assert max(product[2] for product in data["products"]) < len(data["pictures"])


def test_many_queries_are_written_in_seconds(tmp_path):
    corpus = shop()
    task = shop_task("zero_shot.test", corpus, [f"search number {n}" for n in range(10_000)])
    results = {label: {"zero_shot": answers(task, q, k=10)} for label, q in (("base", 1.0), ("tuned", 1.4))}
    path = write_page(tmp_path / "r.html", title="many", tasks=[task], models=results)
    data = data_of(path)
    assert len(data["rows"]) == 10_000 and len(data["details"]) == 2_000
    assert path.stat().st_size < 3_000_000


@pytest.mark.parametrize("labels", [["base"], ["base", "tuned", "other"]])
def test_one_model_or_several(tmp_path, tasks, models, labels):
    results = {label: models["tuned" if label == "tuned" else "base"] for label in labels}
    path = write_page(tmp_path / "r.html", title="t", tasks=tasks, models=results, details=5)
    assert data_of(path)["labels"] == labels
    assert ("got better" in path.read_text().split("<script")[0]) == (len(labels) > 1)


def test_slices_of_the_caller_come_first_and_must_fit(written, tasks):
    season = ["winter" if n % 2 else "summer" for n in range(60)]
    text = written(slices={"zero_shot": {"Season": season}}).read_text()
    assert text.index(">Season<") < text.index("Words in the search")
    with pytest.raises(ValueError, match="'Season' of task 'zero_shot' has 59 values for 60"):
        written(slices={"zero_shot": {"Season": season[:-1]}})
    own = query_slices(tasks[1])
    assert set(own) >= {"Words in the search", "Relevant products’ image"}
    asked = {"query_length": ["2 words"] * 60, "missing image": ["all have it"] * 60, "Season": season}
    found = all_slices(tasks[1], asked)  # what is asked for by another name stands there once
    assert list(found)[:3] == ["Words in the search", "Relevant products’ image", "Season"]
    assert set(found) == {"Season", *own} and found["Words in the search"] == asked["query_length"]


def test_few_searches_are_marked(written):
    assert "too few" in written().read_text()


def test_the_page_says_the_verdict_of_the_rule(written, models):
    titles = {task: title_within(task) for task in models["base"]}
    verdict = verdicts_of(models, "ndcg@10", titles)["tuned"]
    text = html.unescape(written().read_text())
    assert f"{verdict.reason}." in text and f">{verdict.decision.value.capitalize()}</p>" in text
    text = written(verdicts={"tuned": Verdict(Decision.worse, "Forgot photos")}).read_text()
    assert "Forgot photos." in text and ">Do not ship</p>" in text


def test_counts_in_words():
    assert outcome(Comparison(0, 0, 0, 0, 1, 1, 1, 0, 0)).startswith("1 of 1 search got better, 0 worse")


def test_wrong_calls_are_told_in_a_sentence(tmp_path, tasks, models):
    def write(**changed):
        given = {"title": "t", "tasks": tasks, "models": models} | changed
        return write_page(tmp_path / "r.html", **given)

    with pytest.raises(ValueError, match="'in_domain.test' was not measured for 'tuned'; measured: photo.test"):
        write(models={**models, "tuned": {"photo": models["tuned"]["photo"]}})
    with pytest.raises(ValueError, match="'ndcg@100' was not measured"):
        write(metrics=["ndcg@100"])
    with pytest.raises(ValueError, match="at least one model"):
        write(models={})
    with pytest.raises(ValueError, match="No task has a query"):
        write(tasks=[])
    assert not (tmp_path / "r.html").exists()


def test_the_chosen_mix_losses_gains_and_chance():
    change = np.concatenate([np.linspace(-1, -0.1, 30), np.zeros(100), np.linspace(0.1, 1, 30)])
    picked = chosen(change, 50)
    assert len(set(picked)) == 50 and picked[:2] == [0, 159]
    for length in (5, 20, 50):
        values = change[picked[:length]]
        assert (values < 0).sum() >= 0.4 * length and (values > 0).sum() >= 0.4 * length
    assert (change[picked] == 0).any()
    assert sorted(chosen(change, 1000)) == list(range(160))


def test_thumbnails_are_small_and_upright():
    assert thumbnail(b"", 96) is None and thumbnail(b"<svg onload=alert(1)>", 96) is None
    album = Album(96)
    mark = album.mark()
    first = album.add(picture(1, (2000, 3000)))
    assert album.add(picture(1, (2000, 3000))) == first == 0 and album.add(None) == -1
    assert album.size == sum(len(text) + 3 for text in album.pictures.values()) < 4000
    album.back_to(mark)
    assert album.size == 0 and album.add(picture(2)) == 0


def test_curves_are_read_as_they_were_logged(curve):
    curves = read_curves(curve)
    step, loss = curves["train/loss"]
    assert len(step) == 500 and loss[0] == 5
    assert [len(part) for part in thinned(step, loss)] == [200, 200]
    assert curves["dev/ndcg@10"][0].tolist() == [99, 299, 499]


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (0.5, 0.5), (0.0, 0.0), (-3.0, 1e5), (1e-7, 2e-7)])
def test_ticks_enclose_what_is_drawn(low, high):
    ticks = round_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 8


def test_without_a_curve_there_is_no_training_section(written, tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n0,0,nan\n")
    for curve in (None, tmp_path / "nothing.csv", tmp_path / "metrics.csv"):
        assert 'id="training"' not in written(curve=curve).read_text()


def test_an_attack_in_title_and_facts_stays_text(tmp_path, tasks, models):
    path = write_page(tmp_path / "r.html", title=ATTACK, tasks=tasks, models=models, facts={ATTACK: ATTACK})
    text = path.read_text()
    assert text.count("<script") == 2 and set(re.findall(r'<img src="(.{5})', text)) == {"data:"}


def test_examples_of_doubtful_changes_are_marked_so_and_equal_models_said(tmp_path):
    corpus = ListRecords(list("abcd"), [{"title": name} for name in "abcd"], {"title": Field()})
    queries = ListRecords(["q"], [{"query": "x"}], {"query": Field()})

    def page(qrels, tuned):
        task = task_from_qrels("t.test", queries, corpus, {"q": qrels})
        lists = {"base": [0, 1, 2, 3], "tuned": tuned}
        models = {
            label: {"t": result_of(task, np.array([[4.0, 3, 2, 1]], np.float32), np.array([row]), ["ndcg@10"])}
            for label, row in lists.items()
        }
        return write_page(tmp_path / "r.html", title="t", tasks=[task], models=models).read_text().split("<script")[0]

    assert "cannot tell" not in page({"a": 1}, [1, 0, 2, 3]) and "Lost most" in page({"a": 1}, [1, 0, 2, 3])
    doubtful = page({"a": 1, "d": 0}, [1, 0, 2, 3])
    assert "Lost most" in doubtful and "cannot tell" in doubtful and "every change rests on" in doubtful
    assert "No search changed" in page({"a": 1}, [0, 1, 2, 3])


def test_two_named_models_are_a_leaderboard_that_says_whose_verdict_it_is(tmp_path, tasks, models):
    named = {"ours": models["tuned"], "plain": models["base"]}
    given = {"plain": Verdict(Decision.worse, "Worse on titles")}
    path = write_page(tmp_path / "r.html", title="t", tasks=tasks, models=named, verdicts=given, details=5)
    text = path.read_text().split("<script")[0]
    assert text.count('class="board"') == len(tasks) and 'class="verdict worse"' not in text
    assert "plain against ours: Worse on titles: do not ship." in text and "Lost most" in text


def test_the_figures_are_those_of_a_task_that_counts_and_the_verdict_is_said_once(tmp_path, tasks, models):
    seen, photo = tasks[0], tasks[2]
    assert len(photo.queries) < 20 < len(seen.queries)
    text = write_page(tmp_path / "r.html", title="t", tasks=[seen, photo], models=models).read_text()
    assert f'<p class="kicker"><b dir="auto">{photo.title}</b>' in text
    assert len(re.findall("no clear difference", text.split("<script")[0], re.I)) == 1
