"""`evaluate.py`: runs and models measured on a catalog's held-out tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gcl.commands.say import say, speak_plainly
from gcl.config import compose, load_config, typed, with_words
from gcl.runs import RunFolder, write_json
from gcl.settings import RunConfig


def evaluate_words(words: Sequence[str], config_dir: str | None) -> Path:
    """Measures what the words name, prints one table, returns the folder with the figures.

    run=<folder>: its base and its best checkpoint, on its own catalog or on data=<other>;
    data=… model=…: a model as it comes; data=… models=[run:<folder>, siglip-B, local-dir:<folder>]: several.
    """
    speak_plainly()
    config = typed(compose(words, config_dir=config_dir))
    if config.run is not None:
        config = _of_run(RunFolder(Path(config.run)).check(), config, words)

    from gcl.data.prepare import prepare
    from gcl.data.prepared import open_prepared

    prepared = open_prepared(prepare(config.data, config.cache_dir), config.data.schema)

    from gcl.commands import contestants as of
    from gcl.commands.measure import Measurement, frozen_features, means_of, write_task_files
    from gcl.commands.tables import summary
    from gcl.retrieval.page.page import write_page

    schema = config.data.schema
    if config.run is not None:
        found = of.base_and_tuned(RunFolder(Path(config.run)), schema)
    elif config.models:
        found = [of.contestant(word, schema, config_dir=config_dir) for word in config.models]
    else:
        from gcl import assembly

        assembly.seed_everything(config)
        found = [of.Contestant(config.model.label, assembly.assemble_encoder(config.model, schema).eval())]
    settings = config.evaluate
    measurement = Measurement(prepared, settings.metrics, settings.tasks, batch_size=settings.batch_size)
    results = {}
    for entry in found:
        say(f"Measuring {entry.label} on {config.data.name} ({settings.part} half).")
        measurement.features = frozen_features(entry.encoder, prepared, config.cache_dir, workers=config.train.workers)
        results[entry.label] = measurement(entry.encoder, settings.part, k=settings.depth)
    folder = _folder(config)
    write_json(folder / "metrics.json", {label: means_of(result) for label, result in results.items()})
    write_task_files(folder / "tasks", measurement, results, settings.part)
    write_page(
        folder / "report.html",
        title=f"{' and '.join(results)} on {config.data.name}",
        tasks=measurement.opened(settings.part),
        models=results,
        metrics=settings.headline,
    )
    say("\n" + summary(results, settings.headline))
    say(f"\nAll metrics, TREC runs, qrels and report.html: {folder}")
    return folder


def _of_run(run: RunFolder, given: RunConfig, words: Sequence[str]) -> RunConfig:
    """The run's own config with the given words on top; `data=…` and `evaluate=…` put others in their place."""
    config = load_config(run.config)
    chosen = {word.partition("=")[0] for word in words}
    for name in ("data", "evaluate", "cache_dir"):
        if name in chosen:
            setattr(config, name, getattr(given, name))
    config = with_words(
        config,
        [
            word
            for word in words
            if (top := word.lstrip("+~").partition(".")[0]) in ("data", "evaluate") and top not in chosen
        ],
    )
    config.run, config.out = given.run, given.out
    return config


def _folder(config: RunConfig) -> Path:
    if config.out is not None:
        return Path(config.out)
    if config.run is not None:
        return Path(config.run) / "evaluations" / config.data.name
    return Path("outputs") / config.data.name / ("several" if config.models else config.model.label) / "evaluation"
