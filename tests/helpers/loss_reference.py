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
    refused: Sequence[bool] | None = None,
    margin: float | None = None,
) -> Tensor:
    """One term over the pairs q[N, D], d[N, D], w[N]; of those that are refused the document alone, as a negative."""
    refused = [False] * len(w) if refused is None else refused
    pairs = [i for i in range(len(w)) if not refused[i]]
    n = len(pairs)
    z = sum(w[i] for i in pairs) if normalizer == "weight" else n
    s = [row.unbind() for row in (scale * q @ d.T + bias).unbind()]
    cosine = (q @ d.T).tolist()
    relevant = {(query_id[i], document_id[i]) for i in pairs} if target == "pair" else known

    def kind_of(i: int, j: int):
        if refused[j]:
            return ("ignored" if (query_id[i], document_id[j]) in relevant else "negative"), 0.0
        if target == "pair":
            return entry(i, j, w, query_id, document_id, same_query, same_document)
        return judged_entry(i, j, known, query_id, document_id, target)

    def counts(i: int, j: int, of_row: bool) -> bool:
        """Whether a negative is within the margin of the row's or of the column's own target."""
        if margin is None or i == j or (refused[j] and query_id[i] == query_id[j]):
            return True
        own = i if of_row else j
        return not cosine[i][j] > cosine[own][own] + margin

    kinds = {(i, j): kind_of(i, j) for i in pairs for j in range(len(w))}
    total = []
    for (i, j), (kind, judged) in kinds.items() if form == "sigmoid" else ():
        of_pairs = sigmoid_weight == "pair" and target == "pair"
        of_row, of_column = (w[i] / z, w[j] / z) if of_pairs else (1 / n, 1 / n)
        row, column = {"both": (0.5, 0.5), "query": (1.0, 0.0), "document": (0.0, 1.0)}[direction]
        if refused[j]:
            row, column = float(row > 0), 0.0
        if target == "sigmoid" and kind == "target":
            total.append(-(judged * logsigmoid(s[i][j]) + (1 - judged) * logsigmoid(-s[i][j])) / n)
        elif kind == "target":
            total.append(-judged / z * logsigmoid(s[i][j]))
        elif kind == "negative":
            pair = row * of_row * counts(i, j, True)
            if not refused[j]:
                pair += column * of_column * counts(i, j, False)
            total.append(-pair * logsigmoid(-s[i][j]))
    for of_row in (True, False) if form == "softmax" else ():
        share = {"both": 0.5, "query": float(of_row), "document": float(not of_row)}[direction]
        for i in pairs:
            places = [(i, j) for j in range(len(w))] if of_row else [(j, i) for j in pairs]
            places = [(a, b) for a, b in places if kinds[a, b][0] != "negative" or counts(a, b, of_row)]
            seen = [(s[a][b], *kinds[a, b]) for a, b in places]
            logsumexp = torch.stack([value for value, kind, _ in seen if kind != "ignored"]).logsumexp(0)
            mass = sum(judged for _, kind, judged in seen if kind == "target")
            for value, kind, judged in seen:
                if kind == "target" and mass > 0 and share > 0:
                    total.append(share * w[i] / z * judged / mass * (logsumexp - value))
    return torch.stack(total).sum()


def loop_taught(q: Tensor, d: Tensor, query_id, document_id, *, teacher, temperature: float, scale, direction: str):
    """What a teacher adds to a term: teacher is (vectors of the queries [n, E], of the documents [n, E]), or
    {(query, document): score} of lists."""
    if not isinstance(teacher, dict):
        seen = [i for i in range(len(d)) if any(teacher[1][i].tolist())]
        q, d, teacher = q[seen], d[seen], [x[seen] for x in teacher]
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
    refused=None,
    *,
    teacher=None,
    teaching: tuple = (1.0, 1.0),
    **options,
) -> Tensor:
    """query, document: {part: (embedding[N, D], present[N] or None)}; the sum of the terms over the pairs that have
    both parts. teaching: (weight, temperature) of the teacher.
    """
    w, query_id, document_id = (x.tolist() for x in (w, query_id, document_id))
    refused = [False] * len(w) if refused is None else refused.tolist()
    total = torch.zeros((), dtype=torch.float64)
    for left, right, coefficient in terms:
        (q, q_present), (d, d_present) = query[left], document[right]
        kept = [
            i
            for i in range(len(w))
            if (q_present is None or q_present[i] or refused[i]) and (d_present is None or d_present[i])
        ]
        if any(w[i] > 0 for i in kept if not refused[i]):
            chosen = [[x[i] for i in kept] for x in (w, query_id, document_id)]
            no = [refused[i] for i in kept]
            total = total + coefficient * loop_term(q[kept], d[kept], *chosen, refused=no, **options)
        kept = [i for i in kept if not refused[i]]
        if teacher is not None and kept:
            own = teacher if isinstance(teacher, dict) else [x[kept] for x in teacher]
            taught = loop_taught(
                q[kept], d[kept], *([x[i] for i in kept] for x in (query_id, document_id)), teacher=own,
                temperature=teaching[1], scale=options["scale"], direction=options.get("direction", "both"),
            )  # fmt: skip
            total = total + coefficient * teaching[0] * taught
    return total
