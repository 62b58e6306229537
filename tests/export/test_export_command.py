"""`gcl export`: what it writes, what it refuses, and what an interrupted one leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from gcl.cli import main
from gcl.exports.folder import whole
from gcl.exports.formats.open_clip import settle
from gcl.exports.formats.registry import FORMATS
from gcl.model.load import load_model
from gcl.run.contestants import tuned_encoder
from gcl.schema import Field, Schema
from helpers.transformers_inputs import TEXTS, embed


def export(run, out, *words, **options):
    command = [
        sys.executable,
        "-c",
        "from gcl.cli import main; main()",
        "export",
        f"run={run.path}",
        f"out={out}",
        *words,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def left_beside(out):
    return {path.name for path in out.parent.iterdir()} - {out.name}


@pytest.mark.parametrize(
    "words, told",
    [
        (["formats=[pickle]"], "there is no format 'pickle'.* There is: .*embeddings.* transformers"),
        (["formats=[transformers]"], "transformers is not possible. .*gcl-tiny: .* work with it: open_clip"),
        (["formats=[open_clip,sentence_transformers]"], "sentence_transformers is not possible"),
        (["formats=[]"], "would write nothing"),
        (["format=open_clip"], "Did you mean formats"),
    ],
)
def test_words_that_are_refused(finished, tmp_path, capsys, words, told):
    with pytest.raises(SystemExit) as ended:
        main(["export", f"run={finished.path}", f"out={tmp_path / 'out'}", *words])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1
    import re

    assert re.search(told, error), error
    assert not any(tmp_path.iterdir())


def test_the_default_is_all_that_the_architecture_has(finished):
    from gcl.exports.formats.registry import choose, left_out

    encoder = tuned_encoder(finished)
    names = [format.name for format in choose(encoder, None)]
    assert names == ["open_clip", "onnx"]
    assert [sentence.split(":")[0] for sentence in left_out(encoder)] == [
        "Without transformers", "Without sentence_transformers",
    ]  # fmt: skip
    record = FORMATS["sentence_transformers"]
    assert record.missing == [] and record.extra == "export"


def test_a_folder_that_is_not_empty_is_left_alone(finished, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(SystemExit):
        main(["export", f"run={finished.path}", f"out={tmp_path / 'out'}", "formats=[open_clip]"])
    assert os.listdir(tmp_path / "out") == ["mine.txt"]


@pytest.mark.slow
def test_an_error_leaves_nothing_and_a_second_attempt_works(finished, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setitem(sys.modules["gcl.exports.formats.open_clip"].__dict__, "save_file", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["export", f"run={finished.path}", f"out={out}", "formats=[open_clip]"])
    assert not any(tmp_path.iterdir())
    monkeypatch.undo()
    main(["export", f"run={finished.path}", f"out={out}", "formats=[open_clip]"])
    assert (out / "open_clip_model.safetensors").is_file() and left_beside(out) == set()


@pytest.mark.slow
@pytest.mark.parametrize("signals", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_export_leaves_nothing_that_looks_finished(finished, tmp_path, signals):
    for attempt in range(3):
        out = tmp_path / f"out{attempt}" / "out"
        out.parent.mkdir()
        process = export(finished, out, "formats=[open_clip,onnx]")
        beside = out.parent / ".out.unfinished"
        while not (beside / "open_clip_model.safetensors").is_file() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signals)
        said, _ = process.communicate()
        if process.returncode:
            break  # else C code that clears errors has cleared the KeyboardInterrupt (hasattr of Python < 3.13 does)
    assert process.returncode in (-signal.SIGKILL, 130), said
    assert not out.exists()
    again = export(finished, out, "formats=[open_clip]")
    said, _ = again.communicate()
    assert again.returncode == 0, said
    assert left_beside(out) == set() and not (out / "onnx").exists()


def test_embeddings_that_were_finished_are_kept_for_the_next_attempt(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), whole(out) as folder:
        (folder / "embeddings").mkdir()
        (folder / "embeddings/documents.parquet").write_text("hours")
        (folder / "embeddings/.queries.parquet.0123.partial").write_text("half of it")
        (folder / "model.safetensors").write_text("seconds")
        raise KeyboardInterrupt
    assert not out.exists()
    with whole(out) as folder:
        assert sorted(path.name for path in folder.rglob("*")) == ["documents.parquet", "embeddings"]
        (folder / "model.safetensors").write_text("again")
    assert sorted(os.listdir(out)) == ["embeddings", "model.safetensors"] and left_beside(out) == set()
    with pytest.raises(FileExistsError, match="is not empty"), whole(out):
        pass


def test_no_path_of_this_machine_and_no_pickle_leaves_it(exported):
    for family in ("siglip-B", "clip"):
        folder, _ = exported(family)
        for path in folder.rglob("*"):
            if path.is_file():
                assert path.suffix in (".json", ".safetensors"), path
                assert str(Path.home()).encode() not in path.read_bytes() or str(Path.home()) == "/"
                assert b"/tmp/" not in path.read_bytes() and str(folder).encode() not in path.read_bytes()


@pytest.mark.parametrize("family", ["siglip-B", "clip"])
@pytest.mark.parametrize("format", ["open_clip", "transformers", "sentence_transformers"])
def test_the_snippets_run(small, exported, family, format):
    folder, _ = exported(family)
    source = FORMATS[format].snippet(small(family).encoder, str(folder))
    printed = []
    exec(source, {"print": printed.append})
    assert len(printed) == 1 and np.asarray(printed[0]).size == 2
    assert "hf-hub:org/name" in source.replace(f"local-dir:{folder}", "hf-hub:org/name") or format != "open_clip"
    compile(FORMATS[format].snippet(small(family).encoder, "org/name"), "snippet", "exec")


def test_a_hugging_face_text_tower_can_move(bert, tmp_path):
    """open_clip looks for its config where hf_model_name says; after moving, one key says the new place."""
    schema = Schema(query={"query": Field()}, document={"title": Field()})
    source = tmp_path / "source"
    source.mkdir()
    for file in bert.iterdir():
        if file.suffix != ".safetensors":
            (source / file.name).write_bytes(file.read_bytes())
    cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {
            "context_length": 24, "hf_model_name": str(source), "hf_tokenizer_name": str(source),
            "hf_model_pretrained": False, "hf_pooler_type": "mean_pooler", "hf_proj_type": "linear",
        },
    }  # fmt: skip
    torch.manual_seed(0)
    model = open_clip.model.CustomTextCLIP(**json.loads(json.dumps(cfg)))
    torch.save(model.state_dict(), source / "open_clip_pytorch_model.bin")
    (source / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": {"size": 32}}))
    encoder = load_model(f"local-dir:{source}", schema=schema).eval()
    out, moved = tmp_path / "out", tmp_path / "moved"
    out.mkdir()
    notes = FORMATS["open_clip"].write(encoder, out)
    assert "set it to its new path" in notes[0]
    open_clip.create_model(f"local-dir:{out}")
    out.rename(moved)
    with pytest.raises(Exception, match="out"):
        open_clip.create_model(f"local-dir:{moved}")
    assert (embed(load_model(f"local-dir:{moved}", schema=schema).eval())[0] == embed(encoder)[0]).all()
    assert np.abs(FORMATS["open_clip"].load(moved).texts(TEXTS) - embed(encoder)[0]).max() < 1e-5
    settle(moved, str(moved))
    open_clip.create_model(f"local-dir:{moved}")
    settle(moved, "owner/name")
    text_cfg = json.loads((moved / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    assert text_cfg["hf_model_name"] == text_cfg["hf_tokenizer_name"] == "owner/name"
