import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from gcl.model.load import load_model
from gcl.schema import Field, Modality, Schema
from helpers.bert_folder import write_bert

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
NATIVE = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
TIMM = {"image_size": 32, "timm_model_name": "test_byobnet", "timm_pool": "avg", "timm_proj": "linear"}  # has BatchNorm
CONFIGS = {
    "clip": {"embed_dim": 16, "vision_cfg": NATIVE, "text_cfg": TEXT},
    "custom": {"embed_dim": 16, "custom_text": True, "vision_cfg": TIMM, "text_cfg": TEXT},
    "siglip": {
        "embed_dim": 16,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": NATIVE,
        "text_cfg": {**TEXT, "context_length": 64, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
    "bert": {
        "embed_dim": 16,
        "vision_cfg": TIMM,
        "text_cfg": {
            "context_length": 24,
            "hf_model_name": "someone/bert-that-is-not-here",
            "hf_tokenizer_name": "someone/bert-that-is-not-here",
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear",
        },
    },
}
WORDS = "blue striped mug red dress running shoes for men cotton a the photo of ##s ##ed 1 2 3 4 5 6 7 8 9 0".split()


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def schema():
    return Schema(
        query={"query": Field(Modality.text)},
        document={
            "image": Field(Modality.image, weight=0.9),
            "title": Field(Modality.text, weight=0.1),
            "brand": Field(Modality.text, weight=0.1, prompt="by {}"),
        },
    )


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    """A Hugging Face text encoder with its tokenizer, as a folder."""
    return write_bert(tmp_path_factory.mktemp("bert"), WORDS)


@pytest.fixture(scope="session")
def folders(tmp_path_factory, bert_folder):
    """open_clip folders of small models with random weights, as anybody could have published them."""
    written = {}
    for kind, config in CONFIGS.items():
        folder = written[kind] = tmp_path_factory.mktemp(kind)
        model_cfg = json.loads(json.dumps(config))
        built = json.loads(json.dumps(config))
        custom = built.pop("custom_text", False) or kind == "bert"
        if kind == "bert":
            built["text_cfg"].update(hf_model_name=str(bert_folder), hf_model_pretrained=True)
            for file in bert_folder.iterdir():
                if file.suffix != ".safetensors":
                    (folder / file.name).write_bytes(file.read_bytes())
        torch.manual_seed(7)
        model = (open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP)(**built)
        with torch.no_grad():
            model.logit_scale.fill_(3.5)
            if model.logit_bias is not None:
                model.logit_bias.fill_(-7.25)
        save_file(
            {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
            folder / "open_clip_model.safetensors",
        )
        preprocess_cfg = {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7], "resize_mode": "squash"}
        (folder / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg})
        )
    return written


@pytest.fixture(scope="session", params=list(CONFIGS))
def kind(request):
    return request.param


@pytest.fixture()
def encoder(folders, kind, schema):
    return load_model(f"local-dir:{folders[kind]}", schema=schema).eval()


@pytest.fixture()
def tiny(schema):
    torch.manual_seed(0)
    return load_model("gcl-tiny", schema=schema)
