"""Runs with a head on frozen towers: statistics are the same on any number of ranks, a resume is the whole run, and
what a run left is measured, searched and begun from again."""

import json
import signal

import pytest
import torch

from gcl.lit.checkpoint import read_checkpoint
from helpers.training_jobs import losses, read_steps

TEXT = ["text.token_embedding.*", "text.positional_embedding", "text.transformer.*", "text.ln_final.*"]
STAGES = ["model.head=stages", f"optim.freeze=[{','.join(TEXT)},visual.trunk.*]"]


@pytest.fixture(scope="module")
def one(start):
    return start(*STAGES, "train.validate_every=3 steps").done()


def state(run):
    return read_checkpoint(run.best)["state_dict"]


def statistics(run):
    return [state(run)[f"encoder.model.visual.head.{name}"] for name in ("mean", "deviation")]


def test_the_best_checkpoint_has_the_statistics_and_measures_as_the_run_did(one):
    from gcl.run.contestants import both_encoders
    from gcl.run.measurement import measurement_of

    config = one.read_config()
    mean, deviation = statistics(one)
    assert mean.abs().min() > 0 and (deviation != 1).any() and (deviation > 0).all()
    told = json.loads(one.metrics.read_text())
    from gcl.data.prepare.mixed import open_catalog

    measurement = measurement_of(config.evaluate, config.data, open_catalog(config.data, config.cache_dir))
    for label, encoder in zip(("base", "tuned"), both_encoders(one), strict=True):
        assert torch.equal(encoder.model.visual.head.mean, mean)
        for task, result in measurement(encoder, "test").items():
            assert result.means["ndcg@10"] == pytest.approx(told[label][task]["ndcg@10"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_statistics_are_those_of_one_process_to_the_bit(one, start, world):
    other = start(*STAGES, world=world).done()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(statistics(one), statistics(other), strict=True))
    assert losses(other)[0] == pytest.approx(losses(one)[0], abs=0.2)  # each rank drops others


@pytest.mark.slow
def test_a_resumed_run_is_the_whole_run(one, start, tmp_path):
    kill = "++callbacks={killer: {_target_: helpers.kill_callback.Killer, moment: writing, step: 4}}"
    words = [*STAGES, "train.validate_every=3 steps", "train.checkpoint_every=2"]
    assert start(*words, kill, run_dir=tmp_path / "run").wait() == [-signal.SIGKILL]
    assert read_steps(start(*words, "train.resume=auto", run_dir=tmp_path / "run").done()) == read_steps(one)


@pytest.mark.slow
def test_micro_batches_augmented_images_and_a_run_that_begins_from_another(one, start):
    again = start(*STAGES, f"model.pretrained=run:{one.path}", "train.augment=true", "train.micro_batch=5").done()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(statistics(one), statistics(again), strict=True))
    assert losses(again) != losses(one)


@pytest.mark.slow
def test_without_kept_features_there_is_nothing_to_standardise_by(start):
    job = start(*STAGES, "train.cache_features=false")
    assert job.wait() != [0] and "model.head=stages is standardised by the cached features" in job.log()
