import json
import logging
import os
import pickle
import shutil

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from gcl.data.batches.batch import SideBatch
from gcl.model.load import load_model
from gcl.model.settings import LoadOptions
from gcl.schema import Field, Modality, Schema

TEXT_ONLY = Schema(query={"query": Field()}, document={"title": Field()})


def test_a_folder_brings_its_own_preprocessing(encoder, kind):
    pp = encoder.preprocess
    assert (pp.size, pp.mean, pp.std, pp.resize) == ((32, 32), (0.5, 0.4, 0.3), (0.5, 0.6, 0.7), "squash")
    lengths = {"clip": 77, "custom": 77, "siglip": 64, "bert": 24}
    assert pp.text(["a mug"]).shape == (1, lengths[kind])


def test_a_folder_loads_what_plain_open_clip_loads(folders, encoder, kind):
    if kind == "bert":
        pytest.skip("open_clip asks the hub for the text tower's configuration")
    name = f"local-dir:{folders[kind]}"
    model, _, _transform = open_clip.create_model_and_transforms(name)
    theirs, ours = model.state_dict(), encoder.model.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[key], ours[key]) for key in theirs)
    texts = ["Blue & striped mug", "x"]
    assert torch.equal(open_clip.get_tokenizer(name)(texts), encoder.preprocess.text(texts))


def test_the_origin_is_enough_to_build_the_model_again(encoder, kind, tmp_path):
    if kind == "bert":
        pytest.skip("see above")
    config = {"model_cfg": encoder.origin.model_cfg, "preprocess_cfg": encoder.origin.preprocess_cfg}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False).load_state_dict(encoder.model.state_dict())


def test_resize_and_image_size_can_be_chosen(folders, schema):
    encoder = load_model(
        f"local-dir:{folders['clip']}", schema=schema, options=LoadOptions(resize="longest", image_size=48)
    )
    assert encoder.preprocess.size == (48, 48) and encoder.preprocess.resize == "longest"
    assert encoder.origin.preprocess_cfg["resize_mode"] == "longest"
    assert encoder.origin.model_cfg["vision_cfg"]["image_size"] == 48
    image = torch.zeros(2, 3, 48, 48, dtype=torch.uint8)
    texts = encoder.preprocess.text(["a", "b"])
    batch = SideBatch({"image": image, "title": texts, "brand": texts}, torch.ones(2, 3, dtype=torch.bool))
    assert encoder(batch, "document").shape == (2, 16)


@torch.no_grad()
@pytest.mark.parametrize("name", ["clip", "custom", "bert"])
def test_a_shorter_context_only_cuts_long_texts(folders, name):
    long, short = (
        load_model(f"local-dir:{folders[name]}", schema=TEXT_ONLY, options=LoadOptions(context_length=c)).eval()
        for c in (None, 12)
    )
    assert short.preprocess.text(["mug"]).shape == (1, 12)
    present = torch.ones(2, 1, dtype=torch.bool)
    vectors = [
        encoder(SideBatch({"query": encoder.preprocess.text(["blue mug", "red dress"])}, present), "query")
        for encoder in (long, short)
    ]
    torch.testing.assert_close(*vectors, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name, length, words",
    [("siglip", 32, "attends to padding"), ("clip", 78, "reads 3 to 77"), ("bert", 49, "reads 3 to 48")],
)
def test_impossible_context_lengths_are_refused(folders, name, length, words):
    with pytest.raises(ValueError, match=words):
        load_model(f"local-dir:{folders[name]}", schema=TEXT_ONLY, options=LoadOptions(context_length=length))


@pytest.mark.parametrize(
    "name, repository, file",
    [
        ("hf-hub:Marqo/marqo-ecommerce-embeddings-B", "Marqo/marqo-ecommerce-embeddings-B", "open_clip_config.json"),
        ("hf-text:intfloat/e5-base-v2", "intfloat/e5-base-v2", "config.json"),
        ("ViT-B-16-SigLIP", "timm/ViT-B-16-SigLIP", "open_clip_model.safetensors"),
        ("ViT-B-32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_model.safetensors"),
    ],
)
def test_without_the_hub_the_error_says_what_was_wanted(name, repository, file, schema):
    tags = {"ViT-B-16-SigLIP": "webli", "ViT-B-32": "laion2b_s34b_b79k"}
    with pytest.raises(ValueError) as error:
        load_model(
            name, schema=schema if "text" not in name else TEXT_ONLY, options=LoadOptions(pretrained=tags.get(name))
        )
    message = str(error.value)
    folder = "hf-text:/path/to/folder" if name.startswith("hf-text:") else "local-dir:/path/to/folder"
    assert repository in message and file in message and folder in message and "\n" not in message
    assert "HF_HUB_OFFLINE" in message


def test_a_tokenizer_that_only_the_hub_has_is_named(schema, tmp_path, folders):
    shutil.copytree(folders["siglip"], tmp_path / "m")
    config = json.loads((tmp_path / "m/open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "someone/tokenizer"
    (tmp_path / "m/open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"tokenizer.json .*someone/tokenizer"):
        load_model(f"local-dir:{tmp_path / 'm'}", schema=schema)


@pytest.mark.parametrize(
    "name, pretrained, near",
    [
        ("ViT-B-16-Siglip", None, "ViT-B-16-SigLIP"),
        ("gcl-tini", None, "gcl-tiny"),
        ("Marqo/marqo-ecommerce-embeddings-B", None, "hf-hub:"),
        ("ViT-B-32", "laion2b", "laion2b_s34b_b79k"),
        ("gcl-tiny", "openai", "none"),
    ],
)
def test_unknown_names_get_the_nearest_right_ones(name, pretrained, near, schema):
    with pytest.raises(ValueError, match=near):
        load_model(name, schema=schema, options=LoadOptions(pretrained=pretrained))


def test_a_folder_without_weights_or_config_is_refused(tmp_path, folders, schema):
    with pytest.raises(ValueError, match="no open_clip_config.json"):
        load_model(f"local-dir:{tmp_path}", schema=schema)
    shutil.copy(folders["clip"] / "open_clip_config.json", tmp_path)
    with pytest.raises(ValueError, match="no weights"):
        load_model(f"local-dir:{tmp_path}", schema=schema)
    with pytest.raises(ValueError, match="has weights of its own"):
        load_model(f"local-dir:{folders['clip']}", schema=schema, options=LoadOptions(pretrained="openai"))


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, folders, schema):
    folder = shutil.copytree(folders["clip"], tmp_path / "model")
    file = folder / "open_clip_model.safetensors"
    state = load_file(file)
    state["visual.proj"][0, 0] = float("nan")
    save_file(state, file)
    with pytest.raises(ValueError, match=r"visual\.proj of its weights holds NaN or infinity"):
        load_model(f"local-dir:{folder}", schema=schema)


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_config.json"])
def test_a_file_that_git_lfs_did_not_fetch_is_said_to_be_one(tmp_path, folders, schema, name):
    folder = shutil.copytree(folders["clip"], tmp_path / "model")
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 42\n")
    with pytest.raises(ValueError, match=f"{name} is a Git LFS pointer, not the file itself: run git lfs pull"):
        load_model(f"local-dir:{folder}", schema=schema)


def test_a_checkpoint_never_runs_code(tmp_path, folders, schema):
    shutil.copy(folders["clip"] / "open_clip_config.json", tmp_path)
    torch.save({"state_dict": {"x": Touch(tmp_path / "ran")}}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        load_model(f"local-dir:{tmp_path}", schema=schema)
    assert not (tmp_path / "ran").exists()


@torch.no_grad()
def test_text_only(bert_folder):
    encoder = load_model(f"hf-text:{bert_folder}", schema=TEXT_ONLY, options=LoadOptions(context_length=16)).eval()
    assert encoder.width == 32 and encoder.tower(Modality.image) is None and not encoder.frozen_trunk(Modality.image)
    tokens = encoder.preprocess.text(["red dress", "blue striped mug for men"])
    out = encoder(SideBatch({"query": tokens}, torch.ones(2, 1, dtype=torch.bool)), "query")
    expected = encoder.model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"data.document.image is image, and this model has no image tower"):
        encoder.with_schema(Schema(query={"query": Field()}, document={"image": Field(Modality.image)}))


def test_random_weights_follow_the_seed(schema):
    def draw(seed):
        torch.manual_seed(seed)
        return load_model("gcl-tiny", schema=schema).state_dict()["model.text.token_embedding.weight"]

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


def test_loading_leaves_the_logging_alone(monkeypatch, schema):
    monkeypatch.setattr(logging.root, "handlers", [])
    load_model("gcl-tiny", schema=schema)
    assert logging.root.handlers == []
