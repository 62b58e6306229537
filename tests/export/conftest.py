"""Small models of every native family in folders, what they make of texts and pictures of all kinds, their exports."""

from functools import lru_cache
from types import SimpleNamespace

import pytest
import torch

from gcl.model.load import load_model
from helpers import transformers_models
from helpers.bert_folder import write_bert
from helpers.transformers_inputs import SCHEMA, SETS, embed, pictures


@pytest.fixture(scope="session", autouse=True)
def small_towers():
    with transformers_models.known_towers():
        yield


@pytest.fixture(scope="session")
def small(tmp_path_factory, small_towers):
    """small(family): its folder, encoder, and the vectors of the texts and pictures above."""
    images = pictures()

    @lru_cache
    def one(family):
        folder = transformers_models.write_family(family, tmp_path_factory.mktemp(family))
        encoder = load_model(f"local-dir:{folder}", schema=SCHEMA).eval()
        texts, vectors = embed(encoder, images=images.values())
        return SimpleNamespace(folder=folder, encoder=encoder, texts=texts, images=vectors)

    return one


@pytest.fixture(scope="session")
def exported(small, tmp_path_factory):
    """exported(family): the folder of its open_clip, transformers and sentence_transformers export, and the notes."""
    from gcl.exports.formats.registry import FORMATS

    @lru_cache
    def one(family):
        folder, encoder = tmp_path_factory.mktemp(f"{family}-out"), small(family).encoder
        names = ("open_clip", "transformers", "sentence_transformers")
        return folder, {name: FORMATS[name].write(encoder, folder) for name in names}

    return one


@pytest.fixture(scope="session")
def exports(request, tmp_path_factory):
    """exports(family) -> (encoder, folder with its ONNX export), each made once; of gcl-tiny that of the run."""
    from gcl.exports.formats.onnx import OPSET, export_onnx
    from gcl.run.contestants import tuned_encoder

    made = {}

    def make(family):
        if family == "gcl-tiny" and family not in made:
            finished, exported = map(request.getfixturevalue, ("finished", "exported_run"))
            assert f"ONNX opset {OPSET}" in (exported / "README.md").read_text("utf-8")
            made[family] = tuned_encoder(finished).with_schema(SETS).eval(), exported
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            name = (
                family
                if family.startswith("gcl-")
                else f"local-dir:{transformers_models.write_family(family, folder / 'model')}"
            )
            torch.manual_seed(1)
            encoder = load_model(name, schema=SETS).eval()
            assert export_onnx(encoder, folder)[0].startswith(f"ONNX opset {OPSET}")
            made[family] = encoder, folder
        return made[family]

    return make


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A small Hugging Face text encoder with a word-piece tokenizer, as a folder."""
    words = "red running shoes far beyond the context don ' t _ stop me 4 2 ! ##2".split()
    return write_bert(tmp_path_factory.mktemp("bert"), words)
