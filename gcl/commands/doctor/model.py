"""A catalog as the chosen model and loss see it: tokens, weights, memory and time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from gcl.config.compose import build
from gcl.config.schema import RunConfig
from gcl.data.batches.mixed_plan import MixedPlan
from gcl.data.batches.order import BatchOrder
from gcl.data.catalog import Batches
from gcl.data.doctor.facts import repeats, stores_of
from gcl.data.doctor.samples import distribution, sample_rows
from gcl.data.doctor.texts import MOST_TEXTS
from gcl.data.store.prepared import Prepared
from gcl.data.store.records import shortened
from gcl.lit.auto_micro_batch import available_memory
from gcl.lit.settings import DryConfig
from gcl.model.dual_encoder import DualEncoder
from gcl.model.tokens import Tokens, count_tokens
from gcl.run.build import assemble_encoder, assemble_plan, total_steps
from gcl.run.contestants import device_of
from gcl.run.dry import on_paper
from gcl.schema import Modality

_LONG = 8  # texts are counted up to this many context lengths
MOST_CUT, _LOST = 5, 60  # cut texts that are shown, and characters of what they lose
_MANY_LANGUAGES = 100_000  # entries of a vocabulary


def weights(prepared: Prepared, config: RunConfig) -> dict[str, Any]:
    """The weights that loss.score_to_weight gives the scores; {"refused": sentence} if it rejects them."""
    score = torch.from_numpy(np.array(prepared.pairs.score))
    node = config.loss.score_to_weight
    name = str(node.get("_target_", node)).rpartition(".")[2]
    try:
        weight = build(node)(score)
    except ValueError as error:
        range_ = f"loss.score_to_weight.low={score.min():g} loss.score_to_weight.high={score.max():g}"
        return {"function": name, "refused": str(error), "do": range_}
    weight = weight.double().numpy()
    total, squares = weight.sum(), (weight**2).sum()
    ordered = np.sort(weight)[::-1]
    return {
        "function": name,
        **distribution(weight),
        "of_scores": [[float(s), float(w)] for s, w in _points(score.numpy(), weight)],
        "zero": int((weight == 0).sum()),
        "bad": int((~np.isfinite(weight) | (weight < 0)).sum()),
        "effective_pairs": float(total**2 / squares) if squares > 0 else 0.0,  # Kish: sum(w)^2 / sum(w^2)
        "share_of_heaviest_tenth": float(ordered[: max(1, len(ordered) // 10)].sum() / total) if total > 0 else 0.0,
    }


def _points(score: np.ndarray, weight: np.ndarray, most: int = 7) -> list[tuple[float, float]]:
    values, first = np.unique(score, return_index=True)
    chosen = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int))
    return [(values[place], weight[first[place]]) for place in chosen]


def load(config: RunConfig) -> tuple[DualEncoder | None, str | None]:
    """The model and a note on how it differs from training, if it does; (None, reason) if it cannot be built."""
    try:
        return assemble_encoder(config.model, config.data.schema), None
    except ValueError as error:
        why = str(error)
    try:
        encoder = assemble_encoder(replace(config.model, pretrained=None), config.data.schema)
        return encoder, f"its weights are not available, so random ones are used instead ({why})"
    except ValueError:
        return None, why


def token_lengths(prepared: Prepared, encoder: DualEncoder, *, everything: bool) -> dict[str, Any]:
    """Number of tokens in each text field, prompt and marks included, compared with the context length."""
    fields = {}
    context = encoder.preprocess.tokens.context_length
    longer = replace(encoder.preprocess.tokens, context_length=_LONG * context)
    for side, store in stores_of(prepared).items():
        for name, spec in encoder.schema.side(side).items():
            if spec.modality is not Modality.text:
                continue
            rows = np.flatnonzero(store.present(np.arange(len(store)))[:, list(store.side).index(name)])
            rows = sample_rows(rows, None if everything else MOST_TEXTS)
            texts = [spec.prompt.replace("{}", text) for text in store.column(name, rows) if isinstance(text, str)]
            distinct = list(dict.fromkeys(texts))
            length = dict(zip(distinct, count_tokens(longer, distinct), strict=True))
            count = np.array([length[text] for text in texts])
            over = [text for text in distinct if length[text] > context]
            fields[f"{side}.{name}"] = {
                "cut": cut_texts(longer, context, over[:MOST_CUT]), "looked_at": len(rows), "context_length": context,
                "over": int((count > context).sum()),
                "share_over": float((count > context).mean()) if len(count) else 0.0, **distribution(count),
            }  # fmt: skip
    return fields


def cut_texts(longer: Tokens, context: int, texts: list[str]) -> list[list[str]]:
    """What a model reads of each of these texts, and how what it does not read begins. longer: counts beyond
    `context`, the tokens that it reads."""
    pieces = [re.findall(r"\S+\s*|\s+", text) for text in texts]
    pieces = [words if len(words) > 3 else list(text) for words, text in zip(pieces, texts, strict=True)]
    low, high = [0] * len(texts), [len(words) for words in pieces]  # `low` pieces fit, `high` do not
    while any(b - a > 1 for a, b in zip(low, high, strict=True)):
        middle = [(a + b) // 2 for a, b in zip(low, high, strict=True)]
        count = count_tokens(longer, ["".join(words[:n]) for words, n in zip(pieces, middle, strict=True)])
        for place, (n, used) in enumerate(zip(middle, count, strict=True)):
            (low if used <= context else high)[place] = n
    cut = zip(pieces, low, strict=True)
    return [["".join(words[:n]).rstrip(), shortened("".join(words[n:]), _LOST)] for words, n in cut]


def reads_many_languages(encoder: DualEncoder) -> bool:
    """Told by the size of the vocabulary: those of English models have 30,000 to 50,000 entries (CLIP, SigLIP, BERT),
    those of models of many languages 250,000 (mT5, XLM-R, Gemma, which SigLIP 2 has)."""
    tokenizer: Any = encoder.preprocess.tokens.tokenizer
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    return (inner.vocab_size if hasattr(inner, "vocab_size") else len(inner)) > _MANY_LANGUAGES


def batches(prepared: Prepared, config: RunConfig, *, everything: bool) -> tuple[BatchOrder | None, dict[str, Any]]:
    """Steps and in-batch repeats of the plan a run would follow; {"refused": sentence} if there can be no plan."""
    try:
        plan = assemble_plan(prepared, config)
    except ValueError as error:
        half = max(len(prepared.pairs) // 2, 2).bit_length() - 1
        return None, {"refused": str(error), "do": f"train.batch_size={2**half}"}
    steps: dict[str, Any] = {"steps_per_epoch": plan.steps_per_epoch, "steps": total_steps(config.train, plan)}
    if isinstance(plan, MixedPlan):
        what = "batches" if plan.batches is Batches.one else "pairs"
        steps["mix"] = {
            name: {what: count, "passes_per_epoch": passes} for name, (count, passes) in plan.of_an_epoch.items()
        }
    length = {"epochs": config.train.epochs, "max_steps": config.train.max_steps}
    return plan, steps | length | repeats(prepared.pairs, plan, everything=everything)


def step_on_paper(encoder: DualEncoder, prepared: Prepared, plan: BatchOrder, config: RunConfig) -> dict[str, Any]:
    """Bytes that a step holds on this machine, part by part, and seconds that it takes, as trainer=dry estimates them.
    fits: the most rows of a micro-batch for which the memory is enough."""
    on_gpu = device_of(config) == "cuda"
    available = torch.cuda.get_device_properties(0).total_memory if on_gpu else available_memory()
    paper = on_paper(config, DryConfig(1, available / 1e9), prepared, encoder=encoder, plan=plan)
    return {
        "parts": dict(paper.memory), "total": paper.held, "available": available,
        "device": "GPU" if on_gpu else "this machine's memory", "micro_batch": paper.micro_batch, "fits": paper.fits,
        "seconds": dict(paper.time),
    }  # fmt: skip


def expected_time(config: RunConfig, plan: BatchOrder, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Seconds per epoch: train.workers processes read while the model computes, so the slower of the two counts.
    seconds: of a step."""
    reading = plan.steps_per_epoch * seconds["reading"]
    computing = plan.steps_per_epoch * (seconds["encoding"] + seconds["loss"])
    epoch = max(reading, computing) if config.train.workers else reading + computing
    steps = total_steps(config.train, plan)
    return {"epoch": epoch, "run": epoch * steps / plan.steps_per_epoch, "reading": reading, "computing": computing}
