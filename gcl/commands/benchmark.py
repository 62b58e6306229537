"""A published benchmark as one command: `python evaluate.py evaluate=marqo_ecommerce models=[ecommerce-L, siglip-B]`.

Each data set is streamed once per model; every task draws its queries as the published evaluator does, and the results
are listed with the published figures. What everything costs is estimated before it begins and told when it is done. On
several ranks each embeds and searches its part; a job that was killed goes on where it was (gcl/run/published.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gcl.config.schema import RunConfig
from gcl.distributed.ranks import of_first_rank, world
from gcl.errors import ConfigError, nearest
from gcl.files.atomic import write_json, write_text
from gcl.files.progress import duration
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.metrics.metrics import spelled
from gcl.retrieval.settings import BenchmarkConfig
from gcl.run.closing import close_gate, say_verdicts
from gcl.run.console import say
from gcl.run.contestants import contestants
from gcl.run.costs import Cost, costs_record, costs_table, counted_cost, pace_of
from gcl.run.folder import new_folder
from gcl.run.outcome import Outcome
from gcl.run.published import PUBLISHED, Finder, OpenSet, Spent, encoder_of, opened
from gcl.run.tables import summary
from gcl.table import Table


def run_benchmark(config: RunConfig, config_dir: str | None, write: Callable[[Outcome, Path], None]) -> Path:
    """Measures every model on every task of the benchmark; returns the folder with the figures. write: the files of an
    outcome into a folder."""
    benchmark, settings, first = _benchmark(config), config.evaluate, world()[0] == 0
    sizes = _sizes(benchmark)
    sets = [opened(name, size, benchmark, settings) for size in sizes for name in benchmark.sets]
    finder = Finder(config)
    costs = _say_plan(config, sets, config_dir, finder)
    outcome = Outcome(
        settings, settings.part, f"Marqo-Ecommerce, {', '.join(sizes)}", [t for one in sets for t in one.tasks]
    )
    outcome.sources = {one.name: one.facts() for one in sets}
    folder = Path(of_first_rank(str(_folder(config) if first else "")))
    for entry in contestants(config, PUBLISHED, config_dir=config_dir):
        finder.spent = Spent()
        for one in sets:
            say(f"Measuring {entry.label} on {one.name}: {one.source.rows:,} products.")
            results, notes = finder.results(entry, one)
            outcome.models.setdefault(entry.label, {}).update(results)
            outcome.notes += [note for note in [*notes, *entry.notes] if note not in outcome.notes]
        outcome.contestants[entry.label] = entry.facts()
        costs.setdefault(entry.label, {})["measured"] = counted_cost(finder.spent, entry.encoder)
        if first:
            write(replace(outcome), folder)  # after each model, with the verdicts so far: the next may take hours
            write_json(folder / "costs.json", costs_record(costs))
    if first:
        _close(config, outcome, folder, sets, costs)
    return folder


def _close(
    config: RunConfig, outcome: Outcome, folder: Path, sets: list[OpenSet], costs: dict[str, dict[str, Cost]]
) -> None:
    benchmark, settings = _benchmark(config), config.evaluate
    tables = published_tables(benchmark, outcome.models, settings.metrics)
    write_text(folder / "published.md", _markdown(tables, benchmark, outcome))
    say("\n" + summary(outcome.models, settings.headline, outcome.notes))
    for table in tables:
        say(f"\n{table.text()}")
    say(f"\n{costs_table(costs).text()}")
    say(
        f"\nPublished figures: {benchmark.source}{_partial(sets)}\n"
        f"All results: {folder} (report.html, published.md, results.json, costs.json)"
    )
    say_verdicts(outcome.verdicts, next(iter(outcome.models)), config, None)
    close_gate(settings.gate, outcome.verdicts)


def _folder(config: RunConfig) -> Path:
    size = _benchmark(config).size
    return Path(config.out) if config.out else new_folder(Path("outputs") / "marqo_ecommerce" / size)


def _benchmark(config: RunConfig) -> BenchmarkConfig:
    assert config.evaluate.benchmark is not None, "this command is for configs that name one"
    return config.evaluate.benchmark


def _sizes(benchmark: BenchmarkConfig) -> list[str]:
    """The sizes that are measured, the small one first."""
    known = list(dict.fromkeys(size for about in benchmark.sets.values() for size in about.tables))
    if benchmark.size == "all":
        return known
    if benchmark.size not in known:
        hint = nearest(benchmark.size, ["all", *known])
        raise ConfigError(f"evaluate.benchmark.size={benchmark.size}: this benchmark has no such size.{hint}")
    return [benchmark.size]


def _say_plan(
    config: RunConfig, sets: list[OpenSet], config_dir: str | None, finder: Finder
) -> dict[str, dict[str, Cost]]:
    """Prints what will be read and kept and, after a probe of each model, its cost: {model: {"estimated": …}}."""
    rows, whole = (sum(getattr(one.source, key) for one in sets) for key in ("rows", "whole"))
    size, ranks = sum(one.source.bytes for one in sets) / 1e9, world()[1]
    lines = [
        f"{rows:,} of {whole:,} products, {size:.1f} GB of files, read once per model.",
        *(f"  {task.name}: {len(task.queries):,} queries, {len(task.judgments):,} answers"
          for one in sets for task in one.tasks),
    ]  # fmt: skip
    total, costs = 0.0, {}
    for entry in contestants(config, PUBLISHED, config_dir=config_dir):
        encoder = encoder_of(entry)
        if not isinstance(encoder, DualEncoder):
            vectors = max(one.source.rows for one in sets) * encoder.width * 4 / 1e9
            lines.append(f"  {entry.label}: precomputed embeddings, {vectors:.2f} GB of vectors")
            continue
        left = [finder.left(encoder, one) for one in sets]
        pace = pace_of(config, encoder, sets[0])
        cost = pace.cost(config, int(encoder.width), sets, left)
        costs[entry.label] = {"estimated": cost}
        total += cost.embedding + cost.search
        weights = sum(p.numel() * p.element_size() for p in encoder.parameters()) / 1e9
        at_full, disk = "", 4 * int(encoder.width) / 1e9
        if rows < whole:
            at_full = f" ({duration(pace.image * whole / ranks)} and {disk * whole:.2f} GB for the full size)"
        lines.append(
            f"  {entry.label}: {pace.image * 1e3:.1f} ms per image here, {duration(cost.embedding)} for "
            f"{cost.images:,} images{f' on {ranks} ranks' if ranks > 1 else ''}, {duration(cost.search)} for the "
            f"search; {cost.disk / 1e9:.2f} GB of vectors in {config.cache_dir}{at_full}, {weights:.1f} GB of weights, "
            f"{cost.memory / 1e9:.1f} GB of memory for each rank, without train.workers"
        )
    here = rows - max((cost["estimated"].images for cost in costs.values()), default=rows)
    more = f" {here:,} or more images of each model are embedded already." if here else ""
    say("\n".join([*lines, f"About {duration(total)} in all.{more}"]))
    return costs


def published_tables(benchmark: BenchmarkConfig, models: dict[str, dict[str, Any]], metrics: list[str]) -> list[Table]:
    """One per task: measured models, then the published ones, each part the best nDCG@10 first."""
    tables = []
    measured = next(iter(models.values()))
    for size, tasks in benchmark.published.items():
        for task, others in tasks.items():
            if (key := f"{task}.{size}") not in measured:
                continue
            known = {name for values in others.values() for name in values}
            chosen = [name for name in metrics if name in known]
            ours = {label: results[key].means for label, results in models.items()}
            body = [
                [label, kind, *(values.get(name) for name in chosen)]
                for kind, group in (("measured", ours), ("published", others))
                for label, values in sorted(group.items(), key=lambda item: -item[1][chosen[-1]])
            ]
            names = [spelled(name) for name in chosen]
            tables.append(Table(["model", "", *names], body, key, align="ll", formats=dict.fromkeys(names, ".3f")))
    return tables


def _partial(sets: list[OpenSet]) -> str:
    rows, whole = (sum(getattr(one.source, key) for one in sets) for key in ("rows", "whole"))
    if rows == whole:
        return ""
    limited = f"\nOnly {rows:,} of {whole:,} products were read (evaluate.benchmark.limit)"
    return f"{limited}, which is an easier task: the figures are not comparable."


def _markdown(tables: list[Table], benchmark: BenchmarkConfig, outcome: Outcome) -> str:
    parts = [f"# {outcome.title}", ""]
    for table in tables:
        parts += [table.markdown(), ""]
    rows = sum(about["rows"] for about in outcome.sources.values())
    limited = f" (limit={benchmark.limit}: not comparable)" if benchmark.limit else ""
    return "\n".join([*parts, f"Published figures: {benchmark.source}. Measured on {rows:,} products{limited}.", ""])
