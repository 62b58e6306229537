"""`gcl export … alpha=`: interpolates between a run's base and its tuned model and measures the result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gcl.config.schema import RunConfig
from gcl.data.store.prepared import Prepared
from gcl.errors import ConfigError
from gcl.model.dual_encoder import DualEncoder
from gcl.model.interpolate import Point, choose, interpolate
from gcl.retrieval.report import contest_rows
from gcl.run.console import say
from gcl.run.contestants import both_encoders, tuned_encoder
from gcl.run.folder import RunFolder
from gcl.run.measurement import Measurement, embedding_cache, frozen_features, measurement_of
from gcl.run.outcome import means_of
from gcl.run.retention import Retention
from gcl.table import Table, Value

STEPS = tuple(step / 10 for step in range(11))


@dataclass(frozen=True)
class Between:
    """The model at `alpha` and its figures.

    record: plain values for alpha.json: alpha, metric, curve (alpha=auto), the means on the test half, and results:
        the headline metrics there with intervals, next to the base's, as in results.json.
    """

    encoder: DualEncoder
    alpha: float
    record: dict[str, Any]

    @property
    def means(self) -> dict[str, Any]:
        """{task: {metric: mean}} on the test half, as in metrics.json."""
        return self.record["test"]


def parse_alpha(given: Any) -> float | str | None:
    """None, "auto", or a number from 0 to 1; raises ConfigError for anything else."""
    if given is None or given == "auto":
        return given
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1 or isinstance(given, bool):
        raise ConfigError(f"alpha={given}: expected auto, or a number from 0 (the base) to 1 (the tuned model).")
    return number


def between(
    run: RunFolder, config: RunConfig, prepared: Prepared, alpha: float | str, *, checkpoint: Path | None = None
) -> Between:
    """Interpolates a run's base and tuned weights; "auto" chooses on the dev tasks, within the retention limits."""
    base, tuned = both_encoders(run)
    if checkpoint is not None:
        tuned = tuned_encoder(run, checkpoint=checkpoint)
    if tuned.by_query is not None:
        tuned.by_query = None
        say("Weights by query were learned with the tuned model: between it and the base, the constant ones are used.")
    ends = weights_of(base), weights_of(tuned)
    features = frozen_features(tuned, prepared, config)
    # No cache: the models of a sweep are measured once.
    measurement = measurement_of(config.evaluate, config.data, prepared, features=features)
    record: dict[str, Any] = {"metric": config.evaluate.monitor}
    if isinstance(alpha, str):  # "auto"
        curve = _sweep(tuned, ends, config, measurement)
        chosen = choose(curve)
        alpha = chosen.alpha
        record["curve"] = [asdict(point) for point in curve]
        record["limits"] = {name: one.limit for name, one in config.evaluate.retention.items()}
        say(f"Chose alpha={alpha:g}: {config.evaluate.monitor} {chosen.dev:.4f} on the dev tasks.")
    move(tuned, *ends, alpha)
    measured = measurement(tuned, "test", passing=True)
    compared = {"base": measurement(base, "test", passing=True), f"alpha {alpha:g}": measured}
    rows = [row.record() for row in contest_rows(compared, config.evaluate.headline)]
    record |= {"alpha": alpha, "test": means_of(measured), "results": rows}
    return Between(tuned, float(alpha), record)


def _sweep(
    encoder: DualEncoder, ends: tuple[dict[str, Tensor], dict[str, Tensor]], config: RunConfig, measurement: Measurement
) -> list[Point]:
    retention = Retention(config, embedding_cache(config))
    if not retention:
        say("The run has no retention set (evaluate.retention), so alpha is chosen on the dev tasks alone.")
    curve: list[Point] = []
    for alpha in STEPS:
        move(encoder, *ends, alpha)
        if retention and not curve:
            retention.remember(encoder)  # alpha 0: the base
        dev = _dev_mean(encoder, config, measurement)
        values = retention.quick(encoder) if retention else {}
        change = {name: value - retention.base[name] for name, value in values.items()}
        curve.append(Point(alpha, dev, change, retention.within(values) if retention else True))
        told = "".join(f", {name} {lost:+.4f}" for name, lost in change.items())
        told += "" if curve[-1].within else " (beyond the limit)"
        say(f"alpha={alpha:g}: {config.evaluate.monitor} {dev:.4f}{told}")
    return curve


def _dev_mean(encoder: DualEncoder, config: RunConfig, measurement: Measurement) -> float:
    """The value that chose the run's best checkpoint: the mean of evaluate.monitor over the watched dev tasks."""
    watched = config.evaluate.monitor_tasks
    results = measurement(encoder, "dev", [config.evaluate.monitor], passing=True)
    values = [r.means[config.evaluate.monitor] for task, r in results.items() if watched is None or task in watched]
    return math.fsum(values) / len(values)


def move(encoder: DualEncoder, base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], alpha: float) -> None:
    """Gives the encoder the weights at `alpha`, in place."""
    put(encoder, interpolate(base, tuned, alpha))


def put(encoder: DualEncoder, state: Mapping[str, Tensor]) -> None:
    """Gives the encoder the weights of a state of its architecture, temperature and bias included, in place."""
    model = encoder.model
    if "logit_bias" not in state:
        setattr(model, "logit_bias", None)  # noqa: B010, torch's stubs know parameters and modules only
    elif model.logit_bias is None:
        encoder.write_scale_bias(float(state["logit_scale"]), float(state["logit_bias"]))
    model.load_state_dict(state)


def weights_of(encoder: DualEncoder) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in encoder.model.state_dict().items()}


def alpha_lines(record: Mapping[str, Any]) -> list[str]:
    """Markdown for the card: which alpha, and the curve it was chosen from."""
    lines = [
        f"The weights are interpolated between the base and the tuned model (WiSE-FT, Wortsman et al. 2022): "
        f"alpha = {record['alpha']:g}; 0 is the base, 1 the tuned model."
    ]
    if curve := record.get("curve"):
        sets = list(curve[0]["retention"])
        limits = ", ".join(f"{name} may lose at most {limit:g}" for name, limit in record["limits"].items())
        lines += [
            f"It was chosen on the dev tasks{f', where {limits}' if limits else ', without a retention set'}.",
            "",
        ]
        changes = [f"{name}, change" for name in sets]
        rows: list[list[Value]] = []
        for point in curve:
            mark = " ←" if point["alpha"] == record["alpha"] else "" if point["within"] else " beyond the limit"
            rows.append([f"{point['alpha']:g}{mark}", point["dev"], *(point["retention"][name] for name in sets)])
        header = ["alpha", f"{record['metric']} (dev)", *changes]
        lines += Table(header, rows, align="r", formats=dict.fromkeys(changes, "+.4f")).markdown().split("\n")
    return lines
