"""`gcl sweep-weights`, and the cache beneath it: what was embedded once is not encoded again."""

import csv
import json

import pytest

from gcl.cli import main
from gcl.config.compose import load_config
from gcl.model.dual_encoder import DualEncoder
from helpers.trained_shop import weights_of


@pytest.fixture
def no_encoding(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something was encoded")

    monkeypatch.setattr(DualEncoder, "embed_fields", refuse)


def test_a_finished_run_is_evaluated_without_encoding_anything(finished, tmp_path, no_encoding):
    """train.py's last two measurements kept their embeddings; other weights of fields need no new ones."""
    main(["evaluate", f"run={finished.path}", f"out={tmp_path / 'one'}"])
    assert json.loads((tmp_path / "one" / "metrics.json").read_text()) == json.loads(finished.metrics.read_text())
    main(["evaluate", f"run={finished.path}", "data.document.title.weight=0.9", f"out={tmp_path / 'two'}"])
    assert (tmp_path / "two" / "metrics.json").read_text() != (tmp_path / "one" / "metrics.json").read_text()


def test_another_prompt_or_no_cache_encodes(finished, tmp_path, no_encoding):
    for word in ("data.document.title.prompt='buy {}'", "evaluate.cache_gb=0", "evaluate.batch_size=7"):
        with pytest.raises(AssertionError, match="encoded"):
            main(["evaluate", f"run={finished.path}", word, f"out={tmp_path}"])


def test_sweep_weights_of_a_run(finished, tmp_path, capsys):
    main(["sweep-weights", f"run={finished.path}", "steps=4", "most=30", f"out={tmp_path}", *weights_of(finished)])
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "weights.json").read_text())
    fields = load_config(finished.config).data.document
    assert found["now"]["document"] == {name: spec.weight for name, spec in fields.items()}
    tried = found["tried"]["document"]
    assert len(tried) <= 30 and tried[0]["ndcg@10"] == max(one["ndcg@10"] for one in tried)
    assert all(sum(one["weights"].values()) == pytest.approx(1) for one in tried)
    with open(tmp_path / "weights.csv") as file:
        assert len(list(csv.DictReader(file))) == len(tried)
    for name, value in found["best"]["document"].items():
        assert f"data.document.{name}.weight={value:g}" in said
    # what the words say is what evaluate then measures, on the half that did not choose
    words = [f"data.document.{name}.weight={value:g}" for name, value in found["best"]["document"].items()]
    main(["evaluate", f"run={finished.path}", *words, f"out={tmp_path / 'check'}"])
    measured = json.loads((tmp_path / "check" / "metrics.json").read_text())["tuned"]
    for row in found["test"]:
        assert measured[row["task"]][row["metric"]] == pytest.approx(row["best"], abs=1e-4)
    dev = [row["best"] for row in found["dev"] if row["metric"] == "ndcg@10"]
    assert sum(dev) / len(dev) == pytest.approx(tried[0]["ndcg@10"])


def test_sweep_weights_of_a_model_as_it_comes(finished, shop, tmp_path, capsys):
    where = ["--config-dir", str(shop / "conf"), "data=shop", f"cache_dir={load_config(finished.config).cache_dir}"]
    main(["sweep-weights", *where, "model=tiny", "most=8", "metric=mrr@10", f"out={tmp_path}"])
    assert "mrr@10 over" in capsys.readouterr().out and (tmp_path / "weights.json").is_file()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("metric=nddcg@10", "Did you mean 'ndcg@10'"),
        ("checkpoint=best", "expected base or tuned"),
        ("steps=0", "at least 1"),
        ("~data.document.title ~data.document.brand", "one field on each side"),
    ],
)
def test_what_cannot_be_swept_is_said(finished, capsys, word, says):
    with pytest.raises(SystemExit):
        main(["sweep-weights", f"run={finished.path}", *word.split()])
    assert says in capsys.readouterr().err
