"""Pushing to a stand-in for the Hub: what arrives is what was exported; what goes wrong is a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gcl
from helpers.hub_server import TOKEN, served

# huggingface_hub waits a minute between its own attempts; here the waiting is left out, nothing else
RUN = "import time; time.sleep = lambda seconds: None\nfrom gcl.cli import main; main()"


@pytest.fixture
def hub():
    with served() as (hub, address):
        hub.address = address
        yield hub


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    """The files of an export, as far as a push looks at them."""
    folder = tmp_path_factory.mktemp("my_model")
    random = np.random.default_rng(0)
    (folder / "open_clip_model.safetensors").write_bytes(random.bytes(2_000_000))
    (folder / "model.safetensors").write_bytes(random.bytes(300_000))
    (folder / "onnx").mkdir()
    (folder / "onnx" / "text.onnx").write_bytes(random.bytes(5_000))
    (folder / "onnx" / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlibrary_name: open_clip\n---\n# Café\n", encoding="utf-8")
    (folder / "empty.txt").touch()
    (folder / ".cache").mkdir()
    (folder / ".cache" / "left").write_text("not pushed")
    text = {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "width": 8}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"text_cfg": text}, "preprocess_cfg": {}}))
    return folder


@pytest.fixture
def push(hub, export, tmp_path):
    def call(*words, token=TOKEN, out=export, **environment):
        names = ("HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HOME", "HF_TOKEN_PATH")
        clean = {name: value for name, value in os.environ.items() if name not in names}
        # one protocol is spoken here: LFS. Xet's storage servers have no stand-in
        variables = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"} | environment
        variables |= {"HF_TOKEN": token} if token else {}
        done = subprocess.run(
            [sys.executable, "-c", RUN, "push", f"out={out}", "push=shop/model", *words],
            env=clean | variables | {"PYTHONPATH": str(Path(gcl.__file__).parent.parent)},
            capture_output=True, text=True, cwd=tmp_path, timeout=900,
        )  # fmt: skip
        assert TOKEN not in done.stdout + done.stderr
        return done

    return call


def arrived(files, export):
    """Every file but hidden ones, byte for byte; the tokenizer's place in open_clip's config is the repository."""
    names = [p.relative_to(export).as_posix() for p in export.rglob("*") if p.is_file() and ".cache" not in p.parts]
    assert sorted(files) == sorted(names)
    for name in names:
        if name != "open_clip_config.json":
            assert files[name] == (export / name).read_bytes(), name
    config = json.loads(files["open_clip_config.json"])
    assert config["model_cfg"]["text_cfg"] == {"hf_tokenizer_name": "shop/model", "width": 8}


def test_what_arrives_is_what_was_exported(hub, push, export):
    done = push("private=true")
    assert done.returncode == 0, done.stderr
    arrived(hub.files("shop/model"), export)
    assert hub.repos["shop/model"]["private"]
    assert f"Pushed to {hub.address}/shop/model/commit/" in done.stdout and done.stderr == ""
    assert hub.tokens - {""} == {TOKEN}  # metadata is checked by anybody


def test_an_existing_repository_gets_another_commit(hub, push, export):
    hub.add("shop/model", files={"README.md": b"old", "other.txt": b"stays"})
    done = push()
    assert done.returncode == 0 and "shop/model exists: a commit is added" in done.stdout
    files = dict(hub.files("shop/model"))
    assert files.pop("other.txt") == b"stays"
    arrived(files, export)
    assert "POST /api/repos/create" not in hub.calls


def test_a_branch_and_a_pull_request(hub, push, export):
    hub.add("shop/model", files={"README.md": b"old"})
    assert push("revision=v2").returncode == 0
    arrived(hub.files("shop/model", "v2"), export)
    done = push("pull_request=true")
    assert "/discussions/1" in done.stdout
    arrived(hub.repos["shop/model"]["requests"][0], export)
    assert hub.files("shop/model") == {"README.md": b"old"}


def test_an_upload_that_is_cut_off_is_repeated(hub, push, export):
    hub.cut_after = 100_000
    done = push()
    assert done.returncode == 2
    assert "nothing of this export is visible in shop/model. Give the same command again" in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.splitlines()[-1].startswith("gcl: ")
    assert hub.files("shop/model") == {} and not hub.objects
    hub.cut_after = None
    assert push().returncode == 0
    arrived(hub.files("shop/model"), export)


def test_what_was_sent_is_not_sent_again(hub, push, export):
    hub.broken = 500
    done = push()
    assert done.returncode == 2 and "The Hub answered 500" in done.stderr and "It says: try later" in done.stderr
    assert len(hub.objects) == 3 and hub.files("shop/model") == {}
    hub.broken, hub.calls = None, []
    assert push().returncode == 0
    assert not [call for call in hub.calls if call.startswith("PUT")]
    arrived(hub.files("shop/model"), export)


@pytest.mark.parametrize(
    ("words", "options", "sentence"),
    [
        ([], {"token": None}, "No token for http://127.0.0.1"),
        ([], {"token": "hf_wrong"}, "does not accept the token (401)"),
        ([], {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE=1 is set, which forbids every request"),
        (["push=other/model"], {}, "The token may not write to other/model (403)"),
        (["push=model"], {}, "push=model: a repository of the Hub is written owner/name."),
        (["push=shop/a--b"], {}, "push=shop/a--b: "),
        (["pull_request=true"], {}, "a pull request needs a repository"),
        (["pull_request=true", "revision=v2"], {}, "revision=v2 is given: leave one out"),
        ([], {"out": "nowhere"}, "there is no such folder"),
        ([], {"out": "."}, "out=. is no exported folder"),
        ([], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "The connection to the Hub failed ("),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_a_sentence(hub, push, words, options, sentence):
    done = push(*words, **options)
    assert done.returncode == 2 and sentence in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "hf_wrong" not in done.stderr
    assert not hub.repos


def test_a_public_repository_is_not_taken_for_a_private_one(hub, push):
    hub.add("shop/model")
    done = push("private=true")
    assert done.returncode == 2 and "shop/model exists and is public, but private=true is requested" in done.stderr
    assert not hub.files("shop/model")


def test_no_pickle_is_pushed(hub, push, export, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    done = push(out=tmp_path / "model")
    assert done.returncode == 2 and "pytorch_model.bin may hold a pickle" in done.stderr
