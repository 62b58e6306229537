"""What the README tells people to type is understood, and its YAML is a catalog."""

import re
import shlex
from pathlib import Path

import pytest

from gcl.cli import COMMANDS
from gcl.config.compose import compose, typed

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
LINES = [line.strip().partition("  #")[0].strip() for line in README.splitlines() if line.startswith("    ")]
RUNS = [
    command.strip()
    for line in LINES
    for command in re.split(r"&&|;", line)
    if re.match(r"(python (train|evaluate)\.py|torchrun .*train\.py|gcl \w+)", command.strip())
]
YAML = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)


def test_the_two_commands_open_the_readme():
    commands = [line for line in LINES if line][:2]
    assert commands == ["pip install -e . && python train.py", 'pip install -e ".[dev]" && pytest']


@pytest.fixture
def my_conf(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "my_catalog.yaml").write_text(YAML[0])
    (tmp_path / "data" / "shoes.yaml").write_text(YAML[0])  # what the mix of the README names beside conf/data/fashion
    for text in YAML:
        if named := re.match(r"# conf/data/(\w+)\.yaml\n", text):
            (tmp_path / "data" / f"{named[1]}.yaml").write_text(text)
    return tmp_path


def test_the_catalog_in_five_lines_is_one(my_conf):
    run = typed(compose(["data=my_catalog", "model=ecommerce-B"], config_dir=my_conf))
    assert run.data.document["image"].weight == 0.9 and run.model.label == "ecommerce-B"


@pytest.mark.parametrize("command", RUNS)
def test_every_command_is_understood(command, my_conf):
    words = shlex.split(command)
    place = next(i for i, word in enumerate(words) if word.endswith(".py") or word == "gcl")
    name = words[place].removesuffix(".py") if words[place].endswith(".py") else words[place + 1]
    assert name in COMMANDS
    settings = words[place + 1 :] if words[place].endswith(".py") else words[place + 2 :]
    settings = [word for word in settings if "=" in word and not word.startswith("--")]
    if name in ("train", "evaluate", "prepare"):
        typed(compose(settings, config_dir=my_conf))
    else:
        assert all("=" in word for word in settings)
