"""What cannot be is said before anything is prepared or loaded: it needs neither torch nor a prepared folder."""

import json
import re
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gcl.config.compose import Overrides
from gcl.data.catalog import Catalog, Clicks, Task
from gcl.data.prepare.sources import check_columns
from gcl.errors import ConfigError
from gcl.run.early import check_measuring, gpu_files
from gcl.run.folder import RunFolder, config_of
from gcl.schema import Field, Modality


def answer(place, *words):
    """What gcl says to a mistake, and which heavy modules it loaded for it."""
    code = (
        "import sys\nfrom gcl.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as stopped:\n"
        "    print('stopped', stopped.code, [m for m in ('torch', 'lightning', 'open_clip') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=place)
    return done.stdout + done.stderr


OF_MODELS = {
    "train model.name=ViT-B-99": "open_clip knows no architecture 'ViT-B-99'; the nearest names are",
    "train model=ecommerce-B": "HF_HUB_OFFLINE is set",
    "evaluate models=[tiny,embeddings:nope.parquet]": "there is no file nope.parquet",
    "evaluate models=[tiny,trec:nope.trec]": "there is no file nope.trec",
    "evaluate models=[tiny,run:nope]": "run=nope: there is no config.yaml",
    "evaluate models=[tiny,open_clip:ViT-X/openai]": "open_clip knows no architecture 'ViT-X'",
    "evaluate models=[tiny,open_clip:ViT-B-32/nope]": "ViT-B-32/nope: 'nope' is neither a file",
    "train model.name=ViT-B-32 model.pretrained=laion9b": "'laion9b' is neither a file nor a tag of",
    "train model.name=hf-hub:a/b model.pretrained=openai": "hf-hub:a/b has weights of its own",
    "train model.pretrained=run:nope": "model.pretrained=run:nope: there is no config.yaml",
    "evaluate models=[tiny,local-dir:nope]": "local-dir:nope: there is no such folder",
    "evaluate models=[tiny,hf-hub:nobody/nothing]": "cannot be fetched",
    "evaluate evaluate.slices=[colour]": "Did you mean 'brand'?|there is no column 'colour'",
    "train trainer=gpu": "this machine has no GPU",
}


def test_a_mistake_about_models_costs_nothing(shop, tmp_path):
    mistakes = dict(OF_MODELS)
    if not sys.platform.startswith("linux") or gpu_files():
        del mistakes["train trainer=gpu"]
    common = ["--config-dir", str(shop / "conf"), "data=shop"]
    assert not not_told(tmp_path, mistakes, lambda mistake: [*mistake.split(), *common])
    assert not (tmp_path / "prepared").exists()


def test_a_run_and_models(finished, tmp_path):
    """Both cannot be measured, so neither is left out in silence; what a run's own config lists was never asked for."""
    both = Overrides([f"run={finished.path}", "models=[tiny]"])
    with pytest.raises(ConfigError, match="models=.*would not be measured"):
        check_measuring(config_of(both), [])
    copy = RunFolder(shutil.copytree(finished.path, tmp_path / "run"))
    copy.config.write_text(re.sub(r"(?m)^models:.*$", "models: [nope]", copy.config.read_text()))
    assert copy.read_config().models == ["nope"]
    check_measuring(config_of(Overrides([f"run={copy.path}"])), [])


def test_an_unknown_format_and_another_config(finished, tmp_path):
    told = answer(tmp_path, "export", f"run={finished.path}", "formats=[tensorflow]", f"out={tmp_path / 'x'}")
    assert "there is no format 'tensorflow'" in told and "stopped 2 []" in told
    told = answer(tmp_path, "train", f"run_dir={finished.path}", "train.resume=auto")
    assert "This run was started with other settings" in told and "stopped 2 []" in told


# Everything else that a newcomer mistypes; the words that are said, and nothing heavy loaded for them.
MISTAKES = {
    "dataa=c": "no setting 'dataa'", "data=my_catalogue": "there is no .*my_catalogue", "model=siglp-B": "siglip-B",
    "train.epochs=lots": "expected a number", "trian.epochs=3": "Did you mean train.epochs", 
    "train.epochs=0": "above 0",
    "data.document.titel.weight=1": "title.weight", "data.query.title.weight=1": "no setting 'data.query.title.weight'",
    "data.document.title.weight=-1": "at least 0", "train.batch_size=100000": "at most", 
    "train.batch_size=0": "at least 2",
    "optim.learning_rate=-1": "above 0", "optim.learning_rate=1e-3x": "expected a number",
    "model.name=hf-hub:nobody/nothing": "cannot be fetched", "model.name=local-dir:/no/such": "no such folder",
    "data.products=nope.csv": "no table", "data.root=/no/such": "no table", "data.score=scor": "Did you mean 'score'",
    "data.document.title.modality=picture": "one of .text, image", "loss=gclx": "Did you mean gcl",
    "data.split.queries=1.5": "at least 0 and at most 1", "evaluate.metrics=[ndcg@ten]": "no metric 'ndcg@ten'",
    "~data.document.colour": "no setting 'data.document.colour'", "data.document_id=sku": "no column 'sku'",
    "data=c,demo": "add --multirun", "trainer=cpux": "Did you mean cpu", "trainer.precision=bf16-true": "bf16-mixed",
    "evaluate.slices=[colour]": "no column 'colour'", "evaluate.compress=[int3]": "int3", 
    "run=outputs/nope": "has no run=",
    "evaluate.tasks=[nope]": "there is no task 'nope'", "--lr": "no option '--lr'", "data.document={": "not closed",
    "logger=mlflow": "There is: csv",
}  # fmt: skip


# One process that has said one thing becomes a process for every other mistake: their settings are read, not imported.
IN_FORKS = """
import json, os, sys
from contextlib import redirect_stderr
from gcl.cli import main

def say(words):
    with redirect_stderr(sys.stdout):
        try:
            main(words)
        except SystemExit as stopped:
            loaded = [m for m in ("torch", "lightning", "open_clip") if m in sys.modules]
            print("stopped", stopped.code, loaded, flush=True)

first, *others = json.loads(sys.argv[1])
say(first)
for words in others:
    print("next", flush=True)
    if not (child := os.fork()):
        say(words)
        os._exit(0)
    os.waitpid(child, 0)
"""


def not_told(place, mistakes, line_of):
    """{mistake: what was said} of those that were not answered as expected; line_of: the command with a mistake."""
    command = [sys.executable, "-c", IN_FORKS, json.dumps([line_of(mistake) for mistake in mistakes])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place)
    told = done.stdout.split("next\n")
    assert len(told) == len(mistakes), done.stderr
    return {
        mistake: said for (mistake, words), said in zip(mistakes.items(), told, strict=True)
        if not re.search(words, said) or "stopped 2 []" not in said
    }  # fmt: skip


def test_no_mistake_of_a_newcomer_loads_torch(shop, tmp_path):
    def line_of(mistake):
        small = [] if "batch_size" in mistake else ["train.batch_size=16"]
        catalog = [] if mistake.startswith("data=") else ["data=shop"]
        return ["train", "--config-dir", str(shop / "conf"), *catalog, *small, mistake]

    assert not not_told(tmp_path, MISTAKES, line_of)


def test_files_fields_and_heads_that_do_not_fit_are_said_first(shop, finished, tmp_path):
    (tmp_path / "table.csv").write_text("name,number\na,1\n")
    pq.write_table(pa.table({"id": ["a"], "numbers": [1.0]}), tmp_path / "table.parquet")
    shutil.copytree(finished.path, tmp_path / "lost")
    (tmp_path / "lost/checkpoints/best.ckpt").unlink()
    mistakes = {
        "plan.hard_negatives={source: file, file: table.csv}": "no column 'query'.*no column 'document'",
        "teacher.scores=table.csv": "no column query_id or query; its columns are name, number",
        "teacher.embeddings=table.parquet": "no column 'vector'",
        "teacher.embeddings=table.csv": "is not a Parquet file",
        f"teacher.run={finished.path} & teacher.document.titel=1": "no document field 'titel'; it has image, title",
        "model.head=mlp": "optim.freeze=.. trains them: set 'optim.freeze=.visual.trunk",
        "teacher.run=lost": "best.ckpt: it was deleted, moved or not copied with the folder. Put it back",
    }
    small = ["train", "--config-dir", str(shop / "conf"), "data=shop", "train.batch_size=16"]
    assert not not_told(tmp_path, mistakes, lambda mistake: [*small, *mistake.split(" & ")])


# Of a catalog that is generated the first time: nothing is drawn before they are said.
OF_THE_DEMO = {
    "evaluate.slices=[colour]": "no column 'colour'. Did you mean 'color'", "evaluate.tasks=[nope]": "no task 'nope'",
    "evaluate.monitor_tasks=[nope]": "evaluate.monitor_tasks: there is no task 'nope'",
    "data.document_id=sku": "products.csv has no column 'sku'", "data.score=scor": "Did you mean 'score'",
    "data.document.title.column=titel": "no column 'titel' .data.document.title",
    "data.own_queries={query: name}": "no column 'name' .data.own_queries.query",
}  # fmt: skip


def test_mistakes_about_a_generated_catalog_are_said_before_it_is_drawn(tmp_path):
    assert not not_told(tmp_path, OF_THE_DEMO, lambda mistake: ["train", "data=demo", "model=tiny", mistake])
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".csv", ".jpg")]


CLICKS = "query,product_id,position,clicks\nred shoe,1,1,1\nred shoe,2,2,0\n"
PRODUCTS = "product_id,title,season\n1,red shoe,summer\n2,shoe,winter\n"


@pytest.mark.parametrize("settings, has, lacks", [
    ({"products": "products.csv", "pairs": "clicks.csv", "clicks": Clicks()}, "season", "clicks"),
    ({"products": "products.csv", "tasks": {"by": Task(column="season")}}, "season", "clicks"),
    ({"products": "products.csv", "layout": "shopify"}, "anything", None),
    ({"products": "https://shop.example/products.csv"}, "anything", None),
])  # fmt: skip
def test_columns_are_known_by_headers(tmp_path, settings, has, lacks):
    """Also of a click log and of queries that are made of a column; what is only fetched or translated later is left
    for later."""
    (tmp_path / "products.csv").write_text(PRODUCTS)
    (tmp_path / "clicks.csv").write_text(CLICKS)
    text = {"query": Field(Modality.text)}
    catalog = Catalog(name="log", query=text, document={"title": Field(Modality.text)}, root=str(tmp_path), **settings)
    check_columns(catalog, [has])
    if lacks is not None:
        with pytest.raises(KeyError, match=f"no column '{lacks}'"):
            check_columns(catalog, [lacks])
