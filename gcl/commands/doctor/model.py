"""A catalog as the chosen model and loss see it: tokens, weights, memory and time."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from gcl.config.compose import build
from gcl.config.schema import RunConfig
from gcl.data.batches.batch import SideBatch, SideReader
from gcl.data.batches.mixed_plan import MixedPlan
from gcl.data.batches.order import BatchOrder
from gcl.data.catalog import Batches
from gcl.data.doctor.facts import repeats, stores_of
from gcl.data.doctor.samples import distribution, sample_rows
from gcl.data.doctor.texts import MOST_TEXTS
from gcl.data.store.prepared import Prepared
from gcl.data.store.records import shortened
from gcl.model.dual_encoder import DualEncoder
from gcl.model.tokens import Tokens, count_tokens
from gcl.retrieval.embedding.embed import to_device
from gcl.run.build import assemble_encoder, assemble_plan, freeze_parts, total_steps
from gcl.schema import SIDES, Modality, SideName

_LONG = 8  # texts are counted up to this many context lengths
_FEW, _MORE = 4, 12  # pairs for which activations and time are measured: their slope leaves out a step's fixed cost
_FLOAT = 4
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


def memory(encoder: DualEncoder, prepared: Prepared, plan: BatchOrder, config: RunConfig) -> dict[str, Any]:
    """Bytes in float32 on one device. Activations are those of a few pairs, measured, times the micro-batch."""
    freeze_parts(encoder, config.optim)
    parameters = [parameter.numel() for parameter in encoder.parameters()]
    trained = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
    size, width = plan.batch_size, encoder.width
    parts = {side: {"fused"} | {getattr(term, side) for term in config.loss.terms} for side in SIDES}
    tile = min(1024 if config.loss.tile == "auto" else int(config.loss.tile or size), size)
    image = 3 * int(np.prod(encoder.preprocess.size))
    text = 8 * encoder.preprocess.tokens.context_length
    batch = sum(size * (image if spec.modality is Modality.image else text)
                for side in SIDES for spec in encoder.schema.side(side).values())  # fmt: skip
    micro = config.train.micro_batch if isinstance(config.train.micro_batch, int) else size
    few, more = (_Step(encoder, prepared, plan, count) for count in (_FEW, _MORE))
    activations = max(more.kept - few.kept, 0) / max(more.pairs - few.pairs, 1)
    memory: dict[str, Any] = {
        "parameters": sum(parameters) * _FLOAT,
        "gradients_and_adam": 3 * trained * _FLOAT,
        "batch": batch,
        "activations": activations * micro,
        "loss": sum(map(len, parts.values())) * 2 * size * width * _FLOAT + 2 * tile * tile * _FLOAT,
    }
    memory["total"] = sum(memory.values())
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    gpu = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    memory |= {"available": gpu or available, "device": "GPU" if gpu else "this machine's memory", "micro_batch": micro}
    return memory | {"seconds": {"reading": _line(few, more, "reading"), "computing": _line(few, more, "computing")}}


class _Step:
    """Bytes kept for the backward pass, and seconds of reading and of computing, for the first `pairs` of a batch."""

    def __init__(self, encoder: DualEncoder, prepared: Prepared, plan: BatchOrder, pairs: int) -> None:
        rows = plan.batch(0)[:pairs]
        self.pairs, self.kept = len(rows), 0
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        encoder.to(device).train()
        times = []
        for _ in range(2):
            begun = _clock(device)
            sides: dict[SideName, SideBatch] = {}
            for side, store in stores_of(prepared).items():
                reader = SideReader(store, encoder.schema.side(side), encoder.preprocess)
                sides[side] = reader(getattr(prepared.pairs, side)[rows])
            read = _clock(device)
            self.kept = _forward_and_backward(encoder, sides, device)
            times.append((read - begun, _clock(device) - read))
        self.reading, self.computing = (min(column) for column in zip(*times, strict=True))


def _clock(device: torch.device) -> float:
    """Seconds; on a CPU, processor time, so that a busy machine does not look slow."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def _forward_and_backward(encoder: DualEncoder, sides: dict[SideName, SideBatch], device: torch.device) -> int:
    """Bytes of the tensors kept between the forward and the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embedded = [encoder(to_device(batch, device), side) for side, batch in sides.items()]
    total = sum(output.sum() for output in embedded)
    if total.requires_grad:
        total.backward()
    encoder.zero_grad(set_to_none=True)
    return sum(kept.values())


def _line(few: _Step, more: _Step, name: str) -> dict[str, float]:
    """Seconds per step and per pair in it: the line through two measurements."""
    low, high = getattr(few, name), getattr(more, name)
    slope = max(high - low, 0.0) / max(more.pairs - few.pairs, 1)
    return {"step": max(low - slope * few.pairs, 0.0), "pair": slope}


def expected_time(config: RunConfig, plan: BatchOrder, seconds: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Seconds per epoch: train.workers processes read while the model computes, so the slower of the two counts."""
    reading, computing = (
        plan.steps_per_epoch * seconds[name]["step"] + len(plan.pairs.query) * seconds[name]["pair"]
        for name in ("reading", "computing")
    )
    workers = config.train.workers
    epoch = max(reading / workers, computing) if workers else reading + computing
    steps = total_steps(config.train, plan)
    return {"epoch": epoch, "run": epoch * steps / plan.steps_per_epoch, "reading": reading, "computing": computing}
