"""preprocessor_config.json of transformers as open_clip's preprocess_cfg: every key that changes pixels is obeyed, or
the folder is refused.

Rescaling and normalising are one line: (pixel * factor - mean) / std. open_clip's factor is 1 / 255, so another one, or
none, becomes another mean and another deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcl.model.settings import OWN_RESIZE, Resize

_RESAMPLE = {2: "bilinear", 3: "bicubic"}
_CROPS = {"CLIPImageProcessor": True, "SiglipImageProcessor": False}
"""The classes whose steps are known, and whether they crop where the file does not say."""
_SWITCHES = "do_resize do_center_crop do_rescale do_normalize do_convert_rgb do_pad default_to_square".split()
_KNOWN = {*_SWITCHES, OWN_RESIZE, *"size crop_size rescale_factor image_mean image_std resample".split()}
_SILENT = set(  # what says nothing about pixels
    "image_processor_type feature_extractor_type processor_class auto_map _processor_class _valid_processor_keys "
    "transformers_version return_tensors data_format input_data_format device disable_grouping image_seq_length "
    "_name_or_path _commit_hash".split()
)


def preprocess_cfg_of(config: dict[str, Any], takes: tuple[int, ...], model_type: str = "") -> dict[str, Any]:
    """takes: (height, width) of the model's images. model_type: of its config.json, which decides where the file names
    no class. Raises ValueError that goes on from "its preprocessor_config.json".

    >>> half = {"image_mean": 0.5, "image_std": 0.5, "size": {"height": 32, "width": 32}}
    >>> preprocess_cfg_of(half | {"do_normalize": False}, (32, 32), "siglip")["mean"]
    (0.0, 0.0, 0.0)
    >>> preprocess_cfg_of(half | {"rescale_factor": 1 / 127.5}, (32, 32), "siglip")["mean"]
    (0.25, 0.25, 0.25)
    >>> preprocess_cfg_of(half | {"do_pad": True}, (32, 32), "siglip")
    Traceback (most recent call last):
    ...
    ValueError: sets do_pad=True, which is not supported.
    """
    crops = _CROPS[_kind(config, model_type)]
    if missing := sorted({"image_mean", "image_std", "size"} - set(config)):
        raise ValueError(f"has no {', '.join(missing)}.")
    for key, value in config.items():
        if key not in _KNOWN | _SILENT and value not in (None, False):
            raise ValueError(f"sets {key}={value!r}, whose meaning is not known here.")
        if key in _SWITCHES and not (value is None or isinstance(value, bool)):
            raise ValueError(f"sets {key}={value!r}; true or false is needed.")
    for key, needed in (("do_pad", False), ("do_resize", True)):
        if _on(config, key, needed) is not needed:
            raise ValueError(f"sets {key}={config[key]}, which is not supported.")
    size, mode = _steps(config, crops)
    if size != tuple(takes):
        raise ValueError(f"makes images of {size} by its size={config['size']!r}, but its model takes {tuple(takes)}.")
    resample = config.get("resample", 3)
    if resample not in (*_RESAMPLE,):
        raise ValueError(f"sets resample={resample}; only bilinear (2) and bicubic (3) are supported.")
    mean, std = _affine(config)
    return {
        "size": size, "mode": "RGB", "mean": mean, "std": std, "interpolation": _RESAMPLE[resample],
        "resize_mode": mode.in_open_clip.value, "fill_color": 0,
        OWN_RESIZE: config.get(OWN_RESIZE) if mode.crops and OWN_RESIZE in config else mode.value,
    }  # fmt: skip


def _kind(config: Mapping[str, Any], model_type: str) -> str:
    """The processor's class, as transformers finds it, without the marks of its variants."""
    named = config.get("image_processor_type")
    kind = str(named or config.get("feature_extractor_type") or "").replace("FeatureExtractor", "ImageProcessor")
    kind = kind.removesuffix("Fast").removesuffix("Pil")
    if not kind:
        crops = {"clip": True, "siglip": False}.get(model_type, "crop_size" in config)
        kind = next(name for name, own in _CROPS.items() if own == crops)
    if kind not in _CROPS:
        free = " (NaFlex, images of any proportions)" if "max_num_patches" in config else ""
        what = f"sets image_processor_type={named!r}" if named else "names no image_processor_type that is known"
        raise ValueError(f"{what}{free}; {', '.join(_CROPS)} are supported.")
    return kind


def _steps(config: dict[str, Any], crops: bool) -> tuple[tuple[int, int], Resize]:
    """(height, width), and how an image gets there."""
    cut = None
    if _on(config, "do_center_crop", crops):
        if "crop_size" not in config and not crops:
            raise ValueError("sets do_center_crop=True without a crop_size.")
        cut = _pair({"crop_size": 224} | config, "crop_size")
    if not isinstance(size := config["size"], Mapping) or set(size) == {"height", "width"}:
        edge = isinstance(size, int) and not _on(config, "default_to_square", False)
        if not edge:
            whole = _pair(config, "size")
            if cut not in (None, whole):
                raise ValueError(f"resizes images to size={size!r} and crops them to crop_size={cut}; not supported.")
            return whole, Resize.squash
        size = {"shortest_edge": size}
    if set(size) != {"shortest_edge"} or not _count(size["shortest_edge"]):
        raise ValueError(f"sets size={config['size']!r}; height and width, or shortest_edge alone, are supported.")
    edge = size["shortest_edge"]
    if cut != (edge, edge):
        then = f"crop to crop_size={cut}" if cut else "leave them uncropped (do_center_crop=False)"
        why = f"it cannot resize images to {edge} pixels (size) and {then}"
        raise ValueError(f"asks for what open_clip cannot do: {why}.")
    return cut, Resize.shortest_transformers


def _on(config: Mapping[str, Any], key: str, otherwise: bool) -> bool:
    """A switch; null is off, and absent what the class does."""
    return bool(config.get(key, otherwise))


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _pair(config: Mapping[str, Any], key: str) -> tuple[int, int]:
    """(height, width) of a number, a pair, or a mapping."""
    given = config[key]
    pair = [given] * 2 if isinstance(given, int) else given
    if isinstance(pair, Mapping) and set(pair) == {"height", "width"}:
        pair = [pair["height"], pair["width"]]
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(map(_count, pair)):
        raise ValueError(f"sets {key}={given!r}; a number, or height and width, are supported.")
    return pair[0], pair[1]


def _affine(config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation for pixels from 0 to 1 that do what rescaling and normalising do together."""
    rescaled, normalised = (_on(config, key, True) for key in ("do_rescale", "do_normalize"))
    factor = config.get("rescale_factor", 1 / 255) if rescaled else 1.0
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not factor > 0:
        raise ValueError(f"sets rescale_factor={factor!r}; a number above 0 is needed.")
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
