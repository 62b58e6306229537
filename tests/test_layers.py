"""The design's floors: imports point down, between rooms and inside them, and each library has one door."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gcl"
FLOORS = [
    {"errors", "lazy", "options", "table"}, {"schema", "files", "distributed"}, {"data"}, {"model"}, {"loss", "optim"},
    {"retrieval"}, {"exports", "serve"}, {"lit"}, {"config"}, {"run"}, {"commands"}, {"cli", "api"}, {"__main__"},
]  # fmt: skip
# Rooms inside a room, lowest first. A room's own modules (gcl/data/catalog.py) may be used by its inner rooms and use
# them: for those, the test of cycles is enough.
INNER = {
    "data": [{"store"}, {"tables"}, {"importers"}, {"prepare", "batches"}, {"doctor", "init"}],
    "retrieval": [{"metrics", "search"}, {"tasks"}, {"embedding"}, {"analysis"}, {"page"}],
    "exports": [{"formats"}, {"vectors"}, {"engines"}, {"verify"}, {"card"}],
}
DOORS = {
    "webdataset": {"data"}, "pyarrow": {"data"}, "python_calamine": {"data"}, "fsspec": {"data"}, "timm": {"model"},
    "open_clip": {"model", "exports"},  # the export loads what it wrote as its user does
    "sentence_transformers": {"exports"}, "huggingface_hub": {"exports", "model"},
    "peft": {"model"}, "transformers": {"model", "exports"}, "lightning": {"lit", "run"},
    "fastapi": {"serve"}, "uvicorn": {"serve"}, "wandb": {"run"}, "filelock": {"files"},
    "hydra": {"config", "cli"}, "omegaconf": {"config"},
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """Everything a file imports, also inside functions and for type checkers alone; names that are modules in full."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports from the root"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= inner or {node.module}
    return names


def floor(name: str, floors: list[set[str]]) -> int:
    return next(number for number, rooms in enumerate(floors) if name in rooms)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = path.relative_to(PACKAGE).with_suffix("").parts
    if here == ("__init__",):
        return
    for name in imports(path):
        top, *there = name.split(".")
        if top in DOORS:
            assert here[0] in DOORS[top], f"{path} imports {top}; its door is gcl/{sorted(DOORS[top])[0]}"
        if top != "gcl" or not there:
            continue
        # loss and optim are neighbours, so neither may use the other
        below = there[0] == here[0] or floor(there[0], FLOORS) < floor(here[0], FLOORS)
        assert below, f"{path} imports {name}, which is not below it"
        inner = INNER.get(here[0], [])
        if there[0] == here[0] and {here[1], there[1]} <= set().union(*inner) and there[1] != here[1]:
            below = floor(there[1], inner) < floor(here[1], inner)
            assert below, f"{path} imports {name}: in gcl/{here[0]}, {there[1]} is not below {here[1]}"


def test_no_two_modules_import_each_other_even_in_a_roundabout_way():
    graph = {name: (imports(path) & MODULES.keys()) - {name} for name, path in MODULES.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(f"modules in a circle: {' <- '.join(error.args[1])}") from error


def test_sub_package_inits_are_empty():
    for path in PACKAGE.rglob("*/__init__.py"):
        assert path.read_text() == "", f"{path}: re-exports make import cycles"


def test_loss_and_optim_know_torch_only():
    for path in [*(PACKAGE / "loss").glob("*.py"), *(PACKAGE / "optim").glob("*.py")]:
        outside = {name.split(".")[0] for name in imports(path)} - {"torch", "gcl"}
        assert outside <= set(sys.stdlib_module_names), f"{path} imports {outside - set(sys.stdlib_module_names)}"
