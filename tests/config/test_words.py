"""What a person types is what gcl reads: texts, paths and lists of them, whatever characters they hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from gcl.commands.export import ExportOptions
from gcl.commands.search import SearchOptions
from gcl.config.compose import Overrides, catalog_of, options_from, save_config, with_settings
from gcl.config.yaml import parse
from gcl.errors import ConfigError
from gcl.run.folder import config_of

TYPED = (
    *(
        "007",
        "12e5",
        "no",
        "NO",
        "off",
        "12:30",
        "red #shoes",
        "red: shoes",
        "@home",
        "null",
        "~",
        "0x1F",
        "[a]",
        "{a}",
    ),
    *("true", "1_000", "dt=2024", "it's", '"exact"', "a, b", "${oc.env:HOME}", "\\", "*bold*", "&", "!x", "%"),
)
PATHS = [word for word in TYPED if word not in ("null", '"exact"', "${oc.env:HOME}")]
PATHS += ["s3://b/dt=1/{000..003}.tar", "My Drive/a (1)", "/home/josé/目录", "a+b", "C:\\new\\"]


@pytest.mark.parametrize("word", TYPED)
def test_a_search_is_taken_as_typed(word):
    assert options_from(SearchOptions, ["run=x", f"text={word}"], example="").text == word
    assert options_from(SearchOptions, ["run=x"], example="", given={"text": word}).text == word
    assert options_from(SearchOptions, [f"run={word}"], example="").run == word


def test_null_means_the_default_of_an_option_that_has_none():
    assert options_from(ExportOptions, ["run=x", "out=null", "license=null"], example="").out is None


@pytest.mark.parametrize("word", PATHS)
def test_a_text_of_a_run_s_settings_is_taken_as_typed(word):
    keys = ("data.root", "data.products", "data.shards", "data.image_root", "data.download.cache", "data.score",
            "data.document.title.column", "cache_dir", "run_dir", "data.own_queries.query")  # fmt: skip
    config = OmegaConf.structured(Overrides([f"{key}={word}" for key in keys]).config())
    begun_here = os.path.normpath(Path.cwd() / word)  # the catalog's paths are absolute
    assert {OmegaConf.select(config, key) for key in keys} <= {word, begun_here, os.path.join(begun_here, word)}
    assert OmegaConf.select(config, "data.score") == OmegaConf.select(config, "run_dir") == word


PLAIN = st.characters(exclude_characters="${}[],'\"\\", exclude_categories=["C", "Z"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(PLAIN, min_size=1), min_size=1, max_size=4))
def test_a_list_of_texts_is_taken_as_typed(words):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from gcl.config.words import for_hydra

    argument = for_hydra(f"models=[{', '.join(words)}]")
    assert list(map(str, OverridesParser.create().parse_override(argument).value())) == words


def test_lists_and_mappings_may_hold_any_text():
    run = Overrides([
        "models=[run:outputs/dt=1/a, local-dir:x y, 'a,b']", "evaluate.slices=[no, 007]", "data.missing=[NULL, no]",
        "data.grades={No: 0, Exact: 2}", "data.grades.off=1",
        "data.tasks.t={queries: dt=1/q.csv, qrels: q.csv}", "data.clicks={position: p=1}",
    ]).config()  # fmt: skip
    assert run.models == ["run:outputs/dt=1/a", "local-dir:x y", "a,b"]
    assert run.evaluate.slices == ["no", "007"] and run.data.missing == ["NULL", "no"]
    assert run.data.grades == {"No": 0, "Exact": 2, "off": 1}
    assert run.data.tasks["t"].queries.endswith("dt=1/q.csv") and run.data.clicks.position == "p=1"


BRIEF = """
name: shop
products: p.csv
query: {q: {}}
document: {title: {}}
split: {group: parent}
grades: {1: 4, Exact: 2}
tasks: {t: {qrels: q.csv, grades: {2: 1}}}
"""


def test_one_text_is_a_list_of_one_and_numbers_are_names(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "brief.yaml").write_text(BRIEF)
    of_yaml = Overrides(["data=brief"], config_dir=tmp_path).config().data
    alone = catalog_of(str(tmp_path / "data" / "brief.yaml"))
    words = ["data.split.group=parent", "data.grades={1: 4, Exact: 2}", "data.tasks.t={qrels: q.csv}"]
    typed_in = Overrides([*words, "data.tasks.t.grades={2: 1}"]).config().data
    for catalog in (of_yaml, alone, typed_in):
        assert catalog.split.group == ["parent"] and catalog.grades == {"1": 4, "Exact": 2}
        assert catalog.tasks["t"].grades == {"2": 1}
    on_top = with_settings(Overrides([]).config(), ["data.split.group='a, b'", "data.grades={1: 4}"]).data
    assert on_top.split.group == ["a, b"] and on_top.grades == {"1": 4}


def test_settings_on_top_of_a_run_are_read_the_same_way(tmp_path):
    save_config(Overrides([]).config(), tmp_path / "config.yaml")
    on_top = ["data.document.title.column=no", "data.root=dt=1", "evaluate.slices=[007, no]", "data.score=12e5"]
    run = config_of(Overrides([f"run={tmp_path}", *on_top]))
    assert run.data.document["title"].column == "no" and Path(run.data.root).name == "dt=1"
    assert run.evaluate.slices == ["007", "no"] and run.data.score == "12e5"


def test_a_run_brings_its_own_model(tmp_path):
    save_config(Overrides([]).config(), tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="has its own model, so model= would change nothing"):
        config_of(Overrides([f"run={tmp_path}", "model=lite"]))
    run = config_of(Overrides([f"run={tmp_path}", "trainer.accelerator=cpu", "seed=7"]))
    assert run.trainer.accelerator == "cpu" and run.seed == 7


@pytest.mark.parametrize("name", ["My Drive", "josé", "目录", "a+b", "dt=2024", "it's", 'say "x"', "[a],{b}", "100%"])
def test_config_dir_may_lie_below_any_path(tmp_path, name):
    folder = tmp_path / name
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "c.yaml").write_text(
        "name: c\nproducts: p.csv\nquery:\n  no: {modality: text}\ndocument:\n  title: {modality: text, column: off}\n"
        "score: NO\nmissing: [no, 007, null-ish]\ngrades: {yes: 1, no: 0}\n"
    )
    data = Overrides(["data=c"], config_dir=folder).config().data
    assert data.query["no"].modality.value == "text" and data.document["title"].column == "off"
    assert data.score == "NO" and data.missing == ["no", "007", "null-ish"] and data.grades == {"yes": 1, "no": 0}


def test_yaml_means_what_people_mean():
    assert parse("[no, off, y, 007, 12:30, 1e-5, 2024-01-01, true, ~, 1.5]") == [
        "no", "off", "y", "007", "12:30", 1e-5, "2024-01-01", True, None, 1.5
    ]  # fmt: skip


@pytest.mark.parametrize(
    "command, setting, said",
    [
        ("train", "run=outputs/x", "model.pretrained=run:outputs/x"),
        ("train", "run=outputs/x", "run_dir=outputs/x train.resume=auto"),
        ("train", "models=[tiny]", "gcl evaluate"),
        ("train", "out=x", "run_dir=x"),
        ("prepare", "run=x", "gcl prepare has no run="),
        ("doctor", "models=[a]", "gcl doctor has no models="),
        ("evaluate", "run_dir=x", "run=x"),
        ("train", "data.name=fashion", "data=fashion"),
        ("embed", "embedding=fields", "gcl embed has no embedding=. Did you mean embeddings?"),
    ],
)
def test_a_setting_of_another_command_is_refused_with_what_was_meant(capsys, command, setting, said):
    from gcl.cli import main

    with pytest.raises(SystemExit) as stopped:
        main([command, setting])
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_a_sweep_takes_the_same_words(tmp_path):
    folder = tmp_path / "My Drive"
    (folder / "data").mkdir(parents=True)
    fields = "query: {q: {modality: text}}\ndocument: {title: {modality: text}}\n"
    (folder / "data" / "c.yaml").write_text("name: c\n" + fields)
    done = subprocess.run(
        [sys.executable, "-m", "gcl.cli", "prepare", "--config-dir", str(folder), "data=c", "data.products=dt=1", "-m",
         "seed=0,1"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert "there is no file" in done.stdout + done.stderr or "dt=1" in done.stdout + done.stderr
    with pytest.raises(ConfigError):
        Overrides(["seed=0,1"]).config()
