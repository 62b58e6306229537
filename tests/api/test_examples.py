"""The scripts and notebooks of examples/ run as they are."""

import os
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TRAINING = {"own_catalog", "from_clicks"}  # a training each
FILES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb") and path.name != "shop.py")


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(path, marks=pytest.mark.slow if path.stem in TRAINING else [], id=path.name)
        for path in FILES
        if path.suffix == ".py"
    ],
)
def test_a_script_runs(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(file))


@pytest.mark.slow
@pytest.mark.parametrize("file", [path for path in FILES if path.suffix == ".ipynb"], ids=lambda path: path.name)
def test_a_notebook_runs_in_jupyter(file, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES), *filter(None, [os.environ.get("PYTHONPATH")])]))
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(
        notebook, timeout=900, startup_timeout=900, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("text/html" in output.get("data", ()) for output in shown), "nothing was shown as in a notebook"


def test_there_are_five_scripts_and_three_notebooks():
    assert [sum(path.suffix == suffix for path in FILES) for suffix in (".py", ".ipynb")] == [5, 3]
