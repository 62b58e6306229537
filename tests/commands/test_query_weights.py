"""A run whose queries weigh the document's fields: the dev half decides, and every command knows it."""

import gc
import json
import runpy
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

import gcl
from gcl.cli import main
from gcl.config.compose import load_config
from gcl.errors import ConfigError
from gcl.exports.query_weights import read_query_weights
from gcl.model.query_weights import QueryWeights
from gcl.retrieval.analysis.weight_sweep import Embedded
from gcl.retrieval.embedding.embed import FieldEmbeddings
from gcl.retrieval.evaluate import evaluate
from gcl.retrieval.tasks.task import JudgedPairs, ListRecords, RetrievalTask
from gcl.run.folder import RunFolder
from gcl.run.weighing import by_query_or_constant, choose_weights
from gcl.schema import Field, Schema
from helpers.trained_shop import write_named_shop

SCHEMA = Schema({"query": Field()}, {"image": Field(weight=0.5), "title": Field(weight=0.5)})
COUNT = 40


def field_embeddings(vectors, side):
    return FieldEmbeddings(vectors.astype(np.float32), np.ones(vectors.shape[:2], dtype=bool), side)


def two_kinds():
    """Half of the queries are answered by images, half by titles, and the other field then points at a wrong document.
    The first number of a query says which it is, so a gate can know, and constant weights cannot."""
    answers = np.eye(COUNT)
    kind = np.where(np.arange(COUNT) % 2, 1.0, -1.0)
    queries = np.hstack([kind[:, None], answers]) / np.sqrt(2)
    image = np.hstack([np.zeros((COUNT, 1)), answers])
    title = np.roll(image, 1, axis=0)  # document j's title is what query j - 1 asks for
    target = np.where(kind > 0, np.arange(COUNT), (np.arange(COUNT) + 1) % COUNT)
    ids = [f"{n:02}" for n in range(COUNT)]
    task = RetrievalTask(
        "made-up", *(ListRecords(ids, [{} for _ in ids], SCHEMA.side(side)) for side in ("query", "document")),
        JudgedPairs(np.arange(COUNT), target, np.ones(COUNT)),
    )  # fmt: skip
    return Embedded(
        task, field_embeddings(queries[:, None], SCHEMA.query),
        field_embeddings(np.stack([image, title], axis=1), SCHEMA.document),
    )  # fmt: skip


def gate(strength):
    matrix = torch.zeros(2, COUNT + 1)
    matrix[0, 0] = strength
    return QueryWeights(SCHEMA.weights["document"], matrix, torch.zeros(2))


def test_too_few_queries_choose_nothing():
    few = JudgedPairs(np.arange(4), np.arange(4), np.ones(4))
    whole = two_kinds()
    queries = ListRecords(whole.task.queries.ids[:4], [{} for _ in range(4)], SCHEMA.query)
    kept = choose_weights(
        ["made-up"], SCHEMA, [replace(whole, task=replace(whole.task, queries=queries, judgments=few))], "ndcg@10"
    )
    assert kept.used == kept.given and "has 4 queries, and fewer than 5 choose by luck" in kept.why


def test_weights_by_query_are_taken_where_no_constant_ones_are_better_on_the_dev_half():
    tasks = [two_kinds()]
    chosen = choose_weights(["made-up"], SCHEMA, tasks, "ndcg@10")
    best = max(chosen.dev["best"], *chosen.dev["single"].values())
    right = by_query_or_constant(chosen, tasks, gate(9.0), "ndcg@10")
    assert right.by_query and right.dev["by_query"] == pytest.approx(1.0) and best < 0.9
    wrong = by_query_or_constant(chosen, tasks, gate(-9.0), "ndcg@10")
    assert not wrong.by_query and wrong.used == chosen.used and "worse there" in wrong.why
    own = [replace(tasks[0], task=replace(tasks[0].task, document_weights={"image": 1.0, "title": 0.0}))]
    nothing = choose_weights(["made-up"], SCHEMA, own, "ndcg@10")
    assert not by_query_or_constant(nothing, own, gate(9.0), "ndcg@10").by_query


def test_smaller_vectors_are_made_field_by_field():
    one = two_kinds()
    document = replace(one.document, by_query=gate(9.0))
    from gcl.retrieval.embedding.quantize import parse_format

    forms = [parse_format(spelling) for spelling in ("all int8", "binary", 41)]
    result = evaluate(None, [one.task], ["ndcg@10"], forms=forms, embedded=[(one.query, document)])
    found = result["made-up"]
    assert found.fields == 2 and found.width == COUNT + 1
    assert found.smaller[forms[0]]["ndcg@10"].mean() == pytest.approx(1.0)
    assert (found.smaller[forms[2]]["ndcg@10"] == found.values["ndcg@10"]).all()


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """A shop whose queries are the titles of products."""
    return write_named_shop(tmp_path_factory.mktemp("named"))


@pytest.fixture(scope="module")
def trained(catalog, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    run = RunFolder(cache / "run")
    main(
        ["train", "--config-dir", str(catalog / "conf"), "data=shop", "model=tiny", "trainer=cpu", "seed=1",
         f"run_dir={run.path}", f"cache_dir={cache}", "train.batch_size=16", "train.max_steps=4",
         "train.validate_every=4 steps", "train.workers=0", "train.field_weights=learned_by_query",
         "optim.rules={query_weights.*: {rate: 1000}}"]
    )  # fmt: skip
    return run


@pytest.fixture(scope="module")
def gated(trained):
    """The run, weighing by query whatever its dev half said."""
    copy = RunFolder(trained.path.with_name("gated"))
    shutil.copytree(trained.path, copy.path)
    content = json.loads(copy.field_weights.read_text())
    copy.field_weights.write_text(json.dumps({**content, "by_query": True}))
    return copy


def measured(run, out, *words):
    main(["evaluate", f"run={run.path}", f"out={out}", *words])
    return json.loads((out / "metrics.json").read_text())


def headline(models):
    tasks = models["tuned"].values()
    return sum(task["ndcg@10"] for task in tasks) / len(tasks)


def test_evaluating_the_run_again_gives_what_it_was_chosen_by(trained, gated, tmp_path):
    told = json.loads(trained.field_weights.read_text())
    assert told["by_query"] == (told["dev"]["by_query"] >= told["dev"]["best"])
    assert headline(measured(gated, tmp_path, "evaluate.part=dev")) == pytest.approx(told["dev"]["by_query"], abs=1e-9)
    assert "What weights by query are worth" in (trained.path / "results.md").read_text()
    compared = json.loads((trained.path / "results.json").read_text())["field_weights"]["by_query"]
    assert compared and {"constant", "by query", "low", "high", "p_holm"} <= compared[0].keys()


def test_vectors_and_an_index_give_the_scores_of_weighed_cosines(gated):
    model = gcl.load(gated.path)
    products = [{"title": "red mug"}, {"title": "blue lamp", "brand": "Nord"}, {"title": "white shoe", "brand": "Sud"}]
    queries, documents = model.embed_queries(["a red lamp"]), model.embed_documents(products)
    fields = model.by_query.fields
    assert queries.shape[1] == documents.shape[1] == model.width * len(fields)
    hits = model.index(products).search("a red lamp", k=3)
    scores = dict(zip(hits.rows, hits.scores, strict=True))
    parts = documents.reshape(3, len(fields), -1)
    plain = queries.reshape(len(fields), -1)
    weights = np.linalg.norm(plain, axis=1)
    assert weights.sum() == pytest.approx(1, abs=1e-5) and np.abs(np.linalg.norm(parts, axis=2) - 1).max() < 1e-5
    for row, own in enumerate(parts):
        wanted = sum(w * float(q / w @ v) for w, q, v in zip(weights, plain, own, strict=True))
        assert scores[row] == pytest.approx(wanted, abs=1e-5)
    constant = model.index(products).search("a red lamp", k=3, weights={"image": 0.5, "title": 1, "brand": 0.1})
    assert sorted(constant.scores) != sorted(hits.scores)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["fields", "fused"])
def test_a_deployment_is_asked_with_the_weights_that_a_query_gives(gated, tmp_path, content):
    pytest.importorskip("duckdb")
    main(["deploy", f"run={gated.path}", f"out={tmp_path}", "engine=duckdb", f"content={content}", "queries=5"])
    program = runpy.run_path(str(tmp_path / "duckdb" / "search.py"), run_name="shop")
    model = gcl.load(gated.path)
    (weighed,) = model.embed_queries(["a red lamp"])
    plain = weighed.reshape(len(model.by_query.fields), -1)
    unit = plain.sum(axis=0)
    expected = weighed if content == "fields" else unit
    vector = program["vector_of"]("a red lamp")
    assert vector == pytest.approx(expected, abs=1e-6) and np.linalg.norm(unit) == pytest.approx(1, abs=1e-5)
    if content == "fields":
        weights = {name: 0.1 + 0.3 * at for at, name in enumerate(model.by_query.fields)}
        assert list(program["FIELDS"]) == model.by_query.fields
        given = program["vector_of"]("a red lamp", weights).reshape(plain.shape)
        assert given == pytest.approx(np.stack([weight * unit for weight in weights.values()]), abs=1e-6)
    table = parquet.read_table(tmp_path / content / "embeddings" / "documents.parquet")
    scores = np.stack(table["vector"].to_numpy()).astype(np.float64) @ expected
    score = dict(zip(table["id"].to_pylist(), scores.tolist(), strict=True))
    found = [score[name] for name, _ in program["search"]("a red lamp")]
    assert found == pytest.approx(sorted(score.values(), reverse=True)[:10], abs=1e-6)
    del program
    gc.collect()  # the database is closed


@pytest.mark.slow
def test_weights_of_the_command_line_win_and_another_catalog_has_its_own(trained, gated, catalog, tmp_path, capsys):
    constant = RunFolder(gated.path.with_name("constant"))
    shutil.copytree(gated.path, constant.path)
    content = json.loads(constant.field_weights.read_text())
    constant.field_weights.write_text(json.dumps({**content, "by_query": False}))
    used = content["used"]["document"]
    typed = [f"data.document.{name}.weight={weight}" for name, weight in used.items()]
    assert measured(gated, tmp_path / "typed", *typed) == measured(constant, tmp_path / "same", *typed)
    assert "constant field weights, " in (tmp_path / "typed" / "results.md").read_text()
    yaml = (catalog / "conf" / "data" / "shop.yaml").read_text()
    (catalog / "conf" / "data" / "other.yaml").write_text(yaml.replace("name: shop", "name: other"))
    where = ["--config-dir", str(catalog / "conf"), "data=other"]
    assert measured(gated, tmp_path / "other", *where) == measured(constant, tmp_path / "like", *where)
    assert (
        "because weights by query were learned on other data than other"
        in (tmp_path / "other" / "results.md").read_text()
    )
    main(["search", f"run={gated.path}", "a red mug", "weights.title=1"])
    assert "the weights given here count" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="a run learns them from its start or not at all"):
        from gcl.run.resume import check_unchanged

        now = load_config(trained.config)
        now.train.field_weights = type(now.train.field_weights).dev
        check_unchanged(load_config(trained.config), now)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["fused", "fields"])
def test_an_export_has_the_gate_and_vectors_that_give_its_scores(gated, tmp_path, content):
    out = tmp_path / "model"
    main(
        ["export", f"run={gated.path}", f"out={out}", "formats=[open_clip]", f"embeddings={content}", "queries=true",
         "latency=0"]
    )  # fmt: skip
    card = (out / "README.md").read_text()
    assert "## Field weights by query" in card and "field_weights.safetensors" in card
    model, kept = gcl.load(gated.path), read_query_weights(out)
    assert torch.equal(kept.matrix, model.by_query.matrix) and kept.given == dict(model.by_query.given)
    table = parquet.read_table(out / "embeddings" / "documents.parquet")
    asked = parquet.read_table(out / "embeddings" / "queries.parquet").slice(0, 5)
    if content == "fused":
        scores = np.stack(asked["vector"].to_numpy()) @ np.stack(table["vector"].to_numpy()).T
    else:
        plain = np.stack(asked["vector_query"].to_numpy())
        fields = [np.stack(table[f"vector_{name}"].to_numpy()) for name in kept.fields]
        weights = kept.weights(torch.from_numpy(plain)).numpy()
        scores = sum(weights[:, k, None] * (plain @ one.T) for k, one in enumerate(fields))
    wanted = model.embed_queries(asked["text"].to_pylist())
    from gcl.data.prepare.mixed import open_catalog
    from gcl.retrieval.embedding.embed import embed

    config = gated.read_config()
    documents = embed(model.encoder, open_catalog(config.data, config.cache_dir).documents, "document").searched()
    assert np.abs(scores - wanted @ documents.T).max() < 1e-4
