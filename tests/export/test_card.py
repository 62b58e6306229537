"""The card: metadata that the Hub reads, figures of the run, snippets that were executed; and the whole export."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import gcl
from gcl.cli import main
from gcl.errors import ConfigError
from gcl.exports.card.card import (
    CardFacts,
    CatalogFacts,
    Exported,
    Measured,
    ModelFacts,
    Training,
    check_card,
    license_of,
    metric_table,
    write_card,
)
from gcl.exports.card.snippets import execute, fuse_snippet
from gcl.exports.formats.open_clip import export_open_clip
from gcl.exports.verify.round_trip import RoundTripError
from gcl.model.fusion import fuse
from gcl.schema import Field, Modality, Schema

SCHEMA = Schema(
    query={"query": Field(prompt="search: {}")},
    document={"image": Field(Modality.image, weight=0.9), "title": Field(weight=0.1)},
)
RESULTS = [
    {"task": "zero_shot", "metric": metric, "model": model, "value": value, "low": 0.2, "high": 0.7, "n": 40,
     **({"change": 0.2, "change_low": 0.1, "change_high": 0.3, "p_holm": 0.0004} if model == "tuned" else {})}
    for metric in ("ndcg@10", "err@10") for model, value in (("base", 0.3), ("tuned", 0.5))
]  # fmt: skip
FACTS = CardFacts(
    name="my_model", license="apache-2.0",
    model=ModelFacts("hf-hub:timm/ViT-B-16-SigLIP", SCHEMA, width=16),
    catalog=CatalogFacts("shop", {
        "pairs": 1200, "queries": 80, "products": 300, "training_pairs": 700, "queries_of_training": 60,
        "products_of_training": 150,
        "tasks": {"zero_shot": {"corpus": 150, "dev": {"queries": 20, "judgments": 90},
                                "test": {"queries": 40, "judgments": 200}}},
    }, score=np.array([100, 50, 50, 25.0])),
    measured=Measured(["ndcg@10"], {
        "base": {"zero_shot": {"ndcg@10": 0.3}}, "tuned": {"zero_shot": {"ndcg@10": 0.5, "queries": 40}},
        "retention": {"tuned": {"photos": {"metric": "hit@1", "base": 0.5, "tuned": 0.4, "loss": 0.1, "limit": 0.02,
                                           "exceeded": True, "tasks": {}}}},
    }, RESULTS),
    training=Training({"loss": "GCL, softmax", "seed": 0}, ["siglip", "lora"]),
    exported=Exported(["open_clip", "transformers", "sentence_transformers"], checked=["| a | table |"],
                      sections=["## How fast it is", "", "fast", ""]),
)  # fmt: skip


def test_the_hub_reads_the_metadata(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(write_card(FACTS), encoding="utf-8")
    card = ModelCard.load(path, ignore_metadata_errors=False)
    assert card.data.base_model == "timm/ViT-B-16-SigLIP" and card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "zero-shot-image-classification"
    assert {"product-search", "gcl", "siglip", "sentence-transformers"} <= set(card.data.tags)
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == (
        "shop, New searches, new products",
        "ndcg@10",
        0.5,
    )
    assert card.data.model_name == "my_model"
    check_card(path.read_text("utf-8"))


def test_the_text_tells_what_is_known():
    text = write_card(FACTS)
    for words in (
        "1,200 pairs of 80 queries and 300 documents", "25 to 100, quartiles 43.75, 50, 62.5, mean 56.25, 3 different",
        "| New searches, new products | 150 | 20 | 90 | 40 | 200 |",
        "0.500 (0.200 … 0.700) | +0.200 (+0.100 … +0.300) | < 0.001 | 40",
        "| photos | tuned | hit@1 | 0.500 | 0.400 | +0.100 | 0.02 | more than the limit |",
        "| query | query | text | 1 | search: {} |", "| document | image | image | 0.9 |  |", "- loss: GCL, softmax",
        "## Limits", "Measured on fewer than 100 test queries: New searches, new products.", "arxiv.org/abs/2404.08535",
        "arxiv.org/abs/2303.15343", "arxiv.org/abs/2106.09685", "| a | table |", "## How fast it is",
    ):  # fmt: skip
        assert words in text, words
    assert "err@10" not in text and "WiSE-FT" not in text and "(no retention set)" not in text


def test_what_was_not_measured_is_said():
    model = dataclasses.replace(FACTS.model, base="gcl-tiny")
    facts = dataclasses.replace(FACTS, model=model, catalog=CatalogFacts("shop"), measured=Measured(["ndcg@10"]))
    text = write_card(facts)
    assert "This model was not measured." in text and "its statistics are missing" in text
    assert "(no retention set)" in text
    card = ModelCard(text, ignore_metadata_errors=False)
    assert card.data.base_model is None and card.data.eval_results is None


def test_without_intervals_the_table_has_the_means():
    lines = metric_table(dataclasses.replace(FACTS.measured, results=()), {})
    assert lines[-1] == "| New searches, new products | ndcg@10 | 0.300 | 0.500 |"


def test_the_license_is_the_base_models_own(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# base\n")
    assert license_of(f"local-dir:{tmp_path}", None) == "mit"
    assert license_of(f"local-dir:{tmp_path}", "apache-2.0") == "apache-2.0"
    assert license_of("ViT-B-16-SigLIP", None) == license_of("hf-hub:a/b", None) == "other"
    with pytest.raises(ConfigError, match="license=My own: expected an identifier of the Hub"):
        license_of("gcl-tiny", "My own")


def test_the_fusing_snippet_is_fuse(tmp_path):
    done = execute("fusing", fuse_snippet(SCHEMA, 16), tmp_path)
    assert done.output.splitlines()[0] == "(16,) 1.0" and done.output.splitlines()[-1] == "1.0"
    names: dict = {}
    exec(compile(done.code, "snippet", "exec"), names)
    vectors = torch.tensor(np.stack([names["fields"]["image"], names["fields"]["title"]]))[None]
    ours = fuse(vectors, torch.tensor([0.9, 0.1]).double(), torch.tensor([[True, True]]))[0]
    assert np.allclose(names["product"], ours.numpy())


def test_a_snippet_that_fails_is_an_error(tmp_path):
    with pytest.raises(RoundTripError, match="The card's snippet for it fails: ZeroDivisionError: division by zero"):
        execute("it", "1 / 0", tmp_path)


def test_an_export_ends_with_a_card_whose_snippets_ran(exported_run, finished):
    text = (exported_run / "README.md").read_text("utf-8")
    card = ModelCard(text, ignore_metadata_errors=False)
    metrics = json.loads(finished.metrics.read_text())["tuned"]
    said = {(one.dataset_config, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert said["zero_shot", "ndcg@10"] == pytest.approx(metrics["zero_shot"]["ndcg@10"], abs=1e-5)
    assert card.data.license == "apache-2.0" and 'create_model_and_transforms("local-dir:my_model")' in text
    printed = re.search(r"### open_clip\n.*?prints\n\n```\n(.*?)\n```", text, re.DOTALL).group(1)
    assert printed.startswith("tensor([[")
    checked = re.findall(r"\| open_clip \| ([\d.]+) \| ([\d.]+) \| (\w+)\.dev \| (\d+) of (\d+) \|", text)
    assert {task for *_, task, _, _ in checked} == {"in_domain", "novel_query", "novel_document", "zero_shot"}
    assert all(float(a) >= 0.9999 and float(b) >= 0.9999 for a, b, *_ in checked)
    assert str(exported_run.parent) not in text and not re.search(r"/(tmp|home|root)/", text)
    assert not [path for path in exported_run.parent.iterdir() if "unfinished" in path.name]


@pytest.mark.slow
def test_a_difference_fails_the_export_and_leaves_nothing(finished, tmp_path, capsys, monkeypatch):
    def sabotaged(encoder, folder):
        notes = export_open_clip(encoder, folder)
        state = load_file(folder / "open_clip_model.safetensors")
        state["visual.trunk.conv_stem.weight"] *= -1
        save_file(state, folder / "open_clip_model.safetensors")
        return notes

    monkeypatch.setattr("gcl.exports.formats.open_clip.export_open_clip", sabotaged)
    with pytest.raises(SystemExit) as stop:
        main(["export", f"run={finished.path}", f"out={tmp_path / 'out'}", "formats=[open_clip]", "latency=0"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "The export as open_clip is not the run's model: for the image" in said
    assert "The first layer that differs is visual.trunk.conv_stem" in said
    assert "These weights of the export differ: visual.trunk.conv_stem.weight." in said
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["private=true"], "private, revision and pull_request concern a push"),
        (["push=shop/model"], "HF_HUB_OFFLINE=1 is set, which forbids every request"),
        (["push=model"], "push=model: a repository of the Hub is written owner/name."),
    ],
)
def test_what_stops_a_push_is_said_before_the_work(finished, tmp_path, capsys, words, sentence):
    with pytest.raises(SystemExit):
        main(["export", f"run={finished.path}", f"out={tmp_path / 'out'}", *words])
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_an_export_is_pushed_with_snippets_that_name_the_repository(finished, tmp_path):
    from helpers.hub_server import TOKEN, served

    with served() as (hub, address):
        clean = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        variables = {"HF_ENDPOINT": address, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1",
                     "PYTHONPATH": str(Path(gcl.__file__).parent.parent)}  # fmt: skip
        words = [f"run={finished.path}", f"out={tmp_path / 'out'}", "latency=0", "push=shop/model", "private=true"]
        done = subprocess.run(
            [sys.executable, "-c", "from gcl.cli import main; main()", "export", *words],
            env=clean | variables, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        files = hub.files("shop/model")
    assert hub.repos["shop/model"]["private"] and TOKEN not in done.stdout + done.stderr
    card = files["README.md"].decode()
    assert 'create_model_and_transforms("hf-hub:shop/model")' in card and 'snapshot_download("shop/model")' in card
    for name, content in files.items():
        assert content == (tmp_path / "out" / name).read_bytes(), name
