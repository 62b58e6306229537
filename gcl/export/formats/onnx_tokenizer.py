"""A tokenizer as files and a few plain values, and back: what a format without open_clip's own folder keeps of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from open_clip import tokenizer as open_clip_tokenizer
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from gcl.export.formats.open_clip import save_tokenizer
from gcl.model.tokens import Clean, Tokens

_CLEAN = {name: open_clip_tokenizer.get_clean_fn(name) for name in ("lower", "whitespace", "canonicalize")}


def write_tokenizer(tokens: Tokens, folder: Path) -> dict[str, Any]:
    """Writes what the tokenizer needs into `folder` (nothing for CLIP's, which open_clip brings); -> its description.

    Raises ValueError for a tokenizer that plain values cannot describe.
    """
    own = tokens.tokenizer
    about = {"context_length": tokens.context_length}
    if isinstance(own, HFTokenizer):
        if own.tokenizer_mode:
            raise ValueError(f"The tokenizer's mode {own.tokenizer_mode!r} is open_clip's own; only plain ones travel.")
        folder.mkdir(parents=True, exist_ok=True)
        save_tokenizer(own.tokenizer, folder)
        return {"kind": "huggingface", "clean": _clean_name(own), "strip_sep_token": own.strip_sep_token, **about}
    if type(own) is SimpleTokenizer and own.reduction_fn is None and len(own.all_special_ids) == 2:
        return {"kind": "clip-bpe", "clean": _clean_name(own), **about}
    raise ValueError(f"{type(own).__name__} is a tokenizer that only open_clip can build: use formats=[open_clip].")


def read_tokenizer(about: dict[str, Any], folder: Path) -> Tokens:
    """What `write_tokenizer` described. No code of the folder is run."""
    clean, length = about["clean"], int(about["context_length"])
    if clean not in _CLEAN:
        raise ValueError(f"The tokenizer's cleaning is one of {', '.join(_CLEAN)}; the folder says {clean!r}.")
    if about["kind"] == "clip-bpe":
        return Tokens(SimpleTokenizer(context_length=length, clean=clean), length)
    if about["kind"] != "huggingface":
        raise ValueError(f"A tokenizer is huggingface or clip-bpe; the folder says {about['kind']!r}.")
    strip = bool(about["strip_sep_token"])
    return Tokens(HFTokenizer(str(folder), context_length=length, clean=clean, strip_sep_token=strip), length)


def _clean_name(tokenizer: Any) -> str:
    function = tokenizer.clean_fn
    function = function.clean if isinstance(function, Clean) else function
    found = next((name for name, known in _CLEAN.items() if known is function), None)
    if found is None:
        raise ValueError(f"The tokenizer cleans its texts with {function}, which is none of {', '.join(_CLEAN)}.")
    return found
