"""`gcl deploy run=… engine=…`: a run's catalog in a vector engine that ranks as the run was measured.

1. The catalog's vectors are written to Parquet, and the columns named in `payload`: the one source of what follows.
2. The engine is loaded from these files, a few thousand rows at a time; an interrupted load goes on where it was.
3. The run's dev queries are asked in every setting and compared with exact search (gcl/exports/engines/parity.py).
4. search.py is how the shop's own code asks. README.md and parity.json, .html and .svg say what came of it; the deploy
   fails where a setting is below its limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gcl.errors import ConfigError
from gcl.exports.engines.address import Place, check_address
from gcl.exports.engines.engine import APPROXIMATE, Engine, Here, How, Layout, Quantization, Setting
from gcl.exports.engines.filters import check_filter, example
from gcl.exports.engines.load import Load
from gcl.exports.engines.payload import WORDS, Column, batches, without_vectors, write_payload
from gcl.exports.engines.program import FILE, Program
from gcl.exports.engines.registry import ENGINES, check_engine
from gcl.exports.folder import EMBEDDINGS
from gcl.exports.settings import Content
from gcl.files.atomic import write_json, write_text
from gcl.files.digest import file_sha256, text_sha256
from gcl.files.progress import doing
from gcl.options import MISSING, free, node, number, path
from gcl.run.console import quiet_libraries, say, speak_plainly, terminal_width
from gcl.run.folder import RunFolder

if TYPE_CHECKING:
    from gcl.exports.engines.engine import Collection, Filter
    from gcl.exports.engines.parity import Measured, Queries, Reference
    from gcl.exports.engines.payload import Batch
    from gcl.model.dual_encoder import DualEncoder
    from gcl.model.query_weights import QueryWeights
    from gcl.table import Table


@dataclass
class DeployOptions:
    """Options of `gcl deploy`. The run's catalog is needed."""

    run: str = path(MISSING)
    """A run folder."""
    engine: str = free(MISSING, ", ".join(ENGINES), *ENGINES)
    """The engine."""
    out: str | None = path()
    """The folder to write; null: deploy/ in the run folder. Vectors that are there already are used again."""
    url: str | None = None
    """The address of a running engine to load; null: a database in the folder, or files to load, as the engine has
    it."""
    collection: str = "products"
    """The name of the collection, table or index."""
    replace: bool = False
    """Whether a collection of this name that is there already is removed and loaded anew."""
    content: Content | None = None
    """fused: one vector per product; fields: those of its fields side by side, whose weights each query brings.
    null: fields where the run's queries weigh them, else fused."""
    payload: list[str] = field(default_factory=list)
    """Columns that products carry along, to show them and to filter: text fields, or columns of the products table."""
    filter: dict[str, Any] = node({})
    """A filter to be checked as well: filter.brand=Nord for a value, 'filter.price=[10,20]' for a range."""
    quantization: list[Quantization] = field(default_factory=lambda: [Quantization.none])
    """In which numbers the engine searches; the first is deployed, the others are compared with it and removed."""
    words: bool = True
    """Whether the products' texts are searched, too (BM25 and hybrid queries), where the engine can."""
    overlap: float = number(0.99, least=0, most=1)
    """The share of the exact top 10 that exact settings must find."""
    approximate: float = number(APPROXIMATE, least=0, most=1)
    """That of the deepest search of an index, rescored where vectors are quantised; others are measured only."""
    queries: int = number(200, least=1)
    """The most queries of the dev tasks that are asked."""
    trust: list[str] = field(default_factory=list)
    """Packages whose objects the run's config may name, for example [my_package]."""


OWN_FILES = {"payload.parquet", "README.md", "parity.json", "parity.html", "parity.svg", FILE}
"""Of the folder of every engine."""


class ParityError(ValueError):
    """An engine ranks otherwise than the run was measured."""


def run(options: DeployOptions) -> Path:
    """Deploys a run and returns the folder of the engine. Raises ParityError where it ranks otherwise."""
    speak_plainly()
    engine = check_engine(options.engine)
    if options.url is not None:
        check_address(options.url, engine)
    for name in ("payload", "filter"):
        if getattr(options, name) and not engine.filters:
            raise ConfigError(f"{name}: {engine.title} holds vectors alone: no columns, and no filters.")
    run = RunFolder(Path(options.run), tuple(options.trust)).check()
    wanted = list(dict.fromkeys(options.quantization)) or [Quantization.none]
    for place, one in enumerate(wanted):
        engine.check_layout(Layout(_name(options.collection, one, deployed=place == 0), 1, 0, {}, one), options.url)
    if engine.here is Here.files and options.url is None and (len(wanted) > 1 or options.filter):
        raise ConfigError(
            f"Without a server, {engine.title} is not asked anything: give one quantization and no filter, or url=…, "
            f"for example {engine.url}."
        )
    with doing("Loading torch"):
        quiet_libraries()
        import gcl.exports.engines.parity  # noqa: F401
    return Deploy(options, engine, run).run(wanted)


def _name(collection: str, quantization: Quantization, *, deployed: bool) -> str:
    """Of a collection; one that is only compared has a name that nobody gives to another."""
    return collection if deployed else f"{collection}_gcl_check_{quantization}"


class Deploy:
    """What is deployed, and where to."""

    def __init__(self, options: DeployOptions, engine: Engine, run: RunFolder) -> None:
        self.options, self.engine, self.source = options, engine, run
        self.config = run.read_config()
        self.out = Path(options.out) if options.out else run.path / "deploy"
        self.folder = self.out / engine.name
        self.place = Place(engine, self.folder, options.url)
        self.columns: dict[str, Column] = {}

    @cached_property
    def prepared(self) -> Any:
        from gcl.data.prepare.mixed import open_catalog

        return open_catalog(self.config.data, self.config.cache_dir)

    @cached_property
    def tuned(self) -> DualEncoder:
        """The run's best model, as the run was measured."""
        from gcl.run.contestants import tuned_encoder

        return tuned_encoder(self.source)

    @cached_property
    def encoder(self) -> DualEncoder:
        """The same; its gate decides what a score is."""
        from gcl.model.query_weights import QueryWeights

        encoder, content = self.tuned.with_schema(self.tuned.schema), self.options.content
        weights = {name: field.weight for name, field in encoder.schema.document.items()}
        if content is Content.fused:
            encoder.by_query = None
        elif content is Content.fields and encoder.by_query is None:
            if sum(weight > 0 for weight in weights.values()) < 2:
                raise ConfigError("content=fields: one field of a product counts, so its vector is the fused one.")
            encoder.by_query = QueryWeights.constant(weights, encoder.width)
        return encoder

    @property
    def gate(self) -> QueryWeights | None:
        return self.encoder.by_query

    def run(self, quantizations: Sequence[Quantization]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_payload()
        named = self.options.payload
        filter = check_filter(self.options.filter, self.columns, payload=self.payload, named=named)
        layouts = [self._layout(one, deployed=place == 0) for place, one in enumerate(quantizations)]
        self._check(layouts)
        self._write_vectors()
        write = self.engine.collection.write
        if self.options.url is None and (files := write(layouts[0], self._batches(), self.folder)):
            say(f"Written: {', '.join(path.name for path in files)}.")
        shorts: list[str] = []
        write_text(self.folder / FILE, self._program(layouts[0]).text())
        if self.engine.here is not Here.files or self.options.url:
            shorts = self._measure_all(layouts, filter)
        else:
            self._write_card(layouts[0], None, [])
        say(f"{self.engine.title}: {self.folder}")
        if shorts:
            raise ParityError(f"{self.engine.title} does not rank as the run was measured. {' '.join(shorts)}")
        return self.folder

    def _check(self, layouts: Sequence[Layout]) -> None:
        """Before the hours of embedding: the engine takes the vectors, is there, and loses nothing of others."""
        # Not where nothing is: LanceDB warns of the processes that are forked after it is opened, which read images.
        there = self.engine.here is Here.database and bool({path.name for path in self.folder.iterdir()} - OWN_FILES)
        for layout in layouts:
            self.engine.check_layout(layout, self.options.url)
            if there or self.options.url:
                with self.place.opened(layout) as collection, self.place.errors():
                    self._load(layout).start(collection)

    def _load(self, layout: Layout) -> Load:
        compared = layout.name != self.options.collection
        return Load(self.place, layout, compared=compared, replace=self.options.replace)

    def _write_payload(self) -> None:
        from gcl.data.prepare.sources import product_rows

        self.columns = write_payload(
            self.payload, self.prepared.documents, lambda: product_rows(self.config.data, self.config.cache_dir),
            self.options.payload, words=self.options.words, report=say,
        )  # fmt: skip

    def _write_vectors(self) -> None:
        from gcl.exports.vectors.write import VectorOptions, write_embeddings
        from gcl.run.measurement import embedding_of

        prepared, encoder = self.prepared, self.encoder
        self.embeddings.parent.mkdir(parents=True, exist_ok=True)
        for note in write_embeddings(
            encoder, {"document": prepared.documents, "query": prepared.queries}, self.embeddings.parent,
            VectorOptions(), data=prepared.fingerprint, options=embedding_of(encoder, prepared, self.config),
        ):  # fmt: skip
            say(note)

    @property
    def embeddings(self) -> Path:
        return self.out / ("fused" if self.gate is None else "fields") / EMBEDDINGS

    @property
    def payload(self) -> Path:
        return self.folder / "payload.parquet"

    @cached_property
    def files(self) -> list[Path]:
        from gcl.exports.vectors.write import embedding_files

        return embedding_files(self.embeddings.parent)

    def _batches(self, start: int = 0) -> Iterator[Batch]:
        return batches(self.files, self.payload, rows=self.engine.rows(self.about["width"]), start=start)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What identifies all that is loaded: model, weights, prompts, catalog, payload."""
        from gcl.exports.vectors.write import VectorOptions, describe
        from gcl.model.fingerprint import model_hash

        known = describe(self.encoder, "document", VectorOptions(), model_hash(self.encoder))
        return {**known, "data": self.prepared.fingerprint, "payload": file_sha256(self.payload)}

    def _layout(self, quantization: Quantization, *, deployed: bool) -> Layout:
        name = _name(self.options.collection, quantization, deployed=deployed)
        digest = text_sha256(json.dumps(self.about, sort_keys=True))
        return Layout(name, self.about["width"], len(self.prepared.documents), self.columns, quantization, digest)

    @cached_property
    def queries(self) -> Queries:
        """Of the dev tasks, each once, drawn evenly where they are more than are asked."""
        from gcl.data.store.records import texts_of
        from gcl.exports.engines.parity import Queries, united
        from gcl.retrieval.embedding.embed import EmbedOptions, embed
        from gcl.run.measurement import measurement_of

        evaluate = self.config.evaluate
        tasks = measurement_of(evaluate, self.config.data, self.prepared).opened("dev")
        tasks = [task for task in tasks if not task.hidden] or tasks  # words alone answer what was made of the words
        rows, most = np.unique(np.concatenate([task.queries.rows for task in tasks])), self.options.queries
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
        # a task that is not asked, or whose rules drew other queries, may still know of a product that is found
        every = replace(evaluate, tasks=None, queries=None, judged=None)
        judged = united(measurement_of(every, self.config.data, self.prepared).opened("dev"), rows)
        asked = self.prepared.queries.subset(rows)
        vectors = embed(self.encoder, asked, "query", EmbedOptions(evaluate.batch_size)).fused()
        words = texts_of(asked)
        if (gate := self.gate) is None:
            return Queries(vectors, words, judged)
        given = [gate.given[name] for name in gate.fields]
        return Queries(gate.asked(vectors), words, judged, gate.weights_of(vectors), vectors, given)

    def _measure_all(self, layouts: Sequence[Layout], filter: Filter) -> list[str]:
        """Loads and measures every collection, and reports; returns what is short, in sentences."""
        from gcl.exports.engines.mistakes import explain
        from gcl.exports.engines.parity import Reference, compared

        with doing("Searching exactly what the engine is asked"):
            reference = Reference.of(self.queries, self._batches(), filter)
        measured: list[Measured] = []
        shorts: list[str] = []
        for layout in layouts:
            load = self._load(layout)
            with self.place.opened(layout) as collection:
                with self.place.errors():
                    load.run(collection, self._batches)
                    rows = self._measure(collection, layout, reference, filter)
                shorts += [explain(one, reference, self._batches, filter) for one in rows if one.short]
                measured += rows
                if layout is not layouts[0]:
                    with self.place.errors():
                        load.drop(collection)
        texts = partial(without_vectors, self.payload, [WORDS]) if WORDS in self.columns else None
        self._report(layouts[0], [*compared(reference, texts), *(one.record() for one in measured)], reference, shorts)
        return shorts

    def _settings(self, layout: Layout, url: str | None) -> list[Setting]:
        """With the limits of the options."""
        settings = []
        for one in self.engine.collection.settings(layout, url):
            limit = self.options.approximate if one.least is not None else None
            settings.append(replace(one, least=self.options.overlap if one.how is How.exact else limit))
        return settings

    def _measure(self, collection: Collection, layout: Layout, reference: Reference, filter: Filter) -> list[Measured]:
        from gcl.exports.engines.parity import measure, with_ndcg

        rows = measure(
            collection, self._settings(layout, self.options.url), reference, filter, layout.quantization.value
        )
        return with_ndcg(rows, reference, ((piece.start, piece.ids) for piece in without_vectors(self.payload, ["id"])))

    def _program(self, layout: Layout) -> Program:
        run, url = self.source.path.resolve(), self.place.shown if self.options.url else None
        settings = self._settings(layout, url or (None if self.engine.here is Here.database else self.engine.url))
        above = [number for number, folder in enumerate(self.folder.resolve().parents) if folder == run]
        model = f"HERE.parents[{above[0]}]" if above else json.dumps(str(run))
        shown = example(self.columns, self.payload)
        query, gate, by_query = self.config.data.query, self.gate, self.tuned.by_query is not None
        return Program(self.engine, layout, settings, model, url, query, gate, by_query=by_query, example=shown)

    def _report(
        self, layout: Layout, rows: Sequence[dict[str, Any]], reference: Reference, shorts: Sequence[str]
    ) -> None:
        from gcl.exports.engines.page import write_page
        from gcl.exports.engines.parity import parity_table

        table = parity_table(rows, reference)
        say(f"\n{table.text(terminal_width())}\n")
        write_json(self.folder / "parity.json", {"rows": list(rows), "short": list(shorts)})
        curves = write_page(self.folder, self.engine, self._about, table, rows, shorts)
        self._write_card(layout, table, shorts, curves=curves)

    def _write_card(self, layout: Layout, table: Table | None, shorts: Sequence[str], *, curves: bool = False) -> None:
        from gcl.exports.engines.page import deploy_card

        place = self.place.shown if self.options.url else None
        card = deploy_card(self._program(layout), place, self._about, table, shorts, curves=curves)
        write_text(self.folder / "README.md", card)

    @property
    def _about(self) -> str:
        return f"{self.config.data.name}, {len(self.prepared.documents):,} documents"
