"""`gcl merge`: never below the best run on the dev half, a run folder like any other, and what cannot be averaged."""

import json
import re
import shutil

import pytest
import torch

from gcl.cli import main
from gcl.config.compose import load_config
from gcl.lit.checkpoint import read_checkpoint
from gcl.run.folder import RunFolder
from gcl.run.listing import runs_below


@pytest.fixture(scope="module")
def other(train):
    """Begun with the same weights as `finished`, trained in other steps."""
    return train("train.validate_every=3 steps", "loss=constant", "optim.learning_rate=6e-4")


@pytest.fixture(scope="module")
def merged(finished, other, tmp_path_factory):
    out = tmp_path_factory.mktemp("merged") / "run"
    main(["merge", f"runs=[{other.path},{finished.path}]", "weights=[1,3]", f"out={out}"])
    return RunFolder(out)


def test_the_weights_are_the_mean_and_the_config_says_of_what(finished, other, merged):
    ours, a, b = (read_checkpoint(one.best)["state_dict"] for one in (merged, other, finished))
    assert ours.keys() == b.keys()
    for name, value in ours.items():
        if value.is_floating_point():
            assert torch.allclose(value, 0.25 * a[name] + 0.75 * b[name], atol=1e-6), name
    assert load_config(merged.config).merged == {str(other.path): 0.25, str(finished.path): 0.75}
    assert "weights are averaged (gcl merge): 0.25 of" in (merged.path / "results.md").read_text()


def test_it_is_a_run_like_any_other(merged, finished, tmp_path, capsys):
    assert merged.report.is_file() and runs_below(merged.path)[0].state
    main(["evaluate", f"run={merged.path}", f"out={tmp_path / 'again'}"])
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    for task, values in json.loads(merged.metrics.read_text())["tuned"].items():
        assert again["tuned"][task]["ndcg@10"] == pytest.approx(values["ndcg@10"], abs=1e-6)
    with pytest.raises(SystemExit):
        main(["merge", f"runs=[{merged.path},{finished.path}]", f"out={merged.path}"])
    told = capsys.readouterr().err
    assert "already holds a run" in told


def test_auto_is_never_below_the_best_run_on_the_dev_half(finished, other, tmp_path, capsys):
    main(["merge", f"runs=[{other.path},{finished.path}]", f"out={tmp_path / 'run'}"])
    printed = capsys.readouterr().out
    table = printed[printed.index("share") : printed.index("Measuring")]
    *alone, value = [float(line.split()[1]) for line in table.splitlines()[1:] if re.search(r"\d\.\d", line)]
    assert len(alone) == 2 and value >= max(alone)


def test_what_cannot_be_averaged_is_said(finished, other, tmp_path, capsys):
    def refused(*words):
        with pytest.raises(SystemExit):
            main(["merge", *words, f"out={tmp_path / 'run'}"])
        assert not (tmp_path / "run").exists()
        return capsys.readouterr().err

    both = f"runs=[{finished.path},{other.path}]"
    assert "at least two different run folders" in refused(f"runs=[{finished.path}]")
    assert "2 numbers of at least 0" in refused(both, "weights=[1,2,3]")
    assert "not all 0" in refused(both, "weights=[0,0]")
    copy = RunFolder(tmp_path / "adapted")
    shutil.copytree(other.path, copy.path)
    text = copy.config.read_text()
    copy.config.write_text(re.sub(r"rank: null", "rank: 4", text, count=1))
    assert "differ in model.lora.rank (None and 4)" in refused(f"runs=[{finished.path},{copy.path}]")
    copy.config.write_text(text)
    environment = json.loads(copy.environment.read_text())
    copy.environment.write_text(json.dumps({**environment, "data_fingerprint": "another"}))
    assert "prepared data" in refused(f"runs=[{finished.path},{copy.path}]")


def test_what_is_frozen_must_be_the_same(finished, other, tmp_path, capsys):
    copies = [RunFolder(tmp_path / name) for name in ("a", "b")]
    for one, copy in zip((finished, other), copies, strict=True):
        shutil.copytree(one.path, copy.path)
    runs = f"runs=[{copies[0].path},{copies[1].path}]"
    for copy, told in zip(copies, ("differ in optim.freeze", " is frozen, but its values in "), strict=True):
        copy.config.write_text(copy.config.read_text().replace("  freeze: []\n", "  freeze: [visual.*]\n"))
        with pytest.raises(SystemExit):
            main(["merge", runs, f"out={tmp_path / 'run'}"])
        assert told in capsys.readouterr().err
        assert not RunFolder(tmp_path / "run").report.exists()
