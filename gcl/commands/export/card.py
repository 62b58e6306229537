"""The end of an export: its snippets are run, its card is written, and every format is loaded and compared again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcl.config.schema import RunConfig
from gcl.loss.settings import Form
from gcl.run.console import say
from gcl.run.folder import RunFolder


@dataclass
class CardOptions:
    """license: for the card; null: what the base model's folder says, or other. compare: products a dev task that the
    round trip embeds with every format, at most (and a third as many searches).

    push: owner/name on the Hub. private: of a repository that is made. revision: a branch. pull_request: propose the
    files instead of committing.
    """

    license: str | None = None
    compare: int = 300
    push: str | None = None
    private: bool | None = None
    revision: str | None = None
    pull_request: bool = False


@dataclass
class Ending:
    """What the last steps need to know. prepared: opens the run's catalog; metrics: of a model at alpha, by label;
    best: it is the run's best checkpoint, of which the run folder's figures are."""

    run: RunFolder
    config: RunConfig
    options: CardOptions
    name: str
    prepared: Callable[[], Any]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    sections: Sequence[str] = ()
    best: bool = True
    results: Sequence[Any] = ()  # of a model at alpha, with intervals
    missing: list[str] = field(default_factory=list)  # what could not be compared or told, for the limits

    def finish(self, encoder: Any, folder: Path, formats: Sequence[Any], notes: Mapping[str, list[str]]) -> None:
        """Raises RoundTripError where a format is not the run's model, or a snippet does not run."""
        prepared = self._prepared()
        checked, snippets = [], []
        from gcl.export.vectors.write import EmbeddingsSnippet, embedding_files

        stored = bool(embedding_files(folder))
        if formats or stored:
            found = self._round_trip(encoder, folder, formats, prepared, stored)
            from gcl.export.verify.round_trip import round_trip_table

            checked = round_trip_table(found)
            snippets = self._snippets(encoder, folder, [*formats, *([EmbeddingsSnippet(folder)] if stored else [])])
        card = self._card(encoder, formats, notes, prepared, checked, snippets)
        (folder / "README.md").write_text(card, encoding="utf-8")

    def _prepared(self) -> Any:
        try:
            return self.prepared()
        except (ValueError, OSError) as error:
            say(f"Without the run's dev tasks: the catalog cannot be opened. {error}")
            self.missing.append("The catalog was not at hand at the export: its dev tasks were not compared.")
            return None

    def _round_trip(
        self, encoder: Any, folder: Path, formats: Sequence[Any], prepared: Any, stored: bool
    ) -> dict[str, Any]:
        from gcl.export.verify.case import make_case
        from gcl.export.verify.round_trip import round_trip
        from gcl.run.measurement import measurement_of

        tasks = []
        if prepared is not None:
            try:
                tasks = measurement_of(self.config.evaluate, self.config.data, prepared).opened("dev")
            except ValueError as error:
                say(f"The round trip compares no searches: {error}")
                self.missing.append("The catalog has no dev task that the formats could be compared on.")
        most = self.options.compare
        case = make_case(encoder, tasks, queries=max(1, most // 3), documents=most)
        if stored and encoder.preprocess.decode != "exact":  # the files hold what the run reads, the case exact pixels
            self.missing.append("Its embeddings were made with decode=scaled and not compared with exact decoding.")
            stored = False
        found = round_trip(encoder, folder, formats, case, embeddings=stored)
        for label, about in found.items():
            lowest = min((about[kind]["lowest"] for kind in ("text", "image") if kind in about), default=float("nan"))
            tops = about.get("tasks", {}).values()
            said = f", same top 10 for {sum(t['queries'] - t['different'] for t in tops)} of " if tops else ""
            said += f"{sum(t['queries'] for t in tops)} searches" if tops else ""
            say(f"Loaded again, {label}: lowest cosine {lowest:.6f}{said}.")
        return found

    def _snippets(self, encoder: Any, folder: Path, formats: Sequence[Any]) -> list[Any]:
        from gcl.export.card.snippets import run_snippets
        from gcl.export.formats.open_clip import CONFIG, settle

        repo, config = self.options.push, folder / CONFIG
        if repo is None or not config.is_file():
            return run_snippets(encoder, folder, formats, name=self.name, repo=repo)
        before = config.read_bytes()
        settle(folder, repo)  # as it will be there
        try:
            return run_snippets(encoder, folder, formats, name=self.name, repo=repo)
        finally:
            config.write_bytes(before)

    def _card(self, encoder: Any, formats, notes, prepared, checked, snippets) -> str:
        from gcl.export.card.card import CardFacts, check_card, license_of, write_card
        from gcl.export.card.snippets import execute, fuse_snippet
        from gcl.schema import Modality

        config, schema = self.config, encoder.schema
        metrics = {**(_json(self.run.metrics) if self.best else {}), **self.metrics}
        if not self.best:
            self.missing.append("It is not the best checkpoint of its run, and this one was not measured on its tests.")
        own = _json(self.run.path / "results.json").get("results", []) if self.best and not self.metrics else []
        tuned = next(iter(self.metrics), "tuned")
        fusing = execute("fusing", fuse_snippet(schema, encoder.width), self.run.path) if formats else None
        text = write_card(
            CardFacts(
                name=self.name, base=config.model.name, license=license_of(config.model.name, self.options.license),
                formats=[format.name for format in formats], schema=schema, catalog=config.data.name,
                headline=config.evaluate.headline, width=encoder.width, metrics=metrics,
                results=self.results or own, tuned=tuned,
                counts=None if prepared is None else prepared.counts,
                score=None if prepared is None else prepared.pairs.score, training=training_facts(config, self.run),
                notes=[note for sentences in notes.values() for note in sentences], snippets=snippets, fusing=fusing,
                checked=checked, sections=self.sections, used=sources(config, bool(self.metrics)),
                not_measured=self.missing, images=encoder.tower(Modality.image) is not None, repo=self.options.push,
            )
        )  # fmt: skip
        check_card(text)
        return text


def training_facts(config: RunConfig, run: RunFolder) -> dict[str, Any]:
    """What a reader wants to know of the training configuration, in the order of a card."""
    environment = _json(run.environment)
    weight, optimizer = config.loss.score_to_weight, config.optim.optimizer
    facts = {
        "model": config.model.name + (f", weights {config.model.pretrained}" if config.model.pretrained else ""),
        "catalog": f"{config.data.name}, fingerprint {str(environment.get('data_fingerprint', 'unknown'))[:16]}",
        "loss": f"GCL, {config.loss.form.value}, {config.loss.direction.value}",
        "score to weight": weight["_target_"].rpartition(".")[2],
        "pairs a batch, over all devices": config.train.batch_size,
        "epochs": f"{config.train.epochs:g}",
        "steps, as planned": environment.get("steps", config.train.max_steps),
        "optimizer": optimizer["_target_"].rpartition(".")[2] if optimizer else None,
        "learning rate": f"{config.optim.learning_rate:g}",
        "weight decay": f"{config.optim.weight_decay:g}",
        "frozen": ", ".join(config.optim.freeze),
        "adapters": f"LoRA of rank {config.model.lora.rank}, merged" if config.model.lora.rank else None,
        "precision": environment.get("precision"),
        "devices": f"{environment.get('world_size', 1)} x {environment.get('device', 'unknown')}",
        "parameters": _trained(environment),
        "seed": config.seed,
    }
    return {key: value for key, value in facts.items() if value not in (None, "")}


def sources(config: RunConfig, alpha: bool) -> list[str]:
    """Keys of what a card cites beyond GCL, SigLIP and open_clip."""
    name = config.model.name.lower()
    used = {
        "siglip": "siglip" in name or config.loss.form is Form.sigmoid,
        "siglip2": "siglip2" in name,
        "clip": "clip" in name.replace("siglip", ""),
        "micro_batch": config.train.micro_batch is not None,
        "alpha": alpha,
        "lora": config.model.lora.rank is not None,
    }
    return [key for key, true in used.items() if true]


def _trained(environment: Mapping[str, Any]) -> str | None:
    if "parameters" not in environment:
        return None
    return f"{environment['parameters']:,}, of which {environment.get('trained_parameters', 0):,} were trained"


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
