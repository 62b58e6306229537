"""The scripts and notebooks of examples/ run as they are."""

import json
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TRAINING = {"own_catalog", "from_clicks"}  # a training each
FILES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb") and path.name != "shop.py")


@pytest.mark.parametrize(
    "file",
    [pytest.param(path, marks=pytest.mark.slow if path.stem in TRAINING else [], id=path.name) for path in FILES],
)
def test_it_runs(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    if file.suffix == ".py":
        runpy.run_path(str(file))
        return
    names: dict[str, object] = {}
    for cell in json.loads(file.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), file.name, "exec"), names)


def test_there_are_five_scripts_and_three_notebooks():
    assert [sum(path.suffix == suffix for path in FILES) for suffix in (".py", ".ipynb")] == [5, 3]
