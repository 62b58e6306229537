"""`gcl runs`, names of runs, and what a sweep leaves."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from gcl.cli import main
from gcl.config.compose import Overrides
from gcl.config.sweep import Sweep, begin_sweep
from gcl.errors import ConfigError
from gcl.lit.whole import done_file
from gcl.retrieval.analysis.verdict import Decision, Verdict
from gcl.run.closing import next_steps
from gcl.run.folder import RunFolder, new_run_folder


def copied(finished, path, *, config=(), without=()):
    """The finished run under another name, with other settings, and without some of its files."""
    shutil.copytree(finished.path, path, ignore=shutil.ignore_patterns("tasks", "*.ckpt", "report.html", *without))
    content = yaml.safe_load((path / "config.yaml").read_text())
    for key, value in dict(config).items():
        *above, last = key.split(".")
        place = content
        for name in above:
            place = place[name]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    (path / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def rewritten(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def runs(finished, tmp_path):
    top = tmp_path / "outputs"
    copied(finished, top / "shop" / "tiny" / "2026-01-31_12-00-00")
    quick = copied(finished, top / "shop" / "tiny" / "quick", config={"optim.learning_rate": 1e-5, "seed": 7})
    rewritten(quick / "environment.json", lambda content: content.update(begun="2026-01-31 13:00:00"))
    # as an earlier version left it: a setting and some facts less, a choice that has another name now
    old = copied(finished, top / "old", config={"name": ..., "evaluate.gate": ..., "evaluate.forgetting": "fail"})
    for file, keys in (("environment.json", ["begun"]), ("results.json", ["verdicts", "seconds"])):
        rewritten(old / file, lambda content, keys=keys: [content.pop(key, None) for key in keys])
    first = top / "shop" / "tiny" / "2026-01-31_12-00-00"
    rewritten(first / "environment.json", lambda content: content.pop("begun"))
    copied(finished, top / "cut", without=["results.json"])
    copied(finished, top / "dead", without=["results.json", "*.DONE"])
    shutil.copytree(top / "dead", top / "evil")
    (top / "evil" / "config.yaml").write_text("data: !!python/object/apply:os.system ['touch /tmp/owned']\n")
    odd = copied(finished, top / "odd")
    (odd / "results.json").write_text("[1, 2")
    (top / "no_run").mkdir()
    (top / "no_run" / "config.yaml").write_text("a: 1\n")
    return top


def listed(capsys, folder, form="json"):
    main(["runs", str(folder), f"format={form}"])
    return capsys.readouterr().out


def test_runs_are_listed_with_what_differs_and_what_became_of_them(runs, finished, capsys):
    rows = {row["run"].removeprefix(f"{runs}/"): row for row in json.loads(listed(capsys, runs))}
    assert set(rows) == {"shop/tiny/2026-01-31_12-00-00", "shop/tiny/quick", "old", "cut", "dead", "evil", "odd"}
    quick, first, old = rows["shop/tiny/quick"], rows["shop/tiny/2026-01-31_12-00-00"], rows["old"]
    assert (quick["optim.learning_rate"], quick["seed"]) == ("1e-05", "7")
    assert (first["optim.learning_rate"], first["seed"]) == ("0.0003", "0")
    assert not {"evaluate.gate", "run_dir", "name"} & set(quick)  # neither a difference nor one that counts
    assert (quick["begun"], first["begun"]) == ("2026-01-31 13:00", "2026-01-31 12:00")
    metrics = json.loads(finished.metrics.read_text())
    held_out = [task for task in metrics["base"] if task != "in_domain"]
    for column in ("base", "tuned"):
        mean = sum(metrics[column][task]["ndcg@10"] for task in held_out) / len(held_out)
        assert quick[column] == pytest.approx(mean) == pytest.approx(old[column])
    decided = json.loads((finished.path / "results.json").read_text())["verdicts"]["tuned"]["decision"]
    assert quick["verdict"] == old["verdict"] == decided and quick["minutes"] > 0 and old["minutes"] is None
    assert (
        rows["cut"]["verdict"] == "unfinished: step 6 of 6" and rows["dead"]["verdict"] == "unfinished: no checkpoint"
    )
    assert rows["evil"]["verdict"].startswith("broken: ") and rows["odd"]["verdict"].startswith("broken: results.json")
    assert not (runs / "no_run" / "config.yaml").with_name("owned").exists()


def test_the_newest_run_comes_first_in_every_format(runs, capsys):
    text = listed(capsys, runs / "shop", "text")
    assert re.search(r"quick .* learning_rate=1e-05 seed=7 .* 13:00 +[\d.]+\n", text)
    assert text.index("quick") < text.index("2026-01-31_12-00-00") and "2 runs:" in text
    table = list(csv.DictReader(io.StringIO(listed(capsys, runs / "shop", "csv"))))
    assert [row["seed"] for row in table] == ["7", "0"]
    assert listed(capsys, runs / "shop", "markdown").count("\n| ") == 4  # title, header, rule, two runs
    with pytest.raises(SystemExit):
        main(["runs", str(runs / "nowhere")])
    assert "There is no folder" in capsys.readouterr().err


def test_a_run_has_the_name_it_is_given():
    assert str(new_run_folder(None, data="shop", model="tiny", name="first").path) == "outputs/shop/tiny/first"
    assert Overrides(["name=007"]).config().name == "007"
    for name in ("a/b", "..", ".hidden", "c:\\d"):
        with pytest.raises(ConfigError, match="the name of one folder"):
            Overrides([f"name={name}"]).config()


def test_a_sweep_has_a_folder_and_its_values_are_looked_at_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = begin_sweep(["model=tiny,siglip-B", "seed=range(0,3)", "name=wide", "train.epochs=2"], None)
    assert str(sweep.folder) == "outputs/demo/wide" and sweep.keys == {"model", "seed"}
    assert re.fullmatch(r"outputs/demo/sweep_[\d_-]+", str(begin_sweep(["seed=0,1"], None).folder))
    for settings, says in (
        (["model=tiny,tyny"], "Did you mean tiny"),
        (["train.batch_size=64,1"], "at least 2"),
        (["seed=0,1", "run_dir=here"], "name=… names the sweep"),
    ):
        with pytest.raises(ConfigError, match=says):
            begin_sweep(settings, None)
    sweep.folder.mkdir(parents=True)
    (sweep.folder / "multirun.yaml").touch()
    with pytest.raises(ConfigError, match="has a sweep already"):
        begin_sweep(["seed=0,1", "name=wide"], None)


def test_a_sweep_keeps_no_secrets(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/c.yaml").write_text("name: c\nquery: {q: {modality: text}}\ndocument: {t: {modality: text}}\n")
    done = subprocess.run(
        [sys.executable, "-m", "gcl", "prepare", "-m", "--config-dir", ".", "data=c", "seed=0,1",
         "hydra.sweep.dir=here", "data.products=https://ann:url5ecret@127.0.0.1:9/p.csv",
         "data.download.headers={Authorization: Bearer typed5ecret, X-Named: $SHOP_KEY}"],
        capture_output=True, text=True, cwd=tmp_path, timeout=900,
    )  # fmt: skip
    kept = (tmp_path / "here/multirun.yaml").read_text()
    assert "seed=0,1" in kept and "X-Named: $SHOP_KEY" in kept, done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"5ecret" in path.read_bytes() for path in written) and "5ecret" not in done.stdout + done.stderr


def test_hydra_writes_what_a_sweep_was_given_where_only_its_owner_reads(tmp_path):
    sweep = Sweep([], tmp_path / "sweep", frozenset())
    sweep.keep_private()
    assert sweep.settings.stat().st_mode & 0o777 == 0o600
    sweep.hide_secrets()
    assert not sweep.settings.exists()  # nothing was written
    with pytest.raises(ConfigError, match="expected the path of a folder"):
        begin_sweep(["seed=0,1", "hydra.sweep.dir=${name}"], None)


@pytest.mark.parametrize(
    ("decision", "best_step", "says", "unsaid"),
    [
        ("ship", 3, ["gcl search run=", "gcl export run="], "optim.learning_rate"),
        ("mixed", 3, ["report.html", "alpha=auto"], "optim.learning_rate"),
        (
            "unclear",
            6,
            ["train.max_steps=12 .*at its last step, 6", "more judged searches", "gcl doctor run="],
            "3e-4",
        ),
        (
            "worse",
            2,
            ["optim.learning_rate=0.0001 .*its best was step 2 of 6", "model.lora.rank=8", "gcl doctor"],
            "alpha",
        ),
        ("worse", 4, ["optim.learning_rate=0.0001 .*smaller steps"], "its best was"),
    ],
)
def test_what_to_do_next_follows_from_the_verdict(finished, tmp_path, decision, best_step, says, unsaid):
    run = RunFolder(copied(finished, tmp_path / "a run"))
    rewritten(done_file(run.best), lambda content: content.update(step=best_step))
    config = run.read_config()
    config.model.pretrained = "laion"
    steps = next_steps(Verdict(Decision[decision], "Because"), config, run)
    told = "\n".join(f"{step}  {why}" for step, why in steps.items())
    assert all(re.search(one, told) for one in says) and unsaid not in told
    assert ("gcl sweep-weights run=" in told) == (decision in ("mixed", "worse") and not run.field_weights.is_file())
    assert "run=" not in told or f"run='{run.path}'" in told  # quoted: there is a space in it
    config.model.pretrained = None  # a model from scratch: its base is nothing to stay close to
    assert not re.search("lora|alpha", " ".join(next_steps(Verdict(Decision[decision], "Because"), config, run)))


def test_a_gate_needs_something_to_compare(finished, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "data=demo", "model=tiny", "evaluate.gate=better"])
    assert "one model is compared with nothing" in capsys.readouterr().err
