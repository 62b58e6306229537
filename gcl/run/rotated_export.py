"""The rotation of an export: which one it has, and what its card says of it and of vectors that were cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gcl.config.schema import RunConfig
from gcl.data.store.prepared import Prepared
from gcl.errors import ConfigError
from gcl.model.dual_encoder import DualEncoder
from gcl.model.rotated import rotated, why_not
from gcl.model.rotation import Rotation
from gcl.retrieval.analysis.compression import compression_table, of_models, of_records
from gcl.retrieval.embedding.quantize import Quantization, VectorFormat
from gcl.retrieval.evaluate import TaskResult
from gcl.retrieval.report import contest_rows
from gcl.run.console import say
from gcl.run.folder import RunFolder
from gcl.run.measurement import embedding_cache, embedding_of, frozen_features, measurement_of
from gcl.run.outcome import means_of
from gcl.run.rotation import keep_rotation, kept_rotation, rotation_of

_NEVER = (
    "Never search vectors of this export with those of an export that has another rotation, or none: they look alike, "
    "and their scores mean nothing."
)


@dataclass
class Rotated:
    """A run's model as it is exported.

    original: the model of the run. rotation: None where the export has none; why: then the reason, for the card.
    width: how many numbers are kept; None: all. label, means, rows: the figures of the vectors that were cut, as
    metrics.json and results.json have them.
    """

    original: DualEncoder
    rotation: Rotation | None = None
    why: str = ""
    width: int | None = None
    label: str = "tuned"
    means: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def encoder(self) -> DualEncoder:
        """What is written."""
        return self.original if self.rotation is None else rotated(self.original, self.rotation, self.width)

    def about(self, run: Mapping[str, Any], config: RunConfig, prepared: Prepared | None) -> list[str]:
        """Markdown for the card. run: results.json, whose table of smaller vectors is shown if there is one. prepared:
        the catalog on which vectors that were cut are measured."""
        if self.rotation is None:
            lines = [f"The vectors are not rotated ({self.why}). {_NEVER}"]
        else:
            cut = f"they are the best {self.width} of {self.original.width} numbers. " if self.width else ""
            lines = [
                f"The vectors are rotated (`{self.rotation.digest}`, from the training data), which changes no score "
                f"of full length: {cut or 'the first 128, 256, 512 … numbers are the best of their count. '}"
                f"{'' if cut else 'To cut them, take the first ones and normalise again. '}{_NEVER}"
                f"{'' if cut else ' One bit per number suits full vectors that are not rotated.'}"
            ]
        records = [] if self.width else run.get("compressed", [])
        table = [compression_table(of_records(records), all_metrics=False).markdown(), ""] if records else []
        lost = self._measured(config, prepared) if self.width is not None and prepared is not None else []
        return ["## Vectors that can be cut", "", *lines, "", *table, *lost]

    def _measured(self, config: RunConfig, prepared: Prepared) -> list[str]:
        """What the cut loses on the run's tasks, for the card; also as float32 in `means` and `rows`."""
        assert self.width is not None and self.rotation is not None
        smaller, headline = (Quantization.int8, Quantization.binary), config.evaluate.headline

        def measured(encoder: DualEncoder, forms: Sequence[VectorFormat] = ()) -> dict[str, TaskResult]:
            features = frozen_features(encoder, prepared, config)
            measurement = measurement_of(
                config.evaluate, config.data, prepared, features=features, cache=embedding_cache(config), forms=forms,
            )  # fmt: skip
            return measurement(encoder, "test", k=config.evaluate.depth)

        # The model that is written: each field is cut and normalised, then they are fused.
        written = measured(self.encoder, [VectorFormat(None, kind) for kind in smaller])
        cut = {name: replace(result, smaller={}) for name, result in written.items()}
        results = {
            name: replace(result, smaller={VectorFormat(self.width, rotated=True): written[name].values} | {
                VectorFormat(self.width, kind, rotated=True): written[name].smaller[VectorFormat(None, kind)]
                for kind in smaller
            })
            for name, result in measured(self.original).items()
        }  # fmt: skip
        self.label, self.means = f"first {self.width} numbers", means_of(cut)
        rows = [row.record() for row in contest_rows({"tuned": results, self.label: cut}, headline)]
        self.rows = [row for row in rows if row["model"] == self.label]
        table = compression_table(of_models({"tuned": results}, headline))
        return [
            f"## What {self.width} numbers lose", "",
            f"On the test half, paired by query. In the table at the top, the change of `{self.label}` is against all "
            f"{self.original.width}.", "", table.markdown(), "",
        ]  # fmt: skip


def rotated_export(
    encoder: DualEncoder,
    run: RunFolder,
    config: RunConfig,
    prepared: Callable[[], Prepared | None],
    *,
    rotate: bool | None,
    width: int | None,
) -> Rotated:
    """The rotation that the run folder has for these weights, or a new one, which it then has. rotate: None: if vectors
    are to be cut.

    Raises ConfigError where vectors are to be cut and cannot be rotated.
    """
    if width is not None and not 0 < width <= encoder.width:
        raise ConfigError(f"dims={width}: the run's vectors have {encoder.width} numbers; give 1 to {encoder.width}.")
    rotation, why = None, "`rotate=true` and `dims=…` do it" if rotate is None else "rotate=false"
    if rotate or (rotate is None and width is not None):
        rotation, why = _rotation(encoder, run, config, prepared)
    if rotation is None and width is not None:
        if rotate is False:
            raise ConfigError(f"dims={width} cuts rotated vectors: leave out rotate=false, or dims={width}.")
        raise ConfigError(
            f"dims={width} cuts rotated vectors, and these cannot be rotated: {why}. Leave out dims={width}."
        )
    return Rotated(encoder, rotation, why, None if width == encoder.width else width)


def _rotation(
    encoder: DualEncoder, run: RunFolder, config: RunConfig, prepared: Callable[[], Prepared | None]
) -> tuple[Rotation | None, str]:
    """The rotation, or None and why there is none."""
    if why := why_not(encoder):
        return None, why
    if (kept := kept_rotation(run, encoder)) is not None:
        return kept, ""
    opened = prepared()
    if opened is None:
        return None, "the catalog, from whose training data a rotation is computed, cannot be opened"
    rotation = rotation_of(encoder, opened, embedding_of(encoder, opened, config, cache=embedding_cache(config)))
    if rotation is None:
        return None, "the catalog has no training pairs"
    try:
        keep_rotation(run, encoder, rotation)
    except OSError as error:
        say(
            f"The rotation cannot be kept in {run.path} ({error.strerror or error}): an export that is made later may "
            "have another one. Never search vectors of both together."
        )
    return rotation, ""
