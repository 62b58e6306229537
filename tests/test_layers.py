"""The design's floors: imports point down, and each third-party library has one door."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gcl"
FLOORS = [
    {"schema", "mistakes"}, {"data"}, {"model"}, {"loss", "optim"}, {"retrieval"}, {"export", "serve"}, {"lit"},
    {"runs"}, {"settings"}, {"checks"}, {"config"}, {"earlier"}, {"assembly"}, {"commands"}, {"cli"},
]  # fmt: skip
DOORS = {
    "webdataset": {"data"}, "pyarrow": {"data"}, "fsspec": {"data"}, "timm": {"model"},
    "open_clip": {"model", "export"},  # the export loads what it wrote as its user does
    "sentence_transformers": {"export"}, "huggingface_hub": {"export"},
    "peft": {"model"}, "transformers": {"model", "export"}, "lightning": {"lit", "assembly"},
    "fastapi": {"serve"}, "uvicorn": {"commands"}, "hydra": {"config", "cli"}, "omegaconf": {"config"},
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports from the root"
            found.add(node.module)
    return found


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = room(path)
    if here == "__init__":
        return
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "gcl" and rest:
            there = rest.split(".")[0]
            assert there == here or floor(there) < floor(here), f"{path} imports {name}, which is not below it"
            # loss and optim are neighbours, and so are not each other's ground
        elif top in DOORS:
            assert here in DOORS[top], f"{path} imports {top}; its door is gcl/{sorted(DOORS[top])[0]}"


def test_sub_package_inits_are_empty():
    for path in PACKAGE.rglob("__init__.py"):
        assert path.read_text() == "", f"{path}: re-exports make import cycles"


def test_loss_and_optim_know_torch_only():
    for path in [*(PACKAGE / "loss").glob("*.py"), *(PACKAGE / "optim").glob("*.py")]:
        outside = {name.split(".")[0] for name in imports(path)} - {"torch", "gcl"}
        import sys

        assert outside <= set(sys.stdlib_module_names), f"{path} imports {outside - set(sys.stdlib_module_names)}"
