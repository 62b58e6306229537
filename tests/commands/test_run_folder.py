"""A run is its folder: what is in it is continued or named, nothing is trained over, no measurement overwritten."""

import json
import shutil
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from gcl.cli import main
from gcl.config.compose import Overrides, load_config
from gcl.data.catalog import Catalog
from gcl.data.prepare import sources
from gcl.errors import ConfigError
from gcl.files.lock import owned
from gcl.lit.whole import checkpoint_step
from gcl.run.folder import RunFolder, new_folder
from gcl.run.resume import resume_path


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, to be damaged."""
    return RunFolder(Path(shutil.copytree(finished.path, tmp_path / "run")))


def resumed(run, resume):
    config = load_config(run.config)
    config.train.resume = resume
    return resume_path(config, run)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr("gcl.run.resume.say", lines.append)
    return lines


def test_whole_it_goes_on_from_the_last(run, said):
    assert resumed(run, "auto") == run.last and said == [f"Resuming from {run.last}, step 6."]


@pytest.mark.parametrize("damage", [cut, Path.unlink, lambda path: path.with_name("last.ckpt.DONE").unlink()])
def test_without_a_whole_last_checkpoint_it_goes_on_from_the_newest_whole_one_and_says_so(run, said, damage):
    damage(run.last)
    assert resumed(run, "auto") == run.best
    assert any("going on from best.ckpt" in line and str(run.last) in line for line in said)
    assert said[-1] == f"Resuming from {run.best}, step {checkpoint_step(run.best)}."


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_without_any_whole_checkpoint_it_stops_and_names_what_is_there(run, said, damage):
    damage(run.last)
    damage(run.best)
    with pytest.raises(ConfigError, match="none of its checkpoints is whole.*choose another run_dir"):
        resumed(run, "auto")


@pytest.mark.parametrize("lost", [[], ["last"], ["last", "best"]])
def test_a_finished_run_is_never_trained_over(run, lost):
    for name in lost:
        getattr(run, name).unlink()
    with pytest.raises(ConfigError, match="already holds a run .*train.resume=auto, or choose another run_dir"):
        resumed(run, None)


@pytest.mark.parametrize("name", ["last", "best"])
@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_folder_in_the_place_of_a_checkpoint_is_refused_before_training(run, name, resume):
    getattr(run, name).unlink()
    getattr(run, name).mkdir()
    with pytest.raises(ConfigError, match=f"{name}.ckpt is a folder, and this run writes its checkpoint there"):
        resumed(run, resume)


def test_another_runs_checkpoint_is_never_trained_over_a_run(run, finished):
    with pytest.raises(ConfigError, match="is not a checkpoint of .*already holds a run"):
        resumed(run, str(finished.last))
    assert resumed(run, str(run.last)) == run.last


@pytest.mark.parametrize("name", ["metrics.csv", "results.csv", "results.md", "queries.parquet"])
def test_every_result_is_a_trace(tmp_path, name):
    (tmp_path / name).write_text("x")
    left = RunFolder(tmp_path)
    with pytest.raises(ConfigError, match=f"already holds a run .{name}"):
        resumed_of_nothing(left, None)
    if name == "metrics.csv":  # killed before its first checkpoint
        assert resumed_of_nothing(left, "auto") is None


def test_a_run_that_left_nothing_begins_anew(run):
    shutil.rmtree(run.path)
    assert resumed_of_nothing(run, None) is None and resumed_of_nothing(run, "auto") is None


def resumed_of_nothing(run, resume):
    from gcl.config.compose import Overrides

    config = Overrides([]).config()
    config.train.resume = resume
    return resume_path(config, run)


def test_a_lost_last_checkpoint_is_named_before_anything_else_is_said(run, said):
    run.last.unlink()
    config = load_config(run.config)
    config.train.resume, config.optim.learning_rate = "auto", 0.5
    with pytest.raises(ConfigError, match=r"optim\.learning_rate was"):
        resume_path(config, run)
    assert "last.ckpt is missing" in said[0]


def test_a_run_goes_on_from_its_best_checkpoint_to_the_same_end(run, train, finished):
    cut(run.last)
    train("train.validate_every=3 steps", "train.resume=auto", run_dir=run.path)
    assert max(checkpoint_step(run.best), checkpoint_step(run.last) or 0) == 6
    assert json.loads(run.metrics.read_text()) == json.loads(finished.metrics.read_text())


def test_two_processes_do_not_train_into_one_folder(train, tmp_path, capsys):
    with owned(tmp_path / "run" / ".owner", what="it"), pytest.raises(SystemExit):
        train(run_dir=tmp_path / "run")
    assert f"The run folder {tmp_path / 'run'} is in use by process " in capsys.readouterr().err


def test_every_evaluation_has_a_folder_of_its_own(run):
    for _ in range(2):
        main(["evaluate", f"run={run.path}", "evaluate.metrics=[ndcg@10]", "evaluate.headline=[ndcg@10]"])
    folders = sorted((run.path / "evaluations" / "shop").iterdir())
    assert len(folders) == 2 and all((folder / "metrics.json").is_file() for folder in folders)


def test_folders_of_the_same_second_differ(tmp_path):
    assert len({new_folder(tmp_path) for _ in range(5)}) == 5


def test_a_catalog_is_generated_once_though_no_lock_reaches_the_other_host(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "locked", lambda *_, **__: nullcontext())
    monkeypatch.setattr(sources.socket, "gethostname", lambda: f"host-{threading.get_ident()}")
    begun = threading.Barrier(3)

    def draw(folder):
        begun.wait(900)
        for number in range(20):
            (folder / f"{number}.csv").write_text(f"{threading.get_ident()}\n")
            time.sleep(0.001)

    monkeypatch.setattr(sources, "_import", lambda _: draw)
    made, shop = [], Catalog(name="shop", generator="a:b")
    threads = [threading.Thread(target=lambda: made.append(sources._generated(shop, "a:b", tmp_path, None)))
               for _ in range(3)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(made) == {tmp_path / "shop-source"} and [p.name for p in tmp_path.iterdir()] == ["shop-source"]
    assert len({path.read_text() for path in made[0].iterdir()}) == 1 and len(list(made[0].iterdir())) == 20


def test_another_catalog_gets_none_of_the_run_s_tasks_slices_and_compressions(finished, shop, tmp_path):
    from gcl.config.compose import Overrides, save_config
    from gcl.run.folder import config_of

    config = load_config(finished.config)
    config.evaluate.tasks, config.evaluate.slices = ["zero_shot"], ["brand"]
    config.evaluate.monitor_tasks, config.evaluate.compress = ["zero_shot"], ["int8"]
    save_config(config, tmp_path / "config.yaml")
    own = config_of(Overrides([f"run={tmp_path}"])).evaluate
    assert (own.tasks, own.slices, own.compress) == (["zero_shot"], ["brand"], ["int8"])
    other = config_of(
        Overrides([f"run={tmp_path}", "data=shop", "evaluate.slices=[title]"], str(shop / "conf"))
    ).evaluate
    assert (other.tasks, other.monitor_tasks, other.compress, other.slices) == (None, None, [], ["title"])
    assert other.metrics == config.evaluate.metrics, "what is measured stays the run's"


def test_a_run_whose_training_today_s_rules_refuse_is_still_opened(finished, tmp_path, capsys):
    """An earlier version trained with numbers and a precision that a new training may not have."""
    old = tmp_path / "old"
    shutil.copytree(finished.path, old)
    config = yaml.safe_load((old / "config.yaml").read_text())
    changes = {
        "optim": {"learning_rate": 3.0, "weight_decay": -1.0, "clip_norm": -1.0},
        "train": {"epochs": -1.0, "batch_size": 1}, "trainer": {"precision": "bf16-true"},
    }  # fmt: skip
    for part, values in changes.items():
        config[part] |= values
    config["model"]["recipe"] |= {"learning_rate": 3.0}
    (old / "config.yaml").write_text(yaml.safe_dump(config))
    opened = RunFolder(old).read_config()
    assert opened.optim.learning_rate == 3 and opened.trainer.precision == "bf16-true"
    for part, values in changes.items():  # a new training is refused each of them
        for key, value in values.items():
            with pytest.raises(ConfigError, match=f"{part}.{key}={value}|{key}=|batch"):
                Overrides([f"{part}.{key}={value}"]).config()
    main(["evaluate", f"run={old}", f"out={tmp_path / 'again'}", "evaluate.batch_size=7"])
    main(["export", f"run={old}", "formats=[open_clip]", f"out={tmp_path / 'model'}", "compare=1"])
    assert (tmp_path / "model" / "open_clip_config.json").is_file() and capsys.readouterr()
    main(["search", f"run={old}", "red shoes"])
    assert capsys.readouterr().out
    with pytest.raises(SystemExit):  # what measuring reads is checked as ever
        main(["evaluate", f"run={old}", "evaluate.batch_size=-1"])
