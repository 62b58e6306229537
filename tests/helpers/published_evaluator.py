"""The published GCL evaluator in explicit loops, from a table of (query, document, score) and a run: an independent
reading of its description (evals/eval_gs_v1.py of github.com/marqo-ai/GCL), slow and plain."""

import numpy as np
import pytrec_eval

CUTOFFS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 20, 30, 40, 50, 60, 70, 80, 90, 100, 200, 500, 1000)
_TREC = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P"}


def ground_truth(rows, *, count, weighted=True, rescaled=True, most=1000, seed=1):
    """{query: {document: relevance}} of the sampled queries. rows: (query text, document, score)."""
    scores = [score for _, _, score in rows]
    low, high = min(scores), max(scores)
    graded = []
    for query, document, score in rows:
        if rescaled:
            score = int((score - low) / (high - low) * 99 + 1) if high > low else 1
        graded.append((query, document, score))
    total = {}
    for query, _, score in graded:
        total[query] = total.get(query, 0) + score
    table = sorted(total, key=lambda query: query + "_{!@#~}_")
    if count < len(table):
        weight = np.array([total[query] for query in table], dtype=float)
        p = weight / weight.sum() if weighted else None
        drawn = np.random.RandomState(seed).choice(len(table), size=count, replace=False, p=p)
        table = [table[place] for place in drawn]
    truth = {}
    for query in table:
        own = sorted((row for row in graded if row[0] == query), key=lambda row: -row[2])[:most]
        truth[query] = {document: score for _, document, score in own}
    return truth


def figures(truth, run, cutoffs=CUTOFFS):
    """{our metric name: mean}. run: {query: [(document, score)]} in the order of the list."""
    asked = {f"{name}.{','.join(map(str, cutoffs))}" for name in _TREC.values()}
    integers = {query: {d: int(r) for d, r in judged.items()} for query, judged in truth.items()}
    by_query = pytrec_eval.RelevanceEvaluator(integers, asked).evaluate({q: dict(run[q]) for q in truth})
    found = {
        f"{ours}@{k}": sum(by_query[query][f"{theirs}_{k}"] for query in truth) / len(truth)
        for ours, theirs in _TREC.items()
        for k in cutoffs
    }
    everywhere = {document for judged in truth.values() for document in judged}
    for k in cutoffs:
        mrr = hit = hole = 0.0
        for query, judged in truth.items():
            first = [document for document, _ in run[query][:k]]
            places = [rank for rank, document in enumerate(first, start=1) if judged.get(document, 0) > 0]
            mrr += 1 / places[0] if places else 0
            hit += bool(places)
            hole += sum(document not in everywhere for document in first) / k
        found |= {f"mrr@{k}": mrr / len(truth), f"hit@{k}": hit / len(truth), f"hole@{k}": hole / len(truth)}
    err, rbp = 0.0, {0.7: 0.0, 0.8: 0.0, 0.9: 0.0}
    for query, judged in truth.items():
        highest, goes_on = max(judged.values()), 1.0
        for rank, (document, _) in enumerate(run[query], start=1):
            relevance = judged.get(document, 0)
            stops = (2**relevance - 1) / 2**highest
            err += goes_on * stops / rank
            goes_on *= 1 - stops
            for p in rbp:
                rbp[p] += (1 - p) * relevance / highest * p ** (rank - 1)
    found["err@1000"] = err / len(truth)
    return found | {f"rbp{p:g}@1000".replace("0.", "."): total / len(truth) for p, total in rbp.items()}
