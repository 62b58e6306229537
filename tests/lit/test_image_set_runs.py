"""Runs on a catalog whose products have sets of images: any number of ranks, micro-batches, a resume and cached
features train the same; a set of one image trains what a single image trains."""

import csv
import json
import signal

import pytest

from gcl.lit.checkpoint import checkpoint_step
from helpers.training_jobs import batches, losses

ALL = ["data.products=several.csv", "data.document.image.images=all", "data.document.image.separator=;"]


@pytest.fixture(scope="module")
def several(shop):
    """several.csv: the shop's products with 0 to 3 images each, some of them shared."""
    with open(shop / "products.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        others = [f"images/{(number + step) % 48}.jpg" for step in (4, 8)[: number % 3]]
        row["image"] = ";".join([row["image"], *others]) if row["image"] else ""
    with open(shop / "several.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def one(start, several):
    return start(*ALL, "train.validate_every=3 steps").done()


def same(run, other):
    assert batches(run) == batches(other)
    assert losses(run) == pytest.approx(losses(other), abs=1e-5)


def test_a_set_changes_what_is_learned_and_measured(one, whole):
    assert len(losses(one)) == len(losses(whole)) == 6 and losses(one) != losses(whole)
    assert json.loads(one.metrics.read_text())["tuned"].keys() == json.loads(whole.metrics.read_text())["tuned"].keys()


def test_two_ranks_are_one_process(one, start, several):
    same(start(*ALL, "train.validate_every=3 steps", world=2).done(), one)


def test_a_resumed_run_is_the_whole_run(one, start, several, tmp_path):
    words = [*ALL, "train.validate_every=2 steps"]
    kill = "++callbacks={killer: {_target_: helpers.kill_callback.Killer, moment: validating, step: 4}}"
    job = start(*words, kill, run_dir=tmp_path / "run")
    assert job.wait() == [-signal.SIGKILL]
    assert checkpoint_step(job.run.last) == 4
    resumed = start(*words, "train.resume=auto", run_dir=tmp_path / "run").done()
    assert losses(resumed) == losses(one)


def test_micro_batches_are_the_whole_batch(one, start, several):
    same(start(*ALL, "train.micro_batch=3").done(), one)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["train.micro_batch=3"], ["train.micro_batch=auto"], ["train.workers=2"]])
@pytest.mark.parametrize("world", [1, 2])
def test_more_ways_to_the_same_run(one, start, several, words, world):
    same(start(*ALL, *words, world=world).done(), one)


@pytest.mark.slow
def test_cached_features_train_what_images_train(start, several):
    words = [*ALL, "optim.freeze=[visual.trunk.*]"]
    cached, read = (start(*words, f"train.cache_features={value}").done() for value in ("true", "false"))
    assert losses(cached) == pytest.approx(losses(read), abs=1e-4)


def test_a_set_of_one_image_trains_what_a_single_image_trains(start, whole):
    run = start("data.document.image.images=all", "train.validate_every=3 steps").done()
    assert losses(run) == losses(whole)
    assert json.loads(run.metrics.read_text())["tuned"] == json.loads(whole.metrics.read_text())["tuned"]
