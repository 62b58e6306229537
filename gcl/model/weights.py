"""Tensors of a transformers folder: safetensors, whole or in parts, and nothing else."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gcl.model.trusted import read_json

_INDEX, _WHOLE = "model.safetensors.index.json", "model.safetensors"


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Raises ValueError for weights in another form, a missing part, or a file that is not safetensors."""
    if (folder / _WHOLE).is_file():
        return _load(folder / _WHOLE)
    parts = read_json(folder / _INDEX).get("weight_map") if (folder / _INDEX).is_file() else {}
    if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts.values()):
        raise ValueError(f"{folder / _INDEX} has no weight_map of names.")
    if set(parts.values()) <= {_WHOLE}:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        why = f"{pickles[0]} is a pickle, which can run code when it is read" if pickles else "it holds no weights"
        raise ValueError(f"{folder}: {why}; {_WHOLE} belongs in it.")
    state: dict[str, Tensor] = {}
    for name in sorted(set(parts.values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{folder / _INDEX} names {name!r}, which is not a safetensors file of the folder.")
        state |= _load(folder / name)
    return state


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error


def fill(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Loads every tensor, strictly. Raises ValueError naming the first that is missing, left over or of other shape."""
    wanted = model.state_dict()
    for name, value in wanted.items():
        if name not in state:
            raise ValueError(f"{source} does not fit: its weights have no {name}.")
        if state[name].shape != value.shape:
            raise ValueError(
                f"{source} does not fit: {name} is {list(state[name].shape)} there and {list(value.shape)} here."
            )
    if left := sorted(set(state) - set(wanted)):
        raise ValueError(f"{source} does not fit: the model has no {left[0]}, which its weights hold.")
    model.load_state_dict(state)
