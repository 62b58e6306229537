"""The model card: what the folder is, how it was trained, what it reached, how to use it, what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from gcl.errors import ConfigError
from gcl.export.card.snippets import Executed
from gcl.export.card.tables import data_lines, field_table, metric_table, retention_table
from gcl.schema import SIDES, Modality, Schema

_ON_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
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
_LIBRARIES = ("transformers", "sentence_transformers", "open_clip", "onnx")  # the first that is there names the library


@dataclass(frozen=True)
class CardFacts:
    """Everything a card says.

    base: what was fine-tuned, as the config names it. results, retention, metrics: of results.json and metrics.json.
    counts, score: of the prepared catalog, None where it is not at hand. used: keys of the sources beyond GCL and
    open_clip. checked: Markdown about the round trip. sections: further Markdown. not_measured: sentences for limits.
    """

    name: str
    base: str
    license: str
    formats: Sequence[str]
    schema: Schema
    catalog: str
    headline: Sequence[str]
    width: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    results: Sequence[Mapping[str, Any]] = ()
    counts: Mapping[str, Any] | None = None
    score: np.ndarray | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    snippets: Sequence[Executed] = ()
    fusing: Executed | None = None
    checked: Sequence[str] = ()
    sections: Sequence[str] = ()
    used: Sequence[str] = ()
    not_measured: Sequence[str] = ()
    tuned: str = "tuned"  # the key in metrics of the model that this folder holds
    images: bool = True
    repo: str | None = None  # owner/name that the snippets load from


def write_card(facts: CardFacts) -> str:
    """README.md of an exported folder, with the Hub's metadata on top."""
    base = facts.base.removeprefix("hf-hub:").removeprefix("hf-text:").removeprefix("local-dir:")
    retention = facts.metrics.get("retention", {})
    lines = [
        f"# {facts.name}", "",
        f"A product-search model: {base}, fine-tuned with generalized contrastive learning (GCL) on the catalog "
        f"{facts.catalog}. Queries and products become vectors of length 1 and width {facts.width}; the dot product of "
        "two of them says how well they fit.", "",
        "## How good it is", "",
        *metric_table(facts.results, facts.metrics, facts.headline), "",
        *([f"`base` is the model before fine-tuning, `{facts.tuned}` the one in this folder; same held-out tasks, same "
           "code. Intervals are bootstraps over searches.", ""] if facts.metrics else []),
        *(["### What it was not to forget", "", *retention_table(retention), ""] if retention else []),
        "## How to use it", "",
        *_place(facts), "",
        *(line for snippet in facts.snippets for line in snippet.markdown()),
        *(f"- {note}" for note in dict.fromkeys(facts.notes)), "",
        "## How fields become one vector", "",
        "A record of several fields is the weighted mean of its fields' unit vectors, made a unit vector again; a "
        "field that is missing gets no weight, and the others share its part.", "",
        *field_table(facts.schema), "",
        *(facts.fusing.markdown()[2:] if facts.fusing else []),
        "## Data", "",
        *(_data(facts)), "",
        "## Training", "",
        *(f"- {key}: {value}" for key, value in facts.training.items()), "",
        "## Checked before it left", "",
        *facts.checked, "",
        *facts.sections,
        "## Limits", "",
        *(f"- {limit}" for limit in limits(facts)), "",
        "## Sources", "",
        *(f"- {_SOURCES[key]}" for key in dict.fromkeys(["gcl", "siglip", *facts.used, "open_clip"])), "",
    ]  # fmt: skip
    return f"---\n{metadata(facts).to_yaml()}\n---\n\n" + "\n".join(lines)


def metadata(facts: CardFacts) -> ModelCardData:
    """What the Hub reads: library, task, license, base model, tags and `model-index` results."""
    base = facts.base.removeprefix("hf-hub:").removeprefix("hf-text:")
    families = [name for name in ("siglip", "clip") if name in facts.used]
    library = next((name for name in _LIBRARIES if name in facts.formats), None)
    tags = ["product-search", "retrieval", "gcl", *families, *facts.formats]
    results = _eval_results(facts)
    return ModelCardData(
        license=facts.license,
        library_name=library.replace("_", "-") if library == "sentence_transformers" else library,
        pipeline_tag="zero-shot-image-classification" if facts.images else "sentence-similarity",
        tags=list(dict.fromkeys(tag.replace("_", "-") if tag == "sentence_transformers" else tag for tag in tags)),
        **({"base_model": base} if _ON_HUB.fullmatch(base) else {}),
        **({"model_name": facts.name, "eval_results": results} if results else {}),
    )  # fmt: skip


def check_card(text: str) -> None:
    """Raises ValueError if huggingface_hub cannot read the card, or reads something else than was written."""
    card = ModelCard(text, ignore_metadata_errors=False)
    if not card.data.to_dict() or not card.text.strip():
        raise ValueError("The card has no metadata or no text.")


def license_of(base: str, given: str | None) -> str:
    """The license for the metadata: as given, else what the base model's own folder says, else "other"."""
    if given is not None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", given):
            raise ConfigError(f"license={given}: an identifier of the Hub is asked, like apache-2.0, mit or other.")
        return given
    readme = Path(base.removeprefix("local-dir:").removeprefix("hf-text:")) / "README.md"
    if not base.startswith("hf-hub:") and readme.is_file():
        try:
            return ModelCard.load(readme).data.license or "other"
        except ValueError:  # somebody's card with broken metadata is no reason not to export
            return "other"
    return "other"


def limits(facts: CardFacts) -> list[str]:
    """Known weaknesses, and what nobody measured."""
    found = [
        f"It was tuned on one catalog, {facts.catalog}, and measured on held-out searches and products of the same "
        "one: on other shops' products it may be worse than its base.",
        "Scores are similarities, not probabilities: a threshold has to be found on your own data.",
        "A text beyond the context length is cut; numbers, sizes and brand names that training never saw are told "
        "apart badly by models of this kind.",
    ]
    if not facts.metrics.get("retention"):
        found.append("What it forgot of the base model's general knowledge was not measured (no retention set).")
    few = [name for name, task in (facts.counts or {}).get("tasks", {}).items() if 0 < task["test"]["queries"] < 100]
    if few:
        found.append(f"Fewer than 100 test searches stand behind: {', '.join(few)}. Their intervals are wide.")
    if facts.metrics and not facts.results:
        found.append("The table has no intervals: small differences in it may be luck.")
    sides = {spec.modality for side in SIDES for spec in facts.schema.side(side).values()}
    if facts.images and Modality.image not in sides:
        found.append("Its image tower was not trained in this run: no field of the catalog is a picture.")
    return [*found, "Bias, safety and languages were not examined.", *facts.not_measured]


def _place(facts: CardFacts) -> list[str]:
    said = "Each snippet was run, without network, before this card was written; below it is what it printed."
    if facts.repo:
        return [f"`{facts.repo}` is this repository. {said}"]
    download = f"`hf download <owner>/<name> --local-dir {facts.name}`"
    return [f"`{facts.name}` is this folder; from the Hub: {download}. {said}"]


def _data(facts: CardFacts) -> list[str]:
    if facts.counts is None:
        return ["The catalog was not at hand when this folder was written: its statistics are missing."]
    return data_lines(facts.counts, np.empty(0) if facts.score is None else facts.score)


def _eval_results(facts: CardFacts) -> list[EvalResult]:
    by_task = facts.metrics.get(facts.tuned, {})
    return [
        EvalResult(
            task_type="text-retrieval", task_name="Product search",
            dataset_type=facts.catalog, dataset_name=f"{facts.catalog}, {task}", dataset_split="test",
            dataset_config=task, metric_type=metric, metric_name=metric, metric_value=round(float(values[metric]), 5),
        )
        for task, values in by_task.items()
        for metric in facts.headline
        if isinstance(values.get(metric), (int, float)) and np.isfinite(values[metric])
    ]  # fmt: skip
