"""What cannot be is said before anything is prepared or loaded: it needs neither torch nor a prepared folder."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from gcl.config.compose import Overrides
from gcl.errors import ConfigError
from gcl.run.early import check_measuring
from gcl.run.folder import RunFolder, config_of


def answer(place, *words):
    """What gcl says to a mistake, and which heavy modules it loaded for it."""
    code = (
        "import sys\nfrom gcl.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as stopped:\n"
        "    print('stopped', stopped.code, [m for m in ('torch', 'lightning', 'open_clip') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=place)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "words, said",
    [
        (["train", "model.name=ViT-B-99"], "open_clip knows no architecture 'ViT-B-99'; the nearest names are"),
        (["train", "model=ecommerce-B"], "HF_HUB_OFFLINE is set"),
        (["evaluate", "models=[tiny,embeddings:nope.parquet]"], "there is no file nope.parquet"),
        (["evaluate", "models=[tiny,trec:nope.trec]"], "there is no file nope.trec"),
        (["evaluate", "models=[tiny,run:nope]"], "run=nope: there is no config.yaml"),
        (["evaluate", "models=[tiny,open_clip:ViT-X/openai]"], "open_clip knows no architecture 'ViT-X'"),
        (["evaluate", "models=[tiny,open_clip:ViT-B-32/nope]"], "ViT-B-32/nope: 'nope' is neither a file"),
        (["train", "model.name=ViT-B-32", "model.pretrained=laion9b"], "'laion9b' is neither a file nor a tag of"),
        (["train", "model.name=hf-hub:a/b", "model.pretrained=openai"], "hf-hub:a/b has weights of its own"),
        (["train", "model.pretrained=run:nope"], "model.pretrained=run:nope: there is no config.yaml"),
        (["evaluate", "models=[tiny,local-dir:nope]"], "local-dir:nope: there is no such folder"),
        (["evaluate", "models=[tiny,hf-hub:nobody/nothing]"], "cannot be fetched"),
        (["evaluate", "evaluate.slices=[colour]"], "Did you mean 'brand'?|there is no column 'colour'"),
        pytest.param(["train", "trainer=gpu"], "this machine has no GPU", marks=pytest.mark.skipif(
            not sys.platform.startswith("linux"), reason="looks for Linux's devices")),
    ],
    ids=lambda words: " ".join(words)[:40] if isinstance(words, list) else "",
)  # fmt: skip
def test_a_mistake_costs_nothing(shop, tmp_path, words, said):
    from gcl.run.early import _check_accelerator

    if "trainer=gpu" in words:
        try:
            _check_accelerator("gpu")
            pytest.skip("there is a GPU")
        except ValueError:
            pass
    told = answer(tmp_path, *words, "--config-dir", str(shop / "conf"), "data=shop")
    assert re.search(said, told), told
    assert "stopped 2 []" in told
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


def test_no_mistake_of_a_newcomer_loads_torch(shop, tmp_path):
    lines = []
    for mistake in MISTAKES:
        small = [] if "batch_size" in mistake else ["train.batch_size=16"]
        catalog = [] if mistake.startswith("data=") else ["data=shop"]
        lines.append(["train", "--config-dir", str(shop / "conf"), *catalog, *small, mistake])
    command = [sys.executable, "-c", IN_FORKS, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    told = done.stdout.split("next\n")
    assert len(told) == len(lines), done.stderr
    wrong = {
        mistake: said for (mistake, words), said in zip(MISTAKES.items(), told, strict=True)
        if not re.search(words, said) or "stopped 2 []" not in said
    }  # fmt: skip
    assert not wrong
