"""The Marqo-Ecommerce benchmark on files of the published layout, against explicit loops."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from gcl.cli import main
from gcl.retrieval.embedding.embed import EmbedOptions, embed
from gcl.retrieval.evaluate import evaluate
from gcl.retrieval.tasks.task import ListRecords, task_from_qrels
from gcl.retrieval.tasks.trec import read_run
from gcl.run.contestants import contestant
from gcl.run.published import PUBLISHED, SCHEMA
from helpers.published_evaluator import figures

CATEGORIES = ("shoes", "mugs", "lamps")


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def write_set(folder, first, count, files=2):
    """Rows of the published columns in several files of several row groups; some titles repeat."""
    rows = [
        {
            "image": {"bytes": picture(first + n), "path": f"{n}.png"},
            "item_ID": f"{first + n}",
            "query": CATEGORIES[n % 3],
            "title": f"product {n if n % 5 else 0}",
            "position": n,
        }
        for n in range(count)
    ]
    (folder / "data").mkdir(parents=True)
    for number in range(files):
        table = pa.Table.from_pylist(rows[number::files])
        parquet.write_table(table, folder / "data" / f"test-0000{number}-of-0000{files}.parquet", row_group_size=7)
    return [row for number in range(files) for row in rows[number::files]]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    return root, {
        "google": write_set(root / "google-shopping-general-eval-100k", 0, 45),
        "amazon": write_set(root / "amazon-products-eval-100k", 1000, 25),
    }


def tiny():
    torch.manual_seed(0)  # as the command seeds a model from scratch
    return contestant("tiny", PUBLISHED).encoder


def run(root, out, *words):
    main(["evaluate", "evaluate=marqo_ecommerce", "evaluate.benchmark.size=easy", f"evaluate.benchmark.root={root}",
          f"out={out}", f"cache_dir={root / 'cache'}", "train.workers=0", "evaluate.batch_size=4", *words])  # fmt: skip


def reference(rows, column):
    truth = {}
    for row in rows:
        truth.setdefault(row[column], {})[row["item_ID"]] = 1
    return truth


def test_the_benchmark_gives_what_loops_give(sets, tmp_path, capsys):
    root, rows = sets
    run(root, tmp_path, "models=[tiny]")
    found = json.loads((tmp_path / "metrics.json").read_text())["tiny"]
    assert set(found) == {
        "GoogleShopping-Text2Image.easy",
        "GoogleShopping-Category2Image.easy",
        "AmazonProducts-Text2Image.easy",
    }
    encoder = tiny()
    for task, table, column in (("GoogleShopping-Text2Image.easy", "google", "title"),
                                ("GoogleShopping-Category2Image.easy", "google", "query"),
                                ("AmazonProducts-Text2Image.easy", "amazon", "title")):  # fmt: skip
        truth = reference(rows[table], column)
        assert found[task].pop("queries") == len(truth)
        queries = ListRecords(list(truth), [{"text": text} for text in truth], SCHEMA.query)
        images = [{"image": row["image"]["bytes"]} for row in rows[table]]
        corpus = ListRecords([row["item_ID"] for row in rows[table]], images, SCHEMA.document)
        whole = task_from_qrels(task, queries, corpus, truth)
        result = evaluate(encoder, [whole], ["ndcg@10"], k=1000, embedding=EmbedOptions(batch_size=4))[task]
        expected = figures(truth, result.run)
        for name, value in found[task].items():
            assert value == pytest.approx(expected[name], abs=1e-6), (task, name)
    printed = capsys.readouterr().out
    plan = printed.index("ms per image")
    assert plan < printed.index("Measuring tiny") and "GB of vectors" in printed[: plan + 200]
    assert "70 of 70 products" in printed and "Marqo-Ecommerce-L" in printed and "Cohere-embedding-v3" in printed
    page = (tmp_path / "published.md").read_text()
    assert "| GCP-Vertex | published | 0.740 | 0.910 |" in page and "| tiny | measured |" in page
    assert "github.com/marqo-ai/marqo-ecommerce-embeddings" in page and "Precision" not in page.split("##")[1]


def test_queries_are_drawn_as_published(sets, tmp_path):
    """4,000 of more are drawn with equal chances and seed 1 from the sorted texts; here 9 of the titles."""
    root, rows = sets
    run(root, tmp_path, "models=[tiny]", "evaluate.queries=9")
    keys = sorted(reference(rows["google"], "title"), key=lambda text: text + "_{!@#~}_")
    drawn = np.random.RandomState(1).choice(len(keys), size=9, replace=False, p=None)
    qrels = (tmp_path / "tasks/GoogleShopping-Text2Image.easy/qrels.trec").read_text().split("\n")
    expected = [
        f"q{n} 0 {item} 1" for n, key in enumerate(drawn) for item in reference(rows["google"], "title")[keys[key]]
    ]
    assert sorted(qrels)[1:] == sorted(expected)


@pytest.mark.slow
def test_workers_change_nothing(sets, tmp_path):
    root, _ = sets
    for workers in (0, 2):
        run(root, tmp_path / str(workers), "models=[tiny]", f"train.workers={workers}")
    one, two = (json.loads((tmp_path / str(workers) / "metrics.json").read_text()) for workers in (0, 2))
    assert one == two


def test_only_the_first_rows(sets, tmp_path, capsys):
    root, rows = sets
    run(root, tmp_path, "models=[tiny]", "evaluate.benchmark.limit=20")
    printed = capsys.readouterr().out
    assert "40 of 70 products" in printed and "for the full size" in printed and "not comparable" in printed
    results = read_run(tmp_path / "tasks/GoogleShopping-Category2Image.easy/run.tiny.trec")
    assert {document for found in results.values() for document, _ in found} == {
        r["item_ID"] for r in rows["google"][:20]
    }


def test_pictures_that_cannot_be_read_are_counted_and_never_found(sets, tmp_path, capsys):
    root, rows = sets
    for name in ("google-shopping-general-eval-100k", "amazon-products-eval-100k"):
        (tmp_path / "broken" / name / "data").mkdir(parents=True)
        for file in (root / name / "data").glob("*.parquet"):
            table = parquet.read_table(file).to_pylist()
            table[3]["image"] = {"bytes": b"no picture", "path": "x.png"}
            table[5]["image"] = None
            parquet.write_table(pa.Table.from_pylist(table), tmp_path / "broken" / name / "data" / file.name)
    capsys.readouterr()
    run(tmp_path / "broken", tmp_path / "three", "models=[tiny]")
    assert "4 of 45 images cannot be read" in capsys.readouterr().out
    results = read_run(tmp_path / "three/tasks/GoogleShopping-Text2Image.easy/run.tiny.trec")
    gone = {rows["google"][3]["item_ID"], rows["google"][5]["item_ID"]}
    assert all(len(found) == 41 and gone.isdisjoint(d for d, _ in found) for found in results.values())


def test_embeddings_and_models_in_one_table(sets, tmp_path):
    root, rows = sets
    encoder = tiny()
    vectors = {}
    for table in rows.values():
        records = ListRecords([row["item_ID"] for row in table], [{"image": row["image"]["bytes"]} for row in table],
                              SCHEMA.document)  # fmt: skip
        vectors |= dict(
            zip(records.ids, embed(encoder, records, "document", EmbedOptions(batch_size=4)).fused(), strict=True)
        )
        texts = list(dict.fromkeys(text for row in table for text in (row["title"], row["query"])))
        queries = ListRecords(texts, [{"text": text} for text in texts], SCHEMA.query)
        vectors |= dict(zip(texts, embed(encoder, queries, "query", EmbedOptions(batch_size=4)).fused(), strict=True))
    path = tmp_path / "titan.parquet"
    parquet.write_table(pa.table({"id": list(vectors), "vector": [v.tolist() for v in vectors.values()]}), path)
    run(root, tmp_path / "out", f"models=[tiny,'embeddings:{path}']")
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for task, values in found["tiny"].items():
        assert found["titan"][task] == pytest.approx(values, abs=1e-6)


def test_a_run_ends_with_its_verdict_and_the_gate(sets, finished, tmp_path, capsys):
    """Base and tuned on the benchmark, by the rule of every other measurement; models= next to run= is refused."""
    root, _ = sets
    with pytest.raises(SystemExit) as stopped:
        run(root, tmp_path / "out", f"run={finished.path}", "evaluate.gate=better")
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    (verdict,) = results["verdicts"].values()
    assert list(results["verdicts"]) == ["tuned"] and f"Verdict: {verdict['sentence']}." in printed
    assert verdict["decision"] != "ship" and stopped.value.code == 3  # six steps on another catalog
    assert "The exit status is 3 (evaluate.gate=better): tuned." in printed
    for words, sentence in ((["models=[tiny]", f"run={finished.path}"], "would not be measured"),
                            (["models=[tiny]", "evaluate.gate=worse"], "compared with nothing")):  # fmt: skip
        with pytest.raises(SystemExit):
            run(root, tmp_path / "none", *words)
        assert sentence in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_what_is_not_there_is_told(sets, tmp_path, capsys):
    root, _ = sets
    for words, sentence in ((["evaluate.benchmark.size=huge"], "There is: all, easy, hard"),
                            (["evaluate.benchmark.image=picture"], "has no column 'picture'"),
                            (["evaluate.benchmark.size=hard"], "There is no *.parquet in")):  # fmt: skip
        with pytest.raises(SystemExit):
            run(root, tmp_path, "models=[tiny]", *words)
        assert sentence in capsys.readouterr().err
