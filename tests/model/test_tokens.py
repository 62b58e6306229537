import pickle

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from gcl.model.tokens import Tokens

TEXTS = ["Blue & striped mug", "café &amp; thé", "", "   ", "MUG\t\n 2x", "mug " * 100, "naïve â€œquotesâ€\x9d"]
TEXTS += ["don't_stop 20% off! (new)", "ﬁne “curly” text", "日本 茶碗", "a\x1b[31mred\x1b[0m", "<b>bold</b>"]
TEXTS += ["1,000.50 $"]


@pytest.fixture(scope="module", params=["clip", "canonicalize", "bert", "bert, canonicalize"])
def pair(request, bert_folder):
    """A tokenizer as open_clip makes it, and ours of another one like it."""

    def make():
        if request.param == "clip":
            return open_clip.get_tokenizer("ViT-B-32")
        if request.param == "canonicalize":
            return SimpleTokenizer(clean="canonicalize")
        return HFTokenizer(str(bert_folder), clean="canonicalize" if "canon" in request.param else "whitespace")

    return make(), make()


def test_ids_are_open_clips(pair):
    theirs, tokenizer = pair
    for length in (12, 30):
        out = Tokens(tokenizer, length)(TEXTS)
        assert out.dtype == torch.int64 and torch.equal(out, theirs(TEXTS, context_length=length))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.text(), st.text(st.characters(codec="ascii"))), min_size=1, max_size=5))
def test_ids_are_open_clips_for_any_text(pair, texts):
    theirs, tokenizer = pair
    assert torch.equal(Tokens(tokenizer, 16)(texts), theirs(texts, context_length=16))


def test_special_tokens_that_a_text_spells_are_words(pair):
    """open_clip would end the text there."""
    ours = Tokens(pair[1], 24)
    for spelled, words in (("[SEP] [PAD] mug", "[ SEP ] [ PAD ] mug"), ("<end_of_text> mug", "< end_of_text> mug")):
        one, other = ours([spelled, words])
        assert torch.equal(one, other)


def test_no_texts_give_no_rows(pair):
    assert Tokens(pair[1], 8)([]).shape == (0, 8)


def test_it_pickles(pair):
    ours = Tokens(pair[1], 16)
    assert torch.equal(pickle.loads(pickle.dumps(ours))(TEXTS), ours(TEXTS))
