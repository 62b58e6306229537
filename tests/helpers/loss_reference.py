"""The loss as slow, explicit loops in float64: what every path of gcl.loss is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def entry(i: int, j: int, w: Sequence[float], query_id, document_id, same_query: str, same_document: str):
    """What entry (i, j) is: ("target", its judged weight), ("negative", 0) or ("ignored", 0)."""
    if i == j:
        return "target", w[i]
    query, document = query_id[i] == query_id[j], document_id[i] == document_id[j]
    if query and document:
        return "ignored", 0.0
    if not (query or document):
        return "negative", 0.0
    return {"negative": ("negative", 0.0), "ignore": ("ignored", 0.0)}[same_query if query else same_document]


def judged_entry(i: int, j: int, known: dict, query_id, document_id, target: str):
    """The same where what is known of (query, document) decides: {(query, document): weight}."""
    weight = known.get((query_id[i], document_id[j]), 0.0)
    if target == "positives":
        weight = float(weight > 0)
    return ("target", weight) if weight > 0 else ("negative", 0.0)


def loop_term(
    q: Tensor,
    d: Tensor,
    w: Sequence[float],
    query_id: Sequence[int],
    document_id: Sequence[int],
    *,
    form: str,
    scale: Tensor,
    bias: Tensor,
    direction: str = "both",
    normalizer: str = "weight",
    same_query: str = "ignore",
    same_document: str = "ignore",
    sigmoid_weight: str = "pair",
    target: str = "pair",
    known: dict | None = None,
) -> Tensor:
    """One term over the pairs q[N, D], d[N, D], w[N]."""
    n = len(w)
    z = sum(w) if normalizer == "weight" else n
    s = [row.unbind() for row in (scale * q @ d.T + bias).unbind()]
    kinds = [
        [
            entry(i, j, w, query_id, document_id, same_query, same_document)
            if target == "pair"
            else judged_entry(i, j, known, query_id, document_id, target)
            for j in range(n)
        ]
        for i in range(n)
    ]
    total = []
    if target == "sigmoid":
        for i in range(n):
            for j in range(n):
                yes = kinds[i][j][1]
                total.append(-(yes * logsigmoid(s[i][j]) + (1 - yes) * logsigmoid(-s[i][j])) / n)
    elif form == "sigmoid":
        for i in range(n):
            for j in range(n):
                kind, judged = kinds[i][j]
                if kind == "target":
                    total.append(-judged / z * logsigmoid(s[i][j]))
                if kind == "negative":
                    pair = {"both": (w[i] + w[j]) / 2, "query": w[i], "document": w[j]}[direction] / z
                    total.append(-(pair if sigmoid_weight == "pair" else 1 / n) * logsigmoid(-s[i][j]))
    for of_row in (True, False) if form == "softmax" else ():
        share = {"both": 0.5, "query": float(of_row), "document": float(not of_row)}[direction]
        for i in range(n):
            places = [(i, j) if of_row else (j, i) for j in range(n)]
            seen = [(s[a][b], *kinds[a][b]) for a, b in places]
            logsumexp = torch.stack([value for value, kind, _ in seen if kind != "ignored"]).logsumexp(0)
            mass = sum(judged for _, kind, judged in seen if kind == "target")
            for value, kind, judged in seen:
                if kind == "target" and mass > 0 and share > 0:
                    total.append(share * w[i] / z * judged / mass * (logsumexp - value))
    return torch.stack(total).sum()


def loop_taught(q: Tensor, d: Tensor, query_id, document_id, *, teacher, temperature: float, scale, direction: str):
    """What a teacher adds to a term: teacher is (vectors of the queries [n, E], of the documents [n, E]), or
    {(query, document): score} of lists."""
    n = len(q)
    s = [row.unbind() for row in (scale * q @ d.T).unbind()]
    total = [q.sum() * 0]
    for of_row in (True, False):
        share = {"both": 0.5, "query": float(of_row), "document": float(not of_row)}[direction] / n
        for i in range(n):
            places = [(i, j) if of_row else (j, i) for j in range(n)]
            if isinstance(teacher, dict):
                known = [teacher.get((query_id[a], document_id[b])) for a, b in places]
                records = {(document_id if of_row else query_id)[b if of_row else a] for a, b in places}
                own = (query_id if of_row else document_id)[i]
                if sum((own, r) in teacher if of_row else (r, own) in teacher for r in records) < 2:
                    continue
                z = [-math.inf if score is None else score / temperature for score in known]
            else:
                z = [float(teacher[0][a] @ teacher[1][b]) / temperature for a, b in places]
            whole = sum(math.exp(x - max(z)) for x in z)
            logsumexp = torch.stack([s[a][b] for a, b in places]).logsumexp(0)
            for (a, b), x in zip(places, z, strict=True):
                if x > -math.inf:
                    believed = math.exp(x - max(z)) / whole
                    entropy = 0.0 if isinstance(teacher, dict) else math.log(believed)
                    total.append(share * believed * (entropy - (s[a][b] - logsumexp)))
    return torch.stack(total).sum()


def loop_loss(
    query: dict,
    document: dict,
    terms: Sequence[tuple],
    w: Tensor,
    query_id,
    document_id,
    *,
    teacher=None,
    teaching: tuple = (1.0, 1.0),
    **options,
) -> Tensor:
    """query, document: {part: (embedding[N, D], present[N] or None)}; the sum of the terms over the pairs that have
    both parts. teaching: (weight, temperature) of the teacher.
    """
    w, query_id, document_id = (x.tolist() for x in (w, query_id, document_id))
    total = torch.zeros((), dtype=torch.float64)
    for left, right, coefficient in terms:
        (q, q_present), (d, d_present) = query[left], document[right]
        kept = [i for i in range(len(w)) if (q_present is None or q_present[i]) and (d_present is None or d_present[i])]
        if any(w[i] > 0 for i in kept):
            chosen = [[x[i] for i in kept] for x in (w, query_id, document_id)]
            total = total + coefficient * loop_term(q[kept], d[kept], *chosen, **options)
        if teacher is not None and kept:
            own = teacher if isinstance(teacher, dict) else [x[kept] for x in teacher]
            taught = loop_taught(
                q[kept], d[kept], *([x[i] for i in kept] for x in (query_id, document_id)), teacher=own,
                temperature=teaching[1], scale=options["scale"], direction=options.get("direction", "both"),
            )  # fmt: skip
            total = total + coefficient * teaching[0] * taught
    return total
