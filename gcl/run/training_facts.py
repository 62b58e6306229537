"""How a run was trained, in the words of the card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gcl.config.schema import RunConfig
from gcl.exports.card.card import Training
from gcl.loss.settings import Form
from gcl.model.settings import Head
from gcl.run.field_weights import how_weighed
from gcl.run.folder import RunFolder


def training_facts(config: RunConfig, run: RunFolder, *, interpolated: bool) -> Training:
    """The training configuration that the card shows, in its order."""
    environment = json.loads(run.environment.read_text("utf-8")) if run.environment.is_file() else {}
    weight, optimizer = config.loss.score_to_weight, config.optim.optimizer
    settings = {
        "model": config.model.name + (f", weights {config.model.pretrained}" if config.model.pretrained else ""),
        "catalog": f"{config.data.name}, fingerprint {str(environment.get('data_fingerprint', 'unknown'))[:16]}",
        "loss": f"GCL, {config.loss.form.value}, {config.loss.direction.value}",
        "score to weight": weight["_target_"].rpartition(".")[2],
        "pairs per batch, over all devices": config.train.batch_size,
        "epochs": f"{config.train.epochs:g}",
        "steps, as planned": environment.get("steps", config.train.max_steps),
        "optimizer": optimizer["_target_"].rpartition(".")[2] if optimizer else None,
        "learning rate": f"{config.optim.learning_rate:g}",
        "weight decay": f"{config.optim.weight_decay:g}",
        "frozen": ", ".join(config.optim.freeze),
        "image head": None if config.model.head is Head.linear else config.model.head.value,
        "adapters": f"LoRA of rank {config.model.lora.rank}, merged" if config.model.lora.rank else None,
        "precision": environment.get("precision"),
        "devices": f"{environment.get('world_size', 1)} x {environment.get('device', 'unknown')}",
        "parameters": _parameters(environment),
        "seed": config.seed,
        "weights": f"averaged from {', '.join(config.merged)} (gcl merge)" if config.merged else None,
        "field weights": how_weighed(run.field_weights, constant=interpolated),
    }
    name = config.model.name.lower()
    cited = {
        "siglip": "siglip" in name or config.loss.form is Form.sigmoid,
        "siglip2": "siglip2" in name,
        "clip": "clip" in name.replace("siglip", ""),
        "micro_batch": config.train.micro_batch is not None,
        "alpha": interpolated,
        "lora": config.model.lora.rank is not None,
    }
    known = {key: value for key, value in settings.items() if value not in (None, "")}
    return Training(known, [key for key, used in cited.items() if used])


def _parameters(environment: Mapping[str, Any]) -> str | None:
    if "parameters" not in environment:
        return None
    return f"{environment['parameters']:,}, of which {environment.get('trained_parameters', 0):,} were trained"
