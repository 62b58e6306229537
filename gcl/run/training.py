"""A run's objects and the four things done with them: measure the base, fit, measure the best, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np

from gcl.config.compose import build, flatten
from gcl.config.schema import RunConfig
from gcl.data.store.prepared import Prepared
from gcl.files.progress import doing, duration
from gcl.lit.checkpoint import read_checkpoint
from gcl.lit.guards import RollBack
from gcl.lit.module import Measuring, compile_towers
from gcl.lit.progress import RunProgress
from gcl.lit.settings import FieldWeights
from gcl.lit.sharded import is_sharded, load_weights
from gcl.lit.whole import checkpoint_sha256
from gcl.model.dual_encoder import DualEncoder
from gcl.model.lora import describe as describe_adapters
from gcl.model.lora import merge_adapters
from gcl.model.rotation import Rotation
from gcl.retrieval.analysis.verdict import Verdict
from gcl.retrieval.analysis.weight_sweep import Embedded, weighed_by_query
from gcl.retrieval.embedding.quantize import forms_of
from gcl.retrieval.page.curve import OF_AVERAGE
from gcl.retrieval.settings import Forgetting
from gcl.run import build as assembly
from gcl.run import wandb_report
from gcl.run.console import quiet_libraries, say
from gcl.run.environment import describe_environment
from gcl.run.extras import columns_for, extras_of
from gcl.run.field_weights import written
from gcl.run.folder import RunFolder
from gcl.run.measurement import describe_features, embedding_cache, frozen_features, measurement_of
from gcl.run.outcome import Outcome
from gcl.run.retention import Retention
from gcl.run.tables import summary
from gcl.run.teacher import lookups_of
from gcl.run.weighing import Weighed, by_query_or_constant, choose_weights, learned_weights, sides_to_weigh
from gcl.schema import SideWeights

Results = dict[str, Any]


class Fitting:
    """Everything a training run is made of, built from its config (gcl/run/build.py builds the single objects)."""

    def __init__(self, config: RunConfig, run: RunFolder, prepared: Prepared) -> None:
        self.config, self.run, self.prepared = config, run, prepared
        quiet_libraries()
        assembly.seed_everything(config)
        self.encoder = assembly.assemble_encoder(config.model, config.data.schema)
        assembly.freeze_parts(self.encoder, config.optim)
        self.lookups, teaching = lookups_of(config, prepared)
        self.loss = assembly.assemble_loss(config.loss, self.encoder, teaching=teaching)
        self.plan = assembly.assemble_plan(prepared, config)
        self.steps = assembly.total_steps(config.train, self.plan)
        self.watch = assembly.assemble_watch(config, run, prepared, self.plan, self._facts())
        self.checkpoints, self.interruption = self.watch.checkpoints, self.watch.interruption
        self.features = frozen_features(self.encoder, prepared, config, training=True)
        describe_features(self.encoder, prepared, config, self.features)
        self.measurement = measurement_of(
            config.evaluate, config.data, prepared, features=self.features, cache=embedding_cache(config),
            forms=forms_of(config.evaluate.compress),
        )  # fmt: skip
        self.columns = columns_for(config.evaluate, config.data, config.cache_dir)
        self.retention = Retention(config, embedding_cache(config))
        self.base: Results = {}  # of the model as it comes
        self._embedded_base: list[Embedded] = []
        self._base_rotation: Rotation | None = None
        self.weighed: Weighed | None = None
        self.notes: list[str] = []
        if config.train.compile:
            compile_towers(self.encoder, config.train.compile)
        measuring = Measuring(
            validate=self._validated, measure=self._measured, retain=self._retain if self.retention else None,
            monitor=config.evaluate.monitor, monitor_tasks=config.evaluate.monitor_tasks,
        )  # fmt: skip
        self.module = assembly.assemble_module(config, self.encoder, self.loss, self.steps, measuring)
        self.data = assembly.assemble_data(
            config, prepared, self.plan, self.steps, self.encoder, self.features, self.lookups
        )
        self.trainer = self._trainer()
        self.wandb = wandb_report.begin(self.trainer, flatten(config), self.describe())

    def _trainer(self) -> pl.Trainer:
        config = self.config
        return assembly.assemble_trainer(
            config.trainer,
            validate_every=assembly.validation_interval(config.train, self.plan, self.steps),
            run_dir=self.run.path,
            loggers=assembly.assemble_loggers(config.logger, self.run),
            callbacks=[
                *assembly.assemble_mining(config, self.prepared, self.features),  # before anything reads a batch
                *self.watch.callbacks,
                RunProgress(),
                *(build(n) for n in config.callbacks.values() if n),
            ],
            clip_norm=config.optim.clip_norm,
            accumulate=config.train.accumulate,
        )

    @property
    def is_first(self) -> bool:
        return self.trainer.is_global_zero

    def describe(self) -> dict[str, Any]:
        trained = sum(p.numel() for p in self.encoder.parameters() if p.requires_grad)
        return {
            "world_size": self.trainer.world_size,
            "precision": str(self.trainer.precision),
            **self.describe_plan(),
            "parameters": sum(p.numel() for p in self.encoder.parameters()),
            "trained_parameters": trained,
        }

    def _facts(self) -> dict[str, Any]:
        """Facts that must be equal on every rank before the ranks exchange anything."""
        roots = [f"data.catalogs.{name}.root" for name in self.config.data.mix]
        here = ("cache_dir", "data.root", "data.cache_gb", *roots)
        config = {key: value for key, value in flatten(self.config).items() if key not in here}  # each machine's own
        return {**config, **self.describe_plan(), **describe_environment()["packages"]}

    def describe_plan(self) -> dict[str, Any]:
        judged = None if self.plan.negatives is None else self.plan.negatives.digest
        return {
            "data_fingerprint": self.prepared.fingerprint,
            "plan_fingerprint": self.plan.fingerprint,
            **({} if judged is None else {"negatives": judged}),
            **({} if self.lookups.digest is None else {"teacher_digest": self.lookups.digest}),
            "steps": self.steps,
        }

    def measure_base(self) -> None:
        say(f"\nMeasuring {self.config.model.label} as it comes (base).")
        self.base = self._measure()

    def fit(self, resume: Path | None) -> None:
        pairs, steps = len(self.prepared.pairs), self.steps
        trained = self.describe()["trained_parameters"]
        say(
            f"\nTraining {trained / 1e6:.1f} M parameters on {pairs:,} pairs: "
            f"{steps:,} steps of {self.plan.batch_size} pairs."
        )
        if self.encoder.adapters is not None:
            say(describe_adapters(self.encoder))
        try:
            self.trainer.fit(self.module, self.data, ckpt_path=resume, weights_only=True)
        except RollBack as back:
            say(f"Step {back.steps[0]} gave a loss or gradient that is not finite: {back}.")
            self.trainer = self._trainer()
            self.fit(self.run.last)

    def measure_best(self) -> Results:
        best = self.checkpoints.best_path
        if not best.is_file():
            raise RuntimeError(
                f"Training ended before the first validation, so there is no {best}: lower train.validate_every."
            )
        state = read_checkpoint(best)
        load_weights(self.module, state["state_dict"])
        if not any(map(is_sharded, self.encoder.parameters())):
            merge_adapters(self.encoder)  # what is measured is what is exported, to the bit
        say(
            f"\nMeasuring the best checkpoint (step {self.checkpoints.best_step}, "
            f"{self.checkpoints.monitor} {self.checkpoints.best:.3f})."
        )
        return self._measure()

    def _about_weights(self) -> list[str]:
        """Of which runs they are the mean, or what chose between the trained ones and their average."""
        if merged := self.config.merged:
            shares = ", ".join(f"{share:.3g} of {run}" for run, share in merged.items())
            return [f"The weights are averaged (gcl merge): {shares}."]
        found = self.checkpoints.best_of
        if OF_AVERAGE not in found:
            return []
        chosen, other = ("average", "weights themselves")[:: 1 if self.checkpoints.best_prefix else -1]
        best = {"average": found[OF_AVERAGE], "weights themselves": found[""], chosen: self.checkpoints.best}
        decay = "" if self.config.train.ema is None else f"={self.config.train.ema:g}"  # a resumed run may leave it out
        return [
            f"train.ema{decay}: the best checkpoint has the {chosen}, {self.checkpoints.monitor} "
            f"{best[chosen]:.4f}; of the {other} it was at most {best[other]:.4f}."
        ]

    def _validated(self, encoder: DualEncoder) -> dict[str, dict[str, np.ndarray]]:
        """{task: {metric: values[Q]}} on the dev half."""
        evaluate = self.config.evaluate
        watched = list(dict.fromkeys([evaluate.monitor, *evaluate.headline]))
        return {task: r.values for task, r in self.measurement(encoder, "dev", watched, passing=True).items()}

    def _measured(self, encoder: DualEncoder) -> Results:
        """The test half and the general sets, by every rank."""
        first = not self.base
        if self.retention and first:
            self.retention.remember(encoder)
        self.retention.measure("base" if first else "tuned", encoder)
        if self.config.train.field_weights is FieldWeights.given:
            self.run.field_weights.unlink(missing_ok=True)  # it was begun with another setting
            return self.measurement(encoder, "test", k=self.config.evaluate.depth)
        embedded = self.measurement.embedded(encoder, "test")
        if first:
            self._embedded_base, self._base_rotation = embedded, self.measurement.rotation_for(encoder)
            return self._with_weights(encoder, embedded, rotation=self._base_rotation)
        return self._weighed(encoder, embedded)

    def _with_weights(
        self,
        encoder: DualEncoder,
        embedded: list[Embedded],
        weights: SideWeights | None = None,
        rotation: Rotation | None = None,
    ) -> Results:
        depth = self.config.evaluate.depth
        return self.measurement(encoder, "test", k=depth, embedded=embedded, weights=weights, rotation=rotation)

    def _weighed(self, encoder: DualEncoder, embedded: list[Embedded]) -> Results:
        """With the field weights that the dev half chooses, or that were learned; the base as well, with constant ones:
        what is compared is the models."""
        config = self.config
        headline, schema = config.evaluate.headline, config.data.schema
        catalogs = [config.data.name, *config.data.mix]
        gate = None if self.module.query_weights is None else self.module.query_weights.learned
        if (learned := self.module.field_weights) is not None:
            shares = {side: learned.shares(side) for side in learned.fields}
            chosen = learned_weights(catalogs, schema, shares)
        else:
            dev = self.measurement.embedded(encoder, "dev") if sides_to_weigh(schema) else []
            chosen = choose_weights(catalogs, schema, dev, headline[0])
            if gate is not None:
                chosen = by_query_or_constant(chosen, dev, gate, headline[0])
        if self.is_first:
            chosen.write(self.run.field_weights)
        say(f"{chosen.sentence}.")
        self.notes = [f"{chosen.sentence}."]
        constant: SideWeights | None = None
        if chosen.changed:
            constant = chosen.used
            self.base = self._with_weights(encoder, self._embedded_base, constant, self._base_rotation)
            them = f"the constant ones, {written(constant['document'])}" if chosen.by_query else "them as well"
            self.notes = [f"{chosen.sentence}. The base is measured with {them}."]
        ways: dict[str, tuple[list[Embedded], SideWeights | None]] = {"constant": (embedded, constant)}
        if chosen.changed:
            ways["given"] = embedded, None
        if gate is not None:
            ways["by query"] = weighed_by_query(embedded, gate), {"query": chosen.used["query"]}
        taken = "by query" if chosen.by_query else "constant"
        results = {
            name: self._with_weights(encoder, tasks, weights) if name == taken
            else self.measurement(encoder, "test", headline, embedded=tasks, weights=weights, passing=True)
            for name, (tasks, weights) in ways.items()
        }  # fmt: skip
        if len(ways) > 1:
            self.weighed = Weighed.of(
                chosen, headline, seed=config.seed, given=results.get("given"), constant=results["constant"],
                by_query=results.get("by query"),
            )  # fmt: skip
        return results[taken]

    def _retain(self, encoder: DualEncoder) -> dict[str, float]:
        values = self.retention.quick(encoder)
        columns = self.retention.columns(values)
        if self.config.evaluate.forgetting is Forgetting.choose:
            columns["retention/within"] = float(self.retention.within(values))
        return columns

    def _measure(self) -> Results:
        """The test part, through the trainer, so that all ranks take part."""
        self.trainer.test(self.module, self.data, verbose=False)
        return self.module.measured

    def report(self, tuned: Results, *, seconds: float) -> dict[str, Verdict]:
        """Writes and prints everything but the verdict on the tuned model, which is returned."""
        base, config = self.base, self.config
        with doing("Computing intervals and writing the report"):
            outcome = self._outcome(base, tuned)
            outcome.seconds = seconds
            outcome.write(self.run.path)
            verdicts = outcome.verdicts
            facts = {"model": config.model.name, "seed": config.seed, "minutes": round(seconds / 60, 1)}
            if self.wandb is not None:
                facts["Weights & Biases"] = wandb_report.place_of(self.wandb)
            curve = self.run.path / "metrics.csv"
            outcome.write_page(self.run.report, facts, curve=curve, seed=config.seed)
            shown = self._write_mined()
        if self.wandb is not None:
            say(f"Weights & Biases: {wandb_report.place_of(self.wandb)}")
            wandb_report.finish(self.wandb, outcome, self.run.path)
        files = "best" if config.merged else "best and last        metrics.csv  the training curve"
        say("\n" + outcome.extras.around(summary(outcome.models, self.config.evaluate.headline, outcome.notes)))
        say(
            f"\nDone in {duration(seconds)}. Everything is in {self.run.path}\n"
            f"  report.html        open it in a browser: what got better and worse, with pictures\n"
            f"  results.md, .csv   the table            results.json with provenance\n"
            f"  metrics.json       all metrics          tasks/       TREC run and qrels files\n"
            f"  checkpoints/       {files}"
            + ("\n  mined.html         the hard negatives that were mined, with pictures" if shown else "")
        )
        return verdicts

    def _write_mined(self) -> bool:
        """The page of what was mined, if anything was."""
        if self.config.plan.hard_negatives.source is None:
            return False
        from gcl.retrieval.page.mined import write_mined_page

        rounds = assembly.mining_rounds(self.config).files()
        title = f"Hard negatives mined from {self.config.data.name}"
        write_mined_page(self.run.path / "mined.html", self.prepared, title=title, rounds=rounds)
        return True

    def _outcome(self, base: Results, tuned: Results) -> Outcome:
        config = self.config
        tasks, models = self.measurement.opened("test"), {"base": base, "tuned": tuned}
        extras = extras_of(config.evaluate, models, tasks, {"": self.columns}, self.retention.kept(config.seed))
        extras.weighed = self.weighed
        best = self.checkpoints.best_path  # its hash and not the weights' in memory, which may lie on several ranks
        known = {
            "model": config.model.name, "checkpoint": str(best), "checkpoint_sha256": checkpoint_sha256(best)
        }  # fmt: skip
        return Outcome(
            config.evaluate, "test", f"{config.model.label} fine-tuned on {config.data.name}",
            tasks=tasks, models=models, extras=extras,
            sources={config.data.name: {"fingerprint": self.prepared.fingerprint}},
            contestants={"base": {"model": config.model.name}, "tuned": known}, seed=config.seed,
            notes=[*self.notes, *self._about_weights()],
        )  # fmt: skip
