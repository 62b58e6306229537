"""What can be measured: a pretrained model, a run's checkpoint, the model a run began with, precomputed embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gcl.config.schema import RunConfig
from gcl.data.catalog import Catalog
from gcl.lit.checkpoint import read_checkpoint
from gcl.lit.learned_weights import learned_by_query
from gcl.lit.settings import FieldWeights
from gcl.loss.weight import constant
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fingerprint import model_hash
from gcl.model.heads import image_head
from gcl.model.load import load_model
from gcl.model.lora import merge_adapters
from gcl.model.settings import LoadOptions
from gcl.retrieval.embedding.own import Embedder
from gcl.retrieval.embedding.precomputed import PrecomputedEmbeddings, RunFiles
from gcl.run.build import assemble_encoder, assemble_loss, freeze_parts, seed_everything, write_scale_back
from gcl.run.early import model_of, split_label
from gcl.run.field_weights import ChosenWeights, read_weights, written
from gcl.run.folder import RunFolder, run_of
from gcl.schema import Schema

_BY_HAND = "because the command line gives some"


@dataclass(frozen=True)
class Contestant:
    """A name for tables and an encoder to measure: a model, or precomputed embeddings."""

    label: str
    encoder: Embedder
    checkpoint: Path | None = None

    def weights_from_elsewhere(self, catalog: Catalog) -> bool:
        """Whether it is a trained model whose field weights were not chosen on this catalog."""
        if self.checkpoint is None or not isinstance(self.encoder, DualEncoder):
            return False
        chosen = self._chosen
        if chosen is None or not chosen.dev or catalog.name not in chosen.catalogs:
            return True
        return self.encoder.schema.weights != chosen.used

    note: str = ""

    @property
    def notes(self) -> list[str]:
        """What a reader has to know about its figures."""
        return ([self.note] if self.note else []) if isinstance(self.encoder, DualEncoder) else self.encoder.notes

    @property
    def _chosen(self) -> ChosenWeights | None:
        return None if self.checkpoint is None else read_weights(RunFolder(self.checkpoint.parent.parent).field_weights)

    def with_constant_weights(self, why: str) -> Contestant:
        """The same with constant weights where the run chose weights by query; the reason becomes a note."""
        chosen = self._chosen
        if chosen is None or not chosen.by_query or self.note or not isinstance(self.encoder, DualEncoder):
            return self
        encoder = self.encoder.with_schema(self.encoder.schema)
        encoder.by_query = None
        weights = written(encoder.schema.weights["document"])
        return replace(self, encoder=encoder, note=f"{self.label}: constant field weights, {weights}, {why}.")

    def facts(self) -> dict[str, Any]:
        """Provenance: SHA-256 of the weights (or of the embedding files), width, number of parameters."""
        if not isinstance(self.encoder, DualEncoder):
            return self.encoder.facts()
        return {
            "model": self.encoder.origin.name if self.encoder.origin else None,
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            "weights_sha256": model_hash(self.encoder),
            "width": self.encoder.width,
            "parameters": sum(p.numel() for p in self.encoder.parameters()),
        }


def tuned_encoder(run: RunFolder, schema: Schema | None = None, *, checkpoint: Path | None = None) -> DualEncoder:
    """A run's model with its best checkpoint's weights, scale and bias; read through `schema`, or the run's own.
    Queries weigh the document's fields where the run chose that and the schema has the run's weights."""
    config, chosen = run.read_config(), read_weights(run.field_weights)
    encoder = assemble_encoder(config.model, schema or config.data.schema, begun=False)
    state = restore(encoder, config, checkpoint or run.best)
    if chosen is not None and chosen.fits_queries_of(encoder.schema):
        if not (learned := _under(state, "query_weights.")):
            raise ValueError(f"{run.field_weights} says by_query, and the checkpoint has learned no such weights.")
        encoder.by_query = learned_by_query(learned, chosen.given["document"])
    freeze_parts(encoder, config.optim)  # what was frozen in the run has cached features
    return merge_adapters(encoder.eval())


def restore(encoder: DualEncoder, config: RunConfig, checkpoint: Path) -> dict[str, torch.Tensor]:
    """Puts a checkpoint's weights, scale and bias into the encoder it was trained from; returns the whole state."""
    state = read_checkpoint(checkpoint)["state_dict"]
    loss, weights = assemble_loss(config.loss, encoder, constant), _under(state, "encoder.")
    if encoder.model.logit_bias is None and "model.logit_bias" in weights:  # of the earlier run it began from
        encoder.write_scale_bias(*(float(weights[f"model.logit_{name}"]) for name in ("scale", "bias")))
    try:
        encoder.load_state_dict(weights)
        loss.load_state_dict(_under(state, "loss."))
    except RuntimeError as error:
        raise ValueError(
            f"{checkpoint} does not fit the model {config.model.name}: it was trained with a different version of that "
            f"architecture or a different config. ({str(error).splitlines()[0]})"
        ) from error
    write_scale_back(encoder, loss)
    return state


def _under(state: dict, prefix: str) -> dict:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def base_and_tuned(run: RunFolder, schema: Schema | None = None) -> list[Contestant]:
    base, tuned = both_encoders(run, schema)
    return [Contestant("base", base), Contestant("tuned", tuned, run.best)]


def both_encoders(run: RunFolder, schema: Schema | None = None) -> tuple[DualEncoder, DualEncoder]:
    """The model that a run began with, and its best checkpoint."""
    return base_encoder(run, schema), tuned_encoder(run, schema)


def base_encoder(run: RunFolder, schema: Schema | None = None) -> DualEncoder:
    """The model that a run began with; read through `schema`, or the run's own."""
    config = run.read_config()
    seed_everything(config)  # a model from scratch begins where its run began
    base = assemble_encoder(config.model, schema or config.data.schema).eval()
    head = image_head(base.model.visual)
    if head is not None and head.lacks_statistics:
        state = read_checkpoint(run.best)["state_dict"]
        head.standardise(*(state[f"encoder.model.visual.head.{name}"] for name in ("mean", "deviation")))
    freeze_parts(base, config.optim)
    return merge_adapters(base)


def contestant(
    name: str, catalog: Catalog, *, config_dir: str | None = None, trust: Sequence[str] = (), by_hand: bool = False
) -> Contestant:
    """`run:<folder>` (best checkpoint), `embeddings:<file.parquet>` (or two files with + between them),
    `trec:<run file>` ("{task}" is replaced by the task), a name in conf/model, `open_clip:<architecture>/<weights>`, or
    anything load_model takes (local-dir:, hf-hub:, …). `<name>=` before it is what tables call it. On its own catalog
    a run has the field weights that it chose; by_hand: the catalog's are to be used instead."""
    label, name = split_label(name)
    if label is not None:
        return replace(contestant(name, catalog, config_dir=config_dir, trust=trust, by_hand=by_hand), label=label)
    kind, colon, rest = name.partition(":")
    schema = catalog.schema
    if kind == "run" and colon:
        run = RunFolder(Path(rest), tuple(trust))
        schema = schema if by_hand else run.weighted(catalog).schema
        return Contestant(str(run.path), tuned_encoder(run, schema), run.best)
    if kind == "embeddings" and colon:
        files = rest.split("+")
        return Contestant("+".join(Path(file).stem for file in files), PrecomputedEmbeddings(files))
    if kind == "trec" and colon:
        return Contestant(Path(rest).stem.replace("{task}", "").strip(".-_ ") or name, RunFiles(rest))
    if colon:
        if kind != "open_clip":
            return Contestant(name, load_model(name, schema=schema).eval())
        architecture, _, weights = rest.partition("/")
        encoder = load_model(architecture, schema=schema, options=LoadOptions(pretrained=weights or None))
        return Contestant(f"{architecture} {weights}".strip(), encoder.eval())
    return Contestant(name, assemble_encoder(model_of(name, config_dir), schema).eval())


def contestants(config: RunConfig, catalog: Catalog, *, config_dir: str | None = None) -> Iterator[Contestant]:
    """The models that run=, models=[…] or model= names, one after the other, each with a name of its own; to be
    measured on this catalog."""
    if config.run is not None:
        for entry in base_and_tuned(run_of(config), catalog.schema):
            by_hand = config.train.field_weights is FieldWeights.given
            yield _placed(entry.with_constant_weights(_BY_HAND) if by_hand else entry, config)
        return
    if not config.models:
        seed_everything(config)
        yield _placed(Contestant(config.model.label, assemble_encoder(config.model, catalog.schema).eval()), config)
        return
    taken: set[str] = set()
    for name in config.models:
        entry = named(name, config, catalog, config_dir=config_dir)
        if entry.label in taken:
            entry = replace(entry, label=name)
        taken.add(entry.label)
        yield entry


def named(name: str, config: RunConfig, catalog: Catalog, *, config_dir: str | None = None) -> Contestant:
    """One contestant; a model from scratch is the same wherever it comes in a list."""
    seed_everything(config)
    by_hand = config.train.field_weights is FieldWeights.given
    entry = contestant(name, catalog, config_dir=config_dir, trust=config.trust, by_hand=by_hand)
    return _placed(entry.with_constant_weights(_BY_HAND) if by_hand else entry, config)


def _placed(entry: Contestant, config: RunConfig) -> Contestant:
    if isinstance(entry.encoder, DualEncoder):
        entry.encoder.to(device_of(config))
    return entry


def device_of(config: RunConfig) -> str:
    """Where models are measured: on the first GPU, if there is one and trainer.accelerator allows it."""
    allowed = config.trainer.accelerator in ("auto", "gpu", "cuda")
    return "cuda" if allowed and torch.cuda.is_available() else "cpu"
