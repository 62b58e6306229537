"""The exactness matrix: its cases, the towers and batches they share, and their float64 reference."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from gcl.loss.weight import constant, linear
from helpers.loss_reference import loop_loss

WIDTH = 8
TERMS = {
    "fused": [("fused", "fused", 1.0)],
    "fields": [("fused", "fused", 0.5), ("text", "title", 0.3), ("text", "image", 0.7)],
}
WEIGHT = {"graded": linear, "constant": partial(constant, value=1.0)}
BIAS = -10.0
DTYPES = (torch.float64, torch.float32)
SCALE = {"softmax": 14.0, "sigmoid": 10.0}
PAIRS = {
    "equal": 12,
    "uneven": 11,
    "tiny": 2,
    "refused": 13,  # a third of them with the score 0, and a margin
}  # 12 is divisible by 1 to 4 ranks, 11 by none, and 2 leaves ranks without rows


class Case(NamedTuple):
    form: str
    path: str  # whole, tiled, chunked (tiled behind towers that run in micro-batches, twice)
    terms: str
    rule: str
    """Of other pairs of a query: negative, ignore; judged: every known judgment is a target; or ignore with a teacher:
    vectors, or lists of scores."""
    weights: str
    batch: str

    @property
    def problem(self) -> Case:
        """The case whose reference this one shares."""
        return self._replace(path="")


CASES = [
    Case(*choice)
    for choice in itertools.product(
        ("softmax", "sigmoid"),
        ("whole", "tiled", "chunked"),
        ("fused", "fields"),
        ("negative", "ignore", "judged"),
        ("graded", "constant"),
        ("equal", "uneven"),
    )
]
TINY = [Case(form, "tiled", "fields", "ignore", "graded", "tiny") for form in ("softmax", "sigmoid")]
TAUGHT = [
    Case(form, path, "fields", rule, "graded", "uneven")
    for form, path, rule in itertools.product(
        ("softmax", "sigmoid"), ("whole", "tiled", "chunked"), ("vectors", "lists")
    )
]
TEACHING = (0.7, 0.2)  # weight and temperature
REFUSED = [
    Case(form, path, "fields", rule, "graded", "refused")
    for form in ("softmax", "sigmoid")
    for path, rule in (("whole", "ignore"), ("tiled", "judged"), ("chunked", "ignore"))
]
MARGIN = {"refused": 0.2}
FEW = CASES[3::11] + TAUGHT[2::3] + REFUSED[1::3] + TINY


class Towers(nn.Module):
    """Two fields on each side; fused = the normalised mean of the present ones, as in gcl.model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.fields = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, WIDTH))
                for name in ("text", "image", "title")
            }
        )

    def query(self, x: Tensor) -> Tensor:
        """x[u, 5] -> parts[u, 2, WIDTH]: text and fused, which is the text."""
        text = normalize(self.fields["text"](x), dim=-1)
        return torch.stack([text, text], dim=1)

    def document(self, x: Tensor, present: Tensor) -> Tensor:
        """x[u, 5], present[u] -> parts[u, 3, WIDTH]: image, title and fused; a title may be absent."""
        image, title = (normalize(self.fields[name](x), dim=-1) for name in ("image", "title"))
        fused = normalize(0.6 * image + 0.4 * title * present[:, None], dim=-1)
        return torch.stack([image, title, fused], dim=1)


class Batch(NamedTuple):
    """Distinct queries[Q, 5] and documents[M, 5], has_title[M], and of each pair the rows of both and the score."""

    queries: Tensor
    documents: Tensor
    has_title: Tensor
    query_row: Tensor
    document_row: Tensor
    score: Tensor

    def teacher(self, rule: str):
        """What `rule` says of a teacher: vectors of another width, scores of some of what is known, or nothing."""
        if rule == "lists":
            return {pair: math.sin(3 * score) for pair, score in self.known.items() if sum(pair) % 4}
        if rule != "vectors":
            return None
        g = torch.Generator().manual_seed(1)
        of_query, of_document = (
            normalize(torch.randn(len(x), 5, generator=g, dtype=torch.float64), dim=-1)
            for x in (self.queries, self.documents)
        )
        of_document[3] = 0  # the teacher does not know it
        return of_query[self.query_row], of_document[self.document_row]

    @property
    def known(self) -> dict[tuple[int, int], float]:
        """Scores of (query, document): of every third of all, and of every pair of the batch the highest it has."""
        rows = range(len(self.queries)), range(len(self.documents))
        known = {(q, d): float(7 * q + d + 1) for q, d in itertools.product(*rows) if (q + d) % 3 == 0}
        own = zip(self.query_row.tolist(), self.document_row.tolist(), self.score.tolist(), strict=True)
        for q, d, score in sorted(own):
            known[q, d] = score
        return {pair: score for pair, score in known.items() if score > 0}


def make_batch(pairs: int, repeats: bool = True) -> Batch:
    g = torch.Generator().manual_seed(pairs)
    queries, documents = (min(7, pairs), min(9, pairs)) if repeats else (pairs, pairs)
    rows = (
        (torch.cat([torch.arange(n), torch.randint(0, n, (pairs - n,), generator=g)]) for n in (queries, documents))
        if repeats
        else (torch.arange(pairs), torch.randperm(pairs, generator=g))
    )
    x, y = (torch.randn(n, 5, generator=g) for n in (queries, documents))
    has_title = torch.arange(documents) % 4 != 1
    batch = Batch(x, y, has_title, *rows, torch.randint(1, 101, (pairs,), generator=g).float())
    if pairs == PAIRS["refused"]:
        batch.score[2::3] = 0
    return batch


def to_parts(query: Tensor, document: Tensor, batch: Batch) -> tuple[dict, dict]:
    """query[Q, 2, D], document[M, 3, D] of all distinct rows -> {part: (embedding[N, D], present)} of all pairs."""
    q, d = query[batch.query_row], document[batch.document_row]
    title = batch.has_title[batch.document_row]
    return (
        {"text": (q[:, 0], None), "fused": (q[:, 1], None)},
        {"image": (d[:, 0], None), "title": (d[:, 1], title), "fused": (d[:, 2], None)},
    )


def cast(batch: Batch, dtype: torch.dtype) -> Batch:
    return Batch(*(x.to(dtype) if x.is_floating_point() else x for x in batch))


def target_of(case: Case) -> str:
    judged = {"softmax": "graded", "sigmoid": "sigmoid"}[case.form]
    return judged if case.rule == "judged" else "pair"


def results_of(step: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The loss and every parameter's gradient."""
    gradients = {name: p.grad for name, p in step.named_parameters() if p.grad is not None}
    return {"value": loss.detach().clone(), **{name: g.clone() for name, g in gradients.items()}}


def reference(case: Case) -> dict[str, Tensor]:
    """One process, float64, explicit loops."""

    class Start(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.towers = Towers()
            self.loss = nn.Module()
            self.loss.log_scale = nn.Parameter(torch.tensor(SCALE[case.form]).log())
            if case.form == "sigmoid":
                self.loss.bias = nn.Parameter(torch.tensor(BIAS))

    step = Start().double()
    batch = cast(make_batch(PAIRS[case.batch]), torch.float64)
    parts = to_parts(step.towers.query(batch.queries), step.towers.document(batch.documents, batch.has_title), batch)
    known = {
        pair: float(WEIGHT[case.weights](torch.tensor(score, dtype=torch.float64)))
        for pair, score in batch.known.items()
    }
    value = loop_loss(
        *parts,
        TERMS[case.terms],
        WEIGHT[case.weights](batch.score.clamp_min(1)),
        batch.query_row,
        batch.document_row,
        batch.score == 0,
        margin=MARGIN.get(case.batch),
        form=case.form,
        same_query=case.rule if case.rule == "negative" else "ignore",
        teacher=batch.teacher(case.rule),
        teaching=TEACHING,
        target=target_of(case),
        known=known,
        scale=step.loss.log_scale.exp(),
        bias=step.loss.bias if case.form == "sigmoid" else 0.0,
    )
    value.backward()
    return results_of(step, value)
