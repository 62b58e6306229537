"""Formats made of the ONNX graphs: what their own libraries make of them is the run's."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gcl.errors import ConfigError
from gcl.exports.card.snippets import run_snippets
from gcl.exports.formats.onnx import add_precisions
from gcl.exports.formats.onnx_session import LoadedOnnx, open_graph
from gcl.exports.formats.registry import FORMATS, check_formats, choose, with_needs
from gcl.exports.formats.tokenizer import native_tokenizer, spell_out
from gcl.exports.node import node_package
from gcl.exports.verify.case import make_case
from gcl.exports.verify.round_trip import LEAST_COSINE, NEAR
from gcl.exports.verify.worker import compare
from helpers.transformers_inputs import TEXTS, pictures

NODE = pytest.mark.skipif(FORMATS["transformers_js"].missing != [], reason="node has no @huggingface/transformers")
FAMILIES = ["clip", "siglip-B"]


@pytest.fixture(scope="session")
def hub(exports, tmp_path_factory):
    """hub(family) -> encoder, a folder of its own with onnx in fp32 and int8, transformers and transformers_js."""
    made = {}

    def one(family):
        if family not in made:
            encoder, source = exports(family)
            folder = Path(shutil.copytree(source, tmp_path_factory.mktemp("hub") / family))
            add_precisions(encoder, folder, ["fp32", "int8"])
            for name in ("transformers", "transformers_js"):
                FORMATS[name].write(encoder, folder)
            made[family] = encoder, folder
        return made[family]

    return one


def close(loaded, case, least=LEAST_COSINE):
    found = compare(case, loaded, near=NEAR)
    return min(found["text"]["lowest"], found["image"]["lowest"]) >= least


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_of_the_hub_take_what_readers_make(hub, family):
    """Texts without padding, or cut without an end token; pixels that the reader has normalised."""
    encoder, folder = hub(family)
    whole, tokenizer = LoadedOnnx(folder), native_tokenizer(encoder.preprocess.tokens, family.partition("-")[0])
    text, image = (open_graph(folder / "onnx" / f"{name}_model.onnx") for name in ("text", "vision"))
    for one in TEXTS:
        ids = np.array([tokenizer(one, padding=False, truncation=True).input_ids])
        cut = np.array(
            [tokenizer(one, padding=False, truncation=False).input_ids[: encoder.preprocess.tokens.context_length]]
        )
        for given in (ids, cut):
            (vector,) = text.run(None, {"input_ids": given})
            assert (vector * whole.texts([one])).sum() >= LEAST_COSINE, one
    pixels = torch.stack([encoder.preprocess.image(data) for data in pictures().values()])
    (vectors,) = image.run(None, {"pixel_values": encoder._pixels(pixels).numpy()})
    assert (vectors * whole.images(list(pictures().values()))).sum(axis=1).min() >= LEAST_COSINE
    output = "pooler_output" if family == "siglip-B" else "text_embeds"
    assert text.get_outputs()[0].name == output and (folder / "onnx" / "vision_model_quantized.onnx").is_file()


@pytest.mark.slow
@NODE
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_js_gives_the_run_s_vectors(hub, family):
    encoder, folder = hub(family)
    case, format = make_case(encoder), FORMATS["transformers_js"]
    assert close(format.load(folder), case) and close(format.load(folder, "int8"), case, 0.9)
    assert close(FORMATS["transformers"].load(folder), case), "they share tokenizer.json"
    loaded = format.load(folder)
    assert loaded.ids("red shoe") == FORMATS["transformers"].load(folder).processor.tokenizer(
        "red shoe", padding="max_length"
    ).input_ids  # fmt: skip
    with pytest.raises(ValueError, match="transformers.js: .*"):
        loaded._ask(do="texts", texts=[None])
    (ran,) = run_snippets(encoder, folder, [format], name="my_model")
    assert ran.output.startswith("[") and "```javascript" in ran.markdown()


@pytest.mark.slow
@NODE
def test_transformers_js_reads_a_folder_whose_name_none_of_the_hub_could_have(hub, tmp_path):
    encoder, folder = hub("siglip-B")
    unfinished = Path(shutil.copytree(folder, tmp_path / ".my model.unfinished"))
    assert close(FORMATS["transformers_js"].load(unfinished), make_case(encoder))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_fastembed_gives_the_run_s_vectors(hub, family):
    pytest.importorskip("fastembed")
    encoder, folder = hub(family)
    case, format = make_case(encoder), FORMATS["fastembed"]
    format.write(encoder, folder)
    assert close(format.load(folder), case) and close(format.load(folder, "int8"), case, 0.9)


@pytest.mark.slow
def test_triton_s_ensembles_give_the_run_s_vectors(hub, tmp_path):
    pytest.importorskip("tritonclient.grpc.model_config_pb2", exc_type=(ImportError, RuntimeError))
    encoder, source = hub("siglip-B")
    folder, format = Path(shutil.copytree(source, tmp_path / "out")), FORMATS["triton"]
    format.write(encoder, folder)
    assert close(format.load(folder), make_case(encoder))
    config = folder / "triton" / "text_tower" / "config.pbtxt"
    good = config.read_text()
    for wrong, said in (
        (good.replace("TYPE_INT64", "TYPE_INT32"), "The config of text_tower says"),
        (good.replace("max_batch_size", "most_rows"), "is not a config of Triton's"),
    ):
        config.write_text(wrong)
        with pytest.raises(ValueError, match=said):
            format.load(folder)


def test_spelled_out_cleaning_gives_the_same_ids(small, exported, tmp_path):
    source, (folder, _) = small("siglip2-B"), exported("siglip2-B")
    shutil.copytree(folder, tmp_path / "out")
    before = FORMATS["transformers"].load(folder).processor.tokenizer
    spell_out(tmp_path / "out")
    spell_out(tmp_path / "out")  # nothing is left to spell out
    after = FORMATS["transformers"].load(tmp_path / "out").processor.tokenizer
    odd = [
        "".join(map(chr, range(start, start + 0x100)))
        for start in range(0, 0x10000, 0x100)
        if not 0xD8 <= start >> 8 < 0xE0
    ]
    texts = [*TEXTS, "ＮＯＲＤ “ﬁne” ①②…", *odd]
    assert before.get_vocab() == after.get_vocab() and source.encoder is not None
    assert [before.backend_tokenizer.normalizer.normalize_str(text) for text in texts] == [
        after.backend_tokenizer.normalizer.normalize_str(text) for text in texts
    ]  # fmt: skip


@pytest.mark.slow
def test_openvino_gives_the_run_s_vectors(exports, tmp_path):
    pytest.importorskip("openvino")
    encoder, source = exports("clip")
    folder = Path(shutil.copytree(source, tmp_path / "out"))
    FORMATS["openvino"].write(encoder, folder)
    assert close(FORMATS["openvino"].load(folder), make_case(encoder))
    (ran,) = run_snippets(encoder, folder, [FORMATS["openvino"]], name="my_model")
    assert ran.output.startswith("(2, ")


def test_what_is_made_of_others_brings_them_and_is_written_on_request(exports, tmp_path, monkeypatch):
    assert with_needs(["openvino", "embeddings"]) == ["onnx", "openvino"]
    assert with_needs(["transformers_js"]) == ["transformers", "onnx", "transformers_js"]
    encoder, _ = exports("gcl-tiny")
    assert {name for name, format in FORMATS.items() if format.on_request} == {
        name for name, format in FORMATS.items() if format.needs
    }
    monkeypatch.setenv("PATH", str(tmp_path))  # nobody is asked for node where it would be of no use
    check_formats(["transformers_js"])
    with pytest.raises(
        ConfigError, match="transformers_js is not possible. transformers.js has the classes of transf.*Effi"
    ):
        choose(encoder, ["transformers_js"])


def test_a_missing_package_of_node_is_named_with_its_command(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert node_package("@huggingface/transformers") is None
    with pytest.raises(ConfigError, match="not installed: npm install --ignore-scripts @huggingface/transformers"):
        choose(small("siglip-B").encoder, ["transformers_js"])


def test_packages_of_node_are_found_where_node_finds_them(tmp_path, monkeypatch):
    (tmp_path / "node").write_text("#!/bin/sh\n")
    (tmp_path / "node").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "shop" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "shop" / "deep")
    for place in (tmp_path / "shop" / "node_modules", tmp_path / "named"):
        package = place / "@scope" / place.name
        package.mkdir(parents=True)
        (package / "package.json").write_text("{}")
    monkeypatch.setenv("NODE_PATH", str(tmp_path / "named"))
    assert node_package("@scope/node_modules") == tmp_path / "shop" / "node_modules" / "@scope" / "node_modules"
    assert node_package("@scope/named") == tmp_path / "named" / "@scope" / "named"
    assert node_package("@scope/other") is None
