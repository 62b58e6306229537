"""`model.pretrained=run:<folder>`: a run that begins where an earlier one ended."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from torch import Tensor

from gcl.config.compose import load_config
from gcl.errors import ConfigError
from gcl.lit.checkpoint import read_checkpoint
from gcl.loss.settings import Form
from gcl.model.dual_encoder import DualEncoder
from gcl.model.lora import add_adapters, merge_adapters
from gcl.model.weights import fill
from gcl.run.folder import RunFolder

RUN_PREFIX = "run:"


def earlier_run(pretrained: str | None) -> RunFolder | None:
    """The run that `model.pretrained` names, if it names one. Raises ConfigError if nothing was trained there."""
    if not pretrained or not pretrained.startswith(RUN_PREFIX):
        return None
    run = RunFolder(Path(pretrained.removeprefix(RUN_PREFIX)))
    try:
        run.check()
    except FileNotFoundError as error:
        raise ConfigError(f"model.pretrained={pretrained}: {str(error).partition(': ')[2]}") from error
    if not run.best.is_file():
        ended = "it ended before its first validation"
        raise ConfigError(f"model.pretrained={pretrained}: the run has no checkpoints/best.ckpt, because {ended}.")
    return run


def begin_from(encoder: DualEncoder, run: RunFolder) -> None:
    """Puts the run's best weights, temperature and bias into an encoder of the same architecture, in place.

    Raises ValueError naming the first tensor that does not fit.
    """
    state, source = read_checkpoint(run.best)["state_dict"], f"model.pretrained=run:{run.path}"
    weights = {name.removeprefix("encoder.model."): value for name, value in state.items() if "encoder.model." in name}
    if any("lora_" in name for name in weights):
        weights = _merged(encoder, run, weights, source)
    learned = encoder.model.logit_bias
    if not isinstance(learned, Tensor):
        weights.pop("logit_bias", None)
    elif "logit_bias" not in weights:
        weights["logit_bias"] = learned.detach().clone()
    try:
        fill(encoder.model, weights, source)
    except ValueError as error:
        raise ValueError(f"{error} The run was trained with another architecture: set the run's model.name.") from error
    # A model that came without a bias has learned one in the sigmoid form; the softmax form has no use for it.
    kept = isinstance(learned, Tensor) or load_config(run.config).loss.form is Form.sigmoid
    encoder.write_scale_bias(float(state["loss.log_scale"]), float(state["loss.bias"]) if kept else None)


def _merged(encoder: DualEncoder, run: RunFolder, weights: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The weights of a run that trained adapters, with the adapters merged into them."""
    twin = deepcopy(encoder)
    add_adapters(twin, load_config(run.config).model.lora)
    try:
        twin.model.load_state_dict(weights)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise ValueError(
            f"{source} does not fit: {lines[:300]} The run was trained with another architecture."
        ) from error
    return dict(merge_adapters(twin.eval()).model.state_dict())
