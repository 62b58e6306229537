"""`gcl export run=… out=…`: a run's best model, in every format that other libraries load.

1. Options are checked and, for a push, the Hub is asked: nothing that would fail at the end is found out at the end.
2. The model is loaded: the best checkpoint, another, or between it and the base (`alpha`); rotated and cut.
3. Every format is written into a temporary folder; then further precisions and embeddings.
4. Latency is measured here, the loss of each precision on the dev tasks.
5. A fresh process loads every format again and compares it with the run (the round trip).
6. The card's snippets are executed, the card is written, and the folder gets its name.
7. The folder is pushed, if that was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcl.config.schema import RunConfig
from gcl.data.titles import task_titles
from gcl.errors import ConfigError
from gcl.exports.folder import EMBEDDINGS, check_free, whole, write_json
from gcl.exports.formats.registry import FORMATS, Reduced, check_formats, with_needs
from gcl.exports.settings import Content, Precision, VectorType
from gcl.files.progress import doing
from gcl.options import MISSING, free, number, path
from gcl.run.console import quiet_libraries, say, speak_plainly, terminal_width
from gcl.run.folder import RunFolder

if TYPE_CHECKING:
    from gcl.data.store.prepared import Prepared
    from gcl.exports.formats.registry import Format
    from gcl.exports.push import Target
    from gcl.exports.vectors.write import VectorOptions
    from gcl.model.dual_encoder import DualEncoder
    from gcl.run.interpolation import Between
    from gcl.run.rotated_export import Rotated


@dataclass
class ExportOptions:
    """Options of `gcl export`. Besides the formats themselves, what is measured or embedded needs the run's catalog."""

    run: str = path(MISSING)
    """A run folder."""
    out: str | None = path()
    """The folder to write; null: export/ in the run folder."""
    checkpoint: str | None = path()
    """A checkpoint to export instead of the run's best one."""
    formats: list[str] | None = free(
        None, f"list of {', '.join([*FORMATS, EMBEDDINGS])}; or null", *FORMATS, EMBEDDINGS
    )
    """What to write; null: open_clip, transformers, sentence_transformers and onnx, as far as the architecture allows
    and their packages are installed."""
    alpha: Any = free(None, "number from 0 to 1, auto or null", "0.7", "auto")
    """Interpolates between base (0) and tuned (1); auto: chosen on the dev tasks; null: the tuned model."""
    dims: int | None = number(None, least=1)
    """How many numbers of each vector are kept, the best ones after rotating; null: all."""
    rotate: bool | None = None
    """Whether vectors are rotated, so that an engine can cut them to their first 128, 256, 512 … numbers: no score of
    full length changes, but one bit per number of full vectors loses more. null: with dims."""
    onnx: list[Precision] = field(default_factory=lambda: [Precision.fp32])
    """Precisions of the ONNX files: fp32, and additionally fp16 or int8, whose loss on the dev tasks is measured."""
    embeddings: Content | None = None
    """The catalog's vectors, one per document or one per field; formats=[embeddings] means fused."""
    dtype: VectorType = VectorType.float32
    """The number type of the embeddings."""
    queries: bool = False
    """Whether the queries' embeddings are written as well."""
    latency: float = number(3.0, least=0, most=3600)
    """Seconds for which each format is timed; 0: latency is not measured."""
    license: str | None = None
    """The card's license, an identifier of the Hub; null: the one in the base model's folder, or other."""
    compare: int = number(300, least=1)
    """The most documents of a dev task that the round trip embeds with every format (and a third as many queries)."""
    push: str | None = None
    """The repository on the Hub to push to, owner/name."""
    private: bool | None = None
    """Whether a newly created repository is private; null: the account's default."""
    revision: str | None = None
    """A branch to push to; null: main."""
    pull_request: bool = False
    """Propose the files in a pull request instead of committing them."""
    trust: list[str] = field(default_factory=list)
    """Packages whose objects the run's config may name, for example [my_package]."""

    def vectors(self) -> VectorOptions | None:
        """What is written of the catalog's vectors; None: nothing."""
        from gcl.exports.vectors.write import VectorOptions

        content = self.embeddings or (Content.fused if EMBEDDINGS in (self.formats or ()) else None)
        if content is not None:
            return VectorOptions(content, self.dtype, self.queries)
        if self.queries or self.dtype is not VectorType.float32:
            raise ConfigError("dtype and queries concern the embeddings: add embeddings=fused.")
        return None

    def precisions(self) -> dict[str, list[Precision]]:
        """{format: its precisions} of the formats that make several, each of which has an option of its own name."""
        asked = {
            name: getattr(self, name) for name, format in FORMATS.items() if isinstance(format.precisions, Reduced)
        }
        for name, precisions in asked.items():
            if Precision.fp32 not in precisions:
                given = ",".join(precisions)
                raise ConfigError(f"{name}=[{given}]: fp32 cannot be left out, the others are measured against it.")
            if len(precisions) > 1 and self.formats is not None and name not in with_needs(self.formats):
                raise ConfigError(f"{name}=[{','.join(precisions)}] needs {name} in formats=.")
        return asked


def run(options: ExportOptions) -> Path:
    """Exports a run and returns the folder."""
    speak_plainly()
    run = RunFolder(Path(options.run), tuple(options.trust)).check()
    out = Path(options.out) if options.out else run.path / "export"
    check_free(out)
    if options.formats is not None and not options.formats:
        raise ConfigError(
            "formats=[] would write nothing: name a format, for example formats=[open_clip], or leave it out."
        )
    check_formats([name for name in options.formats or () if name != EMBEDDINGS])
    target = _target(options)
    export = Export(options, run, run.read_config(), out.name)

    with doing("Loading torch"):
        from gcl.exports.formats.open_clip import settle

        quiet_libraries()
    encoder, formats = export.load()
    with whole(out) as folder:
        notes = export.write(encoder, folder, formats)
        export.finish(encoder, folder, formats, notes)
        settle(folder, str(out.resolve()))
    written = [name for name in notes if not name.endswith(" precisions")]
    say(f"Exported to {out}: {', '.join(written)}. {out / 'README.md'} shows how to load each.")
    if target is not None:
        _push(target, out)
    return out


def _target(options: ExportOptions) -> Target | None:
    """Where to push to; None: nowhere. Raises PushError for a missing token, before the work begins."""
    if options.push is None:
        if options.private is not None or options.revision is not None or options.pull_request:
            raise ConfigError("private, revision and pull_request concern a push: add push=owner/name.")
        return None
    from gcl.exports.push import Target

    target = Target(options.push, options.private, options.revision, options.pull_request)
    target.reach()
    return target


def _push(target: Target, out: Path) -> None:
    from gcl.exports.push import PushError

    try:
        say(f"Pushed to {target.upload(out, report=say)}")
    except PushError as error:
        again = f"gcl push out={out} push={target.repo}"
        raise PushError(f"{error} The export is complete in {out}; to push it later: {again}") from None


class Export:
    """The steps of one export and what they learn on the way. The catalog is opened when it is first needed.

    sections: Markdown for the card. missing: sentences for its limits. notes: {format: sentences for the card}.
    """

    def __init__(self, options: ExportOptions, run: RunFolder, config: RunConfig, name: str) -> None:
        from gcl.run.interpolation import parse_alpha

        self.options, self.run, self.config, self.name = options, run, config, name
        self.alpha, self.precisions, self.vectors = parse_alpha(options.alpha), options.precisions(), options.vectors()
        self.between: Between | None = None
        self.rotated: Rotated
        self.sections: list[str] = []
        self.missing: list[str] = []

    @cached_property
    def prepared(self) -> Prepared:
        from gcl.data.prepare.mixed import open_catalog

        return open_catalog(self.config.data, self.config.cache_dir)

    @cached_property
    def prepared_or_none(self) -> Prepared | None:
        try:
            return self.prepared
        except (ValueError, OSError) as error:
            say(f"The catalog cannot be opened, so the formats are compared without the run's dev tasks. {error}")
            self.missing.append("The catalog was not available during the export: its dev tasks were not compared.")
            return None

    def load(self) -> tuple[DualEncoder, list[Format]]:
        """The model and the formats to write."""
        from gcl.exports.formats.registry import choose, left_out
        from gcl.run.contestants import tuned_encoder
        from gcl.run.interpolation import between
        from gcl.run.rotated_export import rotated_export

        options, opened = self.options, lambda: self.prepared_or_none
        checkpoint = Path(options.checkpoint) if options.checkpoint else None
        if self.alpha is not None:
            self.between = between(self.run, self.config, self.prepared, self.alpha, checkpoint=checkpoint)
        encoder = self.between.encoder if self.between else tuned_encoder(self.run, checkpoint=checkpoint)
        names = None if options.formats is None else [name for name in options.formats if name != EMBEDDINGS]
        choose(encoder, names)  # what is refused is refused before the catalog is prepared for a rotation
        self.rotated = rotated_export(encoder, self.run, self.config, opened, rotate=options.rotate, width=options.dims)
        encoder = self.rotated.encoder
        for sentence in left_out(encoder) if names is None else ():
            say(sentence)
        return encoder, choose(encoder, names)

    def write(self, encoder: DualEncoder, folder: Path, formats: Sequence[Format]) -> dict[str, list[str]]:
        """Formats, alpha.json, further precisions, embeddings, latency.json; {format: notes}."""
        if self.between is not None:
            from gcl.run.interpolation import alpha_lines

            write_json(folder / "alpha.json", self.between.record)
            self.sections += ["## Between base and tuned", "", *alpha_lines(self.between.record), ""]
        prepared = None if self.rotated.width is None else self.prepared_or_none
        self.sections += self.rotated.about(_json(self.run.path / "results.json"), self.config, prepared)
        notes = {}
        for format in formats:
            with doing(f"Writing {format.name}"):
                notes[format.name] = format.write(encoder, folder)
            if len(self.precisions.get(format.name, ())) > 1:
                notes[f"{format.name} precisions"] = self._add_precisions(format, formats, encoder, folder)
        if self.vectors is not None:
            notes[EMBEDDINGS] = self._embed(encoder, folder, self.vectors)
        if self.options.latency > 0 and formats:
            self._time(encoder, folder, formats)
        return notes

    def _add_precisions(
        self, format: Format, formats: Sequence[Format], encoder: DualEncoder, folder: Path
    ) -> list[str]:
        from gcl.exports.measure import images_of_all, measure_precisions, quality_table
        from gcl.run.measurement import measurement_of

        assert isinstance(format.precisions, Reduced)
        images = images_of_all(self.prepared.documents, encoder.schema.document)
        notes = format.precisions.add(encoder, folder, self.precisions[format.name], images=images)
        evaluate = self.config.evaluate
        measurement = measurement_of(evaluate, self.config.data, self.prepared)
        quality = measure_precisions(
            format, folder, encoder, lambda model: measurement(model, "dev", [evaluate.monitor], passing=True),
            metric=evaluate.monitor,
        )  # fmt: skip
        table = quality_table(quality, task_titles(self.config.data))
        sharing = [one.name for one in formats if format.name in one.needs and one.precisions is not None]
        self.sections += [f"## {', '.join([format.name, *sharing])} in fewer bits", "", table.markdown(), ""]
        if sharing:
            self.sections += [
                f"Measured with {format.name}, of whose graphs the files of {', '.join(sharing)} are made.",
                "",
            ]
        say(f"\n{format.name} in fewer bits, compared with the model itself on the dev half:")
        say(f"{table.text(terminal_width())}\n")
        return notes

    def _embed(self, encoder: DualEncoder, folder: Path, vectors: VectorOptions) -> list[str]:
        from gcl.exports.vectors.write import write_embeddings
        from gcl.run.measurement import embedding_of

        prepared = self.prepared
        return write_embeddings(
            encoder, {"document": prepared.documents, "query": prepared.queries}, folder, vectors,
            data=prepared.fingerprint, options=embedding_of(encoder, prepared, self.config),
        )  # fmt: skip

    def _time(self, encoder: DualEncoder, folder: Path, formats: Sequence[Format]) -> None:
        """latency.json and the card's table: each format as a user loads it, on this machine."""
        from gcl.exports.measure import latency_record, latency_table, measure_latency
        from gcl.schema import Modality

        images, timings = encoder.tower(Modality.image) is not None, []
        for format in formats:
            for precision in format.written(folder):
                label = format.label(precision)
                with doing(f"Timing {label}"):
                    loaded = format.load_as(folder, precision)
                    timings += measure_latency(label, loaded, images=images, seconds=self.options.latency)
        record = latency_record(timings)
        write_json(folder / "latency.json", record)
        self.sections += ["## How fast it is", "", f"On {record['machine']}, {record['measured']}.", ""]
        self.sections += [latency_table(timings).markdown(), ""]

    def finish(
        self, encoder: DualEncoder, folder: Path, formats: Sequence[Format], notes: Mapping[str, list[str]]
    ) -> None:
        """Round trip and card. Raises RoundTripError where a format is not the run's model, or a snippet fails."""
        from gcl.exports.card.card import Exported
        from gcl.exports.card.snippets import execute, fuse_snippet
        from gcl.exports.query_weights import add_query_weights, snippets_of
        from gcl.exports.vectors.write import EmbeddingsSnippet, embedding_files
        from gcl.exports.verify.round_trip import round_trip_table

        prepared, stored = self.prepared_or_none, bool(embedding_files(folder))
        checked, snippets, fusing = [], [], None
        self.sections += add_query_weights(encoder, folder)
        if formats or stored:
            checked = round_trip_table(self._round_trip(encoder, folder, formats, prepared, stored))
        with doing("Running the code that README.md shows"):
            if formats or stored:
                given = [*formats, *([EmbeddingsSnippet(folder)] if stored else []), *snippets_of(encoder)]
                snippets = self._snippets(encoder, folder, given)
            if formats:
                fusing = execute("fusing", fuse_snippet(encoder.schema, encoder.width), self.run.path)
        sentences = [note for of_format in notes.values() for note in of_format]
        exported = Exported([one.name for one in formats], sentences, snippets, fusing, checked, self.sections)
        (folder / "README.md").write_text(self._card(encoder, prepared, exported), encoding="utf-8")

    def _round_trip(
        self, encoder: DualEncoder, folder: Path, formats: Sequence[Format], prepared: Prepared | None, stored: bool
    ) -> dict[str, Any]:
        from gcl.exports.verify.case import make_case
        from gcl.exports.verify.round_trip import round_trip
        from gcl.model.settings import Decode
        from gcl.run.measurement import measurement_of

        tasks: Sequence[Any] = ()
        if prepared is not None:
            try:
                tasks = measurement_of(self.config.evaluate, self.config.data, prepared).opened("dev")
            except ValueError as error:
                say(f"The round trip cannot compare results of queries: {error}")
                self.missing.append("The catalog has no dev task on which to compare the formats.")
        most = self.options.compare
        case = make_case(self.rotated.original, tasks, queries=max(1, most // 3), documents=most)
        if self.rotated.rotation is not None:
            case = case.rotated(self.rotated.rotation, self.rotated.width)
        if stored and encoder.preprocess.decode is not Decode.exact:  # the case has exact pixels, the files have not
            self.missing.append("Its embeddings were made with decode=scaled and not compared with exact decoding.")
            stored = False
        with doing("Reloading every format in a fresh process and comparing it with the run"):
            verdicts = round_trip(encoder, folder, formats, case, embeddings=stored)
        for label, about in verdicts.items():
            lowest = min((about[kind]["lowest"] for kind in ("text", "image") if kind in about), default=float("nan"))
            tops = about.get("tasks", {}).values()
            same, queries = sum(t["queries"] - t["different"] for t in tops), sum(t["queries"] for t in tops)
            agreement = f", same top 10 for {same} of {queries} queries" if tops else ""
            say(f"Reloaded {label}: lowest cosine {lowest:.6f}{agreement}.")
        return verdicts

    def _snippets(self, encoder: DualEncoder, folder: Path, formats: Sequence[Any]) -> list[Any]:
        from gcl.exports.card.snippets import run_snippets
        from gcl.exports.formats.open_clip import CONFIG, settle

        repo, config = self.options.push, folder / CONFIG
        if repo is None or not config.is_file():
            return run_snippets(encoder, folder, formats, name=self.name, repo=repo)
        before = config.read_bytes()
        settle(folder, repo)  # as it will be there
        try:
            return run_snippets(encoder, folder, formats, name=self.name, repo=repo)
        finally:
            config.write_bytes(before)

    def _card(self, encoder: DualEncoder, prepared: Prepared | None, exported: Any) -> str:
        from gcl.exports.card.card import CardFacts, CatalogFacts, ModelFacts, check_card, license_of, write_card
        from gcl.run.training_facts import training_facts

        config = self.config
        text = write_card(
            CardFacts(
                self.name,
                license_of(config.model.name, self.options.license),
                ModelFacts.of(encoder, config.model.name),
                CatalogFacts.of(config.data, prepared),
                self._measured(),
                training_facts(config, self.run, interpolated=self.between is not None),
                exported,
                self.options.push,
            )
        )
        check_card(text)
        return text

    def _measured(self) -> Any:
        """The run's figures for its best checkpoint, or those of an interpolation; none for another checkpoint."""
        from gcl.exports.card.card import Measured

        headline, checkpoint = self.config.evaluate.headline, self.options.checkpoint
        best = checkpoint is None or Path(checkpoint).resolve() == self.run.best.resolve()
        metrics = _json(self.run.metrics) if best else {}
        if not best:
            self.missing.append("It is not the best checkpoint of its run, and this one was not measured on its tests.")
        if self.between is not None:
            label, record = f"alpha {self.between.alpha:g}", self.between.record
            metrics = {**metrics, label: self.between.means}
            results = record["results"]
        else:
            label, results = "tuned", _json(self.run.path / "results.json").get("results", []) if best else []
        if cut := self.rotated.means:
            label, results = self.rotated.label, [*results, *self.rotated.rows]
            metrics = {**metrics, label: cut}
        return Measured(headline, metrics, results, label, self.missing)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
