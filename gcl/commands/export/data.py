"""What an export makes with the run's catalog: a model between base and tuned, ONNX in fewer bits, embeddings."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcl.config.schema import RunConfig
from gcl.errors import ConfigError
from gcl.export.folder import EMBEDDINGS
from gcl.export.settings import Content, Precision, VectorType
from gcl.run.console import say
from gcl.run.folder import RunFolder

if TYPE_CHECKING:
    from gcl.export.formats.registry import Format
    from gcl.export.vectors.write import VectorOptions

_IMAGES = 64  # with which int8 convolutions are calibrated


@dataclass
class DataOptions:
    """alpha: a number from 0 (the base) to 1 (the tuned model), or auto: chosen on the dev tasks; null: the tuned one.

    onnx: fp32, and fp16 or int8 beside it, with what they lose on the dev tasks. embeddings: fused or fields, the
    catalog's vectors (formats=[embeddings] means fused); dtype: float32 or float16; queries: theirs, too; index:
    faiss-flat, faiss-hnsw or usearch beside them. latency: seconds to time each format for; 0: not at all.
    """

    alpha: Any = None
    onnx: list[Precision] = field(default_factory=lambda: [Precision.fp32])
    embeddings: Content | None = None
    dtype: VectorType = VectorType.float32
    queries: bool = False
    index: str | None = None
    latency: float = 3.0


class ExportData:
    """The options, checked, and what they ask for; the catalog is opened when it is needed for the first time."""

    def __init__(self, options: DataOptions, formats: list[str] | None, run: RunFolder, config: RunConfig) -> None:
        from gcl.export.formats.registry import FORMATS
        from gcl.export.vectors.write import VectorOptions
        from gcl.run.interpolation import parse_alpha

        self.run, self.config = run, config
        self.sections: list[str] = []  # of the card, in Markdown: what was measured on the way
        self.seconds = options.latency
        self.alpha = parse_alpha(options.alpha)
        # A format with several precisions has an option of its own name.
        asked = {name: getattr(options, name) for name, format in FORMATS.items() if format.precisions}
        self.precisions = {name: FORMATS[name].check_precisions(names) for name, names in asked.items()}
        for name, names in asked.items():
            if len(names) > 1 and formats is not None and name not in formats:
                raise ConfigError(f"{name}=[{','.join(names)}] needs {name} among the formats.")
        content = options.embeddings or (Content.fused if EMBEDDINGS in (formats or ()) else None)
        self.wanted: VectorOptions | None = None
        if content is not None:
            self.wanted = VectorOptions(content, options.dtype, options.queries, options.index)
        elif options.queries or options.index or options.dtype is not VectorType.float32:
            raise ConfigError("dtype, queries and index belong to the embeddings: give embeddings=fused, too.")

    @cached_property
    def prepared(self):
        from gcl.data.prepare.mixed import open_catalog

        return open_catalog(self.config.data, self.config.cache_dir)

    def between(self, checkpoint: Path | None):
        """The model at alpha (see `gcl.run.interpolation.Between`); None where no alpha is asked for."""
        if self.alpha is None:
            return None
        from gcl.run.interpolation import between

        return between(self.run, self.config, self.prepared, self.alpha, checkpoint=checkpoint)

    def write(self, encoder: Any, folder: Path, formats: list[str], found: Any = None) -> dict[str, list[str]]:
        """Adds alpha.json, precisions and embeddings to a folder of written formats; {format: notes}."""
        from gcl.export.formats.registry import FORMATS

        notes: dict[str, list[str]] = {}
        if found is not None:
            from gcl.run.interpolation import alpha_lines

            (folder / "alpha.json").write_text(json.dumps(found.record, indent=2) + "\n", encoding="utf-8")
            self.sections += ["## Between base and tuned", "", *alpha_lines(found.record), ""]
        for name, precisions in self.precisions.items():
            if name in formats and len(precisions) > 1:
                notes[f"{name} precisions"] = self._precisions(FORMATS[name], encoder, folder)
        if self.wanted is not None:
            notes[EMBEDDINGS] = self._embeddings(encoder, folder, self.wanted)
        if self.seconds > 0:
            self._time(encoder, folder, formats)
        return notes

    def _precisions(self, format: Format, encoder: Any, folder: Path) -> list[str]:
        from gcl.export.measure import measure_precisions, quality_table
        from gcl.run.measurement import measurement_of

        assert format.precisions is not None
        notes = format.precisions.add(encoder, folder, self.precisions[format.name], images=self._images(encoder))
        evaluate = self.config.evaluate
        measurement = measurement_of(evaluate, self.config.data, self.prepared)
        quality = measure_precisions(
            format, folder, encoder, lambda model: measurement(model, "dev", [evaluate.monitor], passing=True),
            metric=evaluate.monitor,
        )  # fmt: skip
        self.sections += [f"## {format.name} in fewer bits", "", quality_table(quality).markdown(), ""]
        for task, rows in quality["tasks"].items():
            for precision, row in rows.items():
                if precision != "torch":
                    told = f"{row['change']:+.4f} ({row['low']:+.4f} … {row['high']:+.4f})"
                    say(f"{task}, {precision}: {evaluate.monitor} {row['mean']:.4f}, {told}")
        return notes

    def _images(self, encoder: Any) -> list[bytes]:
        """Images from all over the catalog."""
        import numpy as np

        from gcl.schema import Modality

        documents, found = self.prepared.documents, []
        names = [name for name, spec in encoder.schema.document.items() if spec.modality is Modality.image]
        rows = np.unique(np.linspace(0, max(len(documents) - 1, 0), 4 * _IMAGES).astype(np.int64))
        for name in names:
            found += [data for data in documents.column(name, rows) if data is not None]
        return found[:: max(1, len(found) // _IMAGES)][:_IMAGES]

    def _embeddings(self, encoder: Any, folder: Path, wanted: VectorOptions) -> list[str]:
        from gcl.export.vectors.write import write_embeddings
        from gcl.retrieval.embedding.embed import EmbedOptions
        from gcl.run.measurement import frozen_features

        config, prepared = self.config, self.prepared
        return write_embeddings(
            encoder, {"document": prepared.documents, "query": prepared.queries}, folder, wanted,
            data=prepared.fingerprint,
            options=EmbedOptions(
                config.evaluate.batch_size, config.train.workers, progress=True,
                features=frozen_features(encoder, prepared, config),
            ),
        )  # fmt: skip

    def _time(self, encoder: Any, folder: Path, formats: list[str]) -> None:
        """latency.json and the card's table: each format as a user loads it, on this machine."""
        from gcl.export.formats.registry import FORMATS
        from gcl.export.measure import latency_record, latency_table, measure_latency
        from gcl.schema import Modality

        images, timings = encoder.tower(Modality.image) is not None, []
        for format in (FORMATS[name] for name in formats):
            for precision in format.written(folder):
                loaded = format.load_as(folder, precision)
                timings += measure_latency(format.label(precision), loaded, images=images, seconds=self.seconds)
        if not timings:
            return
        record = latency_record(timings)
        (folder / "latency.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        about = f"On {record['machine']}, {record['measured']}."
        self.sections += ["## How fast it is", "", about, "", latency_table(timings).markdown(), ""]
