"""What lists formats and engines agrees with their records: the extras of the package, and the documentation."""

import re
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from gcl.exports.engines.registry import ENGINES, engine_of
from gcl.exports.formats.registry import FORMATS

ROOT = Path(__file__).parents[2]
installed = cache(packages_distributions)
NEEDED = [(name, package, format.extra) for name, format in FORMATS.items()
          for package in format.requires if not package.startswith("@")]  # fmt: skip
NEEDED += [(name, package, engine_of(name).extra) for name in ENGINES for package in engine_of(name).requires]


def brought_by(extra: str) -> set[str]:
    """The distributions that an extra of pyproject.toml names, by itself or through another one."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    (inside,) = re.findall(rf"^{extra} = \[(.*?)\n?\]$", text, flags=re.MULTILINE | re.DOTALL)
    names = set()
    for requirement in re.findall(r'"([^"]+)"', inside):
        name, _, others = requirement.partition("[")
        if name != "gcl-trainer":
            names.add(re.split("[<>=]", name)[0])
            continue
        for other in others.rstrip("]").split(","):
            names |= brought_by(other)
    return names


@pytest.mark.parametrize(("name", "package", "extra"), NEEDED)
def test_an_extra_brings_what_a_record_needs(name, package, extra):
    if package not in installed():
        pytest.skip(f"{package} is not installed")
    assert set(installed()[package]) & brought_by(extra), f"{name}: [{extra}] does not bring {package}"


def test_the_documentation_names_them_all():
    page = (ROOT / "docs" / "exporting.md").read_text(encoding="utf-8")
    assert [name for name in FORMATS if name not in page] == []
