"""Commands on a disk that becomes full end with a sentence that names what could not be written, and nothing that they
leave behind looks whole."""

import subprocess

import pytest

from gcl.cli import main


def refused(capfd, *words):
    """What the command said before it ended with status 2."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    said = capfd.readouterr().err
    assert stopped.value.code == 2 and "Traceback" not in said, said
    return next(line for line in said.splitlines() if line.startswith("gcl: "))


@pytest.mark.parametrize("size", ["8k", "120k"])
def test_preparing(shop, disk, size, capfd):
    folder = disk(size)
    said = refused(capfd, "prepare", "--config-dir", str(shop / "conf"), "data=shop", f"cache_dir={folder / 'cache'}")
    assert f"No space is left to write {folder}" in said
    assert not [path for path in folder.rglob("*") if path.name == "index.json" or path.suffix == ".tar"]


def test_training(train, disk, capfd):
    """The way out that is named leads out: more space, and train.resume=auto."""
    folder = disk("1m")
    run = folder / "run"
    with pytest.raises(SystemExit) as stopped:
        train(run_dir=run)
    said = capfd.readouterr().err
    assert stopped.value.code == 2 and "Traceback" not in said, said
    assert f"gcl: The checkpoint {run / 'checkpoints' / 'best.ckpt'} could not be saved: " in said
    assert "No space left on device" in said and "train.resume=auto" in said
    assert not [*run.glob("report.html"), *run.glob("results.*"), *run.rglob("*.ckpt*")]
    subprocess.run(["mount", "-o", "remount,size=512m", str(folder)], check=True)
    assert train("train.resume=auto", run_dir=run).metrics.exists()


@pytest.mark.parametrize("size", ["8k", "60k"])
def test_measuring(finished, disk, size, capfd):
    folder = disk(size)
    said = refused(capfd, "evaluate", f"run={finished.path}", f"out={folder / 'out'}")
    assert f"No space is left to write {folder / 'out'}" in said
    assert not list(folder.rglob("report.html")) and not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("size", ["8k", "4m"])
def test_exporting(finished, disk, size, capfd):
    folder = disk(size)
    said = refused(capfd, "export", f"run={finished.path}", f"out={folder / 'out'}", "license=mit", "latency=0.2")
    assert f"No space is left to write {folder / 'out'}" in said
    assert not (folder / "out").exists() and not list(folder.rglob("*.safetensors"))
