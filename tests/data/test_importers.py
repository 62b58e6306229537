"""Published layouts, written here as they are published, prepared through the YAMLs that are shipped for them."""

import csv
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from gcl.config.compose import Overrides
from gcl.data.catalog import Task
from gcl.data.importers import marqo_gs
from gcl.data.importers.marqtune import Settings, catalog_of, write_catalog
from gcl.data.prepare.prepare import prepare
from gcl.data.tables import json_file
from gcl.data.tables.json_file import json_entries
from helpers.small_catalog import catalog, drawn, pairs, prepared, text, write_table

ROOT = Path(__file__).parents[2]


def configured(name: str, *words: str):
    return Overrides([f"data={name}", *words]).config().data


@pytest.fixture
def gs(tmp_path):
    """20 products and 30 queries in two halves each; every query has five products, graded by place."""
    root = tmp_path / "gs"
    (root / "images").mkdir(parents=True)
    half = {0: range(10), 1: range(10, 20)}
    for number, part in enumerate(half):
        corpus = {}
        for product in half[part]:
            (root / "images" / f"{product}.webp").write_bytes(drawn(product, form="WEBP"))
            corpus[f"p{product}"] = {
                "title": f"thing {product} ü",
                "image_local": f"images/{product}.webp",
                "tags": ["a"],
            }
        (root / f"corpus_{number + 1}.json").write_text(json.dumps(corpus, indent=number or None), encoding="utf-8")
    for query_half in (0, 1):
        for product_half in (0, 1):
            prefix, rows, truth = f"query_{query_half}_product_id_{product_half}", [], {"dev": {}, "test": {}}
            for query in range(15 * query_half, 15 * query_half + 15):
                for place in range(5):
                    product = f"p{half[product_half][(query * 3 + place) % 10]}"
                    rows.append({"query": f"query {query}", "product_id": product, "position": place + 1,
                                 "score_linear": 100 - place, "query_id": query})  # fmt: skip
                    truth["dev" if query % 3 == 0 else "test"].setdefault(f"query {query}", {})[product] = 100 - place
            write_table(root / f"{prefix}.csv", rows)
            for part, judged in truth.items():
                (root / f"{prefix}_gt_{part}.json").write_text(json.dumps(judged))
    return root


def test_marqo_gs(gs, tmp_path):
    given = configured("marqo_gs", f"data.root={gs}")
    found = prepared(given, tmp_path / "out")
    assert len(found.documents) == 20 and len(found.pairs) == 75  # 15 queries x 5, of the first halves alone
    assert found.documents[11] == {"image": drawn(11, form="WEBP"), "title": "thing 11 ü"}
    assert set(found.task_names) == {*marqo_gs.SITUATIONS, "in_domain"}
    for name, (prefix, corpus) in marqo_gs.SITUATIONS.items():
        for part, count in (("dev", 5), ("test", 10)):
            task = found.task(name, part)
            truth = json.loads((gs / f"{prefix}_gt_{part}.json").read_text())
            judged: dict[str, dict[str, int]] = {}
            for query, document, grade in zip(task.query, task.document, task.relevance, strict=True):
                text = found.queries[int(query)]["query"]
                judged.setdefault(text, {})[found.documents.ids[int(document)]] = int(grade)
            assert judged == truth and len(judged) == count
            ids = {found.documents.ids[int(row)] for row in task.corpus}
            assert ids == set(json.loads((gs / f"corpus_{corpus}.json").read_text()))


def test_marqo_gs_is_translated_once_for_the_same_files(gs, tmp_path):
    given = configured("marqo_gs", f"data.root={gs}")
    folder = prepare(given, tmp_path / "out", progress=False)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert prepare(given, tmp_path / "out", progress=False) == folder
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == written
    corpus = json.loads((gs / "corpus_1.json").read_text())
    (gs / "corpus_1.json").write_text(json.dumps(corpus | {"p3": {"title": "renamed"}}))
    assert prepared(given, tmp_path / "out").documents[3] == {"image": None, "title": "renamed"}
    (gs / "corpus_2.json").unlink()
    with pytest.raises(FileNotFoundError, match="corpus_2.json"):
        prepare(given, tmp_path / "out", progress=False)
    with pytest.raises(FileNotFoundError, match="data.root: there is no folder"):
        prepare(replace(given, root=str(tmp_path / "none")), tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    "content", [{}, {"a": 1}, {"ü\n": {"x": [1, {"y": "}"}]}, "b": "s" * 3000, "c": 12345, "d": None}]
)
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_large_object_is_read_entry_by_entry(tmp_path, monkeypatch, content, piece):
    monkeypatch.setattr(json_file, "PIECE", piece)
    for indent in (None, 2):
        (tmp_path / "o.json").write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")
        assert dict(json_entries(tmp_path / "o.json")) == content


@pytest.mark.parametrize("content", ["[1]", '{"a": 1', '{"a": 1,}', '{"a" 1}', "{1: 2}", '{"a": tru', ""])
def test_what_is_no_object_is_refused(tmp_path, content):
    (tmp_path / "o.json").write_text(content)
    with pytest.raises(ValueError, match="o.json"):
        list(json_entries(tmp_path / "o.json"))


def hub_folder(root: Path, columns: dict) -> Path:
    """Two Parquet files as the hub stores a data set: images as {bytes, path}."""
    (root / "data").mkdir(parents=True)
    images = [{"bytes": drawn(number), "path": f"{number}.jpg"} for number in range(40)]
    for part in range(2):
        rows = slice(20 * part, 20 * part + 20)
        table = pa.table({"image": images[rows], **{name: values[rows] for name, values in columns.items()}})
        parquet.write_table(table, root / "data" / f"train-{part:05d}-of-00002.parquet")
    return root


def test_kagl_and_other_folders_of_the_hub(tmp_path):
    columns = {"item_ID": [f"i{n}" for n in range(40)], "text": [f"a thing {n % 30}" for n in range(40)],
               "category2": [f"kind {n % 12}" for n in range(40)]}  # fmt: skip
    root = hub_folder(tmp_path / "set", columns)
    found = prepared(configured("kagl", f"data.root={root}", "data.split.dev=0"), tmp_path / "out")
    assert len(found.documents) == 40 and len(found.queries) == 30 and found.documents.ids[7] == "i7"
    assert found.documents[25]["image"] == drawn(25)
    kinds = configured("kagl", f"data.root={root}", "data.query.text.column=category2", "data.split.queries=1")
    assert len(prepared(kinds, tmp_path / "out").queries) == 12
    plain = configured("hf_dataset", f"data.root={root}", "data.name=own", "data.split.dev=0")
    found = prepared(plain, tmp_path / "out")
    assert len(found.documents) == 40 and len(found.documents.ids[0]) == 32 and found.folder.name.startswith("own-")


SCHEMA = {"Query Text": "text", "photo": "image_pointer", "title": "text", "grade": "score", "sku": "doc_id"}
WORDS = {"schema": SCHEMA, "left_keys": ["Query Text"], "left_weights": [1.0], "right_keys": ["photo", "title"],
         "right_weights": [0.9, 0.1], "weight_key": "grade"}  # fmt: skip


def marqtune_rows(queries, products):
    products = {p: {"photo": f"{p}.jpg", "title": f"thing {p}", "sku": f"s{p}"} for p in products}
    return [row | {"Query Text": f"find {q}", "grade": 1 + (q + p) % 9} for q in queries for p, row in products.items()]


def test_marqtune_s_words(tmp_path):
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(drawn(number))
    write_table(tmp_path / "train.csv", marqtune_rows(range(20), range(10)))
    given = catalog_of("mine", tmp_path / "train.csv", Settings(**WORDS, image_headers={"Authorization": "x"}))
    assert given.download.headers == {"Authorization": "x"}
    assert {name: spec.weight for name, spec in given.document.items()} == {"photo": 0.9, "title": 0.1}
    found = prepared(given, tmp_path / "out")
    assert len(found.documents) == 10 and found.documents[3] == {"photo": drawn(3), "title": "thing 3"}
    write_table(tmp_path / "test.csv", marqtune_rows(range(30, 40), range(8, 12)))
    given = catalog_of(
        "mine", tmp_path / "train.csv", Settings(**WORDS), evaluation=tmp_path / "test.csv", folder=tmp_path / "task"
    )
    found = prepared(given, tmp_path / "out")
    assert len(found.documents) == 12 and len(found.pairs) == 200
    judged = sum(len(found.task("evaluation", part).query) for part in ("dev", "test"))
    assert judged == 40 and len(found.task("evaluation").corpus) == 12


def marqtune_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def marqtune(tmp_path):
    """train.csv (200 pairs of 10 products) and the two files of an evaluation of four products, two of them new."""
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(drawn(number))
    write_table(tmp_path / "train.csv", marqtune_rows(range(20), range(10)))
    judged = [{name: row[name] for name in ("Query Text", "sku", "grade")} for row in
              marqtune_rows(range(30, 40), range(8, 12))]  # fmt: skip
    queries = write_table(tmp_path / "q" / "queries.csv", judged).read_bytes()
    documents = [{"sku": f"s{p}", "photo": f"{p}.jpg", "title": f"thing {p}", "other": p} for p in range(8, 12)]
    return tmp_path, {"queries.csv": queries, "documents.jsonl": "\n".join(map(json.dumps, documents)).encode()}


@pytest.mark.parametrize("name", ["evaluation.tar", "evaluation.tar.gz"])
def test_marqtune_s_evaluation_tar(marqtune, tmp_path, name):
    """Written as published (FIELD: a tar of queries.csv and documents.jsonl); other members do no harm."""
    root, members = marqtune
    others = {"../outside.txt": b"x", "notes/readme.md": b"x"}
    archive = marqtune_tar(root / name, {f"set/{key}": value for key, value in members.items()} | others)
    given = catalog_of("mine", root / "train.csv", Settings(**WORDS), evaluation=archive, folder=tmp_path / "task")
    found = prepared(given, tmp_path / "out")
    assert len(found.documents) == 12 and len(found.pairs) == 200 and not (tmp_path / "outside.txt").exists()
    halves = [found.task("evaluation", part) for part in ("dev", "test")]
    assert sum(len(half.query) for half in halves) == 40 and {len(half.corpus) for half in halves} == {4}
    searched = {found.documents.ids[int(row)] for row in halves[0].corpus}
    assert searched == {"s8", "s9", "s10", "s11"}
    new = next(row for row in range(12) if found.documents.ids[row] == "s11")
    assert found.documents[new] == {"photo": drawn(11), "title": "thing 11"}
    for half in halves:
        for query, document, grade in zip(half.query, half.document, half.relevance, strict=True):
            q = int(found.queries[int(query)]["Query_Text"].split()[1])
            assert grade == 1 + (q + int(found.documents.ids[int(document)][1:])) % 9


def test_marqtune_s_words_as_a_file(marqtune, tmp_path):
    """`python -m gcl.data.importers.marqtune` writes a YAML that `data=` takes."""
    root, members = marqtune
    marqtune_tar(root / "evaluation.tar", members)
    words = {"name": "mine", "training": "train.csv", "evaluation": "evaluation.tar", "schema": SCHEMA,
             "leftKeys": ["Query Text"], "leftWeights": [1], "rightKeys": ["photo", "title"],
             "rightWeights": [0.9, 0.1], "weightKey": "grade"}  # fmt: skip
    (root / "words.json").write_text(json.dumps(words))
    target = tmp_path / "conf" / "data" / "mine.yaml"
    command = [sys.executable, "-m", "gcl.data.importers.marqtune", str(root / "words.json"), str(target)]
    assert "data=mine" in subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    given = Overrides(["data=mine"], config_dir=tmp_path / "conf").config().data
    found = prepared(given, tmp_path / "out")
    assert len(found.documents) == 12 and len(found.task("evaluation").corpus) == 4
    for change, said in (({"leftKey": []}, "has 'leftKey'"), ({"schema": None}, "lacks schema")):
        (root / "bad.json").write_text(json.dumps({k: v for k, v in (words | change).items() if v is not None}))
        with pytest.raises(ValueError, match=said):
            write_catalog(root / "bad.json", target)


def test_marqtune_s_evaluation_that_is_none(marqtune, tmp_path):
    root, members = marqtune
    no_sku = members["queries.csv"].replace(b"sku", b"product")
    cases = [
        ({"queries.csv": members["queries.csv"]}, "has no documents.jsonl"),
        (members | {"again/queries.csv": b"x"}, "more than one queries.csv"),
        (members | {"queries.csv": no_sku}, "no column 'sku'"),
    ]
    for number, (some, said) in enumerate(cases):
        archive = marqtune_tar(root / f"{number}.tar", some)
        with pytest.raises((ValueError, KeyError), match=said):
            catalog_of("mine", root / "train.csv", Settings(**WORDS), evaluation=archive, folder=tmp_path / "task")
    (root / "broken.tar").write_bytes(b"<html>" * 200)
    with pytest.raises(ValueError, match="broken.tar cannot be read as a tar"):
        catalog_of(
            "mine", root / "train.csv", Settings(**WORDS), evaluation=root / "broken.tar", folder=tmp_path / "task"
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": SCHEMA | {"title": "string"}}, "has string"),
        ({"right_weights": [1.0]}, "rightKeys has 2 columns, rightWeights 1"),
        ({"left_keys": ["grade"]}, "'grade', which the schema calls 'score'"),
        ({"weight_key": "title"}, "weightKey is 'title'"),
        (
            {"schema": SCHEMA | {"title": "score"}, "weight_key": None, "right_keys": ["photo"], "right_weights": [1]},
            "several",
        ),
        ({"evaluation": "test.csv"}, "a folder"),
    ],
)
def test_marqtune_s_words_that_do_not_fit(tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        settings = {name: value for name, value in (WORDS | change).items() if name != "evaluation"}
        catalog_of("mine", tmp_path / "train.csv", Settings(**settings), evaluation=change.get("evaluation"))


def test_a_task_says_its_halves_and_its_corpus(tmp_path):
    write_table(tmp_path / "pairs.csv", [row | {"title": f"t {row['product_id']}"} for row in pairs(20, 20)])
    queries = [{"query_id": f"q{n}", "query": f"asked {n}", "part": ["dev", "Test", "dev"][n % 3]} for n in range(9)]
    write_table(tmp_path / "queries.csv", queries)
    judged = [{"query_id": f"q{n}", "product_id": f"{n:04d}", "score": "1"} for n in range(9)]
    write_table(tmp_path / "qrels.csv", judged)
    write_table(tmp_path / "corpus.csv", [{"product_id": f"{n:04d}"} for n in range(7)])
    own = Task("queries.csv", "qrels.csv", part="part", corpus="corpus.csv")
    given = catalog(tmp_path, pairs="pairs.csv", score="score", document={"title": text()}, tasks={"own": own})
    found = prepared(given, tmp_path / "out")
    for part, expected in (("dev", {0, 2, 3, 5, 6}), ("test", {1, 4})):
        task = found.task("own", part)
        assert {int(found.queries[int(row)]["query"].split()[1]) for row in task.query} == expected
        assert len(task.corpus) == 7
    assert found.counts["tasks"]["own"]["judgments_outside_corpus"] == 2
    with open(tmp_path / "corpus.csv", "a") as target:
        target.write("9999\n")
    with pytest.raises(ValueError, match="1 of 8 rows of corpus.csv.*unknown product id"):
        prepare(given, tmp_path / "out", progress=False)
    with open(tmp_path / "queries.csv", "a", newline="") as target:
        csv.writer(target).writerow(["q9", "asked 9", "train"])
    with pytest.raises(ValueError, match="part is neither dev nor test"):
        prepare(given, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="expected 'held_out', 'all' or a table"):
        prepare(replace(given, tasks={"own": replace(own, corpus="held")}), tmp_path, progress=False)
