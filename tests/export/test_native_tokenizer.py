"""The ids of the native tokenizers are open_clip's, text by text."""

import json
import random
import unicodedata

import open_clip
import pytest
from open_clip.tokenizer import HFTokenizer, get_clean_fn
from tokenizers import normalizers
from transformers import AutoTokenizer

from gcl.exports.formats.tokenizer import BEYOND, cleaning, native_tokenizer
from gcl.model.tokens import Tokens

WORDS = [
    "red running shoes", "RED Running Shoes!!", "", "   ", "size 42/43 (EU), 9.5 UK",
    "don't can't we've I'm she'll it'd", "naïve café señor Ünïcode façade", "e\u0301 combined", "ΟΔΟΣ ΣΑΣ σας",
    "İSTANBUL ıssız ß ẞ", "Привет мир", "שלום עולם", "مرحبا ١٢٣", "红色 运动鞋，新款！（现货）", "日本語の靴 ｱｲｳ",
    "한국어 신발", "ｆｕｌｌ　ｗｉｄｔｈ", "“quotes” ‘single’ «g» …", "ﬁsh ﬂag ﬃ", "&amp;amp; twice",
    "Ben &amp; Jerry&#39;s &lt;b&gt; &quot;x&quot; &nbsp;y", "<b>bold</b> & more", "snake_case_words",
    "tabs\tand\nlines\r\nand\u2028seps", "zero\u200bwidth\u200djoin\ufeffbom\u00adsoft", "ctrl\x01\x1c\x7f chars\x00",
    "😀 \U0001f469\u200d\U0001f469\u200d\U0001f467 🇩🇪 ☂️", "½ ² ™ ℃ № ½kg", "a" * 300, "word " * 200, "!!!???...---",
    "x²+y² = z²", "#hashtag @user http://a.b/c?d=e&f=g", "C++ & C#",
]  # fmt: skip


def drawn(count, seed=0):
    """Random texts over what catalogs hold, every script included."""
    source, out = random.Random(seed), []
    alphabets = [
        [chr(c) for c in range(32, 127)],
        [chr(c) for c in range(0xA1, 0x250)],
        [chr(c) for c in (*range(0x370, 0x530), *range(0x5D0, 0x5EB), *range(0x621, 0x64B))],
        [chr(c) for c in (*range(0x4E00, 0x4E80), *range(0x3040, 0x30FF), *range(0xAC00, 0xAC80))],
        [chr(c) for c in (*range(0x4E00, 0x4E20), *range(0xFF01, 0xFF5F))],
        [chr(c) for c in (*range(0x2000, 0x2070), *range(0x20A0, 0x20C0), *range(0x1F600, 0x1F640))],
    ]  # fmt: skip
    alphabets = [[c for c in letters if unicodedata.category(c)[0] != "C" or c == " "] for letters in alphabets]
    while len(out) < count:
        letters = source.choice(alphabets) + [" "] * 10
        text = "".join(source.choice(letters) for _ in range(source.randint(1, 30)))
        if not any(code in text for code in "&<"):  # entities are told apart above
            out.append(text)
    return out


def ascii_or_repairable(text):
    """ftfy may take a text for a wrongly decoded one; the native tokenizer says that it does not repair those."""
    import ftfy

    return ftfy.fix_text(text) == ftfy.fix_text(text, config=ftfy.TextFixerConfig(fix_encoding=False))


@pytest.mark.parametrize("kind", ["lower", "whitespace", "canonicalize"])
def test_cleaning_is_open_clip_s_and_is_done_once(kind):
    steps, theirs = normalizers.Sequence(cleaning(kind)), get_clean_fn(kind)
    for text in [*WORDS, *filter(ascii_or_repairable, drawn(800))]:
        cleaned = steps.normalize_str(text)
        assert cleaned == theirs(text), repr(text)
        assert steps.normalize_str(cleaned) == cleaned, repr(text)


def test_what_is_not_cleaned_is_said():
    """The note on the card names the difference: mended by open_clip, and not by the native tokenizer."""
    steps, theirs = normalizers.Sequence(cleaning("lower")), get_clean_fn("lower")
    for text in ("schÃ¶n", "&eacute;t&eacute;"):
        assert steps.normalize_str(text) != theirs(text)
    assert "wrongly decoded" in BEYOND and "HTML entities" in BEYOND


@pytest.mark.parametrize("length", [77, 12])
def test_clip_ids(length, tmp_path):
    native_tokenizer(Tokens(open_clip.SimpleTokenizer(), length), "clip").save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*WORDS, *filter(ascii_or_repairable, drawn(500, seed=1))]
    expected = open_clip.SimpleTokenizer(context_length=length)(texts)
    for text, ids, mine in zip(
        texts, expected.tolist(), tokenizer(texts, truncation=True, max_length=length).input_ids, strict=True
    ):
        assert mine == ids[: ids.index(49407) + 1], repr(text)
    assert tokenizer.decode(tokenizer("red shoes").input_ids, skip_special_tokens=True).split() == ["red", "shoes"]


@pytest.mark.parametrize("family", ["siglip-B", "siglip2-B"])
def test_siglip_ids_and_open_clip_on_the_same_files(small, exported, family):
    folder, _ = exported(family)
    run, tokenizer = small(family), AutoTokenizer.from_pretrained(folder)
    texts = [*WORDS, *filter(ascii_or_repairable, drawn(300, seed=2))]
    expected = HFTokenizer(str(run.folder), context_length=64, clean="canonicalize")(texts)
    mine = tokenizer(texts, padding="max_length", truncation=True, max_length=64, return_tensors="pt").input_ids
    for text, ids, own in zip(texts, expected.tolist(), mine.tolist(), strict=True):
        assert own == ids, repr(text)
    assert (open_clip.get_tokenizer(f"local-dir:{folder}")(texts) == expected).all()  # cleaned twice, and the same


def test_tokenizers_without_a_native_form():
    with pytest.raises(ValueError, match="drops words"):
        native_tokenizer(Tokens(open_clip.SimpleTokenizer(reduction_mask="simple"), 77), "clip")
    with pytest.raises(ValueError, match="works in a mode"):
        native_tokenizer(Tokens(lambda texts, context_length: None, 77), "siglip")


def test_google_s_siglip_tokenizer_of_python_and_sentencepiece(tmp_path):
    """SiglipTokenizer has no tokenizer.json; it becomes one with the same ids."""
    import sentencepiece

    from helpers.transformers_models import TEXTS

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(tmp_path / "spiece"), vocab_size=80, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    config = {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    own = HFTokenizer(str(tmp_path), context_length=64, clean="canonicalize")
    assert type(own.tokenizer).__name__ == "SiglipTokenizer"
    native = native_tokenizer(Tokens(own, 64), "siglip")
    for text in WORDS:
        ids = native(text, padding="max_length", truncation=True, max_length=64).input_ids
        assert ids == own([text])[0].tolist(), repr(text)
