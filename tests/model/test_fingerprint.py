"""One fingerprint names the entries of both caches: whatever a preprocess can be told is in it."""

from dataclasses import dataclass, fields, replace

import pytest

from gcl.model.fingerprint import fingerprint
from gcl.model.preprocess import Preprocess
from gcl.schema import Field, Modality

IMAGE, TEXT = {"image": Field(Modality.image)}, {"title": Field(Modality.text)}
OTHER = {
    "size": (40, 40), "mean": (0.1, 0.1, 0.1), "std": (0.9, 0.9, 0.9), "resize": "longest", "decode": "scaled",
    "interpolation": "bilinear", "fill": 7, "crop": 0.5,
}  # fmt: skip


def test_every_option_is_in_it(tiny):
    assert OTHER.keys() | {"tokens"} == {field.name for field in fields(Preprocess)}
    digests = {fingerprint(tiny.preprocess, IMAGE)}
    for name, value in OTHER.items():
        digests.add(fingerprint(replace(tiny.preprocess, **{name: value}), IMAGE))
    assert len(digests) == 1 + len(OTHER)
    shorter = replace(tiny.preprocess, tokens=replace(tiny.preprocess.tokens, context_length=9))
    assert fingerprint(tiny.preprocess, TEXT) != fingerprint(shorter, TEXT)


@pytest.mark.parametrize(("kind", "one", "other"), [(float, 1.0, 1.5), (list, [1], [2]), (dict, {"a": 1}, {"a": 2})])
def test_a_new_option_enters_by_itself(tiny, kind, one, other):
    @dataclass
    class Sharper(Preprocess):
        sharpness: kind = None

    known = {field.name: getattr(tiny.preprocess, field.name) for field in fields(Preprocess)}
    plain, sharper, same = (Sharper(**known, sharpness=value) for value in (one, other, one))
    assert fingerprint(plain, IMAGE) == fingerprint(same, IMAGE) != fingerprint(sharper, IMAGE)


def test_the_tokenizer_counts_by_what_it_makes_of_texts(tiny):
    def upper(texts, context_length):
        return tiny.preprocess.tokens.tokenizer([text.upper() + "!" for text in texts], context_length=context_length)

    other = replace(tiny.preprocess, tokens=replace(tiny.preprocess.tokens, tokenizer=upper))
    assert fingerprint(other, TEXT) != fingerprint(tiny.preprocess, TEXT)
    assert fingerprint(other, IMAGE) == fingerprint(tiny.preprocess, IMAGE)
