"""The contenders and the clocks of tests/bench/gpu.py."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import open_clip
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gcl.data.batches.batch import PairBatch, SideBatch, SideReader
from gcl.lit.data import PairData
from gcl.lit.module import GCLModule, Optimization, compile_towers
from gcl.loss.blocks import choose_tile
from gcl.loss.gcl import GCLLoss
from gcl.model.dual_encoder import DualEncoder
from gcl.model.load import load_model  # noqa: F401  registers gcl-tiny with open_clip
from gcl.model.preprocess import Preprocess
from gcl.optim.schedule import warmup_constant
from gcl.schema import Field, Modality, Schema

SCHEMA = Schema({"text": Field(column="txt")}, {"image": Field(Modality.image)})
WARM = 3  # steps before the clock starts
FORM = {"form": "sigmoid", "scale": 10.0, "bias": -10.0}


class Words:
    """Stands in for the tokenizer of ViT-B-16-SigLIP, which only the hub has: a number for every word."""

    def __init__(self, vocabulary: int, length: int) -> None:
        self.vocabulary, self.length = vocabulary, length

    def __call__(self, texts: list[str]) -> Tensor:
        out = torch.ones(len(texts), self.length, dtype=torch.int64)
        for row, text in zip(out, texts, strict=True):
            ids = [2 + sum(word.encode()) * 31 % (self.vocabulary - 2) for word in text.split()][: self.length]
            row[: len(ids)] = torch.tensor(ids)
        return out


def attempt(call: Callable[[], float]) -> float | None:
    """What a call gives, or None where the device's memory does not suffice; nothing of it stays behind."""
    try:
        return call()
    except torch.OutOfMemoryError:
        return None
    finally:
        gc.collect()  # Lightning's objects know each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], None], device: torch.device, repeats: int = 3) -> tuple[float, int | None]:
    """Least wall time of a call, and the most memory it took beyond what was there (None on a CPU)."""
    call()
    finish(device)
    before, best = 0, float("inf")
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        finish(device)
        best = min(best, time.perf_counter() - begun)
    return best, torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else None


def measured_rate(side: int, device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square product."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def ten() -> None:
        for _ in range(10):
            a @ b

    return 20 * side**3 / seconds_of(ten, device)[0]


def products_alone(pairs: int, width: int, form: str, device: torch.device) -> float:
    """Seconds of the tiled loss's matrix products: four a block (softmax computes similarities twice), or three."""
    side = choose_tile("auto", pairs, device)
    blocks = (pairs / side) ** 2
    left, right, s, out = (torch.randn(side, n, device=device) for n in (width, width, side, width))

    def block() -> None:
        for _ in range(2 if form == "softmax" else 1):
            torch.mm(left, right.T, out=s)
        out.addmm_(s, right)
        out.addmm_(s.T, left)

    times = max(1, min(16, int(blocks)))
    return seconds_of(lambda: [block() for _ in range(times)], device)[0] / times * blocks


def architecture(name: str, device: torch.device) -> torch.nn.Module:
    torch.manual_seed(0)
    return open_clip.create_model(name, device=device)


def pairs_of(model: torch.nn.Module, batch: int, device: torch.device, *, seed: int = 0) -> PairBatch:
    """A batch of noise: every text and image another one."""
    random = torch.Generator(device).manual_seed(seed)
    size, vocabulary, length = image_size(model), model.vocab_size, model.context_length
    image = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, device=device, generator=random)
    text = torch.randint(2, vocabulary, (batch, length), device=device, generator=random)
    present, row = torch.ones(batch, 1, dtype=torch.bool, device=device), torch.arange(batch, device=device)
    query, document = SideBatch({"text": text}, present), SideBatch({"image": image}, present)
    return PairBatch(query, document, row, row, torch.ones(batch, device=device), row, row, seed)


def image_size(model: torch.nn.Module) -> tuple[int, int]:
    size = model.visual.image_size
    return (size, size) if isinstance(size, int) else tuple(size)


def step_flops(name: str, device: torch.device, pairs: int = 4) -> float:
    """Operations of the towers' forward and backward pass, for one pair."""
    from torch.utils.flop_counter import FlopCounterMode

    model = architecture(name, device)
    batch = pairs_of(model, pairs, device)
    with FlopCounterMode(display=False) as counter:
        image = model.encode_image(batch.document.fields["image"] / 255)
        (image.sum() + model.encode_text(batch.query.fields["text"]).sum()).backward()
    return counter.get_total_flops() / pairs


def plain_loop(name: str, device: torch.device, compiled: bool | str, batch: int, steps: int) -> float:
    """Samples/s of the loop that everybody writes: open_clip's model and loss, bf16, a fused AdamW."""
    from open_clip.loss import SigLipLoss

    model, loss = architecture(name, device), SigLipLoss()
    scale, bias = (torch.nn.Parameter(torch.tensor(value, device=device)) for value in (2.3026, -10.0))
    trained = [p for n, p in model.named_parameters() if n not in ("logit_scale", "logit_bias")] + [scale, bias]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.02, fused=True)
    batches = [pairs_of(model, batch, device, seed=seed) for seed in range(2)]

    def encode(image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return model.encode_image(image / 127.5 - 1, normalize=True), model.encode_text(text, normalize=True)

    if compiled:
        encode = torch.compile(encode, backend="inductor" if compiled is True else compiled)
    for number in range(WARM + steps):
        if number == WARM:
            finish(device)
            begun = time.perf_counter()
        one = batches[number % 2]
        optimiser.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            value = loss(*encode(one.document.fields["image"], one.query.fields["text"]), scale.exp(), bias)
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
    finish(device)
    return steps * batch / (time.perf_counter() - begun)


class Clock(pl.Callback):
    def __init__(self, device: torch.device) -> None:
        self.device, self.moments = device, []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_) -> None:
        if trainer.global_step in (WARM, trainer.num_training_batches):
            finish(self.device)
            self.moments.append(time.perf_counter())


class Ours:
    """gcl's module on this device, under Lightning."""

    def __init__(
        self, name: str, device: torch.device, compiled: bool | str, *, micro_batch: int | None = None
    ) -> None:
        self.device = device
        model = architecture(name, device)
        half = (0.5, 0.5, 0.5)
        words = Words(model.vocab_size, model.context_length)
        encoder = DualEncoder(model, SCHEMA, Preprocess(image_size(model), half, half, tokens=words))
        if compiled:
            compile_towers(encoder, compiled)
        self.module = GCLModule(
            encoder.to(device), GCLLoss(**FORM).to(device),
            Optimization(partial(torch.optim.AdamW, fused=True), warmup_constant, learning_rate=1e-5,
                         weight_decay=0.02, warmup=0, total_steps=1000),
            micro_batch=micro_batch,
        )  # fmt: skip

    def fit(self, batches, steps: int, batch: int) -> float:
        clock = Clock(self.device)
        trainer = pl.Trainer(
            accelerator="gpu" if self.device.type == "cuda" else "cpu", devices=1, max_epochs=1, callbacks=[clock],
            precision="bf16-mixed" if self.device.type == "cuda" else "32-true", logger=False, limit_val_batches=0,
            enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, gradient_clip_val=1.0,
            use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(self.module, batches)
        first, last = clock.moments
        return steps * batch / (last - first)

    def samples_per_second(self, batch: int, steps: int) -> float:
        two = [pairs_of(self.module.encoder.model, batch, self.device, seed=seed) for seed in range(2)]
        return self.fit(DataLoader([two[n % 2] for n in range(WARM + steps)], batch_size=None), steps, batch)

    def fits(self, pairs: int) -> bool:
        """Whether forward, loss and backward of so many pairs find room beside weights, moments and gradients."""
        try:
            moments = [torch.empty_like(p) for p in self.module.parameters() for _ in range(2)]
            batch = pairs_of(self.module.encoder.model, pairs, self.device)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
                value = self.module.contrast(batch).loss
            value.backward()
            finish(self.device)
            return bool(moments)
        except torch.OutOfMemoryError:
            return False
        finally:
            moments = batch = value = None
            self.module.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def fed(self, folder: Path, pattern: str, batch: int, steps: int, workers: int) -> float:
        """From photos in shards: read, decode, tokenize, move, train."""
        from gcl.data.batches.plan import Plan
        from gcl.data.catalog import Catalog, Split
        from gcl.data.prepare.prepare import prepare
        from gcl.data.store.prepared import open_prepared

        catalog = Catalog(
            name="bench", shards=pattern, query=SCHEMA.query, document=SCHEMA.document, split=Split(1.0, 1.0)
        )
        prepared = open_prepared(prepare(catalog, folder / "prepared", progress=False), SCHEMA)
        preprocess = self.module.encoder.preprocess
        readers = {
            side: SideReader(store, SCHEMA.side(side), preprocess)
            for side, store in (("query", prepared.queries), ("document", prepared.documents))
        }
        plan = Plan(prepared.pairs, batch_size=batch, seed=0, drop_last=True)
        return self.fit(PairData(plan, steps=WARM + steps, workers=workers, **readers), steps, batch)
