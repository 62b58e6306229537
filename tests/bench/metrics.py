"""Our metrics against pytrec_eval plus Python loops, which is how the published GCL evaluator computes its figures.

    python tests/bench/metrics.py                  4,000 queries, the best 1,000 documents of each, 151 figures

Goal: at least 70 times faster, with equal figures. The figures are those of conf/evaluate/gcl.yaml: seven families at
21 cutoffs, ERR, and RBP with three persistences. They mix two tie rules: document id descending in pytrec_eval (nDCG,
MAP, recall, precision), the order of the list in the loops (MRR, accuracy, hole, ERR, RBP). Both are reproduced here on
scores that tie. The loops do what that evaluator's do: each of MRR, accuracy and hole sorts every query's results
again, and looks at the first K of them for every K. Building the dicts that pytrec_eval needs is not counted, putting
our results into another order of ties is. One thread, process CPU time, the best of some rounds.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytrec_eval

from gcl.retrieval.metrics.metrics import measure
from gcl.retrieval.search.ties import id_ranks, with_ties
from gcl.retrieval.tasks.task import JudgedPairs

CUTOFFS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 20, 30, 40, 50, 60, 70, 80, 90, 100, 200, 500, 1000)
FAMILIES = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P"}
LOOPS = ("mrr", "hit", "hole")
PERSISTENCES = (0.7, 0.8, 0.9)


def data(queries: int, documents: int, retrieved: int, judged: int, tied: float):
    """Ids, scores that tie in a share of the queries, rows in the order of the list, judgments of which about half
    are retrieved."""
    generator = np.random.default_rng(0)
    ids = [f"B{number:07d}" for number in generator.permutation(documents)]
    row = np.stack([generator.choice(documents, retrieved, replace=False) for _ in range(queries)])
    score = generator.normal(0.3, 0.1, row.shape).astype(np.float32)
    score[: int(tied * queries)] = np.round(score[: int(tied * queries)], 3)
    score = -np.sort(-score, axis=1)
    found = np.stack([generator.choice(retrieved, judged // 2, replace=False) for _ in range(queries)])
    other = generator.integers(0, documents, (queries, judged - judged // 2))
    document = np.concatenate([np.take_along_axis(row, found, 1), other], axis=1)
    query = np.repeat(np.arange(queries), judged)
    _, first = np.unique(query * documents + document.reshape(-1), return_index=True)
    relevance = generator.integers(1, 101, len(first)).astype(np.float32)
    return ids, score, row, JudgedPairs(query[first], document.reshape(-1)[first], relevance)


def sorted_again(run: dict) -> dict[str, list[str]]:
    """Every query's documents by score; equal ones keep their order."""
    best = {}
    for query, scores in run.items():
        by_score = sorted(scores.items(), key=lambda item: item[1], reverse=True)[: CUTOFFS[-1]]
        best[query] = [document for document, _ in by_score]
    return best


def looped(family: str, run: dict, qrels: dict) -> dict[str, float]:
    """MRR, accuracy or hole at every cutoff, one cutoff after the other."""
    total = dict.fromkeys(CUTOFFS, 0.0)
    judged = {document for documents in qrels.values() for document in documents}
    for query, documents in sorted_again(run).items():
        relevant = {document for document, relevance in qrels[query].items() if relevance > 0}
        for k in CUTOFFS:
            if family == "hole":
                total[k] += len([document for document in documents[:k] if document not in judged]) / k
            elif family == "hit":
                for document in relevant:
                    if document in documents[:k]:
                        total[k] += 1
                        break
            else:
                for rank, document in enumerate(documents[:k], start=1):
                    if document in relevant:
                        total[k] += 1 / rank
                        break
    return {f"{family}@{k}": value / len(run) for k, value in total.items()}


def peer(run: dict, listed: dict, qrels: dict) -> dict[str, float]:
    """pytrec_eval for four families, then loops over the listed documents for the others."""
    asked = {f"{name}.{','.join(map(str, CUTOFFS))}" for name in FAMILIES.values()}
    by_query = pytrec_eval.RelevanceEvaluator(qrels, asked).evaluate(run)
    mean = {
        f"{ours}@{k}": sum(values[f"{theirs}_{k}"] for values in by_query.values()) / len(by_query)
        for ours, theirs in FAMILIES.items()
        for k in CUTOFFS
    }
    for family in LOOPS:
        mean |= looped(family, run, qrels)
    total = 0.0
    for query, documents in listed.items():
        highest, arrives = max(qrels[query].values()), 1.0
        for rank, document in enumerate(documents, start=1):
            p = (2 ** qrels[query].get(document, 0) - 1) / 2**highest
            total += arrives * p / rank
            arrives *= 1 - p
    mean["err"] = total / len(listed)
    for persistence in PERSISTENCES:
        total = 0.0
        for query, documents in listed.items():
            highest = max(qrels[query].values())
            for rank, document in enumerate(documents):
                total += (1 - persistence) * qrels[query].get(document, 0) / highest * persistence**rank
        mean[f"rbp{persistence:g}".replace("0.", ".")] = total / len(listed)
    return mean


def ours(score, row, rank, judgments: JudgedPairs, names: list[str], ties: str) -> dict[str, float]:
    row = with_ties(score, row, rank, ties)[1]
    found = measure(
        names,
        gains=judgments.gains(row, len(rank)),
        judged=judgments.by_query(len(row)),
        status=judgments.status(row, len(rank)) if any(name.startswith("hole") for name in names) else None,
    )
    return {name: float(values.mean()) for name, values in found.items()}


def seconds(action) -> tuple[float, object]:
    start = time.process_time()
    result = action()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=4000)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--retrieved", type=int, default=1000)
    parser.add_argument("--judged", type=int, default=20)
    parser.add_argument("--tied", type=float, default=0.25, help="share of queries with some hundred tied documents")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    ids, score, row, judgments = data(
        arguments.queries, arguments.documents, arguments.retrieved, arguments.judged, arguments.tied
    )
    rank = id_ranks(ids)
    listed = {str(q): [ids[d] for d in rows] for q, rows in enumerate(row)}
    run = {q: dict(zip(names, map(float, score[int(q)]), strict=True)) for q, names in listed.items()}
    qrels: dict[str, dict[str, int]] = {q: {} for q in listed}
    for query, document, relevance in zip(judgments.query, judgments.document, judgments.relevance, strict=True):
        qrels[str(query)][ids[document]] = int(relevance)

    by_id = [f"{family}@{k}" for family in FAMILIES for k in CUTOFFS]
    in_list = [f"{family}@{k}" for family in LOOPS for k in CUTOFFS]
    in_list += ["err", *(f"rbp{p:g}".replace("0.", ".") for p in PERSISTENCES)]
    theirs, mixed, mine = [], [], []
    for _ in range(arguments.repeats):
        taken, expected = seconds(lambda: peer(run, listed, qrels))
        theirs.append(taken)
        # The published mixture: some figures in one order of ties, the rest in the other.
        one, first = seconds(lambda: ours(score, row, rank, judgments, by_id, "descending"))
        other, second = seconds(lambda: ours(score, row, rank, judgments, in_list, "listed"))
        mixed.append(one + other)
        mine.append(seconds(lambda: ours(score, row, rank, judgments, by_id + in_list, "listed"))[0])
        worst = max(abs(expected[name] - value) for name, value in {**first, **second}.items())
    print(f"{len(expected)} figures of {len(row)} queries x {row.shape[1]}, largest difference {worst:.1e}")
    print(f"published evaluator {min(theirs):.2f} s")
    print(f"gcl, both tie rules {min(mixed):.3f} s: {min(theirs) / min(mixed):.0f} times faster")
    print(f"gcl, one tie rule   {min(mine):.3f} s: {min(theirs) / min(mine):.0f} times faster")
    if worst > 1e-9:
        raise SystemExit("The figures differ.")


if __name__ == "__main__":
    main()
