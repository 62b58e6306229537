"""A published benchmark as one command: `python evaluate.py evaluate=marqo_ecommerce models=[ecommerce-L, siglip-B]`.

Each data set is streamed once per model; every task draws its queries as the published evaluator does, and the results
are listed with the published figures. How long everything takes is estimated and printed before it begins.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gcl.config.schema import RunConfig
from gcl.data.importers.benchmark_set import PublishedSet, files_of, grouped
from gcl.data.store.records import Identifiers
from gcl.errors import ConfigError, nearest
from gcl.files.atomic import write_text
from gcl.files.progress import duration
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.embedding.embed import EmbedOptions, embed
from gcl.retrieval.embedding.own import OwnEncoder
from gcl.retrieval.embedding.precomputed import PrecomputedEmbeddings, RunFiles
from gcl.retrieval.embedding.stream import embed_images
from gcl.retrieval.evaluate import result_of
from gcl.retrieval.metrics.metrics import spelled
from gcl.retrieval.settings import BenchmarkConfig, Rules
from gcl.retrieval.tasks.protocol import BETWEEN, draw
from gcl.retrieval.tasks.task import JudgedPairs, ListRecords, RetrievalTask
from gcl.run.closing import close_gate, say_verdicts
from gcl.run.console import say
from gcl.run.contestants import Contestant, contestants
from gcl.run.folder import new_folder
from gcl.run.outcome import Outcome
from gcl.run.tables import summary
from gcl.schema import Field, Modality, Schema
from gcl.table import Table

SCHEMA = Schema(query={"text": Field(Modality.text)}, document={"image": Field(Modality.image)})
_PROBED = 64  # images whose embedding is timed


@dataclass
class _Set:
    name: str
    source: PublishedSet
    tasks: list[RetrievalTask]


def run_benchmark(config: RunConfig, config_dir: str | None) -> Path:
    """Measures every model on every task of the benchmark; returns the folder with the figures."""
    benchmark, settings = _benchmark(config), config.evaluate
    sizes = _sizes(benchmark)
    sets = [_opened(name, size, benchmark, settings) for size in sizes for name in benchmark.sets]
    _say_plan(config, sets, config_dir)
    outcome = Outcome(
        settings, settings.part, f"Marqo-Ecommerce, {', '.join(sizes)}", [t for one in sets for t in one.tasks]
    )
    outcome.sources = {one.name: _fingerprint(one) for one in sets}
    folder = Path(config.out) if config.out else new_folder(Path("outputs") / "marqo_ecommerce" / benchmark.size)
    for entry in contestants(config, SCHEMA, config_dir=config_dir):
        for one in sets:
            say(f"Measuring {entry.label} on {one.name}: {one.source.rows:,} products.")
            outcome.models.setdefault(entry.label, {}).update(_measured(config, entry, one, outcome))
        outcome.contestants[entry.label] = entry.facts()
        outcome.notes += [note for note in entry.notes if note not in outcome.notes]
        replace(outcome).write(folder)  # after each model, with the verdicts so far: the next may take hours
    tables = published_tables(benchmark, outcome.models, settings.metrics)
    write_text(folder / "published.md", _markdown(tables, benchmark, outcome))
    say("\n" + summary(outcome.models, settings.headline, outcome.notes))
    for table in tables:
        say(f"\n{table.text()}")
    say(f"\nPublished figures: {benchmark.source}{_partial(sets)}\nAll results: {folder} (published.md, results.json)")
    say_verdicts(outcome.verdicts, next(iter(outcome.models)), config, None)
    close_gate(settings.gate, outcome.verdicts)
    return folder


def _benchmark(config: RunConfig) -> BenchmarkConfig:
    assert config.evaluate.benchmark is not None, "this command is for configs that name one"
    return config.evaluate.benchmark


def _fingerprint(one: _Set) -> dict[str, Any]:
    """What was read, by its ids: hashing the images would mean reading everything once more."""
    digest = hashlib.sha256()
    for name in one.tasks[0].corpus.ids:
        digest.update(name.encode() + b"\n")
    names = [file.rpartition("/")[2] for file in one.source.files]
    return {"files": names, "rows": one.source.rows, "bytes": one.source.bytes, "ids_sha256": digest.hexdigest()}


def _sizes(benchmark: BenchmarkConfig) -> list[str]:
    """The sizes that are measured, the small one first."""
    known = list(dict.fromkeys(size for about in benchmark.sets.values() for size in about.tables))
    if benchmark.size == "all":
        return known
    if benchmark.size not in known:
        hint = nearest(benchmark.size, ["all", *known])
        raise ConfigError(f"evaluate.benchmark.size={benchmark.size}: this benchmark has no such size.{hint}")
    return [benchmark.size]


def _opened(name: str, size: str, benchmark: BenchmarkConfig, rules: Rules) -> _Set:
    """The set's tasks: each text of a column is a query, every row that has it an answer with relevance 1."""
    about = benchmark.sets[name]
    columns = [benchmark.image, benchmark.document_id, *about.tasks.values()]
    source = PublishedSet(files_of(about.tables[size], benchmark.root), columns=columns, limit=benchmark.limit)
    corpus = Identifiers(source.ids(benchmark.document_id))  # their images are streamed
    tasks = []
    for task, column in about.tasks.items():
        values = grouped(source.column(column), BETWEEN)
        weight = np.bincount(values.code[values.code >= 0], minlength=len(values.texts)).astype(np.float64)
        drawn = draw(weight, rules)
        place = np.full(len(values.texts) + 1, -1)
        place[drawn] = np.arange(len(drawn))
        rows = np.flatnonzero(place[values.code] >= 0)
        query = place[values.code[rows]]
        order = np.argsort(query, kind="stable")
        query, rows = query[order], rows[order]
        if rules.judged is not None:
            kept = np.arange(len(query)) - np.searchsorted(query, query) < rules.judged
            query, rows = query[kept], rows[kept]
        texts = values.texts.take(drawn).to_pylist() if len(drawn) else []
        queries = ListRecords([f"q{n}" for n in range(len(texts))], [{"text": text} for text in texts], SCHEMA.query)
        tasks.append(
            RetrievalTask(f"{task}.{size}", queries, corpus, JudgedPairs(query, rows, np.ones(len(rows), np.float32)))
        )
    return _Set(f"{name}.{size}", source, tasks)


def _measured(config: RunConfig, entry: Contestant, one: _Set, outcome: Outcome) -> dict[str, Any]:
    settings, encoder = config.evaluate, _embedding(entry)
    corpus = one.tasks[0].corpus
    if not isinstance(encoder, DualEncoder):
        from gcl.retrieval.embedding.stream import Streamed

        embedded = Streamed(encoder.embed_records(corpus, "document").fused(), np.empty(0, np.int64))
    else:
        embedded = embed_images(
            encoder, one.source, _benchmark(config).image, batch_size=settings.batch_size,
            workers=config.train.workers, scratch=Path(config.cache_dir) / "embeddings", progress=True,
        )  # fmt: skip
    if len(embedded.unreadable):
        note = (
            f"{one.name}: {len(embedded.unreadable):,} of {one.source.rows:,} images cannot be read; the first is that "
            f"of {corpus.ids[int(embedded.unreadable[0])]!r}: these products are never retrieved and count as misses."
        )
        outcome.notes += [note] if note not in outcome.notes else []
    results = {}
    for task in one.tasks:
        query = embed(encoder, task.queries, "query", EmbedOptions(settings.batch_size)).fused()
        score, row = embedded.search(query, min(settings.depth, one.source.rows), task.id_ranks)
        results[task.name] = result_of(task, score, row, settings.metrics, ties=settings.ties)
    return results


def _say_plan(config: RunConfig, sets: list[_Set], config_dir: str | None) -> None:
    """Prints what will be read and kept and, after a probe of each model, how long it will take."""
    rows, whole = (sum(getattr(one.source, key) for one in sets) for key in ("rows", "whole"))
    size = sum(one.source.bytes for one in sets) / 1e9
    lines = [
        f"{rows:,} of {whole:,} products, {size:.1f} GB of files, read once per model.",
        *(f"  {task.name}: {len(task.queries):,} queries, {len(task.judgments):,} answers"
          for one in sets for task in one.tasks),
    ]  # fmt: skip
    total = 0.0
    for entry in contestants(config, SCHEMA, config_dir=config_dir):
        encoder = _embedding(entry)
        largest, full = (max(getattr(one.source, key) for one in sets) for key in ("rows", "whole"))
        vectors = largest * encoder.width * 4 / 1e9
        at_full = f", {full * encoder.width * 4 / 1e9:.2f} GB for the full size" if rows < whole else ""
        if not isinstance(encoder, DualEncoder):
            lines.append(f"  {entry.label}: precomputed embeddings, {vectors:.2f} GB of vectors")
            continue
        each = _seconds(config, encoder, sets[0])
        total += each * rows
        weights = sum(p.numel() * p.element_size() for p in encoder.parameters()) / 1e9
        lines.append(
            f"  {entry.label}: {each * 1e3:.1f} ms per image here, {duration(each * rows)}"
            + (f" ({duration(each * whole)} for the full size)" if rows < whole else "")
            + f"; {weights:.1f} GB of weights, {vectors:.2f} GB of vectors at a time in {config.cache_dir}{at_full} "
            "(a mapped file above 1 GB), plus at most 1 GB of memory"
        )
    say("\n".join([*lines, f"About {duration(total)} in all, not counting the search."]))


def _embedding(entry: Contestant) -> DualEncoder | PrecomputedEmbeddings | OwnEncoder:
    """The contestant's encoder or embeddings. Raises ConfigError for a TREC run file, which cannot embed."""
    if isinstance(entry.encoder, RunFiles):
        raise ConfigError(
            f"models: {entry.label} is a TREC run file; a benchmark needs models or precomputed embeddings."
        )
    return entry.encoder


def _seconds(config: RunConfig, encoder: DualEncoder, one: _Set) -> float:
    """Seconds per image of a probe, reading and decoding included; the first batch warms up."""
    few = min(config.evaluate.batch_size, _PROBED)
    for _ in range(2):
        begun = time.perf_counter()
        embed_images(
            encoder, one.source, _benchmark(config).image, batch_size=few, most=1,
            scratch=Path(config.cache_dir) / "embeddings",
        )  # fmt: skip
    return (time.perf_counter() - begun) / min(few, one.source.groups[0].count)


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


def _partial(sets: list[_Set]) -> str:
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
