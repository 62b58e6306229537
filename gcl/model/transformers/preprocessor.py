"""preprocessor_config.json of transformers as open_clip's preprocess_cfg: every key that changes pixels is obeyed, or
the folder is refused.

Rescaling and normalising are one line: (pixel * factor - mean) / std. open_clip's factor is 1 / 255, so another one, or
none, becomes another mean and another deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RESAMPLE = {2: "bilinear", 3: "bicubic"}
_CROPS = {"CLIPImageProcessor": True, "CLIPFeatureExtractor": True, "SiglipImageProcessor": False}
"""The classes whose steps are known, and whether they crop where the file does not say."""
_KNOWN = set(
    "size crop_size do_resize do_center_crop do_rescale rescale_factor do_normalize image_mean image_std resample "
    "do_convert_rgb do_pad default_to_square image_processor_type feature_extractor_type".split()
)
_SILENT = set(  # what says nothing about pixels
    "processor_class auto_map _processor_class _valid_processor_keys transformers_version return_tensors data_format "
    "input_data_format device disable_grouping image_seq_length _name_or_path _commit_hash".split()
)


def preprocess_cfg_of(config: Mapping[str, Any], takes: tuple[int, ...]) -> dict[str, Any]:
    """takes: (height, width) of the model's images. Raises ValueError that goes on from "its preprocessor_config.json".

    >>> half = {"image_mean": 0.5, "image_std": 0.5, "size": {"height": 32, "width": 32}}
    >>> preprocess_cfg_of(half | {"do_normalize": False}, (32, 32))["mean"]
    (0.0, 0.0, 0.0)
    >>> preprocess_cfg_of(half | {"rescale_factor": 1 / 127.5}, (32, 32))["mean"]
    (0.25, 0.25, 0.25)
    >>> preprocess_cfg_of(half | {"do_pad": True}, (32, 32))
    Traceback (most recent call last):
    ...
    ValueError: sets do_pad=True, which is not supported.
    """
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    kind = kind.removesuffix("Fast").removesuffix("Pil")
    if kind and kind not in _CROPS:
        free = " (NaFlex, images of any proportions)" if "max_num_patches" in config else ""
        raise ValueError(f"is of a {kind}{free}; {', '.join(_CROPS)} are supported.")
    if not {"image_mean", "image_std", "size"} <= set(config):
        raise ValueError("has no size, image_mean and image_std.")
    for key, value in config.items():
        if key not in _KNOWN | _SILENT and value not in (None, False):
            raise ValueError(f"sets {key}={value!r}, whose meaning is not known here.")
    for key, refused in (("do_pad", True), ("do_resize", False)):
        if config.get(key) is refused:
            raise ValueError(f"sets {key}={refused}, which is not supported.")
    size, mode = _steps(config, _CROPS.get(kind))
    if size != tuple(takes):
        raise ValueError(f"makes images of {size}, but its model takes {tuple(takes)}.")
    resample = config.get("resample", 3)
    if resample not in _RESAMPLE:
        raise ValueError(f"sets resample={resample}; only bilinear (2) and bicubic (3) are supported.")
    mean, std = _affine(config)
    return {
        "size": size, "mode": "RGB", "mean": mean, "std": std, "interpolation": _RESAMPLE[resample],
        "resize_mode": mode, "fill_color": 0,
    }  # fmt: skip


def _steps(config: Mapping[str, Any], crops: bool | None) -> tuple[tuple[int, int], str]:
    """(height, width), and open_clip's name for how an image gets there."""
    size, crop = config["size"], config.get("crop_size")
    cropped = config.get("do_center_crop")
    if cropped is None:
        cropped = crops if crops is not None else "crop_size" in config
    square = config.get("default_to_square")
    if isinstance(size, int) and (square or (square is None and crops is False)):
        size = {"height": size, "width": size}
    if isinstance(size, int):
        size = {"shortest_edge": size}
    if not isinstance(size, Mapping) or set(size) not in ({"height", "width"}, {"shortest_edge"}):
        raise ValueError(f"sets size={config['size']!r}; height and width, or shortest_edge alone, are supported.")
    cut = _pair(crop) if cropped and crop is not None else None
    if cropped and cut is None and crops:
        cut = (224, 224)  # the class's own
    if "height" in size:
        whole = (int(size["height"]), int(size["width"]))
        if cut not in (None, whole):
            raise ValueError(f"resizes images to {whole} and crops them to {cut}, which is not supported.")
        return whole, "squash"
    edge = size["shortest_edge"]
    if cut is None or edge != min(cut) or cut[0] != cut[1]:
        what = f"it cannot resize images to {edge} pixels and crop to {cut}"
        raise ValueError(f"asks for what open_clip cannot do: {what}.")
    return cut, "shortest"


def _pair(crop: Any) -> tuple[int, int]:
    if isinstance(crop, int):
        return crop, crop
    if isinstance(crop, Mapping) and set(crop) == {"height", "width"}:
        return int(crop["height"]), int(crop["width"])
    raise ValueError(f"sets crop_size={crop!r}; a number, or height and width, are supported.")


def _affine(config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation for pixels from 0 to 1 that do what rescaling and normalising do together."""
    rescaled, normalised = (config.get(key) is not False for key in ("do_rescale", "do_normalize"))
    factor = config.get("rescale_factor")
    factor = (1 / 255 if factor is None else factor) if rescaled else 1.0
    if not isinstance(factor, int | float) or not factor > 0:
        raise ValueError(f"sets rescale_factor={factor!r}; a number above 0 is needed.")
    if normalised and not rescaled:
        raise ValueError("normalises pixels that are not rescaled (do_rescale=False), which transformers refuses, too.")
    mean, std = _three(config, "image_mean"), _three(config, "image_std")
    if not normalised:
        mean, std = (0.0,) * 3, (1.0,) * 3
    scale = 1.0 if factor == 1 / 255 else 255 * factor
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)


def _three(config: Mapping[str, Any], key: str) -> tuple[float, ...]:
    """The three numbers of a key; one number stands for all."""
    given = config[key]
    values = [given] * 3 if isinstance(given, int | float) else given
    numbers = isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values)
    if not numbers or len(values) != 3 or (key == "image_std" and not all(value > 0 for value in values)):
        raise ValueError(f"sets {key}={given!r}; a number or three are needed (deviations above 0).")
    return tuple(map(float, values))
