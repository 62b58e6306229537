"""A model's tokenizer with its context length bound: what a reader process needs of the text tower.

The ids are open_clip's, always. Two detours of open_clip are left out: repairing the encoding of texts that are plain
ASCII (half of CLIP's time), and padding with Python lists (most of a Hugging Face tokenizer's).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from open_clip import tokenizer as open_clip_tokenizer
from open_clip.tokenizer import HFTokenizer
from torch import Tensor


def _in_lines(text: str) -> str:
    return " ".join(text.split())


_OF_PLAIN_TEXT: dict[Callable[[str], str], Callable[[str], str]] = {
    open_clip_tokenizer._clean_lower: lambda text: _in_lines(text).lower(),
    open_clip_tokenizer._clean_whitespace: _in_lines,
    open_clip_tokenizer._clean_canonicalize: lambda text: open_clip_tokenizer.canonicalize_text(text.strip()),
}


@dataclass(frozen=True)
class Clean:
    """open_clip's cleaning of a text; printable ASCII without "&" has nothing for ftfy and html to mend."""

    clean: Callable[[str], str]

    def __call__(self, text: str) -> str:
        if text.isascii() and text.isprintable() and "&" not in text:
            return _OF_PLAIN_TEXT[self.clean](text)
        return self.clean(text)


@dataclass
class Tokens:
    """texts, n of them -> token ids int64 [n, context_length].

    tokenizer: open_clip's of the model, its cleaning included.
    """

    tokenizer: Callable[..., Tensor]
    context_length: int

    def __post_init__(self) -> None:
        if getattr(self.tokenizer, "clean_fn", None) in _OF_PLAIN_TEXT:
            self.tokenizer.clean_fn = Clean(self.tokenizer.clean_fn)

    def __call__(self, texts: list[str]) -> Tensor:
        own = self.tokenizer
        plain = isinstance(own, HFTokenizer) and not own.tokenizer_mode and not own.strip_sep_token
        if plain and own.tokenizer.padding_side == "right":
            return self._padded([own.clean_fn(text) for text in texts], own.tokenizer)
        return own(list(texts), context_length=self.context_length)

    def _padded(self, texts: list[str], tokenizer: Callable) -> Tensor:
        rows = tokenizer(texts, max_length=self.context_length, truncation=True).input_ids if texts else []
        out = np.full((len(rows), self.context_length), tokenizer.pad_token_id, dtype=np.int64)
        for place, ids in zip(out, rows, strict=True):
            place[: len(ids)] = ids
        return torch.from_numpy(out)
