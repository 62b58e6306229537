"""The model card: what the folder is, how it was trained, what it reached, how to use it, what it cannot do.

What a card says is collected where it is known, in one record per source: the model, its catalog, what was measured,
how it was trained, what was exported. Text that comes from a catalog or a config is escaped, so that it reads as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from gcl.data.catalog import Catalog
from gcl.data.store.prepared import Prepared
from gcl.data.store.records import MOST_IMAGES
from gcl.data.titles import task_titles, title_of
from gcl.errors import ConfigError
from gcl.exports.card.snippets import Executed
from gcl.exports.formats.registry import FORMATS
from gcl.model.dual_encoder import DualEncoder
from gcl.schema import SIDES, Modality, Schema
from gcl.table import Table, code_span, plain_markdown, visible_lines

_ON_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_FEW = 100  # test queries below which a task's interval is called wide
_SOURCES = {
    "gcl": "Generalized contrastive learning (GCL): Zhu, Jung and Clark, 2024, https://arxiv.org/abs/2404.08535",
    "siglip": "SigLIP: Zhai, Mustafa, Kolesnikov and Beyer, 2023, https://arxiv.org/abs/2303.15343",
    "siglip2": "SigLIP 2: Tschannen et al., 2025, https://arxiv.org/abs/2502.14786",
    "clip": "CLIP: Radford et al., 2021, https://arxiv.org/abs/2103.00020",
    "open_clip": "open_clip: Ilharco et al., 2021, https://doi.org/10.5281/zenodo.5143773",
    "micro_batch": "GradCache: Gao, Zhang, Han and Callan, 2021, https://arxiv.org/abs/2101.06983",
    "alpha": "WiSE-FT: Wortsman et al., 2022, https://arxiv.org/abs/2109.01903",
    "lora": "LoRA: Hu et al., 2021, https://arxiv.org/abs/2106.09685",
}


@dataclass(frozen=True)
class ModelFacts:
    """base: the model that was fine-tuned, as the config names it. width: D. images: whether it has an image tower."""

    base: str
    schema: Schema
    width: int
    images: bool = True

    @classmethod
    def of(cls, encoder: DualEncoder, base: str) -> ModelFacts:
        return cls(base, encoder.schema, encoder.width, encoder.tower(Modality.image) is not None)


@dataclass(frozen=True)
class CatalogFacts:
    """counts: of the prepared catalog; score[P]: of its training pairs. None where the catalog is not at hand."""

    name: str
    counts: Mapping[str, Any] | None = None
    score: np.ndarray | None = None
    titles: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Catalog, prepared: Prepared | None) -> CatalogFacts:
        facts = cls(data.name, titles=task_titles(data))
        return facts if prepared is None else replace(facts, counts=prepared.counts, score=prepared.pairs.score)


@dataclass(frozen=True)
class Measured:
    """headline: the metrics that the card shows. metrics, results: of metrics.json and results.json.

    tuned: the key in metrics of the model that this folder holds. not_measured: sentences for the limits.
    """

    headline: Sequence[str]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    results: Sequence[Mapping[str, Any]] = ()
    tuned: str = "tuned"
    not_measured: Sequence[str] = ()


@dataclass(frozen=True)
class Training:
    """settings: {what: value}, in the order of the card. sources: keys of what is cited besides GCL and open_clip."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    sources: Sequence[str] = ()


@dataclass(frozen=True)
class Exported:
    """What was written. checked: Markdown about the round trip. sections: further Markdown."""

    formats: Sequence[str]
    notes: Sequence[str] = ()
    snippets: Sequence[Executed] = ()
    fusing: Executed | None = None
    checked: Sequence[str] = ()
    sections: Sequence[str] = ()


@dataclass(frozen=True)
class CardFacts:
    """Everything a card says. repo: owner/name that the snippets load from; None: the folder."""

    name: str
    license: str
    model: ModelFacts
    catalog: CatalogFacts
    measured: Measured
    training: Training
    exported: Exported
    repo: str | None = None


def write_card(facts: CardFacts) -> str:
    """README.md of an exported folder, with the Hub's metadata on top."""
    model, measured, exported = facts.model, facts.measured, facts.exported
    base = model.base.removeprefix("hf-hub:").removeprefix("hf-text:").removeprefix("local-dir:")
    retention = measured.metrics.get("retention", {})
    lines = [
        f"# {plain_markdown(facts.name)}", "",
        f"A product-search model: {plain_markdown(base)}, fine-tuned with generalized contrastive learning (GCL) on "
        f"the catalog {plain_markdown(facts.catalog.name)}. Queries and documents become vectors of length 1 and "
        f"width {model.width}; the dot product of two of them says how well they match.", "",
        "## How good it is", "",
        *metric_table(measured, facts.catalog.titles), "",
        *([f"`base` is the model before fine-tuning, {code_span(measured.tuned)} the one in this folder; same "
           "held-out tasks, same code. Intervals are bootstraps over queries.", ""] if measured.metrics else []),
        *(["### What it was not to forget", "", retention_table(retention).markdown(), ""] if retention else []),
        "## How to use it", "",
        *_place(facts), "",
        *(line for snippet in exported.snippets for line in snippet.markdown()),
        *(f"- {note}" for note in dict.fromkeys(exported.notes)), "",
        "## How fields become one vector", "",
        "A record of several fields is the weighted mean of its fields' unit vectors, made a unit vector again; a "
        "field that is missing gets no weight, and the others share its part.", "",
        field_table(model.schema).markdown(), "",
        *set_lines(model.schema),
        *(exported.fusing.markdown()[2:] if exported.fusing else []),
        "## Data", "",
        *_data(facts.catalog), "",
        "## Training", "",
        *(f"- {key}: {plain_markdown(str(value))}" for key, value in facts.training.settings.items()), "",
        "## Checked before it left", "",
        *exported.checked, "",
        *exported.sections,
        "## Limits", "",
        *(f"- {limit}" for limit in limits(facts)), "",
        "## Sources", "",
        *(f"- {_SOURCES[key]}" for key in dict.fromkeys(["gcl", "siglip", *facts.training.sources, "open_clip"])), "",
    ]  # fmt: skip
    return f"---\n{visible_lines(metadata(facts).to_yaml())}\n---\n\n" + "\n".join(lines)


def metadata(facts: CardFacts) -> ModelCardData:
    """What the Hub reads: library, task, license, base model, tags and `model-index` results."""
    base = facts.model.base.removeprefix("hf-hub:").removeprefix("hf-text:")
    families = [name for name in ("siglip", "clip") if name in facts.training.sources]
    formats = [FORMATS[name] for name in facts.exported.formats]
    leading = min(formats, key=lambda format: format.rank, default=None)
    tags = ["product-search", "retrieval", "gcl", *families, *(format.library for format in formats)]
    results = _eval_results(facts)
    return ModelCardData(
        license=facts.license,
        library_name=leading.library if leading else None,
        pipeline_tag="zero-shot-image-classification" if facts.model.images else "sentence-similarity",
        tags=list(dict.fromkeys(tags)),
        base_model=base if _ON_HUB.fullmatch(base) else None,
        model_name=facts.name if results else None,
        eval_results=results or None,
    )


def check_card(text: str) -> None:
    """Raises ValueError if huggingface_hub cannot read the card, or reads something else than was written."""
    card = ModelCard(text, ignore_metadata_errors=False)
    if not card.data.to_dict() or not card.text.strip():
        raise ValueError("The card has no metadata or no text.")


def license_of(base: str, given: str | None) -> str:
    """The license for the metadata: as given, else what the base model's own folder says, else "other"."""
    if given is not None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", given):
            raise ConfigError(f"license={given}: expected an identifier of the Hub, like apache-2.0, mit or other.")
        return given
    readme = Path(base.removeprefix("local-dir:").removeprefix("hf-text:")) / "README.md"
    if not base.startswith("hf-hub:") and readme.is_file():
        try:
            return getattr(ModelCard.load(readme).data, "license", None) or "other"
        except ValueError:  # somebody's card with broken metadata is no reason not to export
            return "other"
    return "other"


def limits(facts: CardFacts) -> list[str]:
    """Known weaknesses, and what nobody measured."""
    measured = facts.measured
    sentences = [
        f"It was tuned on one catalog, {plain_markdown(facts.catalog.name)}, and measured on held-out queries and "
        "documents of the same one: on the products of other shops it may be worse than its base.",
        "Scores are similarities, not probabilities: a threshold has to be found on your own data.",
        "A text beyond the context length is cut; numbers, sizes and brand names that training never saw are told "
        "apart badly by models of this kind.",
    ]
    if not measured.metrics.get("retention"):
        sentences.append("What it forgot of the base model's general knowledge was not measured (no retention set).")
    tasks = (facts.catalog.counts or {}).get("tasks", {})
    titles = facts.catalog.titles
    few = [title_of(name, titles) for name, task in tasks.items() if 0 < task["test"]["queries"] < _FEW]
    if few:
        which = plain_markdown("; ".join(few))
        sentences.append(f"Measured on fewer than {_FEW} test queries: {which}. Their intervals are wide.")
    if measured.metrics and not measured.results:
        sentences.append("The table has no intervals: small differences in it may be luck.")
    modalities = {spec.modality for side in SIDES for spec in facts.model.schema.side(side).values()}
    if facts.model.images and Modality.image not in modalities:
        sentences.append("Its image tower was not trained in this run: no field of the catalog is an image.")
    return [*sentences, "Bias, safety and languages were not examined.", *measured.not_measured]


def metric_table(measured: Measured, titles: Mapping[str, str]) -> list[str]:
    """The headline metrics, from results.json with intervals; without it the means of metrics.json. titles: those that
    tasks were given."""
    rows: list[list[Any]] = []
    if measured.results:
        for row in (row for row in measured.results if row["metric"] in measured.headline):
            change = p = ""
            if row.get("change") is not None:
                change = f"{row['change']:+.3f} ({row['change_low']:+.3f} … {row['change_high']:+.3f})"
                p = "" if row["p_holm"] is None else "< 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"
            value = f"{row['value']:.3f} ({row['low']:.3f} … {row['high']:.3f})"
            title = title_of(row["task"], titles)
            rows.append([title, row["metric"], row["model"], value, change, p, row["n"]])
        header = ["task", "metric", "model", "value (95 % interval)", "change (95 % interval)", "p, Holm", "queries"]
        return Table(header, rows, align="lll").markdown().splitlines()
    models = [name for name in measured.metrics if name != "retention"]
    if not models:
        return ["This model was not measured."]
    for task in measured.metrics[models[0]]:
        for metric in measured.headline:
            values = [measured.metrics[model].get(task, {}).get(metric) for model in models]
            shown = [f"{value:.3f}" if isinstance(value, (int, float)) else "" for value in values]
            rows.append([title_of(task, titles), metric, *shown])
    return Table(["task", "metric", *models], rows, align="ll").markdown().splitlines()


def retention_table(retention: Mapping[str, Mapping[str, Any]]) -> Table:
    """retention: {model: {set: its figures}} of metrics.json."""
    rows = [
        [name, model, one["metric"], one["base"], one["tuned"], one["loss"], one["limit"],
         "more than the limit" if one["exceeded"] else "kept"]
        for model, sets in retention.items()
        for name, one in sets.items()
    ]  # fmt: skip
    formats = {"base": ".3f", "now": ".3f", "lost": "+.3f", "limit": "g"}
    header = ["general set", "model", "metric", "base", "now", "lost", "limit", "verdict"]
    return Table(header, rows, align="lllrrrrl", formats=formats)


def field_table(schema: Schema) -> Table:
    """A row per field of both sides."""
    rows = [
        [side, name, spec.modality.value, spec.weight, spec.prompt if spec.modality is Modality.text else None]
        for side in SIDES
        for name, spec in schema.side(side).items()
    ]
    return Table(["side", "field", "modality", "weight", "prompt"], rows, align="lllrl", formats={"weight": "g"})


def set_lines(schema: Schema) -> list[str]:
    """How several images of a record become one vector; empty where no field has several."""
    sets = [f"{side}.{name}" for side in SIDES for name, spec in schema.side(side).items() if spec.is_set]
    if not sets:
        return []
    return [
        f"A record may have several images in {', '.join(sets)}, at most {MOST_IMAGES}: encode them one by one; the "
        "field's vector is the mean of their unit vectors, made a unit vector again.", "",
    ]  # fmt: skip


def data_lines(counts: Mapping[str, Any], score: np.ndarray, titles: Mapping[str, str]) -> list[str]:
    """counts: of a prepared catalog; score[P]: those of the training pairs."""
    queries, documents = (  # folders of an earlier version know the halves alone
        counts.get(f"{name}_trained_on", counts[f"{name}_of_training"]) for name in ("queries", "products")
    )
    lines = [
        f"- {counts['pairs']:,} pairs of {counts['queries']:,} queries and {counts['products']:,} documents",
        f"- training saw {counts['training_pairs']:,} pairs, {queries:,} queries and "
        f"{documents:,} documents of them; the rest is held out",
    ]
    if len(score):
        least, low, middle, high, most = np.percentile(score, [0, 25, 50, 75, 100])
        values = len(np.unique(score))
        lines.append(
            f"- scores of the training pairs: {least:g} to {most:g}, quartiles {low:g}, {middle:g}, {high:g}, mean "
            f"{score.mean():.4g}, {values:,} different value{'' if values == 1 else 's'}"
        )
    columns = {f"{half} {key}": (half, key) for half in ("dev", "test") for key in ("queries", "judgments")}
    rows = [
        [title_of(name, titles), task["corpus"], *(task[half][key] for half, key in columns.values())]
        for name, task in counts["tasks"].items()
    ]
    table = Table(["task", "corpus", *columns], rows, formats=dict.fromkeys(["corpus", *columns], ",d"))
    return [*lines, "", table.markdown()]


def _place(facts: CardFacts) -> list[str]:
    ran = "Each snippet was run, without network, before this card was written; its output is shown below it."
    if facts.repo:
        return [f"`{facts.repo}` is this repository. {ran}"]
    download = code_span(f"hf download <owner>/<name> --local-dir {facts.name}")
    return [f"{code_span(facts.name)} is this folder; from the Hub: {download}. {ran}"]


def _data(catalog: CatalogFacts) -> list[str]:
    if catalog.counts is None:
        return ["The catalog was not at hand when this folder was written: its statistics are missing."]
    score = np.empty(0) if catalog.score is None else catalog.score
    return data_lines(catalog.counts, score, catalog.titles)


def _eval_results(facts: CardFacts) -> list[EvalResult]:
    catalog, titles, measured = facts.catalog.name, facts.catalog.titles, facts.measured
    return [
        EvalResult(
            task_type="text-retrieval", task_name="Product search",
            dataset_type=catalog, dataset_name=f"{catalog}, {title_of(task, titles)}", dataset_split="test",
            dataset_config=task, metric_type=metric, metric_name=metric, metric_value=round(float(values[metric]), 5),
        )
        for task, values in measured.metrics.get(measured.tuned, {}).items()
        for metric in measured.headline
        if isinstance(values.get(metric), (int, float)) and np.isfinite(values[metric])
    ]  # fmt: skip
