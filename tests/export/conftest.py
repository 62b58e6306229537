"""Small models of every native family in folders, what they make of texts and pictures of all kinds, their exports."""

from functools import lru_cache
from types import SimpleNamespace

import pytest

from gcl.model.load import load_model
from helpers import transformers_models
from helpers.bert_folder import write_bert
from helpers.transformers_inputs import SCHEMA, embed, pictures


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
def bert(tmp_path_factory):
    """A small Hugging Face text encoder with a word-piece tokenizer, as a folder."""
    words = "red running shoes far beyond the context don ' t _ stop me 4 2 ! ##2".split()
    return write_bert(tmp_path_factory.mktemp("bert"), words)
