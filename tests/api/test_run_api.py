"""gcl.train and what follows: exactly what the commands do."""

import json
import shlex
from contextlib import suppress

import pandas as pd
import pytest

import gcl
from gcl.cli import main, parse_options
from gcl.commands.registry import COMMANDS
from gcl.retrieval.analysis.verdict import Decision, Verdict
from gcl.run.closing import next_steps
from gcl.run.folder import RunFolder

SETTINGS = {
    "model": "tiny", "trainer": "cpu", "optim.learning_rate": 3e-4, "train.batch_size": 16, "train.max_steps": 6,
    "train.workers": 0, "train.validate_every": "3 steps", "trainer.log_every_n_steps": 1,
    "data.split": {"queries": 0.6, "documents": 0.6},
    "document": {"image": {"modality": "image", "weight": 0.6}, "title": {"weight": 0.4}, "brand": {"weight": 0.1}},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    return {"cache_dir": folder / "prepared", "run_dir": folder / "run"}


@pytest.fixture(scope="module")
def run(products, pairs, place):
    return gcl.train(products=pd.DataFrame(products), pairs=pd.DataFrame(pairs), **SETTINGS, **place)


def test_training_on_frames_gives_the_run_of_the_command(run, finished):
    assert run.metrics == json.loads(finished.metrics.read_text())
    assert run.results.to_dicts() == gcl.Run(finished.path).results.to_dicts()
    assert run.report.is_file() and run.verdict and run.config.train.max_steps == 6
    assert "New searches, new products" in repr(run.results) and "zero_shot" not in repr(run.results)
    assert run.verdict in repr(run) and "<table" in run._repr_html_()
    assert {"task", "model", "value", "p"} <= set(run.results.to_pandas().columns)
    assert (run.model().embed_queries(["red shoe"]) == gcl.load(finished.path).embed_queries(["red shoe"])).all()


def test_the_same_call_returns_the_run_and_another_is_refused(run, products, pairs, place):
    written = (run.path / "results.json").stat().st_mtime_ns
    again = gcl.train(products=pd.DataFrame(products), pairs=pd.DataFrame(pairs), **SETTINGS, **place)
    assert again.path == run.path and (run.path / "results.json").stat().st_mtime_ns == written
    with pytest.raises(ValueError, match=r"started with other settings: train.max_steps was 6, is now 7"):
        gcl.train(products=products, pairs=pairs, **SETTINGS | {"train.max_steps": 7}, **place)
    with pytest.raises(ValueError, match="started with other settings: data.pairs was"):
        gcl.train(products=products, pairs=pairs[:-1], **SETTINGS, **place)


def test_preparing_gives_the_records(run, products, pairs, place):
    settings = {key: SETTINGS[key] for key in ("data.split", "document")}
    prepared = gcl.prepare(products, pairs, cache_dir=place["cache_dir"], **settings)
    assert list(prepared.documents.ids) == [row["product_id"] for row in products]
    assert gcl.open_prepared(prepared.folder).fingerprint == prepared.fingerprint
    assert prepared.documents[10]["title"] is None


def test_the_doctor_returns_what_it_finds(products, pairs, place, capsys):
    pairs = [{**row, "score": 1.0} for row in pairs]
    found = gcl.doctor(products, pairs, model="tiny", cache_dir=place["cache_dir"], **{"train.batch_size": 4096})
    assert found.report.is_file() and "4,096" in repr(found) + "".join(one["text"] for one in found.problems)
    assert {one["level"] for one in found.problems} == {"problem"}


def test_what_is_proposed_after_training_on_frames_can_be_typed(run, tmp_path, monkeypatch, capsys):
    """Each command is understood, wherever it is typed; the doctor's, which once named a catalog's YAML, is run."""
    steps = {
        step for decision in Decision for step in next_steps(Verdict(decision, "So"), run.config, RunFolder(run.path))
    }
    commands = {words[1]: words[2:] for words in map(shlex.split, steps) if words[0] == "gcl"}
    assert set(commands) - {"sweep-weights"} == {"search", "export", "doctor"}
    for name in ("search", "export"):
        assert parse_options(COMMANDS[name], commands[name]).run == str(run.path)
    monkeypatch.chdir(tmp_path)
    with suppress(SystemExit):  # 1: something is to be fixed
        main(["doctor", *commands["doctor"], f"out={tmp_path}"])
    said = capsys.readouterr().out
    assert "gcl doctor: catalog" in said and "New searches, new products" in said and "zero_shot" not in said
    assert (tmp_path / "doctor.html").is_file()
    found = gcl.doctor(run=run, out=tmp_path)
    assert found.findings and all(one["text"] in said for one in found.findings)


def test_exporting_takes_the_command_s_options(run, tmp_path):
    with pytest.raises(ValueError, match="There is no option 'format'.*Did you mean formats"):
        run.export(tmp_path / "model", format="onnx")
    with pytest.raises(ValueError, match="onnxx"):
        gcl.export(run, tmp_path / "model", formats=["onnxx"])


@pytest.mark.slow
def test_what_is_exported_is_loaded(run, tmp_path):
    out = gcl.export(run, tmp_path / "model", formats=["open_clip"], latency=0, compare=20)
    assert out == tmp_path / "model"
    exported = gcl.load(out, document=run.model().catalog.document)
    assert exported.embed_queries(["red shoe"]) == pytest.approx(run.model().embed_queries(["red shoe"]), abs=1e-5)
    rows = [{"title": "red shoe", "brand": "Nord"}]
    assert exported.embed_documents(rows) == pytest.approx(run.model().embed_documents(rows), abs=1e-5)


def test_values_are_taken_as_they_are(products, pairs, tmp_path):
    """No text of a program is parsed: not as YAML, not as Hydra's grammar, and `${…}` is text."""
    from gcl.api.catalog import Tables

    values = {
        "data.missing": ["null", "a, b", "${oc.env:HOME}", "1e3"], "data.grades": {"1.5": 2, "a=b": 1.0},
        "data.score": "007", "data.document": {"title": {"prompt": "it's {}"}}, "data.clicks": {"clicks": "null"},
        "train.epochs": 3, "loss.score_to_weight": {"low": 0.5}, "cache_dir": tmp_path / "a=b",
    }  # fmt: skip
    config = Tables({"products": products, "pairs": pairs}).overrides(values, command="train").config()
    assert config.data.missing == values["data.missing"] and config.data.grades == {"1.5": 2.0, "a=b": 1.0}
    assert config.data.score == "007" and config.train.epochs == 3.0
    assert config.loss.score_to_weight["low"] == 0.5 and config.cache_dir == str(tmp_path / "a=b")
    assert config.data.document["title"].prompt == "it's {}" and config.data.clicks.clicks == "null"


def test_mistakes_are_answered_in_sentences(products, pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, said in (
        ({"run": "outputs/x"}, "gcl.train has no run="),
        ({"train.max_stesp": 3}, "train.max_stesp"),
        ({"model": "tiyn"}, "Did you mean tiny"),
        ({"train.max_steps": "many"}, "many"),
        ({"data": "nowhere"}, "nowhere"),
        ({"model": "tiny"}, "Give gcl.train products=, pairs= or both, or data="),
        (
            {"products": [{"a": 1}, {"a": 2}], "pairs": pairs},
            "products=, pairs=: .* No table of products was found.* Usual names of columns are product_id",
        ),
        ({"products": "nowhere.csv"}, "There is no file or folder nowhere.csv"),
        ({"products": 3}, "given a value of the type int"),
    ):
        with pytest.raises((ValueError, KeyError, FileNotFoundError), match=said):
            gcl.train(**arguments)
    assert not (tmp_path / "outputs").exists()
