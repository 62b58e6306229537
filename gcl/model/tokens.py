"""A model's tokenizer with its context length bound: what a reader process needs of the text tower.

The ids are open_clip's, always. Two detours of open_clip are left out: repairing the encoding of texts that are plain
ASCII (half of CLIP's time), and padding with Python lists (most of a Hugging Face tokenizer's).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from open_clip import tokenizer as open_clip_tokenizer
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def _in_lines(text: str) -> str:
    return " ".join(text.split())


_OF_PLAIN_TEXT: dict[Callable[[str], str], Callable[[str], str]] = {
    open_clip_tokenizer._clean_lower: lambda text: _in_lines(text).lower(),
    open_clip_tokenizer._clean_whitespace: _in_lines,
    open_clip_tokenizer._clean_canonicalize: lambda text: open_clip_tokenizer.canonicalize_text(text.strip()),
}


@dataclass(frozen=True)
class Clean:
    """open_clip's cleaning of a text; printable ASCII without "&" has nothing for ftfy and html to fix."""

    clean: Callable[[str], str]
    special: tuple[str, ...] = ()
    """Tokens that a text may spell and not mean: a space after their first sign makes them words."""

    def __call__(self, text: str) -> str:
        if text.isascii() and text.isprintable() and "&" not in text:
            text = _OF_PLAIN_TEXT[self.clean](text)
        else:
            text = self.clean(text)
        for token in self.special:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text


class Tokenizer(Protocol):
    """A tokenizer of open_clip: SimpleTokenizer, HFTokenizer, SigLipTokenizer."""

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor: ...  # int64 [n, L]


@dataclass
class Tokens:
    """texts, n of them -> token ids int64 [n, context_length].

    tokenizer: open_clip's of the model, its cleaning included.
    """

    tokenizer: Tokenizer
    context_length: int

    def __post_init__(self) -> None:
        clean = getattr(self.tokenizer, "clean_fn", None)
        if clean in _OF_PLAIN_TEXT:
            plain = isinstance(self.tokenizer, SimpleTokenizer)
            special = ("<start_of_text>", "<end_of_text>") if plain else ()
            vars(self.tokenizer)["clean_fn"] = Clean(clean, special)

    def __call__(self, texts: list[str]) -> Tensor:
        own = self.tokenizer
        if (
            isinstance(own, HFTokenizer)
            and not own.tokenizer_mode
            and not own.strip_sep_token
            and own.tokenizer.padding_side == "right"
        ):
            return self._padded([own.clean_fn(text) for text in texts], own.tokenizer)
        return own(list(texts), context_length=self.context_length)

    def _padded(self, texts: list[str], tokenizer: PreTrainedTokenizerBase) -> Tensor:
        # What spells a special token ("[SEP]", "</s>") in a text is text.
        settings: dict[str, Any] = {"split_special_tokens": True} if tokenizer.is_fast else {}
        rows = tokenizer(texts, max_length=self.context_length, truncation=True, **settings).input_ids if texts else []
        out = np.full((len(rows), self.context_length), tokenizer.pad_token_id, dtype=np.int64)
        for place, ids in zip(out, rows, strict=True):
            place[: len(ids)] = ids
        return torch.from_numpy(out)


def count_tokens(tokens: Tokens, texts: list[str]) -> list[int]:
    """How many tokens each text has, its start and end marks included, up to the context length of `tokens`."""
    padding = int(tokens(["a"])[0, -1])
    counts: list[int] = []
    for start in range(0, len(texts), 1024):
        used = tokens(texts[start : start + 1024]) != padding
        counts += (used.shape[1] - used.flip(1).int().argmax(1)).tolist()
    return counts
