"""What the doctor expects of a run against what a real run takes: exact where it counts, in its order elsewhere."""

import json

import numpy as np
import pytest

from gcl.cli import main


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["plan.unique=query"]], ids=["plain", "unique"])
def test_the_doctor_s_estimates_are_a_run_s_figures(shop, train, tmp_path, more):
    words = ["train.max_steps=null", "train.epochs=3", "train.validate_every=3", *more]
    record = f"++callbacks.recorder={{_target_: helpers.record_callback.Recorder, path: {tmp_path / 'record.json'}}}"
    run = train(*words, record)
    main(["doctor", "--config-dir", str(shop / "conf"), "data=shop", "model=tiny", "trainer=cpu", "train.batch_size=16",
          "train.workers=0", f"cache_dir={tmp_path}", f"out={tmp_path / 'doctor'}", *words])  # fmt: skip
    said = json.loads((tmp_path / "doctor" / "doctor.json").read_text())
    seen = json.loads((tmp_path / "record.json").read_text())
    steps, batches, memory = seen["steps"], said["batches"], said["memory"]
    assert len(steps) == batches["steps"] == 3 * batches["steps_per_epoch"]
    assert len((run.path / "steps.csv").read_text().splitlines()) == 1 + batches["steps"]
    for side in ("query", "document"):
        first_epoch = [step[side] for step in steps[: batches["steps_per_epoch"]]]
        assert batches[side]["counted_pairs"] == pytest.approx(np.mean(first_epoch)), "the very batches of the run"
    weights, *others = memory["parts"].values()
    assert weights == pytest.approx(seen["parameters"] + seen["gradients_and_adam"], rel=0.001)
    assert 0.4 < sum(others) / max(step["kept"] for step in steps) < 2.5
    seconds = sum(step["seconds"] for step in steps[1:]) * len(steps) / (len(steps) - 1)
    assert 0.1 < said["time"]["run"] / seconds < 10
