"""A run that is trained and reported with another evaluator's rules, and measured again with them."""

import json

import pytest

from gcl.cli import main


@pytest.mark.slow
def test_training_with_the_gcl_evaluator(train, tmp_path):
    run = train("evaluate=gcl", "evaluate.queries=3", "train.validate_every=3 steps")
    metrics = json.loads(run.metrics.read_text())
    assert {values["queries"] for values in metrics["tuned"].values()} == {3}
    assert len(metrics["tuned"]["zero_shot"]) == 152 and (run.path / "results.csv").is_file()
    about = json.loads((run.path / "results.json").read_text())["provenance"]
    assert about["settings"]["rescale"] and "as the published GCL evaluator mixes them" in about["ties"]
    assert len(about["models"]["tuned"]["checkpoint_sha256"]) == len(about["data"]["shop"]["fingerprint"]) == 64
    main(["evaluate", f"run={run.path}", "evaluate.part=test", f"out={tmp_path}"])
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    main(["evaluate", f"run={run.path}", f"out={tmp_path / 'all'}"])  # the YAML's part: all
    assert "the dev half chose the run's checkpoint" in (tmp_path / "all" / "results.md").read_text()
