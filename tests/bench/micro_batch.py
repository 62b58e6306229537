"""A contrastive batch in sixteen micro-batches beside the same batch at once: peak memory and time, one thread.

    python tests/bench/micro_batch.py                       # 256 pairs in 16 of 16, about 3 minutes
    python tests/bench/micro_batch.py --batch 512 --repeats 5

Forward, loss and backward of gcl's own step on (title, photo) pairs. Memory is the peak resident size of a process of
its own during its first step, less its size before (weights and inputs) and less the weights' gradients (Linux with
glibc only). Time is process CPU time, in turns, median. Goals: at most 0.25 x the memory, not growing with the batch,
at most 1.25 x the time.
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
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

ROOT = Path(__file__).resolve().parents[2]
VISION = {"image_size": 224, "layers": 6, "width": 256, "head_width": 64, "patch_size": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4}


def step_of(batch: int) -> tuple[Callable[[int | None], None], torch.nn.Module]:
    """`step(micro_batch)` -> the loss went forward and backward once; and the module whose gradients that made."""
    from open_clip import CLIP
    from train_inputs import titles

    from gcl.data.batches.batch import SideBatch
    from gcl.lit.grad_cache import encode_parts
    from gcl.loss.gcl import GCLLoss
    from gcl.model.dual_encoder import DualEncoder
    from gcl.model.preprocess import Preprocess
    from gcl.model.tokens import Tokens
    from gcl.schema import Field, Modality, Schema

    torch.manual_seed(0)
    from open_clip import get_tokenizer

    half = (0.5, 0.5, 0.5)
    preprocess = Preprocess((224, 224), half, half, tokens=Tokens(get_tokenizer("ViT-B-32"), 77))
    schema = Schema({"query": Field()}, {"image": Field(Modality.image)})
    encoder = DualEncoder(CLIP(embed_dim=256, vision_cfg=VISION, text_cfg=TEXT), schema, preprocess)
    module = torch.nn.ModuleList([encoder, GCLLoss()])
    present = torch.ones(batch, 1, dtype=torch.bool)
    query = SideBatch({"query": preprocess.text(titles(batch))}, present)
    document = SideBatch({"image": torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8)}, present)
    ids, score = torch.arange(batch), torch.ones(batch)

    def step(micro_batch: int | None) -> None:
        sides = [
            encode_parts(encoder, side, name, ["fused"], micro_batch=micro_batch)
            for side, name in ((query, "query"), (document, "document"))
        ]
        module[1](*sides, score=score, query_id=ids, document_id=ids).loss.backward()

    return step, module


def status(key: str) -> float:
    """A line of /proc/self/status, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def measure(batch: int, micro_batch: int | None) -> float:
    """Peak of one step in this process, in MB."""
    torch.set_num_threads(1)
    small, _ = step_of(4)
    small(None)  # loads what the first call loads
    del small
    step, module = step_of(batch)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = status("VmRSS")
    step(micro_batch)
    gradients = sum(p.grad.numel() for p in module.parameters() if p.grad is not None) * 4 / 2**20
    return status("VmHWM") - before - gradients


def memory(batch: int, micro_batch: int | None) -> float:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Every tensor of 64 KiB and more in pages of its own, given back when it dies: the resident size is what is held.
    exact = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [sys.executable, __file__, "--measure", str(batch), str(micro_batch or 0)],
        check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **exact, "PYTHONPATH": paths},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure[0], given.measure[1] or None)))
        return
    size = given.batch // given.chunks
    whole, chunked, larger = memory(given.batch, None), memory(given.batch, size), memory(4 * given.batch, size)
    print(
        f"memory  {given.batch} pairs at once {whole:.0f} MB, in {given.chunks} of {size} {chunked:.0f} MB   ", end=""
    )
    print(f"ratio {chunked / whole:.3f}   goal 0.25")
    print(f"memory  {4 * given.batch} pairs in micro-batches of {size} {larger:.0f} MB   ", end="")
    print(f"{larger / chunked:.2f} x that of {given.batch} pairs", flush=True)
    torch.set_num_threads(1)
    step, module = step_of(given.batch)
    seconds: dict[int | None, list[float]] = {None: [], size: []}
    for _ in range(given.repeats + 1):
        for way, values in seconds.items():
            module.zero_grad()
            begun = time.process_time()
            step(way)
            values.append(time.process_time() - begun)
    whole, chunked = (statistics.median(values[1:]) for values in seconds.values())
    print(f"time    at once {whole:.2f} s, in micro-batches {chunked:.2f} s   ratio {chunked / whole:.3f}   goal 1.25")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
