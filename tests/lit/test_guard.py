"""What is not finite never reaches the weights, and the batch that made it is on record; so is what jumps."""

import json
import math

from helpers.training_jobs import losses, read_steps


def poison(step, *, factor="nan", rank=0, name="poison"):
    return (
        f"callbacks.{name}={{_target_: helpers.poison_callback.Poison, step: {step}, factor: '{factor}', rank: {rank}}}"
    )


def test_a_gradient_that_is_no_number_on_one_rank_stops_all(start):
    job = start(poison(3, rank=1), world=2)
    assert job.wait() == [2, 2]
    assert "Step 3 gave loss" in job.log(0) and "train.nonfinite=skip" in job.log(0)
    (path,) = job.run.path.glob("nonfinite-*.json")
    found = json.loads(path.read_text())
    assert path.name == "nonfinite-step-3.json" and found["batches"][0]["step"] == 3
    pairs = found["batches"][0]["pairs"]
    assert len(pairs) == 7 and all(pair["document"].startswith("p0") and pair["query"] for pair in pairs)
    assert len(read_steps(job.run)) == 3


def test_skip_and_rollback_pass_over_the_batch_and_spikes_are_recorded(start):
    words = ["train.max_steps=12", "train.checkpoint_every=2", poison(3), poison(10, factor="1000", name="spike")]
    skipped = start("train.nonfinite=skip", *words).done()
    assert all(map(math.isfinite, losses(skipped))) and len(losses(skipped)) == 12
    assert [path.name for path in skipped.path.glob("nonfinite-*.json")] == ["nonfinite-step-3.json"]
    spikes = [json.loads(line) for line in (skipped.path / "spikes.jsonl").read_text().splitlines()]
    (spike,) = [spike for spike in spikes if spike["step"] == 10]
    assert spike["what"] == "gradient norm" and spike["value"] > 50 * spike["median"] and spike["batches"][0]["pairs"]
    job = start("train.nonfinite=rollback", *words)
    assert read_steps(job.done()) == read_steps(skipped)
    assert "back to the last checkpoint, without step 3" in job.log()


def test_skips_are_bounded(start):
    job = start("train.nonfinite=skip", "train.max_skips=1", poison(1), poison(2, name="second"))
    assert job.wait() == [2]
    assert "These are 2 such steps, more than train.max_skips=1 allows" in job.log()


def test_a_model_that_diverged_before_a_validation_is_told_as_such(start):
    job = start("callbacks.diverge={_target_: helpers.poison_callback.Diverge, step: 2}",
                "train.validate_every=3 steps")  # fmt: skip
    assert job.wait() == [2]
    said = job.log()
    assert "gcl: The model has diverged: its vectors are not finite after step 3, whose loss was " in said
    assert "at a learning rate of " in said and "Try optim.learning_rate=3e-05 (it is 0.0003)" in said
    assert "is not finite: a vector with" not in said
