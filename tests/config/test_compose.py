"""Every YAML composes; what a user mistypes is refused by name, with the nearest right one."""

import subprocess
import sys
from pathlib import Path

import pytest

from gcl.config.compose import Overrides, load_config, save_config
from gcl.config.folder import conf_folder
from gcl.errors import ConfigError
from gcl.options import options_of
from gcl.run.folder import config_of

ROOT = Path(__file__).parents[2]
CHOICES = [(path.parent.name, path.stem) for path in sorted(conf_folder().glob("*/*.yaml"))]


@pytest.mark.parametrize("group, choice", CHOICES, ids=lambda value: value)
def test_every_config_composes(group, choice):
    run = Overrides([f"{group}={choice}"]).config()
    assert run.data.schema.check()


@pytest.mark.parametrize("group, choice", CHOICES, ids=lambda value: value)
def test_every_config_says_what_it_is_for_and_how_it_is_called(group, choice):
    first = (conf_folder() / group / f"{choice}.yaml").read_text().split("\n")[:4]
    head = "\n".join(first)
    assert first[0].startswith("# ") and f"{group}={choice}" in head


@pytest.mark.parametrize(
    "words, said",
    [
        (["train.epoch=3"], "Did you mean train.epochs?"),
        (["trian.epochs=3"], "Did you mean train.epochs?"),
        (["train.epochs=lots"], "train.epochs=lots: expected a number."),
        (["train.epochs=a=b"], "train.epochs=a=b: expected a number."),
        (["train.workers=2.5x"], "train.workers=2.5x: expected a whole number."),
        (["data.training=lots"], "data.training=lots: expected true or false."),
        (["models="], "models: expected a list"),
        (["models=tiny,lite"], "a list is written models=[tiny,lite]"),
        (["data.grades={0.5: 1}"], "write it in a YAML"),
        (["data.tasks={t: {grades: {1: 4}}}"], "set data.tasks.t.grades.1=… by itself"),
        (["=3"], "write key=value"),
        (["--data.split.queries=0.8"], "settings are written without --: data.split.queries=0.8"),
        (["data.document.brand={modality: text"], "a bracket is not closed"),
        (["evaluate.slices=[brand"], "a bracket is not closed"),
        (["data.mix={a: 1}}"], "a bracket is not opened"),
        (["data.document.título={modality: text}"], "Names consist of letters"),
        (["data=fashion,demo"], "add --multirun for one run each"),
        (["data=fashion,demo"], "data.mix={fashion: 1, demo: 1}"),
        (["seed=0,1"], "add --multirun"),
        (["data.clicks={positon: p}"], "Did you mean data.clicks.position?"),
        (["~data.document.colour"], "There is no setting 'data.document.colour'"),
        (["train.max_steps=1.5"], "train.max_steps"),
        (["model=tyny"], "Did you mean tiny?"),
        (["data=dmo"], "Did you mean demo?"),
        (["loss.form=sofmax"], "expected one of [softmax, sigmoid]"),
        (["train.field_weights={title: 1}"], "expected one name; `gcl help train.field_weights` lists them."),
        (["plan.hard_negatives=model"], "plan.hard_negatives is a group of settings"),
        (["teacher.weight=0.5"], "teacher.weight needs a teacher: teacher.run"),
        (["data=some/products.csv"], "`gcl init some/products.csv` writes one for a table"),
        (["data=shop/data/mine.yaml"], "--config-dir shop data=mine"),
        (["data.document.titel.weight=0.5"], "Did you mean data.document.title.weight?"),
        (["~data.document.imag"], "Did you mean data.document.image?"),
        (["data.document.title.modality=txt"], "expected one of [text, image]"),
        (["data.document.title.prompt=title"], "it must contain '{}' once"),
        (["data.document.title.weight=-1"], "a number of at least 0"),
        (["loss.terms=[{query: fused, document: titl}]"], "Did you mean title?"),
        (["+train.foo=1"], "There is no setting 'train.foo'"),
        (["train.epochs"], "write key=value"),
        (["train.batch_size=1"], "train.batch_size=1: a number of at least 2"),
        (["evaluate.metrics=[ndcg@10,recall@10,mrr@10,foo@3]"], "There is no metric 'foo@3'"),
        (["evaluate.monitor=mrr@7"], "lacks 'mrr@7'"),
        (["model.resize=stretch"], "squash, shortest, longest"),
        (["model.crop=0"], "model.crop=0.0: a number above 0 and at most 1"),
        (["model.lora.rank=0"], "model.lora.rank=0: a number of at least 1"),
        (["model.name=local-dir:/nope"], "no such folder"),
        (["data.split.queries=1.5"], "at most 1"),
        (["loss.tile=0"], "loss.tile=0: a number of rows"),
        (["loss.tile=wide"], "loss.tile=wide: a number of rows"),
        (["train.micro_batch=-1"], "train.micro_batch=-1: a number of rows"),
        (["train.validate_every=0"], 'a number of epochs above 0 (0.5), or "50 steps"'),
        (["train.validate_every=often"], 'or "50 steps"'),
        (["train.validate_every=3 weeks"], 'or "50 steps"'),
        (["trainer.precision=bf17"], "Did you mean bf16?"),
        (["plan.unique=product"], "plan.unique=product: expected one of [query, document]"),
        (["train.unique=query"], "There is no setting 'train.unique'. Did you mean plan.unique?"),
        (["plan.documents_per_query=0"], "plan.documents_per_query=0: a number of at least 1"),
        (["plan.unique=query", "plan.documents_per_query=2"], "exclude each other"),
        (["plan.unique=query", "plan.drop_last=true"], "exclude each other"),
        (["train.max_steps=0"], "at least 1"),
        (["loss.score_to_weight._target_=gcl.loss.weight.linar"], "Did you mean linear?"),
        (["optim.optimizer._target_=torch.optim.AdamX"], "torch.optim has no 'AdamX'"),
        (["optim.optimizer._target_=torhc.optim.AdamW"], "there is no package 'torhc'"),
        (["optim.schedule._target_=gcl.optim.schedule"], "is a module"),
        (["callbacks={mine: {_target_: lightning.pytorch.callbacks.Nothing}}"], "has no 'Nothing'"),
        (["data.catalogs.left.root=x"], "data.mix names no such catalog; it is empty"),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_in_a_sentence(words, said):
    with pytest.raises(ConfigError) as caught:
        Overrides(words).config()
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["NULL", "[NULL, -]"])
def test_a_null_in_a_list_of_texts_is_told_as_what_it_is(tmp_path, missing):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "c.yaml").write_text(f"name: c\nproducts: p.csv\nmissing: {missing}\n")
    with pytest.raises(ConfigError, match="data.missing has a null where a text belongs: .*write 'NULL'"):
        Overrides(["data=c"], config_dir=tmp_path).config()


def test_the_command_line_reaches_every_level():
    run = Overrides(
        ["data.document.title.weight=0.25", "~data.document.image", "optim.rules={visual.*: {rate: 0.1}}"]
    ).config()
    assert Overrides(["data.document.tags={modality: text}"]).config().data.document["tags"].weight == 1
    assert Overrides(["loss.score_to_weight.floor=0.1"]).config().loss.score_to_weight["floor"] == 0.1
    assert run.data.document["title"].weight == 0.25 and "image" not in run.data.document
    assert run.optim.rules["visual.*"].rate == 0.1
    assert run.optim.learning_rate == run.model.recipe.learning_rate


@pytest.mark.parametrize("path", ["my runs/a=b, c", "it's/here", "C:\\runs\\1", "<time>", "plain/path_1.2"])
def test_a_path_may_hold_any_character(path):
    assert Overrides([f"run_dir={path}"]).config().run_dir == path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.image_root", "a,b (1)"),
        ("data.download.cache", "a, b/c"),
        ("data.shards", "laion/{00000..00127}.tar"),
        ("data.products", "catalog (new), 2.csv"),
        ("cache_dir", "it's here"),
        ("model.name", "local-dir"),
        ("train.resume", "x=y"),
    ],
)
def test_every_path_of_a_config_may_hold_any_character(key, value):
    node = Overrides([f"{key}={value}"]).config()
    for name in key.split("."):
        node = getattr(node, name)
    assert node == value


def test_the_paths_are_those_that_their_dataclasses_mark():
    from gcl.config.schema import RunConfig
    from gcl.options import Kind, keys_of

    paths = keys_of(RunConfig, Kind.path)
    assert {"data.root", "data.image_root", "data.download.cache", "data.shards", "run_dir", "model.name"} <= set(paths)
    options = {option.key: option for option in options_of(RunConfig)}
    assert all(options[key].values.startswith("path") for key in paths)


def test_a_folder_of_one_s_own(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shop.yaml").write_text(
        "name: shop\npairs: pairs.csv\nquery:\n  query: {modality: text}\ndocument:\n  title: {modality: text}\n"
    )
    run = Overrides(["data=shop"], config_dir=tmp_path).config()
    assert run.data.name == "shop" and list(run.data.document) == ["title"]
    with pytest.raises(ConfigError, match="Did you mean shop"):
        Overrides(["data=shap"], config_dir=tmp_path).config()


@pytest.mark.parametrize(
    "content, said",
    [
        ("name: x\nquery: {query: {modality: text\ndocument:\n", "bad.yaml, line 3: 'document:': this is not YAML"),
        ("name: x\npairs:\n\t- a\n", "bad.yaml, line 3: '- a': this is not YAML"),
        ("name: x\nname: y\n", "bad.yaml, line 2: 'name: y': this is not YAML (found duplicate key name)"),
        ("- a\n- b\n", "In 'data/bad'"),
    ],
)
def test_a_broken_yaml_is_told_with_file_and_line(tmp_path, content, said):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bad.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        Overrides(["data=bad"], config_dir=tmp_path).config()
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_folder_that_config_dir_means(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shop.yaml").write_text("name: shop\n")
    (tmp_path / "loose.yaml").write_text("name: loose\n")
    with pytest.raises(ConfigError, match=f"name the folder above it: --config-dir {tmp_path}[.]"):
        Overrides(["data=shop"], config_dir=tmp_path / "data").config()
    with pytest.raises(ConfigError, match=f"move it into a folder {tmp_path / 'data'}"):
        Overrides(["data=loose"], config_dir=tmp_path).config()


def test_a_saved_config_comes_back_equal(tmp_path):
    run = Overrides(["seed=3"]).config()
    save_config(run, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == run


def test_words_over_a_run_speak_of_the_run_s_catalog(tmp_path):
    """Its fields need not be those of the catalog that is the default."""
    run = Overrides([]).config()
    run.data.document["marke"] = run.data.document.pop("brand")
    save_config(run, tmp_path / "config.yaml")
    words = [f"run={tmp_path}", "data.document.marke.weight=0.3", "~data.document.title", "evaluate.slices=[marke]"]
    found = config_of(Overrides(words))
    assert found.data.document["marke"].weight == 0.3 and "title" not in found.data.document
    assert found.evaluate.slices == ["marke"] and found.run == str(tmp_path)
    for word in ("data.document.brand.weight=0.3", "~data.document.brand", "data.document.marke.wieght=1"):
        with pytest.raises(ConfigError, match=r"There is no setting 'data\.document\."):
            config_of(Overrides([f"run={tmp_path}", word]))


def test_a_saved_config_with_an_unknown_word_is_told_with_its_file(tmp_path):
    path = tmp_path / "config.yaml"
    save_config(Overrides([]).config(), path)
    path.write_text(path.read_text().replace("train:\n", "train:\n  unique: query\n"))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}: There is no setting 'train.unique'. Did you mean plan.unique?"


def test_help_and_config_errors_load_nothing_heavy():
    heavy = "torch", "lightning", "open_clip", "pyarrow", "transformers"
    code = (
        "import sys\nfrom gcl.cli import main\n"
        "for words in (['train', '--help'], ['--help'], ['train', 'train.epoch=3']):\n"
        "    try: main(words)\n    except SystemExit: pass\n"
        f"print('loaded:', [name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "loaded: []" in done.stdout


@pytest.mark.parametrize(("form", "target"), [("softmax", "graded"), ("sigmoid", "sigmoid")])
def test_a_run_whose_repeats_were_positive_opens_with_targets(tmp_path, form, target):
    save_config(Overrides([f"loss.form={form}", "loss.same_document=negative"]).config(), tmp_path / "config.yaml")
    written = (tmp_path / "config.yaml").read_text()
    assert "same_query: ignore" in written and "  target: pair\n" in written
    older = written.replace("same_query: ignore", "same_query: positive").replace("  target: pair\n", "")
    (tmp_path / "config.yaml").write_text(older)
    loss = load_config(tmp_path / "config.yaml").loss
    assert (loss.target, loss.same_query, loss.same_document) == (target, "ignore", "negative")
