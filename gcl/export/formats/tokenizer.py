"""A run's tokenizer as a tokenizer.json of transformers that cleans, cuts and ends texts by itself."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, get_clean_fn
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, T5TokenizerFast

from gcl.export.formats.tokenizer_cleaning import cleaning
from gcl.model.tokens import Clean, Tokens

Reader = Literal["siglip", "clip", "text"]  # whose texts: the two classes', or a text encoder's alone

_CLIP_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
_TRIALS = (
    "red running shoes", "Red “Running” SHOES, size 42!", "", "ΟΔΟΣ naïve ﬁsh & chips 3/4", "红色 运动鞋，新款！",
    "don't_stop 😀", "a " * 200,
)  # fmt: skip


def native_tokenizer(tokens: Tokens, kind: Reader) -> PreTrainedTokenizerFast:
    """Called with a text it gives the ids of `tokens`; a processor around it cuts and pads by itself.

    Raises ValueError for a tokenizer that has no such form, or whose form gives other ids.
    """
    own, length = tokens.tokenizer, tokens.context_length
    backend = _of_clip(own) if isinstance(own, SimpleTokenizer) else _of_hugging_face(own)
    special = (
        {"bos_token": "<start_of_text>", "eos_token": "<end_of_text>", "pad_token": "<end_of_text>"}
        if isinstance(own, SimpleTokenizer)
        else _special_tokens(own.tokenizer)
    )
    # A processor takes its defaults from these words of tokenizer_config.json. A SigLIP tower reads padding, so it must
    # be there; and it has no attention mask.
    padding = {"padding": "max_length" if kind == "siglip" else "longest", "truncation": True, "max_length": length}
    names = ["input_ids"] if kind == "siglip" else ["input_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=length, padding_side="right", truncation_side="right",
        clean_up_tokenization_spaces=False, model_input_names=names, **special, **padding,
    )  # fmt: skip
    for text in _TRIALS:
        ours = tokens([text])[0].tolist()
        theirs = tokenizer(text, padding="max_length", truncation=True, max_length=length).input_ids
        if _read(ours, kind, tokenizer) != _read(theirs, kind, tokenizer):
            raise ValueError(f"The native tokenizer gives other ids than the run's for {text!r}.")
    return tokenizer


def _read(ids: list[int], kind: Reader, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """What the tower reads: everything, or (CLIP, causal) up to the end token; behind it open_clip pads with 0."""
    return ids if kind != "clip" else ids[: ids.index(tokenizer.eos_token_id) + 1]


def _of_clip(own: SimpleTokenizer) -> Tokenizer:
    if own.reduction_fn is not None or len(own.all_special_ids) != 2:
        raise ValueError("The tokenizer drops words at random or has tokens of its own, which no tokenizer.json says.")
    merges = sorted(own.bpe_ranks, key=own.bpe_ranks.get)
    tokenizer = Tokenizer(
        BPE(own.encoder, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False)
    )
    tokenizer.normalizer = normalizers.Sequence(cleaning(_clean_name(own.clean_fn)))
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


def _of_hugging_face(own: Any) -> Tokenizer:
    if not isinstance(own, HFTokenizer) or own.tokenizer_mode or own.strip_sep_token:
        raise ValueError(f"The tokenizer ({type(own).__name__}) works in a mode that no tokenizer.json says.")
    backend = getattr(own.tokenizer, "backend_tokenizer", None) or _of_sentencepiece(own.tokenizer)
    if backend is None:
        raise ValueError("The tokenizer has no tokenizer.json: it is one of Python code alone.")
    if own.tokenizer.padding_side != "right":
        raise ValueError("The tokenizer pads on the left.")
    content = json.loads(backend.to_str())
    content["truncation"] = content["padding"] = None
    tokenizer = Tokenizer.from_str(json.dumps(content))
    steps = cleaning(_clean_name(own.clean_fn))
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


def _clean_name(function: Callable[[str], str]) -> str:
    function = function.clean if isinstance(function, Clean) else function
    return next(name for name in ("lower", "whitespace", "canonicalize") if get_clean_fn(name) is function)
