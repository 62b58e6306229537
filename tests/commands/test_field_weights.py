"""Field weights that the dev half chooses after training: used wherever the run's model is."""

import csv
import json
import shutil
from contextlib import suppress

import pytest

import gcl
from gcl.cli import main
from gcl.config.compose import load_config
from gcl.errors import ConfigError
from gcl.run.folder import RunFolder
from helpers.trained_shop import write_named_shop


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A shop whose queries are the titles of products: pictures say nothing."""
    return write_named_shop(tmp_path_factory.mktemp("named"))


@pytest.fixture(scope="module")
def fit(named, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def call(name, *words):
        run = RunFolder(cache / name)
        main(
            ["train", "--config-dir", str(named / "conf"), "data=shop", "model=tiny", "trainer=cpu", "seed=1",
             f"run_dir={run.path}", f"cache_dir={cache}", "train.batch_size=16", "train.max_steps=3",
             "train.validate_every=3 steps", "train.workers=0", *words]
        )  # fmt: skip
        return run

    return call


@pytest.fixture(scope="module")
def chosen(fit):
    return fit("dev")


@pytest.fixture(scope="module")
def given(fit):
    return fit("given", "train.field_weights=given")


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def measured(run, tmp_path, *words):
    main(["evaluate", f"run={run.path}", f"out={tmp_path}", *words])
    return metrics(tmp_path)


def headline(models):
    """The mean over tasks of the tuned model's first headline metric."""
    tasks = models["tuned"].values()
    return sum(task["ndcg@10"] for task in tasks) / len(tasks)


def test_the_choice_is_used_and_shown(chosen, tmp_path):
    file = json.loads(chosen.field_weights.read_text())
    assert file["given"] == load_config(chosen.config).data.schema.weights
    used = chosen.read_config().data.schema.weights
    assert used == file["used"] and used["document"]["title"] > 0.4 and used["query"] == file["given"]["query"]
    assert gcl.load(chosen.path).encoder.schema.weights == used
    assert gcl.load(chosen.path, which="base").encoder.schema.weights == used
    assert measured(chosen, tmp_path) == metrics(chosen.path)
    assert "What the field weights are worth" in (chosen.path / "results.md").read_text()
    assert "What the field weights are worth" in (chosen.path / "report.html").read_text()


@pytest.mark.slow
def test_the_choice_is_told_for_what_it_is_worth(chosen, given):
    assert not given.field_weights.exists()
    for row in json.loads((chosen.path / "results.json").read_text())["field_weights"]["test"]:
        assert row["given"] == pytest.approx(metrics(given.path)["tuned"][row["task"]][row["metric"]])
        assert row["chosen"] == pytest.approx(metrics(chosen.path)["tuned"][row["task"]][row["metric"]])


@pytest.mark.slow
def test_training_knows_nothing_of_the_choice(chosen, given):
    def losses(run):
        with open(run.path / "metrics.csv", newline="") as file:
            return [{k: v for k, v in row.items() if "loss" in k or "dev/" in k} for row in csv.DictReader(file)]

    assert losses(chosen) == losses(given)


@pytest.mark.slow
def test_what_the_command_line_gives_wins(chosen, given, named, tmp_path, fit):
    weights = load_config(chosen.config).data.schema.weights["document"]
    words = [f"data.document.{name}.weight={weight}" for name, weight in weights.items()]
    assert measured(chosen, tmp_path / "all", *words) == metrics(given.path)
    assert measured(chosen, tmp_path / "one", words[0]) == metrics(given.path)  # that side is as it was given
    where = ["--config-dir", str(named / "conf"), "data=shop"]
    assert measured(chosen, tmp_path / "data", *where) == metrics(chosen.path)
    assert measured(chosen, tmp_path / "data given", *where, words[0]) == metrics(given.path)
    models = [*where, f"models=['run:{chosen.path}']", f"cache_dir={load_config(chosen.config).cache_dir}"]
    several = [word for word in models if word != "data=shop"]  # of which the run's own is one
    main(["evaluate", *several, "evaluate.sets=[shop]", f"out={tmp_path / 'sets'}"])
    assert [*metrics(tmp_path / "sets").values()] == [metrics(chosen.path)["tuned"]]
    for extra, like in ((), chosen), ((words[0],), given):
        main(["evaluate", *models, *extra, f"out={tmp_path / like.path.name}"])
        (only,) = metrics(tmp_path / like.path.name).values()
        assert only == metrics(like.path)["tuned"]


@pytest.mark.slow
def test_weights_given_to_a_training_are_not_chosen_anew(fit):
    run = fit("typed", "data.document.image.weight=0.6")
    assert load_config(run.config).train.field_weights == "given" and not run.field_weights.exists()


@pytest.mark.slow
def test_on_the_dev_half_no_field_alone_is_better(chosen, tmp_path):
    fused = headline(measured(chosen, tmp_path / "fused", "evaluate.part=dev"))
    names = list(chosen.read_config().data.document)
    for name in names:
        alone = [f"data.document.{other}.weight={1.0 if other == name else 1e-6}" for other in names]
        assert fused >= headline(measured(chosen, tmp_path / name, "evaluate.part=dev", *alone)) - 1e-12
    told = json.loads(chosen.field_weights.read_text())["dev"]
    assert fused == pytest.approx(told["used"], abs=1e-6) and told["used"] >= max(
        told["given"], *told["single"].values()
    )


@pytest.mark.slow
def test_a_run_killed_while_it_chooses_ends_as_if_it_had_not_been(chosen, fit):
    copy = chosen.path.with_name("killed")
    shutil.copytree(chosen.path, copy)
    for name in ("field_weights.json", "metrics.json", "results.json", "report.html"):
        (copy / name).unlink()
    again = fit("killed", "train.resume=auto")
    for name in ("field_weights.json", "metrics.json"):
        assert (again.path / name).read_bytes() == (chosen.path / name).read_bytes()


@pytest.mark.slow
def test_a_folder_without_the_file_is_used_as_given_and_a_damaged_one_is_told(chosen, given, tmp_path):
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(chosen.path, copy.path)
    copy.field_weights.write_text('{"used": {"document": {"image": "much"}}}')
    with pytest.raises(ConfigError, match="does not say which field weights"):
        copy.read_config()
    copy.field_weights.unlink()
    assert measured(copy, tmp_path / "out") == metrics(given.path)


def test_few_queries_never_leave_less_than_the_best_field(finished):
    file = json.loads(finished.field_weights.read_text())
    assert file["queries"] < 20 and file["dev"]["used"] >= max(file["dev"]["single"].values())


@pytest.mark.slow
def test_on_another_catalog_a_single_field_that_is_better_is_told_with_the_setting(chosen, named, tmp_path, capsys):
    yaml = (named / "conf" / "data" / "shop.yaml").read_text()
    (named / "conf" / "data" / "other.yaml").write_text(
        yaml.replace("name: shop", "name: other").replace("weight: 0.6", "weight: 5")
    )
    where = ["--config-dir", str(named / "conf"), "data=other"]
    before = measured(chosen, tmp_path / "given", *where)
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if "On other, document.title alone is better than" in line)
    settings = line.rpartition(": ")[2].split()
    assert [one.partition("=")[0] for one in settings] == [
        "data.document.image.weight", "data.document.brand.weight"
    ]  # fmt: skip
    assert headline(measured(chosen, tmp_path / "alone", *where, *settings)) > headline(before)
    assert "alone is better" not in capsys.readouterr().out
    with suppress(SystemExit):  # other findings may be problems
        main(["doctor", f"run={chosen.path}", *where, f"out={tmp_path / 'doctor'}"])
    assert "On other, document.title alone is better than" in capsys.readouterr().out
