"""From a name to a DualEncoder: open_clip's architectures, hub repositories, folders, and our own two."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import open_clip
from open_clip.pretrained import download_pretrained, download_pretrained_from_hf, get_pretrained_cfg
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg
from safetensors import SafetensorError
from torch import nn

from gcl.model import lite
from gcl.model.dual_encoder import DualEncoder, Origin
from gcl.model.heads import replace_head
from gcl.model.preprocess import Preprocess
from gcl.model.reach import (
    CONFIG,
    HF_HUB_PREFIX,
    HF_TEXT_PREFIX,
    LOCAL_DIR_PREFIX,
    OWN_CONFIGS,
    check_architecture,
    check_weights,
    reaching,
)
from gcl.model.settings import DEFAULTS, OWN_RESIZE, Head, LoadOptions
from gcl.model.text_only import TextOnly
from gcl.model.tokens import Tokens
from gcl.model.towers import OpenClipModel, embedding_width, tower
from gcl.model.transformers.folder import hugging_face_tokenizer, read_native
from gcl.model.trusted import check_files, check_model_cfg, check_no_code, check_repository, check_tokenizer, read_json
from gcl.schema import Modality, Schema

open_clip.add_model_config(OWN_CONFIGS)


def load_model(name: str, *, schema: Schema, options: LoadOptions = DEFAULTS) -> DualEncoder:
    """Loads a model with its own preprocessing, tokenizer, temperature and bias; `name` as in `ModelConfig`.

    A folder may be open_clip's, or of transformers (SiglipModel, CLIPModel, Marqo's class). Weights are read from
    safetensors or with torch's `weights_only`: no code in a checkpoint or named by a config is ever run.

    Raises:
        ValueError: an unknown name, a file that cannot be fetched, a folder that does not fit together or asks for
            code or for files elsewhere, a schema or a setting the model cannot follow.
    """
    with _quiet():
        if name.startswith(HF_TEXT_PREFIX):
            model, origin = _text_only(name)
        elif name == lite.NAME:
            model, origin = _lite()
        else:
            model, origin = _open_clip(name, options.pretrained, options.image_size)
    _check_finite(model, name)
    if options.head is not Head.linear:
        _replace_head(model, origin, options.head)
    tokens = Tokens(origin.tokenizer, _context_length(model, origin, options.context_length))
    preprocess = _preprocess(origin.preprocess_cfg, tokens, options)
    resize = {"resize_mode": preprocess.resize.in_open_clip.value}
    origin = replace(origin, preprocess_cfg=origin.preprocess_cfg | resize)
    return DualEncoder(model, schema, preprocess, origin=origin, channels_last=options.channels_last)


def _check_finite(model: nn.Module, name: str) -> None:
    for key, value in model.named_parameters():
        if not value.isfinite().all():
            raise ValueError(
                f"{name}: {key} of its weights holds NaN or infinity, so every vector would: its training diverged, or "
                "the file is damaged. Take an earlier checkpoint, or get it again."
            )


def _replace_head(model: nn.Module, origin: Origin, kind: Head) -> None:
    """model.head: the two towers of gcl-lite have never met, so its own head is nothing to begin as."""
    own = tower(model, Modality.image)
    if own is None:
        raise ValueError(f"model.head={kind}: {origin.name} has no image tower; use model.head=linear.")
    visual = cast(OpenClipModel, model).visual
    assert visual is not None
    visual.eval()
    replace_head(
        visual, kind, trunk=own.trunk, head=own.head, width=embedding_width(model), begin=origin.name != lite.NAME
    )


def _open_clip(name: str, pretrained: str | None, image_size: int | None) -> tuple[nn.Module, Origin]:
    if ":" in name:
        check_weights(name, pretrained)
    if name.startswith(LOCAL_DIR_PREFIX):
        folder = Path(name.removeprefix(LOCAL_DIR_PREFIX))
        check_files(folder)
        if not (folder / CONFIG).is_file() and (folder / "config.json").is_file():
            return _native(name, folder, image_size)
        config = _read_folder(folder)
        model_cfg = check_model_cfg(str(folder), config.get("model_cfg"))
        if model_cfg["text_cfg"].get("hf_tokenizer_name"):
            check_tokenizer(folder)
    elif name.startswith(HF_HUB_PREFIX):
        repository = name.removeprefix(HF_HUB_PREFIX)
        with reaching(name, repository, CONFIG):
            config = read_json(Path(download_pretrained_from_hf(repository, filename=CONFIG)))
        with reaching(name, repository, "open_clip_model.safetensors"):
            download_pretrained_from_hf(repository)
        model_cfg = check_model_cfg(name, config.get("model_cfg"))
    else:
        config, model_cfg = {}, _known_architecture(name)
        _fetch_tag(name, pretrained)
    text_cfg = model_cfg["text_cfg"]
    overrides = _text_tower_of(name, text_cfg)
    with reaching(name, text_cfg.get("hf_model_name"), "config.json"), _in_a_sentence(name, pretrained):
        model = open_clip.create_model(
            name,
            pretrained,
            force_image_size=image_size,
            require_pretrained=bool(pretrained) or ":" in name,
            **overrides,
        )
    with reaching(name, text_cfg.get("hf_tokenizer_name"), "tokenizer.json"):
        if text_cfg.get("hf_tokenizer_name"):
            tokenizer = open_clip.get_tokenizer(name, trust_remote_code=False)
        else:
            tokenizer = copy(_words_of_clip(name, repr(text_cfg)))
    if image_size:
        model_cfg["vision_cfg"]["image_size"] = image_size
    preprocess_cfg = {**model.visual.preprocess_cfg, OWN_RESIZE: (config.get("preprocess_cfg") or {}).get(OWN_RESIZE)}
    return model, Origin(name, pretrained, model_cfg, preprocess_cfg, tokenizer)


@cache
def _words_of_clip(name: str, _text_cfg: str) -> Any:
    """CLIP's own tokenizer, whose list of merges takes .1 s to read; what a name means may change."""
    return open_clip.get_tokenizer(name)


def _native(name: str, folder: Path, image_size: int | None) -> tuple[nn.Module, Origin]:
    if image_size:
        raise ValueError(
            f"model.image_size={image_size}: a transformers folder is read at its own image size: export it "
            "to open_clip first, or leave image_size out."
        )
    model, model_cfg, preprocess_cfg, tokenizer = read_native(folder)
    return model, Origin(name, None, model_cfg, preprocess_cfg, tokenizer)


def _text_tower_of(name: str, text_cfg: dict[str, Any]) -> dict[str, Any]:
    """open_clip would ask the hub for the config of a Hugging Face text tower; a folder has the file itself."""
    if not name.startswith(LOCAL_DIR_PREFIX) or not text_cfg.get("hf_model_name"):
        return {}
    folder = name.removeprefix(LOCAL_DIR_PREFIX)
    if not (Path(folder) / "config.json").is_file():
        check_repository(folder, text_cfg["hf_model_name"])
        return {}
    check_no_code(Path(folder) / "config.json", read_json(Path(folder) / "config.json"))
    return {"text_cfg": {**text_cfg, "hf_model_name": folder, "hf_model_pretrained": False}}


def _lite() -> tuple[nn.Module, Origin]:
    model_cfg = _known_architecture(lite.NAME)
    model = lite.build(model_cfg)
    text_cfg = model_cfg["text_cfg"]
    tokenizer = HFTokenizer(str(lite.text_folder()), context_length=text_cfg["context_length"])
    return model, Origin(lite.NAME, None, model_cfg, dict(lite.PREPROCESS), tokenizer)


def _text_only(name: str) -> tuple[nn.Module, Origin]:
    source = name.removeprefix(HF_TEXT_PREFIX)
    if Path(source).is_dir():
        check_files(Path(source))
        if (Path(source) / "config.json").is_file():
            check_no_code(Path(source) / "config.json", read_json(Path(source) / "config.json"))
        check_tokenizer(Path(source))
    with reaching(name, source, "config.json"):
        model = TextOnly(source)
        tokenizer = hugging_face_tokenizer(source, context_length=model.context_length)
    return model, Origin(name, None, {"text_cfg": {"hf_model_name": source}}, {}, tokenizer)


def _read_folder(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} is not an open_clip folder: there is no {CONFIG} in it.")
    if not any(path.suffix in (".safetensors", ".bin", ".pth") for path in folder.iterdir()):
        raise ValueError(f"{folder} holds no weights; open_clip_model.safetensors belongs next to its {CONFIG}.")
    return read_json(folder / CONFIG)


def _known_architecture(name: str) -> dict[str, Any]:
    check_architecture(name)
    model_cfg = open_clip.get_model_config(name)
    assert model_cfg is not None, "its config is in open_clip's folder or in ours"
    return model_cfg


def _fetch_tag(name: str, pretrained: str | None) -> None:
    if not pretrained or Path(pretrained).is_file():
        return
    check_weights(name, pretrained, open_clip.list_pretrained_tags_by_model(name))
    source = get_pretrained_cfg(name, pretrained)
    repository, _, file = source.get("hf_hub", "").rpartition("/")
    with reaching(name, repository or source.get("url"), file or "open_clip_model.safetensors"):
        download_pretrained(source)


def _preprocess(preprocess_cfg: dict[str, Any], tokens: Tokens, options: LoadOptions) -> Preprocess:
    """From open_clip's preprocess_cfg, with what the options say otherwise."""
    cfg = {**vars(PreprocessCfg()), **preprocess_cfg}
    size = cfg["size"]
    return Preprocess(
        size=(size, size) if isinstance(size, int) else tuple(size),
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
        tokens=tokens,
        resize=options.resize or cfg.get(OWN_RESIZE) or cfg["resize_mode"],
        interpolation="bilinear" if cfg["interpolation"] == "bilinear" else "bicubic",
        fill=cfg["fill_color"],
        decode=options.decode,
        crop=options.crop,
    )


def _context_length(model: nn.Module, origin: Origin, wanted: int | None) -> int:
    longest = cast(OpenClipModel, model).context_length
    own = origin.model_cfg["text_cfg"].get("context_length") or longest
    if wanted is None or wanted == own:
        return own
    text = tower(model, Modality.text)
    if text is None or not text.ignores_padding:
        raise ValueError(
            f"model.context_length={wanted}: the text tower of {origin.name} attends to padding and must be given "
            f"{own} tokens; leave context_length out."
        )
    if not 2 < wanted <= longest:
        raise ValueError(f"model.context_length={wanted}: {origin.name} reads 3 to {longest} tokens.")
    return wanted


@contextmanager
def _in_a_sentence(name: str, pretrained: str | None) -> Iterator[None]:
    """Turns what open_clip and torch raise for a file that is not this model's checkpoint into one sentence."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{pretrained or name}: its checkpoint is a pickle that holds more than tensors; reading it can run "
            "code, so it is refused: use safetensors."
        ) from error
    except (RuntimeError, TypeError, KeyError, AssertionError, SafetensorError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"{pretrained or name} does not fit together: {' '.join(lines[:2])}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Every log line of open_clip gives a root logger without handlers one, which doubles other libraries' lines."""
    silence = logging.NullHandler()
    logging.root.addHandler(silence)
    try:
        yield
    finally:
        logging.root.removeHandler(silence)
