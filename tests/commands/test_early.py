"""What cannot be is said before anything is prepared or loaded: it needs neither torch nor a prepared folder."""

import subprocess
import sys

import pytest


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
        (["evaluate", "models=[tiny,local-dir:nope]"], "local-dir:nope: there is no such folder"),
        (["evaluate", "models=[tiny,hf-hub:nobody/nothing]"], "cannot be fetched"),
        (["evaluate", "evaluate.slices=[colour]"], "Did you mean 'brand'?|there is no column 'colour'"),
        pytest.param(["train", "trainer=gpu"], "this machine has no GPU", marks=pytest.mark.skipif(
            not sys.platform.startswith("linux"), reason="looks for Linux's devices")),
    ],
    ids=lambda words: " ".join(words)[:40] if isinstance(words, list) else "",
)  # fmt: skip
def test_a_mistake_costs_nothing(shop, tmp_path, words, said):
    import re

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


def test_an_unknown_format_and_another_config(finished, tmp_path):
    told = answer(tmp_path, "export", f"run={finished.path}", "formats=[tensorflow]", f"out={tmp_path / 'x'}")
    assert "there is no format 'tensorflow'" in told and "stopped 2 []" in told
    told = answer(tmp_path, "train", f"run_dir={finished.path}", "train.resume=auto")
    assert "This run was started with other settings" in told and "stopped 2 []" in told
