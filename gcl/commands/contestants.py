"""What can be measured: a model as it comes, a run's best checkpoint, the model a run began with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gcl import assembly
from gcl.config import compose, load_config, typed
from gcl.lit.checkpoint import read_checkpoint
from gcl.mistakes import ConfigError
from gcl.model.dual_encoder import DualEncoder
from gcl.runs import RunFolder
from gcl.schema import Schema
from gcl.settings import RunConfig


@dataclass(frozen=True)
class Contestant:
    """A name for tables and an encoder to measure."""

    label: str
    encoder: DualEncoder


def tuned_encoder(run: RunFolder, schema: Schema | None = None, *, checkpoint: Path | None = None) -> DualEncoder:
    """A run's model with its best checkpoint's weights, scale and bias; read through `schema`, or the run's own."""
    config = load_config(run.check().config)
    encoder = assembly.assemble_encoder(config.model, schema or config.data.schema)
    restore(encoder, config, checkpoint or run.best)
    assembly.freeze_parts(encoder, config.optim)  # what was frozen in the run has cached features
    return encoder.eval()


def restore(encoder: DualEncoder, config: RunConfig, checkpoint: Path) -> None:
    """Puts a checkpoint's weights, scale and bias into the encoder it was trained from."""
    state = read_checkpoint(checkpoint)["state_dict"]
    loss = assembly.assemble_loss(config.loss, encoder)
    try:
        encoder.load_state_dict(_under(state, "encoder."))
        loss.load_state_dict(_under(state, "loss."))
    except RuntimeError as error:
        raise ValueError(
            f"{checkpoint} does not fit the model {config.model.name}: it was trained with another version of that "
            f"architecture or another config. ({str(error).splitlines()[0]})"
        ) from error
    assembly.write_scale_back(encoder, loss)


def _under(state: dict, prefix: str) -> dict:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def base_and_tuned(run: RunFolder, schema: Schema | None = None) -> list[Contestant]:
    config = load_config(run.check().config)
    schema = schema or config.data.schema
    assembly.seed_everything(config)  # a model from scratch begins where its run began
    base = assembly.assemble_encoder(config.model, schema).eval()
    assembly.freeze_parts(base, config.optim)
    return [Contestant("base", base), Contestant("tuned", tuned_encoder(run, schema))]


def contestant(word: str, schema: Schema, *, config_dir: str | None = None) -> Contestant:
    """`run:<folder>` (best checkpoint), a name in conf/model, or anything load_model takes (local-dir:, hf-hub:, …)."""
    if word.startswith("run:"):
        run = RunFolder(Path(word.removeprefix("run:")))
        return Contestant(str(run.path), tuned_encoder(run, schema))
    if ":" in word:
        from gcl.model.load import load_model

        return Contestant(word, load_model(word, schema=schema).eval())
    try:
        model = typed(compose([f"model={word}"], config_dir=config_dir)).model
    except ConfigError as error:
        raise ConfigError(
            f"models: {error} A run is written run:<folder>, an exported folder local-dir:<folder>."
        ) from error
    return Contestant(word, assembly.assemble_encoder(model, schema).eval())
