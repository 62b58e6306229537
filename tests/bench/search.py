"""Exact search against faiss's flat index and the bare matrix product: one thread, interleaved, process CPU time.

    python tests/bench/search.py                       100,000 documents, a minute or two
    python tests/bench/search.py --documents 1000000   the figures of the goals (3 GB for the corpus, twice for faiss)

Goals: at most 1.05 of faiss for k <= 100 and 1.00 at k = 1,000; at most 1.15 (k <= 100) and 1.25 (k = 1,000) of the
product alone; below 1 GiB of memory besides the corpus. Without faiss (pip install faiss-cpu) it is left out.

The product is numpy's, whose OpenBLAS picks its kernel by the processor, as faiss's own copy does. On AMD processors
with AVX-512 numpy's choice is some 7 % slower than AVX2; OPENBLAS_CORETYPE=Haswell gives both the same kernel.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from gcl.retrieval.search import search

try:
    import faiss
except ImportError:
    faiss = None


def unit_vectors(rows: int, width: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    vectors = np.empty((rows, width), dtype=np.float32)
    for start in range(0, rows, 4096):
        block = generator.standard_normal((min(4096, rows - start), width), dtype=np.float32)
        vectors[start : start + 4096] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def seconds(action) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def product(query: np.ndarray, corpus: np.ndarray, block: int) -> None:
    out = np.empty((len(query), block), dtype=np.float32)
    for start in range(0, len(corpus) - block + 1, block):
        np.matmul(query, corpus[start : start + block].T, out=out)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    corpus = unit_vectors(arguments.documents, arguments.width, seed=0)
    query = unit_vectors(arguments.queries, arguments.width, seed=1)
    rank = np.arange(len(corpus), dtype=np.int32)

    before = peak_bytes()
    search(query, corpus, max(arguments.k), rank=rank)
    print(f"memory besides the corpus at k = {max(arguments.k)}: {(peak_bytes() - before) / 2**20:.0f} MiB")

    rivals = {"product": lambda k: product(query, corpus, 2048)}
    if faiss is not None:
        faiss.omp_set_num_threads(1)
        index = faiss.IndexFlatIP(arguments.width)
        index.add(corpus)
        rivals["faiss"] = lambda k: index.search(query, k)
    for k in arguments.k:
        taken: dict[str, list[float]] = {}
        for _ in range(arguments.repeats):
            taken.setdefault("gcl", []).append(seconds(lambda k=k: search(query, corpus, k, rank=rank)))
            for name, rival in rivals.items():
                taken.setdefault(name, []).append(seconds(lambda k=k, rival=rival: rival(k)))
        best = {name: min(values) for name, values in taken.items()}
        ratios = ", ".join(f"{best['gcl'] / best[name]:.3f} of {name}" for name in rivals)
        print(
            f"k = {k}: " + ", ".join(f"{name} {value:.2f} s" for name, value in best.items()) + f"; gcl is {ratios}",
            flush=True,
        )


if __name__ == "__main__":
    main()
