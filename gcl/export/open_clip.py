"""An open_clip folder: what `open_clip.create_model_and_transforms("local-dir:…")` and a hub repository hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from gcl.model.dual_encoder import DualEncoder

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"


def export_open_clip(encoder: DualEncoder, folder: Path) -> Path:
    """Writes config, weights (safetensors only) and the tokenizer's files.

    Raises ValueError for a model that open_clip has no class for (a text encoder alone).
    """
    if getattr(encoder.model, "visual", None) is None:
        raise ValueError(
            f"{encoder.origin.name} has no image tower, and open_clip has no class for a text encoder alone."
        )
    folder.mkdir(parents=True, exist_ok=True)
    model_cfg = dict(encoder.origin.model_cfg)
    tokenizer = getattr(encoder.origin.tokenizer, "tokenizer", None)
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)
    transformer = getattr(getattr(encoder.model, "text", None), "transformer", None)
    if model_cfg["text_cfg"].get("hf_model_name") and hasattr(transformer, "config"):
        # open_clip builds the text tower from a transformers config: the folder brings its own.
        transformer.config.save_pretrained(folder)
        model_cfg["text_cfg"] = {
            **model_cfg["text_cfg"],
            "hf_model_name": str(folder.resolve()),
            "hf_tokenizer_name": str(folder.resolve()),
            "hf_model_pretrained": False,
        }
    model_cfg |= _temperature(encoder)
    _write(folder / CONFIG, {"model_cfg": model_cfg, "preprocess_cfg": _preprocess(encoder)})
    save_file(
        {k: v.detach().cpu().contiguous().clone() for k, v in encoder.model.state_dict().items()}, folder / WEIGHTS
    )
    return folder


def _temperature(encoder: DualEncoder) -> dict[str, float]:
    """The initial values that open_clip builds with; without a bias here a saved one would not be loaded."""
    log_scale, bias = encoder.scale_bias
    return {"init_logit_scale": log_scale} | ({} if bias is None else {"init_logit_bias": bias})


def _preprocess(encoder: DualEncoder) -> dict[str, Any]:
    cfg = dict(encoder.origin.preprocess_cfg)
    return {
        key: cfg[key]
        for key in ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
        if key in cfg
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
