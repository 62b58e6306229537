"""What open_clip does to a text before it is tokenised, as normalizers that travel inside a tokenizer.json.

open_clip runs ftfy, html.unescape and a cleaning of its own in Python; a native tokenizer must do it by itself. All of
it is expressed but the repair of wrongly decoded text (mojibake), rare named HTML entities and terminal escapes.
"""

from __future__ import annotations

import string
import tempfile
import unicodedata
from functools import lru_cache
from pathlib import Path

import ftfy
from tokenizers import Regex, normalizers

BEYOND = (
    "The tokenizer cleans texts as open_clip does, but for the repair of wrongly decoded text (such as â€œ), HTML "
    "entities beyond &amp; &lt; &gt; &quot; &apos; &nbsp; and &#39;, and terminal escapes: repair those beforehand."
)
_ENTITIES = {
    "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&#39;": "'", "&#039;": "'", "&#34;": '"', "&#38;": "&",
    "&nbsp;": " ", "&#160;": " ",
}  # fmt: skip
_DIFFER_BY_CONTEXT = ("Lo", "So", "Cn", "Co", "Cs")  # categories in which only characters with an NFKC form matter


def cleaning(kind: str) -> list[normalizers.Normalizer]:
    """kind: open_clip's word for it: "lower", "whitespace" or "canonicalize". Doing it twice changes nothing."""
    steps = [
        *(normalizers.Replace("&amp;", "&") for _ in range(2)),  # open_clip unescapes twice
        *(normalizers.Replace(entity, text) for entity, text in _ENTITIES.items()),
        normalizers.Replace("\x00", ""),  # a compiled table cannot hold it
        normalizers.Precompiled(_characters()),
        normalizers.NFC(),
    ]
    if kind == "canonicalize":
        punctuation = "".join(f"\\{mark}" for mark in string.punctuation if mark != "_")
        steps += [normalizers.Replace("_", " "), normalizers.Replace(Regex(f"[{punctuation}]+"), "")]
    if kind in ("canonicalize", "lower"):
        cased = r"[\p{Lu}\p{Ll}\p{Lt}]"
        final_sigma = Regex(f"(?<={cased})Σ(?!{cased})")  # Python lowers it so, the tokenizers' Lowercase does not
        steps += [normalizers.Replace(final_sigma, "ς"), normalizers.Lowercase()]
    elif kind != "whitespace":
        raise ValueError(f"A cleaning of open_clip is lower, whitespace or canonicalize, not {kind!r}.")
    return [*steps, normalizers.Replace(Regex(r"[\s\x1c-\x1f\x85]+"), " "), normalizers.Strip()]


@lru_cache
def _characters() -> bytes:
    """ftfy's replacements of single characters (quotes, ligatures, full width), compiled as sentencepiece does."""
    from sentencepiece import SentencePieceTrainer, sentencepiece_model_pb2

    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.tsv"
        rules.write_text(
            "".join(f"{_points(source)}\t{_points(target)}\n" for source, target in _replacements().items())
        )
        SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c d"]), model_prefix=f"{folder}/m", vocab_size=8, model_type="char",
            hard_vocab_limit=False, normalization_rule_tsv=str(rules), minloglevel=2,
        )  # fmt: skip
        model = sentencepiece_model_pb2.ModelProto.FromString((Path(folder) / "m.model").read_bytes())
    return model.normalizer_spec.precompiled_charsmap


def _replacements() -> dict[str, str]:
    found = {}
    for code in range(1, 0x20000):
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cs" or (
            category in _DIFFER_BY_CONTEXT and unicodedata.normalize("NFKC", character) == character
        ):
            continue
        plain = unicodedata.normalize("NFC", character)
        fixed = ftfy.fix_text(f"a{character}a")
        if fixed != f"a{plain}a" and fixed[:1] == fixed[-1:] == "a":
            found[character] = fixed[1:-1]
    return found


def _points(text: str) -> str:
    return " ".join(f"{ord(character):X}" for character in text)
