"""Time and memory of the tiled loss beside open_clip's, forward and backward, float32, one thread.

    python tests/bench/loss.py                                 # N = 4,096, about 2 minutes
    python tests/bench/loss.py --sizes 4096 16384 32768        # and larger, about 10 minutes
    python tests/bench/loss.py --tile 1024

Time is CPU time of this process, the contenders taking turns, the median of the repetitions. Memory is the peak
resident size of a process of its own during the loss, less its size before and less the gradients of the inputs (Linux
with glibc only).
Up to --time-up-to pairs both are measured, beyond it memory alone; peers are left out beyond --peers-up-to.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor

GOALS = {"time": 0.65, "memory 4096": 0.3, "memory 16384": 1 / 25}
AROUND = 16  # judgments known of each query of the batch, besides its pair
PEERS = {"tiled softmax": "ClipLoss", "tiled sigmoid": "SigLipLoss"}


def contender(name: str, tile: int | str, terms: int = 1) -> Callable[[list[Tensor], list[Tensor]], Tensor]:
    """A function from query parts[N, D] and document parts[N, D] to the loss."""
    if name in ("ClipLoss", "SigLipLoss"):
        from open_clip.loss import ClipLoss, SigLipLoss

        if name == "ClipLoss":
            return lambda q, d: ClipLoss()(q[0], d[0], torch.tensor(100.0))
        return lambda q, d: SigLipLoss()(q[0], d[0], torch.tensor(100.0), torch.tensor(-10.0))
    from gcl.data.batches.lookups import KnownScores, TeacherVectors
    from gcl.loss.gcl import GCLLoss, Part, Term

    _, form, *kind = name.split()
    target = {"judged": {"softmax": "graded", "sigmoid": "sigmoid"}[form]}.get(*kind or [""], "pair")
    loss = GCLLoss(
        form=form, scale=100.0, bias=-10.0, tile=tile, target=target,
        terms=[Term(f"q{k}", f"d{k}", 1 / terms) for k in range(terms)],
    )  # fmt: skip

    def call(q: list[Tensor], d: list[Tensor]) -> Tensor:
        ids = torch.arange(len(q[0]))
        sides = ({f"{side}{k}": Part(x) for k, x in enumerate(parts)} for side, parts in (("q", q), ("d", d)))
        known = {}
        if kind == ["judged"]:
            near = (ids[:, None] + torch.arange(AROUND + 1) * 37) % len(ids)
            known["judged"] = KnownScores(
                ids.repeat_interleave(AROUND + 1), near.sort(1)[0].flatten(), torch.ones(near.numel())
            )
        if kind == ["taught"]:
            known["teacher"] = TeacherVectors(q[0].detach(), d[0].detach())
        return loss(*sides, score=torch.ones(len(ids)), query_id=ids, document_id=ids, **known).loss

    return call


def unit_rows(count: int, width: int, seed: int) -> Tensor:
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1).requires_grad_()


def seconds(call: Callable, query: list[Tensor], document: list[Tensor]) -> float:
    for x in query + document:
        x.grad = None
    start = time.process_time()
    call(query, document).backward()
    return time.process_time() - start


def status(key: str) -> float:
    """A line of /proc/self/status, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def measure_memory(name: str, size: int, width: int, tile: str, terms: int) -> dict[str, float]:
    """Runs the loss once in this process and returns its peak in MB, and its CPU seconds."""
    torch.set_num_threads(1)
    call = contender(name, tile, terms)
    small = [unit_rows(64, width, k) for k in range(2)]
    call([small[0]] * terms, [small[1]] * terms).backward()  # loads what the first call loads
    query = [unit_rows(size, width, 2 * k) for k in range(terms)]
    document = [unit_rows(size, width, 2 * k + 1) for k in range(terms)]
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = status("VmRSS")
    spent = seconds(call, query, document)
    gradients = sum(x.grad.numel() for x in query + document) * 4 / 2**20
    return {"megabytes": status("VmHWM") - before - gradients, "seconds": spent}


def memory(name: str, size: int, width: int, tile: str, terms: int = 1) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", name, str(size), str(width), tile, str(terms)]
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    # Every tensor of 64 KiB and more in pages of its own, given back when it dies: the resident size is what is held.
    exact = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    environment = {**os.environ, **exact, "PYTHONPATH": paths}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def compare_time(size: int, width: int, tile: str, repeats: int) -> None:
    torch.set_num_threads(1)
    query, document = [unit_rows(size, width, 0)], [unit_rows(size, width, 1)]
    names = [*PEERS, *PEERS.values()]
    calls = {name: contender(name, tile) for name in names}
    spent: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            spent[name].append(seconds(calls[name], query, document))
    median = {name: statistics.median(values) for name, values in spent.items()}
    for ours, peer in PEERS.items():
        print(
            f"N {size:6d}  time    {ours} {median[ours]:7.2f} s   {peer:10s} {median[peer]:7.2f} s   "
            f"ratio {median[ours] / median[peer]:.3f}   goal {GOALS['time']}",
            flush=True,
        )


def compare_margin(size: int, width: int, tile: str, repeats: int) -> None:
    """loss.false_negative against the same loss without it: of vectors like those of training, where one row in
    twenty holds a negative beyond the margin, and where nearly every row does."""
    from gcl.loss.gcl import GCLLoss

    torch.set_num_threads(1)
    for form in ("softmax", "sigmoid"):
        for few, noise in ((0.05, 1.0), (1.0, 2.0)):
            query, document = unit_rows(size, width, 0), unit_rows(size, width, 1)
            with torch.no_grad():
                document.mul_(noise).add_(query)
                document /= document.norm(dim=1, keepdim=True)
                some = torch.arange(int(few * size))
                query[some] = document[(some + 1) % size]  # far from its own document, next to another's
            calls = {margin: GCLLoss(form=form, scale=20.0, tile=tile, false_negative=margin) for margin in (None, 0.1)}
            spent: dict[float | None, list[float]] = {margin: [] for margin in calls}
            for _ in range(repeats):
                for margin, loss in calls.items():
                    spent[margin].append(
                        seconds(lambda q, d, loss=loss: loss(q[0], d[0]).loss, [query], [document])
                    )  # fmt: skip
            with_it, without = (statistics.median(spent[margin]) for margin in (0.1, None))
            print(
                f"N {size:6d}  margin  {form}, {few:4.0%} of the rows: {with_it:6.2f} s, without {without:6.2f} s   "
                f"ratio {with_it / without:.3f}   goal 1.10",
                flush=True,
            )


def compare_memory(size: int, width: int, tile: str, peers: bool) -> None:
    for ours, peer in PEERS.items():
        one = memory(ours, size, width, tile)
        line = f"N {size:6d}  memory  {ours} {one['megabytes']:7.0f} MB"
        if peers:
            other = memory(peer, size, width, tile)
            goal = GOALS.get(f"memory {size}")
            line += f"  {peer:10s} {other['megabytes']:7.0f} MB  ratio {one['megabytes'] / other['megabytes']:.4f}"
            line += f"   goal {goal:.2f}" if goal else ""
        print(f"{line}   ({one['seconds']:.1f} s)", flush=True)


def compare_terms(size: int, width: int, tile: str) -> None:
    for ours in PEERS:
        one, three = (memory(ours, size, width, tile, terms)["megabytes"] for terms in (1, 3))
        print(f"N {size:6d}  terms   {ours}: three terms {three:.0f} MB, one {one:.0f} MB   ratio {three / one:.2f}")


def compare_knowledge(size: int, width: int, tile: str, repeats: int) -> None:
    """What judged targets and a teacher cost beside the pairs alone."""
    for ours in PEERS:
        names = [ours, f"{ours} judged", f"{ours} taught"]
        query, document = [unit_rows(size, width, 0)], [unit_rows(size, width, 1)]
        calls = {name: contender(name, tile if tile == "auto" else int(tile)) for name in names}
        spent = [[seconds(calls[name], query, document) for name in names] for _ in range(repeats)]
        time = [statistics.median(column) for column in zip(*spent, strict=True)]
        space = [memory(name, size, width, tile)["megabytes"] for name in names]
        for k, name in enumerate(names[1:], 1):
            print(
                f"N {size:6d}  {name:22s} time {time[k]:6.2f} s, ratio {time[k] / time[0]:.2f}   "
                f"memory {space[k]:5.0f} MB, ratio {space[k] / space[0]:.2f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--tile", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--time-up-to", type=int, default=4096)
    parser.add_argument("--peers-up-to", type=int, default=16384)
    parser.add_argument("--measure", nargs=5, metavar=("NAME", "N", "D", "TILE", "TERMS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, size, width, tile, terms = arguments.measure
        tile = tile if tile == "auto" else int(tile)
        print(json.dumps(measure_memory(name, int(size), int(width), tile, int(terms))))
        return
    tile = arguments.tile if arguments.tile == "auto" else int(arguments.tile)
    for size in arguments.sizes:
        if size <= arguments.time_up_to:
            compare_time(size, arguments.width, tile, arguments.repeats)
            compare_margin(size, arguments.width, tile, arguments.repeats)
            compare_terms(size, arguments.width, str(tile))
            compare_knowledge(size, arguments.width, str(tile), arguments.repeats)
        compare_memory(size, arguments.width, str(tile), peers=size <= arguments.peers_up_to)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
