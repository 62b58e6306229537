"""Exact search against faiss's flat index and the bare matrix product: one thread, interleaved, process CPU time.

    python tests/bench/search.py                       100,000 documents, a minute or two
    python tests/bench/search.py --documents 1000000   the figures of the goals (3 GB for the corpus, twice for faiss)
    python tests/bench/search.py --documents 1000000 --queries 4000 --mapped corpus.npy --k 100 --alone
                                                       a corpus on disk: time, and memory besides the mapped file

Goals: at most 1.05 of faiss for k <= 100 and 1.00 at k = 1,000; at most 1.15 (k <= 100) and 1.25 (k = 1,000) of the
product alone; below 1 GiB of memory besides the corpus. Without faiss (pip install faiss-cpu) it is left out.
"gcl float32" is the same search without the scan in 8-bit integers, for processors that have no fast one.

The product is numpy's, whose OpenBLAS picks its kernel by the processor, as faiss's own copy does. On AMD processors
with AVX-512 numpy's choice is some 7 % slower than AVX2; OPENBLAS_CORETYPE=Haswell gives both the same kernel.
"""

from __future__ import annotations

import argparse
import os
import threading
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from gcl.retrieval.search.search import search

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


def mapped_vectors(path: str, rows: int, width: int) -> np.ndarray:
    """The same vectors in a file, made once and never in memory as a whole."""
    if not os.path.exists(path):
        generator = np.random.default_rng(0)
        made = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, width))
        for start in range(0, rows, 4096):
            block = generator.standard_normal((min(4096, rows - start), width), dtype=np.float32)
            made[start : start + 4096] = block / np.linalg.norm(block, axis=1, keepdims=True)
        made.flush()
    return np.load(path, mmap_mode="r")


def own_bytes() -> int:
    """Memory of this process that is no mapped file."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


def growth(action) -> int:
    """The most that this process's own memory grew while the action ran."""
    before, most, done = own_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], own_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        action()
    finally:
        done.set()
        watcher.join()
    return most[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mapped", help="a file for the corpus")
    parser.add_argument("--alone", action="store_true", help="one search for each k, no rivals")
    arguments = parser.parse_args()
    if arguments.mapped:
        corpus = mapped_vectors(arguments.mapped, arguments.documents, arguments.width)
    else:
        corpus = unit_vectors(arguments.documents, arguments.width, seed=0)
    query = unit_vectors(arguments.queries, arguments.width, seed=1)
    rank = np.arange(len(corpus), dtype=np.int32)

    search(query[:300], corpus[:40_000], 10, rank=rank[:40_000])  # what is set up once
    for k in arguments.k if arguments.alone else [max(arguments.k)]:
        begun = time.process_time()
        grown = growth(lambda k=k: search(query, corpus, k, rank=rank))
        taken = time.process_time() - begun
        print(f"k = {k}: {taken:.1f} s CPU; memory besides the corpus {grown / 2**20:.0f} MiB", flush=True)
    if arguments.alone:
        return

    rivals = {
        "gcl float32": lambda k: search(query, corpus, k, rank=rank, int8=False),
        "product": lambda k: product(query, corpus, 2048),
    }
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
