"""A run's objects and the four things done with them: measure the base, fit, measure the best, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gcl import assembly
from gcl.commands.measure import Measurement, means_of, write_task_files
from gcl.commands.say import quiet_libraries, say
from gcl.config import ConfigError, RunConfig, build
from gcl.data.batch import SideReader
from gcl.data.lock import locked
from gcl.data.prepared import Prepared
from gcl.lit.checkpoint import BestAndLast, read_checkpoint
from gcl.lit.data import PairData
from gcl.lit.module import GCLModule
from gcl.lit.progress import RunProgress
from gcl.model.features import cached_features
from gcl.runs import RunFolder, write_json

Results = dict[str, Any]


class Fitting:
    """Everything a training run is made of, built from its config."""

    def __init__(self, config: RunConfig, run: RunFolder, prepared: Prepared) -> None:
        self.config, self.run, self.prepared = config, run, prepared
        quiet_libraries()
        assembly.seed_everything(config)
        self.encoder = assembly.assemble_encoder(config.model, config.data.schema)
        assembly.freeze_parts(self.encoder, config.optim)
        self.loss = assembly.assemble_loss(config.loss, self.encoder)
        self.plan = assembly.assemble_plan(prepared, config.train, config.seed)
        self.steps = assembly.total_steps(config.train, self.plan)
        self.checkpoints = BestAndLast(
            run.checkpoints,
            monitor=f"dev/{config.evaluate.monitor}",
            every=config.train.checkpoint_every,
            patience=config.train.patience,
        )
        self.features = self._cached_features()
        self.measurement = Measurement(
            prepared, config.evaluate.metrics, config.evaluate.tasks,
            batch_size=config.evaluate.batch_size, workers=0, features=self.features,
        )  # fmt: skip
        self.module = self._module()
        self.data = self._data()
        self.trainer = self._trainer()

    @property
    def is_first(self) -> bool:
        return self.trainer.is_global_zero

    def describe(self) -> dict[str, Any]:
        trained = sum(p.numel() for p in self.encoder.parameters() if p.requires_grad)
        return {
            "world_size": self.trainer.world_size,
            "precision": str(self.trainer.precision),
            "data_fingerprint": self.prepared.fingerprint,
            "plan_fingerprint": self.plan.fingerprint,
            "parameters": sum(p.numel() for p in self.encoder.parameters()),
            "trained_parameters": trained,
            "steps": self.steps,
        }

    def check_batch(self) -> None:
        wanted = {self.config.evaluate.monitor, *self.config.evaluate.headline}
        missing = sorted(wanted - set(self.config.evaluate.metrics))
        if missing:
            raise ConfigError(f"evaluate.metrics does not hold {missing[0]!r}, which evaluate.monitor or headline names: add it.")

    def _cached_features(self) -> dict[str, dict[str, Any]]:
        """Frozen trunks without augmentation are run once; training and evaluation then read their outputs."""
        if not self.config.train.cache_features or self.config.train.augment:
            return {}
        folder = Path(self.config.cache_dir) / "features"
        folder.mkdir(parents=True, exist_ok=True)
        stores = {"query": self.prepared.queries, "document": self.prepared.documents}
        with locked(folder / ".lock", waiting_for="the features of the frozen trunks"):
            return {
                side: {
                    name: cached_features(self.encoder, store, name, field, folder, workers=self.config.train.workers)
                    for name, field in self.config.data.schema.side(side).items()
                    if self.encoder.frozen_trunk(field.modality)
                }
                for side, store in stores.items()
            }

    def _module(self) -> GCLModule:
        optim, evaluate = self.config.optim, self.config.evaluate
        watched = list(dict.fromkeys([evaluate.monitor, *evaluate.headline]))
        return GCLModule(
            self.encoder,
            self.loss,
            optimizer=build(optim.optimizer),
            schedule=build(optim.schedule),
            learning_rate=optim.learning_rate,
            weight_decay=optim.weight_decay,
            warmup=optim.warmup,
            total_steps=-(-self.steps // self.config.train.accumulate),
            layer_decay=optim.layer_decay,
            rules=assembly.rules_of(optim),
            micro_batch=self.config.train.micro_batch,
            validate=lambda encoder: {task: r.means for task, r in self.measurement(encoder, "dev", watched).items()},
            measure=lambda encoder: self.measurement(encoder, "test", k=evaluate.depth),
            monitor=evaluate.monitor,
            monitor_tasks=evaluate.monitor_tasks,
            seed=self.config.seed,
        )

    def _data(self) -> PairData:
        schema = self.config.data.schema
        readers = {
            side: SideReader(store, schema.side(side), self.encoder.preprocess, self.features.get(side))
            for side, store in (("query", self.prepared.queries), ("document", self.prepared.documents))
        }
        return PairData(self.prepared.pairs, self.plan, steps=self.steps, workers=self.config.train.workers, augment=self.config.train.augment, **readers)

    def _trainer(self):
        train = self.config.train
        logger = build(self.config.logger, save_dir=str(self.run.path)) if self.config.logger else False
        return assembly.assemble_trainer(
            self.config.trainer,
            steps=self.steps,
            validate_every=assembly.validation_interval(train, self.plan, self.steps),
            run_dir=self.run.path,
            logger=logger,
            callbacks=[self.checkpoints, RunProgress(), *(build(node) for node in self.config.callbacks.values() if node)],
            clip_norm=self.config.optim.clip_norm,
            accumulate=train.accumulate,
        )

    def measure_base(self) -> Results:
        say(f"\nMeasuring {self.config.model.label} as it comes (base).")
        return self._measure()

    def fit(self, resume: Path | None) -> None:
        pairs, steps = len(self.prepared.pairs), self.steps
        trained = self.describe()["trained_parameters"]
        say(f"\nTraining {trained / 1e6:.1f} M parameters on {pairs:,} pairs: {steps:,} steps of {self.plan.batch_size} pairs.")
        self.trainer.fit(self.module, self.data, ckpt_path=resume, weights_only=True)

    def measure_best(self) -> Results:
        best = self.checkpoints.best_path
        if not best.is_file():
            raise RuntimeError(f"Training ended without a validation, so there is no {best}: lower train.validate_every.")
        state = read_checkpoint(best)
        self.module.load_state_dict(state["state_dict"])
        say(f"\nMeasuring the best checkpoint (step {self.checkpoints.best_step}, {self.checkpoints.monitor} {self.checkpoints.best:.3f}).")
        return self._measure()

    def _measure(self) -> Results:
        """The test part, through the trainer, so that all ranks take part."""
        self.trainer.test(self.module, self.data, verbose=False)
        return self.module.measured

    def report(self, base: Results, tuned: Results, *, seconds: float) -> None:
        from gcl.commands.tables import summary

        write_json(self.run.metrics, {"base": means_of(base), "tuned": means_of(tuned)})
        write_task_files(self.run.tasks, self.measurement, {"base": base, "tuned": tuned})
        say("\n" + summary({"base": base, "tuned": tuned}, self.config.evaluate.headline))
        say(
            f"\nDone in {seconds / 60:.1f} minutes. Everything is in {self.run.path}\n"
            f"  metrics.json       all metrics          tasks/       TREC run and qrels files\n"
            f"  checkpoints/       best and last        metrics.csv  the training curve\n"
            f"Next: gcl export run={self.run.path} out=my_model"
        )
