"""What a measurement ends with: the verdict, what to do next, and the exit status that evaluate.gate makes of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from gcl.config.schema import RunConfig
from gcl.errors import ConfigError
from gcl.lit.whole import done_file
from gcl.retrieval.analysis.verdict import Decision, Verdict, spoken
from gcl.retrieval.settings import Gate
from gcl.run.console import say
from gcl.run.folder import RunFolder, fact

CLOSED = 3  # the exit status
_FEW_PAIRS = 5000  # below which more pairs help more than any setting
_EARLY = 1 / 3  # of a run: where its best checkpoint lies before, its steps were too large
_ADAPTERS = "model.lora.rank=8"


def say_verdicts(verdicts: Mapping[str, Verdict], base: str, config: RunConfig, run: RunFolder | None) -> None:
    """The verdict of each model and, of a run's, what to do next. base: the label of the
    first model. config: the run's. run: None where its own catalog was not measured. Without a second model there is
    nothing to say."""
    for label, verdict in verdicts.items():
        say(f"\n{spoken(label, base, verdict)}.")
    if run is None or len(verdicts) != 1:
        return
    steps = next_steps(next(iter(verdicts.values())), config, run)
    width = max(map(len, steps), default=0)
    say("\n".join(["Next:", *(f"  {command:{width}}  {why}" for command, why in steps.items())]))


def check_gate(config: RunConfig) -> None:
    """Raises ConfigError where a gate would have nothing to decide on."""
    if config.evaluate.gate is not Gate.off and config.run is None and len(config.models) < 2:
        raise ConfigError(
            f"evaluate.gate={config.evaluate.gate}: one model is compared with nothing. Name a run (run=…), or several "
            "models (models=[now,new]), of which each is compared with the first."
        )


def close_gate(gate: Gate, verdicts: Mapping[str, Verdict]) -> None:
    """Ends the command with status 3 if a verdict is not what `evaluate.gate` asks for."""
    stopped = [label for label, verdict in verdicts.items() if not passes(gate, verdict.decision)]
    if stopped:
        say(f"\nThe exit status is {CLOSED} (evaluate.gate={gate}): {', '.join(stopped)}.")
        raise SystemExit(CLOSED)


def passes(gate: Gate, decision: Decision) -> bool:
    """
    >>> passes(Gate.worse, Decision.mixed), passes(Gate.better, Decision.mixed), passes(Gate.worse, Decision.worse)
    (True, False, False)
    """
    if gate is Gate.better:
        return decision is Decision.ship
    return gate is Gate.off or decision is not Decision.worse


@dataclass(frozen=True)
class _Facts:
    """What a run's folder tells of how it went; None where it does not say. Steps are the optimiser's."""

    pairs: int | None
    steps: int | None
    best_step: int | None

    @property
    def share(self) -> float | None:
        """How far the run was when it was best, from 0 to 1."""
        return None if not self.steps or self.best_step is None else self.best_step / self.steps


def _facts(run: RunFolder, config: RunConfig) -> _Facts:
    batches = fact(run.environment, "steps", int)
    return _Facts(
        fact(run.path / "data.json", "training_pairs", int),
        None if batches is None else max(1, batches // config.train.accumulate),
        None if config.merged else fact(done_file(run.best), "step", int),
    )


def next_steps(verdict: Verdict, config: RunConfig, run: RunFolder) -> dict[str, str]:
    """{a command as it can be typed, or what to do: why}, from what the run's folder tells."""
    here, facts = f"run={shlex.quote(str(run.path))}", _facts(run, config)
    export = f"gcl export {here} out={shlex.quote(f'{config.data.name}-{run.path.name}')}"
    if verdict.decision is Decision.ship:
        return {f"gcl search {here}": "try it", export: "take it where it is used"}
    steps = {}
    if verdict.decision is Decision.mixed:
        steps[str(run.report)] = "which searches got worse"
        if _was_pretrained(config):
            steps[f"{export} alpha=auto"] = "a model between base and tuned, which keeps more"
    if verdict.decision is Decision.worse:
        if verdict.forgotten:
            steps[_again("evaluate.forgetting=choose")] = "the best checkpoint is one of those that keep enough"
        rate = config.optim.learning_rate
        steps[_again(f"optim.learning_rate={rate / 3:.2g}")] = f"a third of {rate:g}" + (
            f": its best was step {facts.best_step} of {facts.steps}, downhill from there"
            if facts.share is not None and facts.share <= _EARLY
            else ", smaller steps"
        )
        if config.model.lora.rank is None and _was_pretrained(config):
            steps[_again(_ADAPTERS)] = "adapters alone, which change less of the model"
    if facts.share is not None and facts.share >= 1 and verdict.decision is not Decision.mixed:
        steps |= _longer(config, facts)
    weighed = run.field_weights.is_file()
    if len(config.data.document) > 1 and verdict.decision is not Decision.unclear and not weighed:
        steps[f"gcl sweep-weights {here}"] = "other field weights, without training again"
    if facts.pairs is not None and facts.pairs < _FEW_PAIRS:
        steps["more pairs"] = f"it was trained on {facts.pairs:,}: clicks and orders of a longer time, for example"
    if verdict.decision is Decision.unclear:
        steps["more judged searches"] = "small differences show on many searches only"
    if verdict.decision is not Decision.mixed:
        steps[f"gcl doctor {here}"] = "what in the catalog stands in the way"
    return steps


def _again(setting: str) -> str:
    return f"train again with {setting}"


def _was_pretrained(config: RunConfig) -> bool:
    return bool(config.model.pretrained) or ":" in config.model.name


def _longer(config: RunConfig, facts: _Facts) -> dict[str, str]:
    if config.train.max_steps is not None:
        setting = f"train.max_steps={2 * config.train.max_steps}"
    else:
        setting = f"train.epochs={2 * config.train.epochs:g}"
    return {_again(setting): f"it was still getting better at its last step, {facts.steps:,}"}
