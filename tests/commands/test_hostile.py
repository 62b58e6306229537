"""No text of a catalog acts where it is shown: terminals, Markdown, spreadsheets, HTML and YAML show it as a text."""

import csv
import io
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from markdown_it import MarkdownIt

from gcl.cli import main
from gcl.config.compose import catalog_of
from gcl.data.init.page import Page, flow
from gcl.errors import ConfigError
from gcl.exports.card.card import (
    CardFacts,
    CatalogFacts,
    Exported,
    Measured,
    ModelFacts,
    Training,
    check_card,
    write_card,
)
from gcl.exports.card.snippets import Executed
from gcl.retrieval.evaluate import result_of
from gcl.retrieval.page.page import write_page
from gcl.retrieval.settings import EvaluateConfig
from gcl.retrieval.tasks.task import ListRecords, task_from_qrels
from gcl.run.console import logger, say, speak_plainly
from gcl.run.extras import Extras
from gcl.run.outcome import Outcome
from gcl.schema import Field, Schema
from gcl.table import Table, code_span, listed_row, plain_csv, plain_markdown, readable_json, visible
from helpers.hostile import ACTS, EVERYTHING, LONG, SETTINGS, Shown, cells_of
from helpers.small_catalog import drawn

TEXTS = [text for text in EVERYTHING if text not in LONG]
STORED = [text for text in TEXTS if "\ud800" not in text]  # half a surrogate pair is no text, which a table's row says
FILE = "=1+1 \x1b[2J<script>`x`|\u202e.jsonl"
SIDE = {"title": Field()}


@pytest.fixture
def plainly(capsys):
    """What a command says; its handlers end with the test."""
    handlers = logger.handlers
    yield capsys
    logger.handlers = handlers


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_messages_and_errors_are_shown_and_not_obeyed(plainly, monkeypatch, text):
    speak_plainly()
    say(f"first line\n{text}")
    monkeypatch.setattr("gcl.cli._answer", lambda _: (_ for _ in ()).throw(ConfigError(f"bad: {text}")))
    with pytest.raises(SystemExit):
        main([])
    said = plainly.readouterr()
    assert not ACTS.search(said.out) and not ACTS.search(said.err) and said.out.startswith("first line\n")
    assert logging.getLogger("gcl") is logger


def markdown(text: str) -> Shown:
    """As a page on the web shows it. Addresses in sight, which lead where they say, are no links here."""
    return Shown(MarkdownIt("gfm-like", {"linkify": False}).render(text))


@pytest.mark.parametrize("text", EVERYTHING, ids=lambda text: ascii(text)[:40])
def test_every_rendering_of_a_table_shows_the_text(text, tmp_path):
    table = Table([text, "n"], [[text, 1]], title=text, notes=[text])
    assert not ACTS.search(table.text()) and visible(text) in table.text()
    shown = markdown(table.markdown())
    assert shown.tags == {"h2", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"} and not shown.addresses
    assert shown.text.count(visible(text).strip()) == 4 and not ACTS.search(table.markdown())
    (tmp_path / "a.csv").write_bytes(table.csv().encode(errors="replace"))
    assert len(cells_of(tmp_path / "a.csv")) == 2
    assert json.loads(table.json()) == [{text: text, "n": 1}] and not ACTS.search(table.json())
    own = {"div", "table", "caption", "span", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert Shown(table.html()).tags == own and not Shown(table.html()).addresses
    assert markdown(code_span(text)).tags == {"p", "code"} and markdown(f"x {plain_markdown(text)}").tags == {"p"}
    assert not ACTS.search(readable_json({text: text})) and json.loads(readable_json({text: text})) == {text: text}
    (cell,) = listed_row([text])
    assert not ACTS.search(cell) and cell.removeprefix("'") == visible(text) and plain_csv(cell) in (cell, f"'{cell}")


def measured() -> Outcome:
    """What was measured on hostile titles, queries and ids, of a model with a hostile name."""
    ids = [f"{number} {text}" for number, text in enumerate(STORED)]
    corpus = queries = ListRecords(ids, [{"title": text} for text in STORED], SIDE)
    task = task_from_qrels("judged.test", queries, corpus, {one: {one: 1.0} for one in ids})
    order = np.stack([np.roll(np.arange(len(ids)), step) for step in range(len(ids))])
    score = np.tile(np.linspace(1, 0, len(ids), dtype=np.float32), (len(ids), 1))
    label = "".join(STORED)
    models = {name: {"judged": result_of(task, score, row, ["ndcg@10"])}
              for name, row in (("base", order), (label, order[::-1].copy()))}  # fmt: skip
    settings = EvaluateConfig(metrics=["ndcg@10"], headline=["ndcg@10"])
    outcome = Outcome(settings, "test", label, [task], models, notes=list(TEXTS), extras=Extras())
    return outcome


def test_a_measurement_s_files_and_page_show_hostile_titles_queries_ids_and_tasks(tmp_path):
    outcome = measured()
    label, models, (task,) = outcome.title, outcome.models, outcome.tasks
    outcome.write(tmp_path)
    text = (tmp_path / "results.md").read_text()
    shown = markdown(text)
    assert not ACTS.search(text) and not shown.addresses
    assert shown.tags <= {"h1", "h2", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "p"}
    assert all(visible(one).strip() in shown.text for one in TEXTS)
    cells_of(tmp_path / "results.csv")
    assert not ACTS.search((tmp_path / "results.json").read_text())
    assert json.loads((tmp_path / "results.json").read_text())["notes"][-len(TEXTS) - 1 : -1] == TEXTS
    write_page(tmp_path / "report.html", title=label, tasks=[task], models=models, warnings=TEXTS,
               facts={"label": label, "texts": {one: one for one in TEXTS}})  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    shown = Shown(page)
    assert not {"img", "iframe", "object"} & {tag for tag in shown.tags if tag != "img"}
    assert page.count("alert(1)</script") == 0 and "<svg onload" not in page and "<img src=x" not in page
    assert all(address.startswith(("#", "data:")) for address in shown.addresses if address)
    assert "<script>alert(1)</script>" in shown.text, "the text is there"


def test_weights_and_biases_gets_what_texts_hold_and_nothing_that_acts(tmp_path):
    wandb = pytest.importorskip("wandb")
    from gcl.run.wandb_report import finish

    run = wandb.init(mode="offline", dir=tmp_path, project="shop", settings=wandb.Settings(silent=True))
    finish(run, measured(), tmp_path)
    wandb.teardown()  # its process writes some of it after `run.finish` has returned
    tables = [json.loads(path.read_text()) for path in tmp_path.rglob("*.table.json")]
    cells = [cell for one in tables for row in [one["columns"], *one["data"]] for cell in row if isinstance(cell, str)]
    assert {visible(text) for text in STORED} & set(cells) and not any(ACTS.search(cell) for cell in cells)
    recorded = b"".join(path.read_bytes() for path in tmp_path.rglob("*.wandb"))
    assert b"\x1b[2J" not in recorded and b"\\u001b" not in recorded and b"\\x1b[2J" in recorded


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """A folder with a catalog whose file names, ids, titles, queries, image paths and scores are hostile."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "ok.jpg").write_bytes(drawn(0))
    images = ["ok.jpg" if number % 2 else text for number, text in enumerate(EVERYTHING)]
    rows = [{"product_id": f"{n}{t}", "title": t, "image": images[n]} for n, t in enumerate(EVERYTHING)]
    rows += [{"product_id": f"p{n}", "title": f"thing {n}", "image": "ok.jpg"} for n in range(20)]
    write_rows(root / FILE, [*rows, *({"product_id": "", "title": text} for text in TEXTS)])
    pairs = [{"query": t, "product_id": f"{m}{u}", "score": 1 + (n + m) % 3}
             for n, t in enumerate(EVERYTHING) for m, u in enumerate(EVERYTHING) if m - n in (-1, 0, 1)]  # fmt: skip
    pairs += [{"query": f"thing {n}", "product_id": f"p{m}", "score": 1} for n in range(20) for m in (n, 7 * n % 20)]
    pairs += [{"query": "q", "product_id": "0" + TEXTS[0], "score": text} for text in TEXTS]
    write_rows(root / "pairs.jsonl", pairs)
    write_rows(root / "queries.jsonl", [{"query_id": f"{n}{t}", "query": t} for n, t in enumerate(EVERYTHING)])
    judged = [{"query_id": f"{n}{t}", "product_id": p, "score": 1}
              for n, t in enumerate(EVERYTHING) for p in (f"{n}{t}", f"{t}?")]  # fmt: skip
    write_rows(root / "qrels.jsonl", judged)
    (root / "conf" / "data").mkdir(parents=True)
    content = {
        "name": "h", "root": str(root), "products": FILE, "pairs": "pairs.jsonl", "score": "score", "max_bad": 0.9,
        "query": {"query": {"modality": "text"}},
        "document": {"image": {"modality": "image"}, "title": {"modality": "text"}},
        "tasks": {"judged": {"queries": "queries.jsonl", "qrels": "qrels.jsonl"}},
        "split": {"queries": 0.7, "documents": 0.7},
    }  # fmt: skip
    (root / "conf" / "data" / "h.yaml").write_text(json.dumps(content))
    return root


def test_prepare_lists_and_says_hostile_rows_and_files(catalog, plainly):
    main(["prepare", "--config-dir", str(catalog / "conf"), "data=h", f"cache_dir={catalog / 'cache'}"])
    said = plainly.readouterr()
    assert not ACTS.search(said.out + said.err) and "Prepared in " in said.out
    lists = [path for path in (catalog / "cache").rglob("*.csv") if path.is_file()]
    assert {path.name for path in lists} == {"quarantine.csv", "bad_images.csv", "judged.dangling.csv"}
    for path in lists:
        assert len(cells_of(path)) > 10 and not ACTS.search(path.read_bytes().decode().replace("\r\n", "\n")), path


@pytest.mark.slow
def test_the_doctor_shows_hostile_texts(catalog, plainly):
    where = ["--config-dir", str(catalog / "conf"), f"cache_dir={catalog / 'cache'}", f"out={catalog / 'doctor'}"]
    with pytest.raises(SystemExit):
        main(["doctor", *where, "data=h"])
    said = plainly.readouterr()
    assert not ACTS.search(said.out + said.err) and "red\\x1b[2Jshoe" in said.out
    for name in ("doctor.txt", "doctor.json"):
        assert not ACTS.search((catalog / "doctor" / name).read_text())
    page = (catalog / "doctor" / "doctor.html").read_text()
    assert "<script>alert(" not in page and "<svg onload" not in page and "<img src=x" not in page
    shown = Shown(page)
    assert all(one.startswith(("#", "data:image/")) for one in shown.addresses) and "<script>alert(1)" in shown.text


@pytest.mark.parametrize("text", [*TEXTS, *SETTINGS], ids=ascii)
def test_a_yaml_of_gcl_init_means_what_the_file_says(text, tmp_path):
    """A column, a word or a file called so is one value; what stands in a comment stays there."""
    page = Page()
    page.remark(f"Written from {text}.")
    page.line("name", "c", f"{text} is a name")
    page.line("products", "p.csv", text * 30)
    page.line("missing", [text, "x"], text)
    page.line("query", None)
    page.line("query", {"modality": "text", "column": text}, text, indent=2)
    page.line("document", None)
    page.line("title", {"modality": "text", "columns": [text, "b"]}, indent=2)
    page.line("grades", {text: 1.0, "no": 0.0})
    (tmp_path / "c.yaml").write_text(page.text(), encoding="utf-8")
    assert not ACTS.search(page.text())
    found = catalog_of(str(tmp_path / "c.yaml"))
    assert found.missing == [text, "x"] and found.query["query"].column == text and found.grades == {text: 1, "no": 0}
    assert found.document["title"].columns == [text, "b"] and found.name == "c" and found.pairs is None, flow(text)


def test_gcl_init_takes_hostile_headers_and_names(tmp_path, plainly, monkeypatch):
    monkeypatch.chdir(tmp_path)
    header = ["product_id", "title", 'description\nproducts: "/etc/passwd"', "a\x85b: ${oc.env:HOME}"]
    target, plain = io.StringIO(), [text for text in STORED if "\x00" not in text]
    rows = [[f"P{n}", f"Warm {t} {n}", f"A long text about {t}, made by hand", t] for n, t in enumerate(plain * 4)]
    csv.writer(target).writerows([header, *rows])
    name = "products \n\x1b[2J# pairs: x.csv"
    (tmp_path / f"{name}.csv").write_bytes(target.getvalue().encode(errors="replace"))
    main(["init", f"{name}.csv", "name=shop", "doctor=false"])
    text = (tmp_path / "conf" / "data" / "shop.yaml").read_text()
    assert not ACTS.search(text) and not ACTS.search(plainly.readouterr().out)
    found = catalog_of(str(tmp_path / "conf" / "data" / "shop.yaml"))
    assert found.products.endswith(f"{name}.csv") and found.pairs is None


def test_search_shows_hostile_products_at_the_terminal_and_as_json(encoders):
    from gcl.commands.search import table
    from gcl.serve.engine import Engine

    testing = pytest.importorskip("fastapi.testclient")
    from gcl.serve.app import build_app

    side = replace(encoders["base"].schema.document["title"])
    texts = STORED
    records = ListRecords([f"{n}{t}" for n, t in enumerate(texts)], [{"title": t} for t in texts], {"title": side})
    schema = replace(encoders["base"].schema, document={"title": side})
    engine = Engine({name: one.with_schema(schema) for name, one in encoders.items()}, records)
    text = table(engine, engine.search("x", k=len(texts)), 100)
    assert not ACTS.search(text) and len(text.splitlines()) == 1 + len(texts) and "red\\x1b[2J" in text
    client = testing.TestClient(build_app(engine, name="shop"), base_url="http://127.0.0.1")
    for query in ("x", "\x9b2J", "<script>"):
        answer = client.get("/api/search", params={"text": query, "k": len(texts)})
        assert answer.status_code == 200 and not ACTS.search(answer.text)
        assert {one["title"] for one in answer.json()["models"][0]["results"]} == {" ".join(t.split()) for t in texts}
    for weights in ('{"\\u009b2J": 1}', '{"<script>\\ud800": 1}', '{"\\u202e": 1}'):
        answer = client.get("/api/search", params={"text": "x", "weights": weights})
        assert answer.status_code == 422 and not ACTS.search(answer.text)


def test_a_card_shows_hostile_names():
    label = "".join(TEXTS)
    schema = Schema({"query": Field(prompt=label + "{}")}, {"title": Field()})
    metrics = {"base": {label: {"ndcg@10": 0.3}}, label: {label: {"ndcg@10": 0.5}}}
    card = write_card(CardFacts(
        label, "mit", ModelFacts(label, schema, 8), CatalogFacts(label), Measured(["ndcg@10"], metrics, tuned=label),
        Training({"data": label}), Exported(["open_clip"], snippets=[Executed("open_clip", "print(1)", label)]),
    ))  # fmt: skip
    check_card(card)
    _, body = card.split("\n---\n", 1)
    assert not ACTS.search(card)
    shown = markdown(body)
    assert not {"script", "img", "svg", "a", "del"} & shown.tags and not shown.addresses
    assert visible("".join(TEXTS)) in shown.text
