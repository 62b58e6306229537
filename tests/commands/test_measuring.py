"""evaluate.py as its users run it: other people's evaluators, judgments in every form, contestants of every kind."""

import csv
import json

import pytest

from gcl.cli import main
from gcl.retrieval.tasks.trec import read_qrels, read_run
from helpers.judged_shop import COLOURS, THINGS, means, texts_of
from helpers.published_evaluator import figures, ground_truth


def check_figures(found, expected):
    assert found.pop("queries") > 0
    assert found.keys() <= expected.keys()
    for name, value in found.items():
        assert value == pytest.approx(expected[name], abs=1e-9), name


@pytest.mark.parametrize("sample", ["weight", pytest.param("uniform", marks=pytest.mark.slow)])
def test_evaluate_gcl_gives_the_published_evaluator_s_figures(judged, sample):
    folder, rows, evaluate = judged
    out = evaluate("evaluate=gcl", "evaluate.queries=10", f"evaluate.sample={sample}", "evaluate.tasks=[table]",
                   "models=[tiny]")  # fmt: skip
    text = texts_of(folder)
    run = {text[query]: results for query, results in read_run(out / "tasks/table/run.tiny.trec").items()}
    truth = ground_truth(rows, count=10, weighted=sample == "weight")
    assert run.keys() == truth.keys()
    scores = [score for results in run.values() for _, score in results]
    assert len(set(scores)) < len(scores) / 2  # ties, which the two rules order differently
    found = means(out, "table")
    assert len(found) == 152
    check_figures(found, figures(truth, run))


def test_evaluate_marqtune_and_fashionclip(judged):
    folder, rows, evaluate = judged
    text = texts_of(folder)
    out = evaluate("evaluate=marqtune", "evaluate.tasks=[table]", "models=[tiny]")
    run = {text[query]: results for query, results in read_run(out / "tasks/table/run.tiny.trec").items()}
    found = means(out, "table")
    assert set(found) == {"ndcg@10", "ndcg@100", "mrr@1000", "map@1000", "precision@10", "recall@10", "recall@50",
                          "queries"}  # fmt: skip
    check_figures(found, figures(ground_truth(rows, count=4000), run))
    out = evaluate("evaluate=fashionclip", "evaluate.tasks=[table,kind]", "models=[tiny]")
    run = {text[query]: results for query, results in read_run(out / "tasks/table/run.tiny.trec").items()}
    assert {len(results) for results in run.values()} == {10}
    truth = ground_truth(rows, count=2000, weighted=False, rescaled=False)
    binary = {query: {d: 1 for d, score in judged.items() if score > 0} for query, judged in truth.items()}
    check_figures(means(out, "table"), figures(binary, run))


def test_fashionclip_tasks_have_columns_and_weights_of_their_own(judged):
    folder, _, evaluate = judged
    out = evaluate("evaluate=fashionclip", "evaluate.tasks=[kind]", "models=[tiny]")
    qrels = read_qrels(out / "tasks/kind/qrels.trec")
    with open(folder / "products.csv") as file:
        products = list(csv.DictReader(file))
    kinds = {frozenset(p["product_id"] for p in products if p["kind"] == kind) for kind in THINGS}
    assert {frozenset(judged) for judged in qrels.values()} == kinds
    title_only = evaluate(
        "evaluate=fashionclip", "evaluate.tasks=[kind]", "models=[tiny]", "data.tasks.kind.document={}",
        "~data.document.colour",
    )  # fmt: skip
    assert read_run(out / "tasks/kind/run.tiny.trec") == read_run(title_only / "tasks/kind/run.tiny.trec")


def test_a_mean_over_data_sets(judged, capsys):
    folder, _, evaluate = judged
    (folder / "conf/data/second.yaml").write_text(
        (folder / "conf/data/judged.yaml").read_text().replace("name: judged", "name: second")
    )
    out = evaluate(
        "evaluate=fashionclip",
        "evaluate.sets=[judged,second]",
        "evaluate.tasks=[kind,table]",
        "models=[tiny]",
        data=None,
    )
    found = json.loads((out / "metrics.json").read_text())["tiny"]
    assert set(found) == {"judged/kind", "judged/table", "second/kind", "second/table"}
    average = json.loads((out / "results.json").read_text())["averages"]["kind (2 sets)"]["tiny"]
    assert set(average) == {"mrr@10", "recall@1", "recall@10", "precision@1", "precision@10"}
    for name, value in average.items():
        assert value == pytest.approx((found["judged/kind"][name] + found["second/kind"][name]) / 2)
    printed = capsys.readouterr().out.split("mean of")[1].split("\n")
    assert printed[0].split() == ["model", "mrr@10", "recall@1", "recall@10", "precision@1", "precision@10"]
    assert printed[2].split() == ["kind", "(2", "sets)", "tiny", *(f"{average[name]:.4f}" for name in average)]
    assert (out / "tasks/second/kind/run.tiny.trec").is_file() and "kind (2 sets)" in (out / "results.md").read_text()
    with pytest.raises(SystemExit):
        evaluate("evaluate.sets=[judged]", "models=[tiny]", "data.max_bad=0.5")


def test_judgments_of_every_form_say_the_same(judged, plain):
    _folder, rows, _ = judged
    qrels = {task: read_qrels(plain / "tasks" / task / "qrels.trec") for task in ("table", "trec", "truth")}
    assert sum(map(len, qrels["table"].values())) == len(rows)
    for query, judged in qrels["trec"].items():
        assert judged == {d: max(int(r) - 1, 0) for d, r in qrels["table"][query].items()}
    by_content = sorted(sorted(judged.items()) for judged in qrels["truth"].values())
    assert by_content == sorted(sorted((d, int(r) + 1.0) for d, r in j.items()) for j in qrels["table"].values())


def test_everything_of_a_catalog_without_training_is_measured_and_nothing_is_trained(judged, plain, capsys):
    assert means(plain, "table")["queries"] == 24
    folder, _, _ = judged
    with pytest.raises(SystemExit):
        main(["train", "--config-dir", str(folder / "conf"), "data=judged", f"cache_dir={folder / 'cache'}",
              f"run_dir={folder / 'run'}", "train.batch_size=2"])  # fmt: skip
    assert "0 training pairs" in capsys.readouterr().err


def test_a_beir_folder_keeps_documents_with_the_query_s_id(tmp_path):
    """A perfect run scores 1: the document that has the query's id is its answer."""
    documents = [{"_id": f"x{n}", "title": f"title {n}", "text": f"{c} {t}"}
                 for n, (c, t) in enumerate((c, t) for c in COLOURS for t in THINGS)]  # fmt: skip
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in documents))
    queries = [{"_id": line["_id"], "text": line["text"]} for line in documents]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in queries))
    (tmp_path / "qrels").mkdir()
    lines = "".join(f"x{n}\tx{n}\t1\n" for n in range(10))
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    main(["evaluate", "data=beir", f"data.root={tmp_path}", "data.document.title.weight=0", "models=[tiny]",
          f"cache_dir={tmp_path / 'cache'}", f"out={tmp_path / 'out'}"])  # fmt: skip
    found = means(tmp_path / "out", "test")
    assert found["queries"] == 10 and found["ndcg@10"] == found["recall@10"] == 1
    assert "10 of 10 queries have the id of a document" in (tmp_path / "out" / "results.md").read_text()


def test_ids_that_no_trec_file_can_hold_lose_no_figures(judged):
    folder, _, evaluate = judged
    for name in ("queries", "qrels"):
        lines = (folder / f"{name}.csv").read_text().splitlines()
        (folder / f"spaced_{name}.csv").write_text("\n".join([lines[0], *(f"the {line}" for line in lines[1:])]) + "\n")
    out = evaluate("data.tasks.table.queries=spaced_queries.csv", "data.tasks.table.qrels=spaced_qrels.csv",
                   "evaluate.tasks=[table]", "models=[tiny]")  # fmt: skip
    assert means(out, "table")["queries"] == 24 and not (out / "tasks" / "table" / "qrels.trec").exists()
    assert "table: no TREC files. The id 'the q0' cannot be written" in (out / "results.md").read_text()


def test_a_task_too_broken_to_trust_prints_no_number(judged, capsys):
    folder, _, evaluate = judged
    lines = (folder / "qrels.csv").read_text().splitlines()
    broken = [lines[0], *(line.replace(",p", ",gone") if n % 3 else line for n, line in enumerate(lines[1:]))]
    (folder / "broken.csv").write_text("\n".join(broken) + "\n")
    with pytest.raises(SystemExit):
        evaluate("data.tasks.table.qrels=broken.csv", "evaluate.tasks=[table]", "models=[tiny]")
    said = capsys.readouterr()
    assert "cannot be measured" in said.err and "products that the catalog does not have" in said.err
    assert "ndcg" not in said.out
    slightly = [lines[0], lines[1].replace(",p", ",gone"), *lines[2:]]
    (folder / "slightly.csv").write_text("\n".join(slightly) + "\n")
    out = evaluate("data.tasks.table.qrels=slightly.csv", "evaluate.tasks=[table]", "models=[tiny]")
    assert "are of products that the catalog lacks" in (out / "results.md").read_text()


def test_the_json_says_where_its_figures_come_from(plain):
    whole = json.loads((plain / "results.json").read_text())
    about = whole["provenance"]
    assert len(about["data"]["judged"]["fingerprint"]) == 64 and len(about["models"]["tiny"]["weights_sha256"]) == 64
    assert (
        about["packages"]["torch"] and about["command"] and about["seeds"] == {"run": 0, "queries": 1, "statistics": 0}
    )
    assert about["ties"] == "equal scores by document id ascending" and about["settings"]["depth"] == 1000
    assert whole["audits"]["table"]["queries"] == 24 and {r["metric"] for r in whole["results"]} >= {"judged@10"}
    assert any("unjudged in the top 10" in note for note in whole["notes"])


def test_what_is_for_evaluating_alone_is_refused_by_training(tmp_path, capsys):
    for word in ("evaluate=marqo_ecommerce", "evaluate.sets=[demo]"):
        with pytest.raises(SystemExit):
            main(["train", word, f"run_dir={tmp_path / 'run'}"])
        assert "is only for evaluation" in capsys.readouterr().err


def test_words_that_cannot_be_meant_are_refused(judged, capsys):
    _, _, evaluate = judged
    for words, sentence in (
        (["evaluate.ties=random"], "evaluate.ties=random: expected one of [ascending, descending, listed, published]"),
        (["evaluate.sample=luck"], "evaluate.sample=luck"),
        (["evaluate.queries=0"], "at least 1"),
        (["evaluate.depth=5"], "too few for ndcg@100: give at least 100"),
        (["models=[tiny,tiny]"], "twice"),
        (["models=[tinny]"], "embeddings:<file>.parquet"),
        (["evaluate.tasks=[tabel]"], "there is no task 'tabel'"),
        (["data.tasks.truth.qrels=nowhere.json", "models=[tiny]"], "there is no file"),
    ):
        with pytest.raises(SystemExit):
            evaluate(*words)
        assert sentence in capsys.readouterr().err
