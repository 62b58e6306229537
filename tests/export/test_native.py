"""open_clip -> transformers -> open_clip, and sentence-transformers, for every family that has a native class."""

import json
import shutil
from copy import deepcopy
from importlib.metadata import version
from io import BytesIO

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoProcessor

from gcl.errors import ConfigError
from gcl.exports.formats.registry import FORMATS, choose, left_out, supported
from gcl.model.load import load_model
from gcl.model.settings import LoadOptions
from gcl.model.transformers.describe import NotNative, describe
from gcl.model.transformers.read import to_open_clip
from gcl.schema import Field, Modality, Schema
from helpers import transformers_models
from helpers.transformers_inputs import SCHEMA, TEXTS, embed, pictures

FAMILIES = list(transformers_models.FAMILIES)
SIGLIPS = [name for name in FAMILIES if name.startswith("siglip")]
TEXT_ONLY = Schema(query={"query": Field(prompt="query: {}")}, document={"title": Field(prompt="passage: {}")})


def closest(ours, theirs):
    return np.abs((ours * theirs).sum(-1) - 1).max()


@pytest.mark.parametrize("format", ["open_clip", "transformers", "sentence_transformers"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_format_gives_the_run_s_vectors(small, exported, family, format):
    run, loaded = small(family), FORMATS[format].load(exported(family)[0])
    texts, images = loaded.texts(TEXTS), loaded.images(list(pictures().values()))
    assert texts.dtype == images.dtype == np.float32
    assert closest(texts, run.texts) < 1e-5 and closest(images, run.images) < 1e-4
    assert closest(run.texts[0], run.texts[2]) > 1e-3  # or nothing could be seen


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transformers_folder_is_read_back_exactly(small, exported, family, tmp_path):
    run, alone = small(family), tmp_path / "alone"
    shutil.copytree(exported(family)[0], alone, ignore=shutil.ignore_patterns("open_clip*", "modules.json"))
    again = load_model(f"local-dir:{alone}", schema=SCHEMA).eval()
    if family != "clip-custom-eos":  # transformers does not say that its text tower had a name of its own
        ours, theirs = run.encoder.model.state_dict(), again.model.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    texts, images = embed(again, images=pictures().values())
    assert closest(texts, run.texts) < 1e-6 and closest(images, run.images) < 1e-6
    assert again.scale_bias == pytest.approx(run.encoder.scale_bias)
    (tmp_path / "second").mkdir()
    FORMATS["transformers"].write(again, tmp_path / "second")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"):
        assert (tmp_path / "second" / name).read_bytes() == (alone / name).read_bytes(), name


@pytest.mark.parametrize("family", ["siglip-B", "clip"])
def test_servers_that_load_every_file_of_weights_are_told_which_are_the_model_s(exported, family):
    folder = exported(family)[0]
    index = json.loads((folder / "model.safetensors.index.json").read_text("utf-8"))
    weights = load_file(folder / "model.safetensors")
    assert {"model.safetensors", "open_clip_model.safetensors"} <= {path.name for path in folder.iterdir()}
    assert index["weight_map"] == dict.fromkeys(weights, "model.safetensors")
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in weights.values())


@pytest.mark.parametrize(("family", "length"), [("siglip-B", 64), ("clip", 77)])
def test_servers_with_transformers_4_find_its_tokenizer_and_the_length_of_texts(exported, family, length):
    config, tokenizer = (
        json.loads((exported(family)[0] / f"{name}.json").read_text("utf-8")) for name in ("config", "tokenizer_config")
    )
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast", "transformers 5 writes a name of its own"
    assert config["max_length"] == length, "20 by default, where infinity cuts texts"


@pytest.mark.parametrize("first", ["open_clip", "transformers"])
def test_exports_keep_the_crop_of_the_model_s_first_library(small, exported, tmp_path, first):
    """Where an odd number of pixels is cut off, the two libraries crop at different ones."""
    source = small("clip").folder
    if first == "transformers":
        source = tmp_path / "theirs"
        shutil.copytree(exported("clip")[0], source, ignore=shutil.ignore_patterns("open_clip*", "modules.json"))
        path = source / "preprocessor_config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "gcl_resize"}))
    encoder = load_model(f"local-dir:{source}", schema=SCHEMA).eval()
    images, random = [], np.random.default_rng(0)
    for size in [(32, 33), (35, 32), (37, 64), (63, 47), (90, 31), (64, 32)]:
        data = BytesIO()
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(data, "PNG")
        images.append(data.getvalue())
    wanted, notes = embed(encoder, images=images)[1], {}
    for name in ("open_clip", "transformers", "sentence_transformers"):
        (tmp_path / name).mkdir()
        notes[name] = " ".join(FORMATS[name].write(encoder, tmp_path / name))
        assert closest(FORMATS[name].load(tmp_path / name).images(images), wanted) < 1e-4, name
        again = load_model(f"local-dir:{tmp_path / name}", schema=SCHEMA).eval()
        assert again.preprocess.resize == encoder.preprocess.resize
        assert closest(embed(again, images=images)[1], wanted) < 1e-6, name
    told = {name for name, text in notes.items() if "one pixel" in text}
    assert told == ({"open_clip"} if first == "transformers" else {"transformers", "sentence_transformers"})
    plain = AutoProcessor.from_pretrained(tmp_path / "transformers").image_processor
    pixels = plain([Image.open(BytesIO(data)) for data in images], return_tensors="pt").pixel_values
    as_plain = [((encoder._pixels(encoder.preprocess.image(d)[None])[0] - p).abs() < 0.1).all() for d, p in zip(
        images, pixels, strict=True)]  # fmt: skip
    assert all(as_plain) == (first == "transformers")


@pytest.mark.parametrize("family", ["siglip-SO400M", "clip"])
def test_logits_are_open_clip_s(small, exported, family):
    folder, _ = exported(family)
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    texts, pixels = list(TEXTS[:3]), torch.randn(2, 3, 32, 32)
    inputs = processor(text=texts, return_tensors="pt")
    own = small(family).encoder
    with torch.inference_mode():
        theirs = model(**inputs, pixel_values=pixels).logits_per_image
        image, text, scale, *bias = own.model.eval()(pixels, own.preprocess.text(texts))
    expected = scale * image @ text.T + (bias[0] if bias else 0)
    torch.testing.assert_close(theirs, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["siglip-B", "siglip2-B", "clip"])
def test_no_code_and_the_meta_device(exported, family):
    folder, _ = exported(family)
    assert not any("auto_map" in path.read_text() for path in folder.glob("*.json"))
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    assert type(model).__name__ == {"s": "SiglipModel", "c": "CLIPModel"}[family[0]]
    assert all(value.is_meta for value in model.state_dict().values())
    weights = AutoModel.from_pretrained(folder).state_dict()
    assert weights.keys() == model.state_dict().keys()


@pytest.mark.parametrize("family", SIGLIPS)
def test_a_siglip_processor_pads_lowercases_and_squashes_by_itself(exported, family):
    processor = AutoProcessor.from_pretrained(exported(family)[0])
    ids = processor(text=["RED Running, Shoes", "red running shoes"], return_tensors="pt")
    assert ids.input_ids.shape == (2, 64) and torch.equal(*ids.input_ids) and "attention_mask" not in ids
    assert ids.input_ids[0, -1] == processor.tokenizer.pad_token_id  # padded on the right
    pixels = processor(images=Image.new("RGB", (80, 20), (255, 0, 0)), return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 32, 32)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([1.0, -0.4 / 0.6, -0.3 / 0.7], abs=1e-5)


def test_a_run_that_reads_fewer_tokens_stays_so(small, tmp_path):
    encoder = load_model(
        f"local-dir:{small('clip').folder}", schema=SCHEMA, options=LoadOptions(context_length=12)
    ).eval()
    long = ["one two three four five six seven eight nine ten eleven twelve thirteen", "short"]
    for name in ("open_clip", "transformers", "sentence_transformers"):
        FORMATS[name].write(encoder, tmp_path)
        assert closest(FORMATS[name].load(tmp_path).texts(long), embed(encoder, long)[0]) < 1e-5, name
    assert len(load_model(f"local-dir:{tmp_path}", schema=SCHEMA).preprocess.text(["x"])[0]) == 12


def test_a_run_that_reads_larger_pictures_stays_so(small, tmp_path):
    """open_clip builds timm's towers at the size that their name says."""
    encoder = load_model(
        f"local-dir:{small('siglip-B').folder}", schema=SCHEMA, options=LoadOptions(image_size=48)
    ).eval()
    images = list(pictures().values())
    for name in ("open_clip", "transformers"):
        FORMATS[name].write(encoder, tmp_path)
        assert closest(FORMATS[name].load(tmp_path).images(images), embed(encoder, images=images)[1]) < 1e-4, name
    unknown = load_model(
        f"local-dir:{small('siglip-B').folder}", schema=SCHEMA, options=LoadOptions(image_size=64)
    ).eval()
    with pytest.raises(ConfigError, match="open_clip is not possible. .*exists for images of 32, 48 pixels"):
        choose(unknown, ["open_clip"])
    assert "transformers" in supported(unknown)


def test_prompts_of_the_fields(small, tmp_path):
    schema = deepcopy(SCHEMA)
    schema.document["brand"] = Field(weight=0.01, prompt="by {} now")
    encoder = load_model(f"local-dir:{small('clip').folder}", schema=schema).eval()
    notes = FORMATS["sentence_transformers"].write(encoder, tmp_path)
    assert any("document.brand: `by {} now`" in note for note in notes)
    model = FORMATS["sentence_transformers"].load(tmp_path).model
    written = json.loads((tmp_path / "config_sentence_transformers.json").read_text())["__version__"]
    packages = {"sentence_transformers": "sentence-transformers", "transformers": "transformers", "pytorch": "torch"}
    assert written == {name: version(package) for name, package in packages.items()}, "the installed ones"
    assert model.prompts == {"query": "search: ", "document": "", "title": ""}
    vector = model.encode_query(["red shoes"])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert closest(vector, embed(encoder, ["search: red shoes"])[0]) < 1e-5


def test_a_text_encoder_alone_goes_to_sentence_transformers(bert, tmp_path):
    encoder = load_model(f"hf-text:{bert}", schema=TEXT_ONLY, options=LoadOptions(context_length=16)).eval()
    assert supported(encoder)[0] == "sentence_transformers"
    format = FORMATS["sentence_transformers"]
    format.write(encoder, tmp_path)
    loaded = format.load(tmp_path)
    assert closest(loaded.texts(TEXTS), embed(encoder)[0]) < 1e-5
    assert loaded.model.prompts == {"query": "query: ", "document": "passage: ", "title": "passage: "}
    with pytest.raises(ValueError, match="texts alone"):
        loaded.images(list(pictures().values()))
    again = load_model(f"hf-text:{tmp_path}", schema=TEXT_ONLY, options=LoadOptions(context_length=16)).eval()
    assert closest(embed(again)[0], embed(encoder)[0]) < 1e-6


@pytest.mark.parametrize("name", ["transformers", "sentence_transformers"])
def test_what_has_no_class_says_so_and_names_what_works(name):
    encoder = load_model("gcl-tiny", schema=SCHEMA)
    with pytest.raises(ConfigError, match=f"{name} is not possible. .*EfficientNet.* work with it: open_clip"):
        choose(encoder, [name])
    with pytest.raises(ValueError, match="no native class for gcl-tiny"):
        FORMATS[name].write(encoder, None)
    assert name not in [format.name for format in choose(encoder, None)]
    assert any(sentence.startswith(f"Without {name}: ") for sentence in left_out(encoder))
    with pytest.raises(ConfigError, match="Did you mean transformers"):
        choose(encoder, ["transformer"])


@pytest.mark.parametrize(("family", "tower"), [("pe-core", "Eva"), ("mobileclip2", "FastVit")])
def test_newer_models_of_timm_have_the_formats_that_need_no_class(family, tower, tmp_path):
    encoder = load_model(f"local-dir:{transformers_models.write_family(family, tmp_path)}", schema=SCHEMA)
    assert supported(encoder) == ["open_clip", "onnx", "openvino", "triton"]
    for name in ("transformers", "sentence_transformers", "transformers_js", "fastembed"):
        with pytest.raises(ConfigError, match=f"{name} is not possible. .*image tower is timm's {tower}"):
            choose(encoder, [name])


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"vision": {"attentional_pool": True}}, "class token"),
        ({"vision": {"no_ln_pre": True}}, "norm before its layers"),
        ({"vision": {"ls_init_value": 0.1}}, "has no place for its .*ls_1"),
        ({"vision": {"image_size": [32, 48]}}, "not square"),
        ({"vision": {"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-4}}}, None),
        ({"text": {"no_causal_mask": True}}, "not causal"),
        ({"text": {"vocab_size": 1000}}, "tokenizer is not CLIP's"),
        ({"text": {"proj_bias": True}, "custom_text": True}, "projection"),
        ({"text": {"pool_type": "last"}, "custom_text": True}, "pools by 'last'"),
    ],
)
def test_parts_that_no_class_has(changes, reason):
    cfg = transformers_models.clip(**deepcopy(changes))
    custom = cfg.pop("custom_text", False)
    model = (open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP)(**cfg)
    if reason is None:
        assert describe(model).config["vision_config"]["layer_norm_eps"] == 1e-4
        assert describe(model).config["vision_config"]["hidden_act"] == "gelu_pytorch_tanh"
        return
    with pytest.raises(NotNative, match=reason):
        describe(model)


UNPROJECTED = "ViT-SO400M-16-SigLIP-i18n-256"  # open_clip's form of it has no head at the end of the text tower
PUBLISHED = [name for name in open_clip.list_models() if "SigLIP" in name and name != UNPROJECTED]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "ViT-B-16-SigLIP2-256" else pytest.mark.slow) for n in PUBLISHED]
)
def test_published_siglips_are_all_known(name):
    """Their sizes alone: each published config, described on the meta device, is found again by its sizes."""
    cfg = open_clip.get_model_config(name)
    with torch.device("meta"):
        custom = cfg.pop("custom_text")
        model = open_clip.model.CustomTextCLIP(**cfg)
    native = describe(model)
    content = json.loads(json.dumps({"model_type": "siglip", **native.config}))
    back = to_open_clip(content)
    assert custom and back["vision_cfg"]["image_size"] == cfg["vision_cfg"]["image_size"]
    with torch.device("meta"):
        twin = open_clip.model.CustomTextCLIP(**{k: v for k, v in back.items() if k != "custom_text"})
    assert {k: v.shape for k, v in twin.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert describe(twin).config == native.config


def test_the_one_without_a_text_head_says_so():
    cfg = open_clip.get_model_config(UNPROJECTED)
    with torch.device("meta"):
        model = open_clip.model.CustomTextCLIP(**{k: v for k, v in cfg.items() if k != "custom_text"})
    with pytest.raises(NotNative, match="no projection with a bias"):
        describe(model)


def test_modalities_of_the_schema_do_not_matter(small):
    assert supported(small("siglip-B").encoder.with_schema(TEXT_ONLY))[:2] == ["open_clip", "transformers"]
    assert Modality.image not in {field.modality for field in TEXT_ONLY.document.values()}
