"""`gcl merge runs=[…]`: one model whose weights are the mean of several runs', measured like any run, in a run folder.

1. The runs must have trained the same model on the same data; the mean of anything else means nothing.
2. Each is measured on the dev half by what chooses field weights: the first headline metric, the mean over all tasks.
   weights=auto keeps those whose mean is not worse than without them.
3. The mean is written as the best checkpoint of a new run folder, measured on the test half and reported.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcl.commands.train import Trained, finish
from gcl.config.compose import flatten, load_config, under
from gcl.config.schema import RunConfig
from gcl.data.batches.settings import HardNegatives
from gcl.errors import ConfigError
from gcl.files.progress import doing
from gcl.lit.settings import FieldWeights
from gcl.loss.settings import TeacherConfig
from gcl.model.settings import LoraConfig
from gcl.options import MISSING, free
from gcl.run.closing import close_gate
from gcl.run.console import say, speak_plainly
from gcl.run.folder import RunFolder, fact, new_run_folder
from gcl.table import Table, Value

if TYPE_CHECKING:
    from torch import Tensor

    from gcl.run.training import Fitting

AUTO = "auto"
_ALIKE = ("model", "data", "loss.form", "optim.freeze")
_OF_LOSS = ("logit_scale", "logit_bias")
_MAY_DIFFER = ("data.root", "data.download", "model.recipe", "model.label")


@dataclass
class MergeOptions:
    """Options of `gcl merge`."""

    runs: list[str] = free(MISSING, "list of run folders", "[outputs/a,outputs/b]")
    """The run folders, two or more, of the same model and data."""
    weights: Any = free(AUTO, "auto, or a list with one number per run", AUTO, "[1,1,2]")
    """auto: the greedy soup, which begins with the best run and adds each next one unless the dev half gets worse. Or
    one number of at least 0 per run, divided by their sum."""
    out: str | None = None
    """The run folder to write; null: outputs/<data>/<model>/<time>."""
    trust: list[str] = field(default_factory=list)
    """Packages whose objects the runs' configs may name, for example [my_package]."""


def run(options: MergeOptions) -> RunFolder:
    """Merges, measures and reports. Returns the new run folder."""
    speak_plainly()
    begun = time.monotonic()
    runs = [RunFolder(Path(path), tuple(options.trust)).check_trained() for path in options.runs]
    shares = parse_weights(options.weights, options.runs)
    # As they were given: each run may have chosen other field weights, and the merged one chooses its own.
    configs = [load_config(one.config, trust=one.trust) for one in runs]
    check_alike(runs, configs)
    out = new_run_folder(options.out, data=configs[0].data.name, model=configs[0].model.label)
    with out.taken():
        if left := out.traces():
            raise ConfigError(f"{out.path} already holds a run ({', '.join(left)}): choose another out.")
        config = _config_of_merged(configs, out)
        merged = _merge(runs, config, out, shares, begun)
    close_gate(config.evaluate.gate, merged.verdicts)
    return merged.run


def parse_weights(given: Any, runs: Sequence[str]) -> list[float] | None:
    """The share of each run, sum 1; None for auto. Raises ConfigError."""
    if len(runs) < 2 or len({Path(one).resolve() for one in runs}) < len(runs):
        raise ConfigError(f"runs=[{','.join(runs)}]: name at least two different run folders.")
    if given == AUTO:
        return None
    numbers = list(given) if isinstance(given, list | tuple) else []
    amounts = [float(one) for one in numbers if isinstance(one, int | float) and not isinstance(one, bool)]
    fits = len(numbers) == len(amounts) == len(runs) and all(0 <= one < math.inf for one in amounts)
    if not fits or not sum(amounts):
        raise ConfigError(
            f"weights={given}: expected auto, or a list of {len(runs)} numbers of at least 0, one per run, not all 0."
        )
    return [one / sum(amounts) for one in amounts]


def check_alike(runs: Sequence[RunFolder], configs: Sequence[RunConfig]) -> None:
    """Raises ConfigError for runs of different models, heads, adapters, frozen parts, data or forms of the loss."""
    first, *others = [
        {key: value for key, value in flatten(config).items() if under(key, _ALIKE) and not under(key, _MAY_DIFFER)}
        for config in configs
    ]
    data = [fact(one.environment, "data_fingerprint", str) for one in runs]
    for number, other in enumerate(others, 1):
        differing = [
            f"{key} ({first.get(key)} and {other.get(key)})"
            for key in dict.fromkeys([*first, *other])
            if first.get(key) != other.get(key)
        ]
        if not differing and None not in (data[0], data[number]) and data[0] != data[number]:
            differing = ["the prepared data, whose contents have changed in between"]
        if differing:
            raise ConfigError(
                f"runs: {runs[0].path} and {runs[number].path} differ in {', '.join(differing)}. Only runs of one "
                "model on the same data can be averaged: they may differ in seed, loss (not its "
                "form), optimizer, batches and length."
            )


def _config_of_merged(configs: Sequence[RunConfig], out: RunFolder) -> RunConfig:
    """The first run's without what only training needs; adapters are merged into the weights before the averaging."""
    first, weights = configs[0], configs[0].train.field_weights
    if any(one.train.field_weights in (FieldWeights.learned, FieldWeights.learned_by_query) for one in configs):
        weights = FieldWeights.dev
        say("Field weights that runs learned are not averaged: the merged model's are chosen on the dev half.")
    trainer = replace(first.trainer, devices=1, num_nodes=1, strategy="auto")
    plan = replace(first.plan, hard_negatives=HardNegatives())
    train = replace(first.train, resume=None, ema=None, micro_batch=None, field_weights=weights)
    return replace(
        first, model=replace(first.model, lora=LoraConfig()), trainer=trainer, train=train, run_dir=str(out.path),
        name=None, logger=None, callbacks={}, teacher=TeacherConfig(), plan=plan,
    )  # fmt: skip


def _merge(
    runs: Sequence[RunFolder], config: RunConfig, out: RunFolder, shares: list[float] | None, begun: float
) -> Trained:
    from gcl.data.prepare.mixed import open_catalog

    prepared = open_catalog(config.data, config.cache_dir)
    with doing("Loading torch"):
        from gcl.model.interpolate import greedy_soup, soup
        from gcl.run.contestants import device_of, tuned_encoder
        from gcl.run.interpolation import put, weights_of
        from gcl.run.training import Fitting

    fitting = Fitting(config, out, prepared)
    encoder = tuned_encoder(runs[0], config.data.schema)
    encoder.by_query = None
    states = [weights_of(encoder), *(weights_of(tuned_encoder(one)) for one in runs[1:])]
    encoder.to(device_of(config))
    _check_frozen(fitting, runs, states)
    metric = config.evaluate.headline[0]

    def on_dev(state: Any) -> float:
        put(encoder, state)
        results = fitting.measurement(encoder, "dev", [metric], passing=True)
        return math.fsum(one.means[metric] for one in results.values()) / len(results)

    alone = [on_dev(state) for state in states]
    if shares is None:
        chosen, value = greedy_soup(states, alone, on_dev)
        shares = [float(place in chosen) / len(chosen) for place in range(len(runs))]
        merged = soup([states[place] for place in chosen], [1.0] * len(chosen))
    else:
        merged = soup(states, shares)
        value = on_dev(merged)
    rows: list[list[Value]] = [
        [str(one.path), value_alone, share] for one, value_alone, share in zip(runs, alone, shares, strict=True)
    ]
    say("\n" + Table(["run", f"{metric} (dev)", "share"], [*rows, ["merged", value, None]]).text())
    config.merged = {str(one.path): share for one, share in zip(runs, shares, strict=True) if share}
    return finish(config, out, fitting, begun, lambda: _save(fitting, merged, value))


def _check_frozen(fitting: Fitting, runs: Sequence[RunFolder], states: Sequence[dict[str, Tensor]]) -> None:
    """Features of frozen trunks are computed once, so what is frozen must be the same in all. Raises ConfigError."""
    for name, parameter in fitting.encoder.model.named_parameters():
        if parameter.requires_grad or name in _OF_LOSS:
            continue
        for run, state in zip(runs, states, strict=True):
            if not (state[name] == parameter).all():
                raise ConfigError(
                    f"runs: {name} is frozen, but its values in {run.path} are not those of the model that "
                    f"{runs[0].path} began with. Runs that began with random weights can be averaged "
                    "only if they had the same seed."
                )


def _save(fitting: Fitting, state: dict[str, Tensor], value: float) -> None:
    """Writes the best checkpoint, as a training leaves it: temperature and bias are the loss's."""
    from gcl.lit.checkpoint import write_checkpoint

    whole = fitting.module.state_dict()
    own = {f"encoder.model.{name}": value for name, value in state.items() if name not in _OF_LOSS}
    whole |= own
    whole["loss.log_scale"] = state["logit_scale"].reshape_as(whole["loss.log_scale"])
    if "logit_bias" in state:
        whole["loss.bias"] = state["logit_bias"].reshape_as(whole["loss.bias"])
    write_checkpoint({"state_dict": whole, "global_step": 0}, fitting.checkpoints.best_path)
    fitting.checkpoints.best = value
    fitting.checkpoints.monitor = f"dev/{fitting.config.evaluate.headline[0]}"
