"""From a CSV and a folder of pictures to a measured, exported model: the main job on a small shop."""

import csv
import json
import math

import pytest
import torch

from gcl.cli import main
from gcl.config.compose import load_config
from gcl.lit.checkpoint import checkpoint_step
from gcl.retrieval.tasks.trec import read_qrels, read_run
from helpers.trained_shop import dies_after, weights_of

SITUATIONS = {"in_domain", "novel_query", "novel_document", "zero_shot"}


def curve(run, column):
    with open(run.path / "metrics.csv") as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row.get(column)}


def test_a_run_leaves_what_the_design_says(finished):
    metrics = json.loads(finished.metrics.read_text())
    assert set(metrics) == {"base", "tuned"} and set(metrics["base"]) == SITUATIONS
    assert all(0 <= v["ndcg@10"] <= 1 for v in metrics["tuned"].values())
    assert load_config(finished.config).data.name == "shop"
    assert {"packages", "data_fingerprint", "world_size"} <= set(json.loads(finished.environment.read_text()))
    assert checkpoint_step(finished.best) in (3, 6) and checkpoint_step(finished.last) == 6
    assert len(curve(finished, "train/loss")) == 6
    for task in SITUATIONS:
        runs = [read_run(finished.tasks / task / f"run.{model}.trec") for model in ("base", "tuned")]
        assert set(runs[0]) == set(runs[1]) == set(read_qrels(finished.tasks / task / "qrels.trec"))


def test_evaluate_gives_the_run_s_own_numbers(finished, shop, tmp_path):
    main(["evaluate", f"run={finished.path}", f"out={tmp_path}"])
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(finished.metrics.read_text())


def test_validation_is_evaluate_on_the_same_checkpoint(finished, tmp_path):
    as_in_the_curve = weights_of(finished)
    main(["evaluate", f"run={finished.path}", "evaluate.part=dev", f"out={tmp_path}", *as_in_the_curve])
    dev = json.loads((tmp_path / "metrics.json").read_text())["tuned"]
    mean = math.fsum(values["ndcg@10"] for values in dev.values()) / len(dev)
    watched = curve(finished, "dev/ndcg@10")
    assert max(watched.values()) == pytest.approx(mean, rel=1e-6)


def test_a_model_as_it_comes_and_several_models(finished, shop, tmp_path):
    where = ["--config-dir", str(shop / "conf"), "data=shop", f"cache_dir={load_config(finished.config).cache_dir}"]
    main(["evaluate", *where, "model=tiny", f"out={tmp_path / 'one'}"])
    assert set(json.loads((tmp_path / "one" / "metrics.json").read_text())) == {"tiny"}
    main(["evaluate", *where, f"models=[tiny,'run:{finished.path}']", f"out={tmp_path / 'two'}"])
    assert len(json.loads((tmp_path / "two" / "metrics.json").read_text())) == 2


def test_the_export_is_the_model_in_open_clip(finished, exported_run):
    import open_clip

    from gcl.data.store.prepared import open_prepared
    from gcl.run.contestants import tuned_encoder

    out = exported_run
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{out}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{out}")
    encoder = tuned_encoder(finished)
    texts = ["red shirt", "BLUE Mug!", "", "ünïcode ☂ " * 20]
    with torch.inference_mode():
        theirs = torch.nn.functional.normalize(model.eval().encode_text(tokenizer(texts)), dim=-1)
        tower = encoder.tower(next(iter(encoder.schema.query.values())).modality)
        ours = torch.nn.functional.normalize(tower.head(tower.trunk(encoder.preprocess.text(texts))), dim=-1)
    assert torch.allclose(theirs, ours, atol=1e-5)
    assert model.logit_scale.item() == pytest.approx(encoder.scale_bias[0])
    assert not list(out.glob("*.bin")) and (out / "README.md").read_text().startswith("---")
    config = load_config(finished.config)
    folder = next(p.parent for p in __import__("pathlib").Path(config.cache_dir).glob("shop-*/index.json"))
    record = open_prepared(folder).documents[0]
    from io import BytesIO

    from PIL import Image

    with torch.inference_mode():
        picture = transform(Image.open(BytesIO(record["image"]))).unsqueeze(0)
        theirs = torch.nn.functional.normalize(model.encode_image(picture), dim=-1)
        main_tower = encoder.tower(encoder.schema.document["image"].modality)
        ours = torch.nn.functional.normalize(main_tower.head(main_tower.trunk(picture)), dim=-1)
        pixels = encoder._pixels(encoder.preprocess.image(record["image"]).unsqueeze(0))
    assert torch.allclose(theirs, ours, atol=1e-5)
    assert (pixels - picture).abs().max() <= 1.01 / 255 / min(encoder.preprocess.std)  # one step of 255 at most


def test_words_go_on_top_of_the_run_s_own_config(finished, tmp_path, capsys):
    main(
        ["evaluate", f"run={finished.path}", "data.document.title.weight=0.01", "evaluate.part=dev", f"out={tmp_path}"]
    )
    assert "on shop (dev half)" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "metrics.json").read_text())["base"]) == SITUATIONS


def test_resumed_is_uninterrupted(train, tmp_path):
    """Killed after step 4 of 6 and resumed from the checkpoint of step 3: the same losses, to the bit."""
    whole = train("train.checkpoint_every=3", "train.validate_every=6 steps")
    with dies_after(3):
        train("train.checkpoint_every=3", "train.validate_every=6 steps", run_dir=tmp_path / "run")
    resumed = train(
        "train.checkpoint_every=3", "train.validate_every=6 steps", "train.resume=auto", run_dir=tmp_path / "run"
    )
    expected, found = curve(whole, "train/loss"), curve(resumed, "train/loss")
    assert {step: found[step] for step in (3, 4, 5)} == {step: expected[step] for step in (3, 4, 5)}
    assert json.loads(resumed.metrics.read_text())["tuned"] == json.loads(whole.metrics.read_text())["tuned"]


def test_micro_batches_give_the_same_losses(train):
    whole, chunked = train(), train("train.micro_batch=5")
    for step, loss in curve(whole, "train/loss").items():
        assert curve(chunked, "train/loss")[step] == pytest.approx(loss, abs=2e-5)


def test_a_run_folder_is_not_overwritten(finished, train):
    with pytest.raises(SystemExit):
        train(run_dir=finished.path)


def test_scores_outside_the_range_are_told_with_the_setting(train, capsys):
    with pytest.raises(SystemExit):
        train("loss.score_to_weight.high=50")
    assert "loss.score_to_weight.low=20 loss.score_to_weight.high=100" in capsys.readouterr().err


def test_a_batch_larger_than_the_data(train, capsys):
    with pytest.raises(SystemExit):
        train("train.batch_size=100000")
    assert "training pairs" in capsys.readouterr().err


def test_no_run_there(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", f"run={tmp_path}"])
    assert "no config.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", "rum=x"])
    assert "Did you mean run" in capsys.readouterr().err
