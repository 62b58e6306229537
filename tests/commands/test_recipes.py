"""The recipes for SigLIP that the documentation gives, each with a small model of that architecture, for one step."""

import re
import shlex
from pathlib import Path

import pytest

from helpers.transformers_models import write_family

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
RECIPES = re.findall(
    r"^    gcl train (.+)$", PAGE.read_text().split("## Recipes for SigLIP")[1].split("\n## ")[0], flags=re.MULTILINE
)
OURS = {"data", "model", "train.batch_size", "train.epochs"}  # what the shop and a small model need otherwise


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return write_family("siglip-B", tmp_path_factory.mktemp("siglip"))


def test_there_are_three():
    assert [("lora" in words, "freeze=[visual" in words) for words in RECIPES] == [
        (False, False), (True, False), (False, True)
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("words", RECIPES)
def test_a_recipe_trains(words, train, siglip):
    given = [word for word in shlex.split(words) if word.partition("=")[0] not in OURS]
    run = train(
        "model=siglip-B", f"model.name=local-dir:{siglip}", "model.pretrained=null", "train.max_steps=2", *given
    )
    assert run.best.is_file() and run.field_weights.is_file()
