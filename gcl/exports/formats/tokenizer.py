"""A run's tokenizer outside of open_clip: as a tokenizer.json that does everything by itself, or described for ONNX.

open_clip cleans a text in Python before it is tokenised: ftfy repairs it, html.unescape decodes entities, and a
function of its own ("lower", "whitespace" or "canonicalize") ends the work. A tokenizer.json of transformers is loaded
without any of that, so the cleaning has to travel inside it, as normalizers. All of it can be expressed but the repair
of wrongly decoded text (mojibake), rare named HTML entities and terminal escapes, which `BEYOND` tells the user.
"""

from __future__ import annotations

import json
import shutil
import string
import tempfile
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import ftfy
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, get_clean_fn
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import (  # type: ignore[attr-defined]  # T5TokenizerFast: a class in transformers 4, an alias in 5
    PreTrainedTokenizerFast,
    T5TokenizerFast,
)

from gcl.exports.folder import write_json
from gcl.model.tokens import Clean, Tokens

Reader = Literal["siglip", "clip", "metaclip_2", "text"]  # who reads the ids: a class, or a text encoder alone

BEYOND = (
    "The tokenizer cleans texts as open_clip does, but for the repair of wrongly decoded text (such as â€œ), HTML "
    "entities beyond &amp; &lt; &gt; &quot; &apos; &nbsp; and &#39;, and terminal escapes: repair those beforehand."
)
_ODD_MODE = "The tokenizer ({}) works in a mode that a tokenizer.json cannot express."
_CLEANINGS = {name: get_clean_fn(name) for name in ("lower", "whitespace", "canonicalize")}
_CLIP_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_TRIALS = (
    "red running shoes", "Red “Running” SHOES, size 42!", "", "ΟΔΟΣ naïve ﬁsh & chips 3/4", "红色 运动鞋，新款！",
    "don't_stop 😀", "a " * 200,
)  # fmt: skip
_ENTITIES = {
    "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&#39;": "'", "&#039;": "'", "&#34;": '"', "&#38;": "&",
    "&nbsp;": " ", "&#160;": " ",
}  # fmt: skip
_DIFFER_BY_CONTEXT = ("Lo", "So", "Cn", "Co", "Cs")  # categories in which only characters with an NFKC form matter


def native_tokenizer(tokens: Tokens, reader: Reader) -> PreTrainedTokenizerFast:
    """Called with a text it gives the ids of `tokens`; a processor around it cuts and pads by itself.

    Raises ValueError for a tokenizer that has no such form, or whose form gives other ids.
    """
    own, length = tokens.tokenizer, tokens.context_length
    if isinstance(own, SimpleTokenizer):
        backend = _of_clip(own)
        special = {"bos_token": "<start_of_text>", "eos_token": "<end_of_text>", "pad_token": "<end_of_text>"}
    elif isinstance(own, HFTokenizer):
        backend, special = _of_hugging_face(own), _special_tokens(own.tokenizer)
    else:
        raise ValueError(_ODD_MODE.format(type(own).__name__))
    # A processor takes its defaults from these keys of tokenizer_config.json. A SigLIP tower reads padding, so it must
    # be there; and it has no attention mask.
    padding = {"padding": "max_length" if reader == "siglip" else "longest", "truncation": True, "max_length": length}
    names = ["input_ids"] if reader == "siglip" else ["input_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=length, padding_side="right", truncation_side="right",
        clean_up_tokenization_spaces=False, model_input_names=names, **special, **padding,
    )  # fmt: skip
    for text in _TRIALS:
        ours = tokens([text])[0].tolist()
        theirs = tokenizer(text, padding="max_length", truncation=True, max_length=length).input_ids
        if _read(ours, reader, tokenizer) != _read(theirs, reader, tokenizer):
            raise ValueError(f"The native tokenizer gives other ids than the run's for {text!r}.")
    return tokenizer


def _read(ids: list[int], reader: Reader, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids that the tower reads: all, or (causal) up to the end token; behind it open_clip pads CLIP's with 0."""
    return ids if reader in ("siglip", "text") else ids[: ids.index(tokenizer.eos_token_id) + 1]


def _of_clip(own: SimpleTokenizer) -> Tokenizer:
    if own.reduction_fn is not None or len(own.all_special_ids) != 2:
        raise ValueError(
            "The tokenizer drops words at random or has tokens of its own: a tokenizer.json cannot express that."
        )
    merges = sorted(own.bpe_ranks, key=own.bpe_ranks.get)
    tokenizer = Tokenizer(
        BPE(own.encoder, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False)
    )
    tokenizer.normalizer = normalizers.Sequence(cleaning(cleaning_of(own)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    start, end = "<start_of_text>", "<end_of_text>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", pair=f"{start} $A {end} $B {end}",
        special_tokens=[(start, own.sot_token_id), (end, own.eot_token_id)],
    )  # fmt: skip
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Replace("</w>", " "), decoders.Strip(" ", 0, 1)]
    )
    return tokenizer


def _of_hugging_face(own: HFTokenizer) -> Tokenizer:
    if own.tokenizer_mode or own.strip_sep_token:
        raise ValueError(_ODD_MODE.format(type(own).__name__))
    backend = getattr(own.tokenizer, "backend_tokenizer", None) or _of_sentencepiece(own.tokenizer)
    if backend is None:
        raise ValueError("The tokenizer has no tokenizer.json: it consists of Python code alone.")
    if own.tokenizer.padding_side != "right":
        raise ValueError("The tokenizer pads on the left.")
    content = json.loads(backend.to_str())
    content["truncation"] = content["padding"] = None
    tokenizer = Tokenizer.from_str(json.dumps(content))
    steps = cleaning(cleaning_of(own))
    if tokenizer.normalizer is not None and not _cleaned_before(content["normalizer"], steps):
        steps = [*steps, tokenizer.normalizer]
    elif tokenizer.normalizer is not None:
        return tokenizer  # of an earlier export: it cleans already
    tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


def _of_sentencepiece(tokenizer: Any) -> Tokenizer | None:
    """Of SiglipTokenizer, which is Python around a sentencepiece model of T5's kind; None for others."""
    model = Path(getattr(tokenizer, "vocab_file", None) or "")
    if not model.is_file() or model.suffix != ".model":
        return None
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(model, Path(folder) / "spiece.model")
        names = {key: str(getattr(tokenizer, key)) for key in ("eos_token", "unk_token", "pad_token")}
        return T5TokenizerFast.from_pretrained(folder, extra_ids=0, **names).backend_tokenizer


def _cleaned_before(normalizer: dict[str, Any], steps: list[normalizers.Normalizer]) -> bool:
    ours = [json.loads(step.__getstate__()) for step in steps]
    return normalizer.get("type") == "Sequence" and normalizer["normalizers"][: len(ours)] == ours


def _special_tokens(tokenizer: Any) -> dict[str, str]:
    names = ("bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token")
    return {name: str(value) for name in names if (value := getattr(tokenizer, name, None))}


def cleaning_of(tokenizer: SimpleTokenizer | HFTokenizer) -> str:
    """open_clip's name for the cleaning of a tokenizer: "lower", "whitespace" or "canonicalize"."""
    function = tokenizer.clean_fn
    function = function.clean if isinstance(function, Clean) else function
    for name, known in _CLEANINGS.items():
        if known is function:
            return name
    raise ValueError(f"The tokenizer cleans its texts with {function}; only {', '.join(_CLEANINGS)} can be exported.")


def cleaning(kind: str) -> list[normalizers.Normalizer]:
    """open_clip's cleaning of this name as normalizers. Cleaning twice changes nothing."""
    steps: list[normalizers.Normalizer] = [
        *(normalizers.Replace("&amp;", "&") for _ in range(2)),  # open_clip unescapes twice
        *(normalizers.Replace(entity, text) for entity, text in _ENTITIES.items()),
        normalizers.Replace("\x00", ""),  # a compiled table cannot hold it
        normalizers.Precompiled(_character_map()),
        normalizers.NFC(),
    ]
    if kind == "canonicalize":
        punctuation = "".join(f"\\{mark}" for mark in string.punctuation if mark != "_")
        steps += [normalizers.Replace("_", " "), normalizers.Replace(Regex(f"[{punctuation}]+"), "")]
    if kind in ("canonicalize", "lower"):
        cased = r"[\p{Lu}\p{Ll}\p{Lt}]"
        final_sigma = Regex(f"(?<={cased})Σ(?!{cased})")  # Python lowers it to ς, the tokenizers' Lowercase does not
        steps += [normalizers.Replace(final_sigma, "ς"), normalizers.Lowercase()]
    elif kind != "whitespace":
        raise ValueError(f"A cleaning of open_clip is lower, whitespace or canonicalize, not {kind!r}.")
    return [*steps, normalizers.Replace(Regex(r"[\s\x1c-\x1f\x85]+"), " "), normalizers.Strip()]


def spell_out(folder: Path) -> None:
    """Replaces the compiled table in the cleaning of folder/tokenizer.json by a step for each of its characters.

    For readers that do not obey such a table (transformers.js takes NFKC for all of them). The ids stay the same.
    """
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    steps = content["normalizer"]["normalizers"]
    compiled = json.loads(normalizers.Precompiled(_character_map()).__getstate__())
    if compiled not in steps:
        return
    place = steps.index(compiled)
    sources: dict[str, list[str]] = {}
    for source, target in _replacements().items():
        sources.setdefault(target, []).append(source)
    steps[place : place + 1] = [
        {"type": "Replace", "pattern": {"Regex": f"[{''.join(characters)}]"}, "content": target}
        for target, characters in sources.items()
    ]
    write_json(path, content)


@lru_cache
def _character_map() -> bytes:
    """ftfy's replacements of single characters (quotes, ligatures, full width letters), compiled.

    Why a sentencepiece model is trained for that: there are about 330 replacements. As `Replace` steps, each of which
    scans the text, they would fill every tokenizer.json and take 25 times as long (0.05 ms instead of 0.002 ms for a
    title). The one normalizer that maps many characters in one pass is `Precompiled`, the table of sentencepiece's own
    normalisation: a double-array trie in a format that only sentencepiece's trainer writes. So a model of a few
    characters is trained with these replacements as its rules, and nothing but its table is kept: half a second, once
    per process.
    """
    from sentencepiece import (
        SentencePieceTrainer,
        sentencepiece_model_pb2,  # generated by protobuf, which declares no types
    )

    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.tsv"
        rules.write_text(
            "".join(f"{_points(source)}\t{_points(target)}\n" for source, target in _replacements().items())
        )
        SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c d"]), model_prefix=f"{folder}/m", vocab_size=8, model_type="char",
            hard_vocab_limit=False, normalization_rule_tsv=str(rules), minloglevel=2,
        )  # fmt: skip
        proto = getattr(sentencepiece_model_pb2, "ModelProto")  # noqa: B009
        return proto.FromString((Path(folder) / "m.model").read_bytes()).normalizer_spec.precompiled_charsmap


def _replacements() -> dict[str, str]:
    """{character: its replacement by ftfy}, of characters that it replaces wherever they appear."""
    replacements = {}
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
            replacements[character] = fixed[1:-1]
    return replacements


def _points(text: str) -> str:
    return " ".join(f"{ord(character):X}" for character in text)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """A Hugging Face tokenizer's files, without the path of this machine that it was loaded from."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    for key in ("name_or_path", "local_files_only", "is_local", "cache_dir"):
        config.pop(key, None)
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"  # its name in transformers 4, which 5 reads as well
    write_json(path, config)


def write_tokenizer(tokens: Tokens, folder: Path) -> dict[str, Any]:
    """Writes what the tokenizer needs into `folder` (nothing for CLIP's, which open_clip brings); -> its description.

    Raises ValueError for a tokenizer that plain values cannot describe.
    """
    own, length = tokens.tokenizer, tokens.context_length
    if isinstance(own, HFTokenizer):
        if own.tokenizer_mode:
            raise ValueError(f"The tokenizer's mode {own.tokenizer_mode!r} is open_clip's own and cannot be exported.")
        folder.mkdir(parents=True, exist_ok=True)
        save_tokenizer(own.tokenizer, folder)
        about = {"kind": "huggingface", "clean": cleaning_of(own), "strip_sep_token": own.strip_sep_token}
        return {**about, "context_length": length}
    plain = isinstance(own, SimpleTokenizer) and type(own) is SimpleTokenizer and own.reduction_fn is None
    if isinstance(own, SimpleTokenizer) and plain and len(own.all_special_ids) == 2:
        return {"kind": "clip-bpe", "clean": cleaning_of(own), "context_length": length}
    raise ValueError(f"{type(own).__name__} is a tokenizer that only open_clip can build: use formats=[open_clip].")


def read_tokenizer(about: dict[str, Any], folder: Path) -> Tokens:
    """The tokenizer that `write_tokenizer` described. No code of the folder is run."""
    clean, length = about["clean"], int(about["context_length"])
    if clean not in _CLEANINGS:
        raise ValueError(f"The tokenizer's cleaning is one of {', '.join(_CLEANINGS)}; the folder says {clean!r}.")
    if about["kind"] == "clip-bpe":
        return Tokens(SimpleTokenizer(context_length=length, clean=clean), length)
    if about["kind"] != "huggingface":
        raise ValueError(f"A tokenizer is huggingface or clip-bpe; the folder says {about['kind']!r}.")
    strip = bool(about["strip_sep_token"])
    return Tokens(HFTokenizer(str(folder), context_length=length, clean=clean, strip_sep_token=strip), length)
