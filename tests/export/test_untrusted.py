"""Folders that somebody crafted: refused with the reason, and nothing of theirs has run."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from gcl.model.load import load_model
from gcl.schema import Field, Schema
from helpers.transformers_inputs import SCHEMA

TEXT_ONLY = Schema(query={"query": Field()}, document={"title": Field()})


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture()
def crafted(small, exported, tmp_path):
    """crafted(family, layout): a copy of a good folder, of open_clip's layout or of transformers'."""

    def copy(family, layout="open_clip"):
        folder = tmp_path / f"{family}-{layout}"
        if layout == "open_clip":
            shutil.copytree(small(family).folder, folder)
        else:
            ignored = shutil.ignore_patterns("open_clip*", "modules.json", "1_*", "sentence*")
            shutil.copytree(exported(family)[0], folder, ignore=ignored)
        load_model(f"local-dir:{folder}", schema=SCHEMA)  # good as it stands
        return folder

    return copy


def change(path, **values):
    """Sets dotted keys of a JSON file."""
    content = json.loads(path.read_text())
    for key, value in values.items():
        place, *rest = key.split("__")
        inner = content
        while rest:
            inner, place, rest = inner[place], rest[0], rest[1:]
        inner[place] = value
    path.write_text(json.dumps(content))


def refused(folder, words, schema=SCHEMA, prefix="local-dir:"):
    with pytest.raises(ValueError, match=words) as error:
        load_model(f"{prefix}{folder}", schema=schema)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "layout, weights", [("open_clip", "open_clip_model.safetensors"), ("native", "model.safetensors")]
)
def test_pickles(crafted, tmp_path, layout, weights):
    folder = crafted("clip", layout)
    (folder / weights).unlink()
    for name in ("open_clip_pytorch_model.bin", "pytorch_model.bin"):
        torch.save({"state_dict": {"x": Touch(tmp_path / "ran")}}, folder / name)
        refused(folder, "pickle.* can run code")
        (folder / name).unlink()
    (folder / weights).write_bytes(b"\x80\x04no safetensors at all" * 9)
    refused(folder, "safetensors|does not fit")
    (folder / weights).unlink()
    refused(folder, "holds no weights")
    assert not (tmp_path / "ran").exists()


CODE = "from pathlib import Path\nPath({!r}).mkdir()\nclass Evil: pass\n"


def test_code_that_a_tokenizer_names(crafted, tmp_path):
    """open_clip hands tokenizer_kwargs through to transformers: without a check these two lines would run evil.py."""
    folder = crafted("siglip-B")
    (folder / "evil.py").write_text(CODE.format(str(tmp_path / "ran")))
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "evil.Evil"]}, tokenizer_class="Evil")
    refused(folder, "tokenizer_config.json names custom tokenizer code .*auto_map")
    change(
        folder / "open_clip_config.json",
        model_cfg__text_cfg__tokenizer_kwargs={"clean": "canonicalize", "trust_remote_code": True},
    )
    refused(folder, "tokenizer_kwargs .*'trust_remote_code'")
    assert not (tmp_path / "ran").exists()


def test_code_that_a_config_names(crafted, tmp_path):
    folder = crafted("siglip-B", "native")
    (folder / "evil.py").write_text(CODE.format(str(tmp_path / "ran")))
    for key, value in (
        ("auto_map", {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}),
        ("trust_remote_code", True),
    ):
        change(folder / "config.json", **{key: value})
        refused(folder, f"config.json names custom code .{key}")
        change(folder / "config.json", **{key: None})
    change(folder / "config.json", text_config__auto_map={"AutoConfig": "evil.Evil"})
    refused(folder, "names custom code")
    assert not (tmp_path / "ran").exists()


def test_code_that_a_text_encoder_s_config_names(bert, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(bert, folder)
    (folder / "evil.py").write_text(CODE.format(str(tmp_path / "ran")))
    change(folder / "config.json", auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}, model_type="evil")
    refused(folder, "names custom code", TEXT_ONLY, "hf-text:")
    assert not (tmp_path / "ran").exists()


def test_paths_out_of_the_folder(crafted, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = crafted("siglip-B")
    for key in ("tokenizer_file", "vocab_file", "fast_tokenizer_files"):
        for value in ("../outside/tokenizer.json", "/etc/passwd", ["tokenizer.../../outside/x.json"]):
            change(folder / "tokenizer_config.json", **{key: value})
            refused(folder, f"{key} is .*a path that leaves the folder")
            change(folder / "tokenizer_config.json", **{key: None})
    (folder / "open_clip_model.safetensors").rename(outside / "x.safetensors")
    (folder / "open_clip_model.safetensors").symlink_to(outside / "x.safetensors")
    refused(folder, "links to .*outside the folder")


def test_a_hub_cache_s_links_into_its_blobs_are_its_own(crafted, tmp_path):
    folder, blobs = crafted("siglip-B"), tmp_path / "blobs"
    blobs.mkdir()
    (folder / "open_clip_model.safetensors").rename(blobs / "0123abcd")
    (folder / "open_clip_model.safetensors").symlink_to("../blobs/0123abcd")
    load_model(f"local-dir:{folder}", schema=SCHEMA)


def test_a_text_tower_from_elsewhere(crafted, tmp_path):
    folder = crafted("siglip-B")
    for name in ("../outside", str(tmp_path), "~/secret", "a/b/c"):
        change(folder / "open_clip_config.json", model_cfg__text_cfg__hf_model_name=name)
        refused(folder, "wants files from .*outside of the folder")


def test_parts_of_weights_from_elsewhere(crafted, tmp_path):
    folder = crafted("clip", "native")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    save_file({name: state[name] for name in names[:9]}, folder / "model-00001-of-00002.safetensors")
    save_file({name: state[name] for name in names[9:]}, folder / "model-00002-of-00002.safetensors")
    parts = {name: f"model-0000{1 if i < 9 else 2}-of-00002.safetensors" for i, name in enumerate(names)}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": parts}))
    load_model(f"local-dir:{folder}", schema=SCHEMA)
    for name in ("../model.safetensors", "/tmp/x.safetensors", "pytorch_model.bin"):
        index.write_text(json.dumps({"weight_map": {**parts, names[0]: name}}))
        refused(folder, "not a safetensors file of the folder")
    index.write_text(json.dumps({"weight_map": ["x"]}))
    refused(folder, "no weight_map")


@pytest.mark.parametrize("family", ["siglip-B", "clip"])
@pytest.mark.parametrize(
    "layout, weights", [("open_clip", "open_clip_model.safetensors"), ("native", "model.safetensors")]
)
def test_weights_of_other_shapes_or_names(crafted, family, layout, weights):
    folder = crafted(family, layout)
    state = load_file(folder / weights)
    name = next(name for name in state if name.endswith("token_embedding.weight"))
    for broken in (
        state | {name: torch.zeros(7, 7)},
        {key: value for key, value in state.items() if key != name},
        state | {"something.else": torch.zeros(3)},
    ):
        save_file(broken, folder / weights)
        refused(folder, "does not fit")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model_cfg": []}, "no model_cfg"),
        ({"model_cfg__vision_cfg": 3}, "no model_cfg"),
        ({"model_cfg__vision_cfg__timm_model_name": "hf-hub:somebody/model"}, "timm has no architecture"),
        ({"model_cfg__vision_cfg__timm_model_name": "local-dir:/etc"}, "timm has no architecture"),
        ({"model_cfg__vision_cfg__surprise": 1}, "does not fit together"),
        ({"model_cfg__embed_dim": 7}, "does not fit"),
        ({"model_cfg__text_cfg__width": "wide"}, "does not fit together"),
        ({"model_cfg__text_cfg__hf_tokenizer_name": ["x"]}, "is not a name"),
    ],
)
def test_configs_that_are_not_configs(crafted, changes, words):
    folder = crafted("siglip-B")
    change(folder / "open_clip_config.json", **changes)
    refused(folder, words)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model_type": "llama"}, "model_type 'llama'"),
        ({"model_type": "siglip2"}, "model_type 'siglip2'"),
        ({"vision_config__hidden_size": 31}, "not one of SigLIP's"),
        ({"text_config__hidden_act": "os.system"}, "activation"),
        ({"text_config__num_hidden_layers": "two"}, "cannot be read"),
        ({"text_config__hidden_size": -8}, "cannot be read"),
    ],
)
def test_impossible_native_configs(crafted, changes, words):
    folder = crafted("siglip-B", "native")
    change(folder / "config.json", **changes)
    refused(folder, words)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\udcff", '{"a": ' * 3000])
def test_files_that_are_no_json(crafted, text):
    folder = crafted("siglip-B")
    (folder / "open_clip_config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(folder, "cannot be read as JSON|a config must be an object")


def test_pictures_that_do_not_fit_the_model(crafted):
    folder = crafted("siglip-B", "native")
    for changes, words in (
        ({"size": {"height": 64, "width": 64}}, "its model takes"),
        (
            {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
            "cannot resize",
        ),
        ({"resample": 0}, "resample=0"),
    ):
        before = (folder / "preprocessor_config.json").read_text()
        change(folder / "preprocessor_config.json", **changes)
        refused(folder, words)
        (folder / "preprocessor_config.json").write_text(before)
    (folder / "preprocessor_config.json").unlink()
    refused(folder, "no preprocessor_config.json")
