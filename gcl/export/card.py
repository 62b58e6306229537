"""The model card: what the folder is, how it was trained, what it reached, how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gcl.schema import Schema

_CITATIONS = """\
- Generalized contrastive learning: Zhu, Jung and Clark, 2024, https://arxiv.org/abs/2404.08535
- SigLIP: Zhai, Mustafa, Kolesnikov and Beyer, 2023, https://arxiv.org/abs/2303.15343
- open_clip: Ilharco et al., https://doi.org/10.5281/zenodo.5143773
"""


def write_card(
    *,
    name: str,
    base_model: str,
    schema: Schema,
    metrics: Mapping[str, Any],
    headline: list[str],
    training: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> str:
    """README.md of an exported folder, with the Hub's metadata on top."""
    lines = [
        "---",
        "library_name: open_clip",
        "pipeline_tag: zero-shot-image-classification",
        f"base_model: {base_model}",
        "tags: [product-search, retrieval, siglip, clip, gcl]",
        "---",
        "",
        f"# {name}",
        "",
        f"A product-search model: {base_model}, fine-tuned with generalized contrastive learning (GCL).",
        "",
        "## How good it is",
        "",
        *_metric_table(metrics, headline),
        "",
        "`base` is the model before fine-tuning, `tuned` this one; same tasks, same code, held-out halves.",
        "",
        "## How to use it",
        "",
        "```python",
        "import open_clip, torch",
        "",
        f'model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{name}")',
        f'tokenizer = open_clip.get_tokenizer("local-dir:{name}")',
        "model.eval()",
        "with torch.inference_mode():",
        '    text = torch.nn.functional.normalize(model.encode_text(tokenizer(["red running shoes"])), dim=-1)',
        "```",
        "",
        *(f"- {note}" for note in notes),
        "",
        "A record of several fields is the normalised weighted mean of its normalised field embeddings;",
        "a field that is missing gets no weight.",
        "",
        "| side | field | modality | weight | prompt |",
        "|---|---|---|---:|---|",
        *(
            f"| {side} | {field} | {spec.modality.value} | {spec.weight:g} | `{spec.prompt}` |"
            for side in ("query", "document")
            for field, spec in schema.side(side).items()
        ),
        "",
        "## How it was trained",
        "",
        *(f"- {key}: {value}" for key, value in training.items()),
        "",
        "## Sources",
        "",
        _CITATIONS,
    ]
    return "\n".join(lines)


def _metric_table(metrics: Mapping[str, Any], headline: list[str]) -> list[str]:
    models = list(metrics)
    lines = ["| task | metric | " + " | ".join(models) + " |", "|---|---|" + "---:|" * len(models)]
    for task in metrics[models[0]]:
        for metric in headline:
            values = [f"{metrics[model][task][metric]:.3f}" for model in models]
            lines.append(f"| {task} | {metric} | " + " | ".join(values) + " |")
    return lines
