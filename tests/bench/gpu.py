"""What a GPU makes of gcl: one command, one table.

    python tests/bench/gpu.py                          # about 10 minutes on a data-centre card
    python tests/bench/gpu.py --only loss batch        # parts of it: step, loss, batch, data
    python tests/bench/gpu.py --device cpu --small     # the same paths in miniature, to see that it runs

step   ViT-B-16-SigLIP with random weights, 1,024 pairs, bf16, compiled and not: gcl's module under Lightning beside a
       plain loop with open_clip's loss, on synthetic batches that lie on the device; samples/s, and the share of the
       card's bf16 rate, which is measured here on large products.
loss   the tiled loss of N pairs, D = 768: forward and backward against its matrix products alone, and peak memory.
batch  the largest contrastive batch that fits at once and in micro-batches (doubling, up to --most).
data   samples/s fed from shards with photos of 500 px against the same step on synthetic batches.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from gpu_parts import Ours, attempt, measured_rate, plain_loop, products_alone, seconds_of, step_flops
from train_inputs import Shards, write_shards

Row = tuple[str, str, str]


class Size(NamedTuple):
    """How large everything is. batch: pairs of a step; tiles: N of the loss; micro: rows of a micro-batch."""

    model: str
    batch: int
    steps: int
    tiles: tuple[int, ...]
    micro: int
    most: int
    photos: int
    workers: int
    products: int  # side of the matrices that say what the card can do
    backend: bool | str


FULL = Size(
    "ViT-B-16-SigLIP", 1024, 20, (65_536, 131_072), 256, 131_072, 2048, min(16, os.cpu_count() or 1), 8192, True
)
SMALL = Size("gcl-tiny", 16, 4, (256, 512), 8, 64, 64, 0, 512, "aot_eager")


def step(size: Size, device: torch.device) -> Iterator[Row]:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rate = measured_rate(size.products, device, dtype)
    yield f"products of {size.products} x {size.products}, {str(dtype)[6:]}", f"{rate / 1e12:.3g} TFLOP/s", ""
    flops = step_flops(size.model, device)
    for compiled in (False, size.backend):
        words = "compiled" if compiled else "not compiled"
        plain = attempt(lambda c=compiled: plain_loop(size.model, device, c, size.batch, size.steps))
        ours = attempt(lambda c=compiled: Ours(size.model, device, c).samples_per_second(size.batch, size.steps))
        for name, speed in (("gcl", ours), ("plain loop", plain)):
            what = f"{size.model}, {size.batch} pairs, {words}, {name}"
            if speed is None:
                yield what, "does not fit", ""
                continue
            ratio = f", {speed / plain:.3f}x the plain loop (goal 1.0)" if plain and name == "gcl" else ""
            yield what, f"{speed:.4g} samples/s", f"{speed * flops / rate:.1%} of the products' rate{ratio}"


def loss(size: Size, device: torch.device) -> Iterator[Row]:
    from gcl.loss.gcl import GCLLoss, Part

    for pairs in size.tiles:
        for form in ("softmax", "sigmoid"):
            generator = torch.Generator(device).manual_seed(0)
            query, document = (
                torch.nn.functional.normalize(torch.randn(pairs, 768, device=device, generator=generator), dim=-1)
                for _ in range(2)
            )
            contrast = GCLLoss(form=form).to(device)
            ids, score = torch.arange(pairs, device=device), torch.ones(pairs, device=device)
            sides = [{"fused": Part(x.requires_grad_())} for x in (query, document)]

            def both_ways(contrast=contrast, sides=sides, score=score, ids=ids) -> None:
                for side in sides:
                    side["fused"].embedding.grad = None
                contrast(*sides, score=score, query_id=ids, document_id=ids).loss.backward()

            seconds, peak = seconds_of(both_ways, device)
            alone = products_alone(pairs, 768, form, device)
            memory = "" if peak is None else f", peak {peak / 2**20:,.0f} MB with the inputs' gradients"
            what = f"tiled {form}, N = {pairs:,}, D = 768"
            yield what, f"{seconds:.3g} s", f"{seconds / alone:.3f}x its products alone ({alone:.3g} s){memory}"


def batch(size: Size, device: torch.device) -> Iterator[Row]:
    for micro in (None, size.micro):
        ours, fits, pairs = Ours(size.model, device, False, micro_batch=micro), 0, size.batch
        while pairs <= size.most and ours.fits(pairs):
            fits, pairs = pairs, 2 * pairs
        end = f"{pairs:,} do not fit" if pairs <= size.most else "more was not tried (--most)"
        yield f"largest batch {f'in micro-batches of {micro}' if micro else 'at once'}", f"{fits:,} pairs", end


def data(size: Size, device: torch.device) -> Iterator[Row]:
    ours = Ours(size.model, device, False)
    still = ours.samples_per_second(size.batch, size.steps)
    with tempfile.TemporaryDirectory() as folder:
        pattern = write_shards(Path(folder) / "shards", Shards(size.photos, 500))
        fed = ours.fed(Path(folder), pattern, size.batch, size.steps, size.workers)
    yield "synthetic batches", f"{still:.4g} samples/s", ""
    what = f"from shards, photos of 500 px, {size.workers} workers"
    yield what, f"{fed:.4g} samples/s", f"{fed / still:.3f}x synthetic"


PARTS: dict[str, Callable[[Size, torch.device], Iterator[Row]]] = {
    "step": step,
    "loss": loss,
    "batch": batch,
    "data": data,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--most", type=int, help="pairs of the largest batch that is tried")
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here: run this on a machine with a GPU, or --device cpu --small.")
    size = SMALL if given.small else FULL
    size = size._replace(most=given.most or size.most)
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    rows: list[Row] = []
    for name in given.only:
        for row in PARTS[name](size, device):
            rows.append(row)
            print(" | ".join(row), file=sys.stderr, flush=True)
    print(f"\n{card}, torch {torch.__version__}\n\n| what | measured | against |\n|---|---:|---|")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


if __name__ == "__main__":
    main()
