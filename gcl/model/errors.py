"""What open_clip, transformers and the hub's client throw, in a sentence; and what they print, not at all."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from open_clip.factory import LOCAL_DIR_PREFIX
from safetensors import SafetensorError

HF_TEXT_PREFIX = "hf-text:"


@contextmanager
def in_a_sentence(name: str, pretrained: str | None) -> Iterator[None]:
    """What open_clip and torch throw at a file that is no checkpoint, or not this model's."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{pretrained or name}: its checkpoint is a pickle with more than tensors in it, which can run code and is "
            "not read; bring safetensors."
        ) from error
    except (RuntimeError, TypeError, KeyError, AssertionError, SafetensorError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"{pretrained or name} does not fit together: {' '.join(lines[:2])}") from error


@contextmanager
def reaching(name: str, repository: str | None, file: str) -> Iterator[None]:
    """Turns whatever the hub's client throws into one sentence; without a repository nothing is fetched."""
    try:
        yield
    except Exception as error:
        if repository is None or Path(repository).is_dir():
            raise
        scheme = HF_TEXT_PREFIX if name.startswith(HF_TEXT_PREFIX) else LOCAL_DIR_PREFIX
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
        why = "HF_HUB_OFFLINE is set" if offline else str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name} needs {file} of the repository {repository} on huggingface.co, which cannot be fetched ({why}): "
            f"bring the model's folder here and give model.name={scheme}/path/to/folder."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """open_clip's every log line gives a root logger without handlers one, which doubles other libraries' lines."""
    silence = logging.NullHandler()
    logging.root.addHandler(silence)
    try:
        yield
    finally:
        logging.root.removeHandler(silence)
