"""Folders come from anywhere: they are read as data, never as code, and nothing outside of them is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from gcl.data.images import GIT_LFS

_TOKENIZER_SETTINGS = {"clean", "strip_sep_token", "language"}
_FILE_KEYS = "tokenizer_file vocab_file merges_file spm_file sp_model fast_tokenizer_files gguf_file".split()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a folder. Raises ValueError naming the file if it is not one."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, but a config must be an object.")
    return content


def check_files(folder: Path) -> None:
    """Raises ValueError if a file is a link that leaves the folder (a Hub cache's own links into its blobs may), or
    Git's pointer to a file that was never fetched."""
    root = folder.resolve()
    for path in folder.iterdir():
        target = path.resolve()
        if path.is_symlink() and root not in target.parents and target.parent.name != "blobs":
            raise ValueError(f"{path} links to {target}, which is outside the folder and is not followed.")
        if path.suffix in (".json", ".safetensors") and path.is_file():
            with path.open("rb") as file:
                if file.read(len(GIT_LFS)) == GIT_LFS:
                    raise ValueError(f"{path} is a Git LFS pointer, not the file itself: run git lfs pull in {folder}.")


def check_model_cfg(source: str, model_cfg: Any) -> dict[str, Any]:
    """Returns it. Raises ValueError for one that asks for code or for other places, or is not a model's config."""
    if not isinstance(model_cfg, dict) or not all(
        isinstance(model_cfg.get(key), dict) for key in ("vision_cfg", "text_cfg")
    ):
        raise ValueError(f"{source}: its open_clip_config.json has no model_cfg with vision_cfg and text_cfg.")
    text_cfg, vision_cfg = model_cfg["text_cfg"], model_cfg["vision_cfg"]
    settings = text_cfg.get("tokenizer_kwargs") or {}
    if unknown := sorted(set(settings) - _TOKENIZER_SETTINGS):
        raise ValueError(
            f"{source}: tokenizer_kwargs of its open_clip_config.json sets {unknown[0]!r}, which can make a tokenizer "
            f"run code or read other files; only {', '.join(sorted(_TOKENIZER_SETTINGS))} are allowed."
        )
    name = vision_cfg.get("timm_model_name")
    if name is not None and not (isinstance(name, str) and timm.is_model(name)):
        raise ValueError(f"{source}: timm has no architecture {name!r}, which its open_clip_config.json names.")
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if text_cfg.get(key) is not None and not isinstance(text_cfg[key], str):
            raise ValueError(f"{source}: {key} of its open_clip_config.json is not a name: {text_cfg[key]!r}.")
    return model_cfg


def check_repository(source: str, name: str) -> None:
    """Raises ValueError for a path instead of owner/name on the Hub, where the folder lacks the files itself."""
    parts = name.split("/")
    if len(parts) > 2 or any(part in ("", ".", "..", "~") or part.startswith(".") for part in parts):
        raise ValueError(
            f"{source} wants files from {name!r}, outside of the folder: put the config.json of its text tower there."
        )


def check_tokenizer(folder: Path) -> None:
    """Raises ValueError if the tokenizer's config names code or files elsewhere."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    config = read_json(path)
    code = config.get("auto_map")
    if isinstance(code, list | tuple | str) or (isinstance(code, dict) and "AutoTokenizer" in code):
        raise ValueError(f"{path} names custom tokenizer code (auto_map), which is never run.")
    if config.get("trust_remote_code"):
        raise ValueError(f"{path} sets trust_remote_code, but code in a folder is never run.")
    for key in _FILE_KEYS:
        given = config.get(key)
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, str) and Path(value).name != value:
                raise ValueError(f"{path}: {key} is {value!r}, a path that leaves the folder.")


def check_no_code(path: Path, config: Mapping[str, Any]) -> None:
    """Raises ValueError if a model's config.json names code of its own."""
    for key in ("auto_map", "trust_remote_code", "custom_pipelines"):
        if config.get(key):
            raise ValueError(f"{path} names custom code ({key}), which is never run: use the model's open_clip folder.")
    for part in ("text_config", "vision_config"):
        if isinstance(config.get(part), dict):
            check_no_code(path, config[part])
