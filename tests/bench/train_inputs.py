"""What tests/bench/train.py trains on: one tiny CLIP (ViT and causal text tower) and shards that both sides read."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

CONTEXT, SIDE = 77, 224
MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIDE, "layers": 4, "width": 128, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4},
}
COLOURS = "black white navy blue red green grey brown pink purple beige yellow orange silver gold maroon".split()
MADE = (
    "cotton leather canvas denim wool linen silk steel wooden striped printed solid checked slim casual formal".split()
)
KINDS = "shirt dress shoes watch bag belt mug lamp chair jeans kurta sandals jacket socks scarf wallet top".split()
WHOM = "men women kids boys girls unisex".split()
FILLERS = "with for and new classic sports set of two pack premium soft daily wear long short sleeve fit".split()


class Shards(NamedTuple):
    """One scenario. samples: rows of the shards; photo: side of the stored picture in pixels; products, queries: how
    many are different (fewer than samples: they repeat, as in a log of searches); long: texts fill the context.
    """

    samples: int
    photo: int
    format: str = "JPEG"
    products: int | None = None
    queries: int | None = None
    long: bool = False


def titles(count: int, *, long: bool = False, seed: int = 0) -> list[str]:
    """Different product titles of 7.4 tokens or so (95 % under 12), or of more than the context holds."""
    rng, made = np.random.default_rng(seed), {}
    while len(made) < count:
        words = [str(rng.choice(part)) for part in (WHOM, COLOURS, MADE, KINDS)]
        extra = (
            80
            if long
            else int(rng.choice([0, 1, 2, 3, 4, 5, 7, 9], p=[0.08, 0.14, 0.17, 0.18, 0.17, 0.13, 0.09, 0.04]))
        )
        made[" ".join(words[:1] + [str(word) for word in rng.choice(FILLERS, extra)] + words[1:])] = None
    return list(made)


def photo(number: int, side: int, kind: str) -> bytes:
    """A picture with the detail of a product photo (2 bits a pixel or so as JPEG), another one for each number."""
    rng = np.random.default_rng(number)
    cells = max(2, side // 12)
    small = Image.fromarray(rng.integers(40, 216, (cells, cells, 3), dtype=np.uint8))
    target = io.BytesIO()
    small.resize((side, side), Image.Resampling.BICUBIC).save(
        target, kind, **({"quality": 90} if kind == "JPEG" else {})
    )
    return target.getvalue()


def write_shards(folder: Path, shards: Shards) -> str:
    """Writes two tars of `key.jpg` (or png) and `key.txt`; returns their pattern."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    texts = titles(shards.queries or shards.samples, long=shards.long)
    extension = {"JPEG": "jpg", "PNG": "png"}[shards.format]
    pictures = [photo(number, shards.photo, shards.format) for number in range(shards.products or shards.samples)]
    picture = rng.permutation(shards.samples) % len(pictures)
    text = rng.permutation(shards.samples) % len(texts)
    for half in range(2):
        with tarfile.open(folder / f"part-{half:06d}.tar", "w") as target:
            for row in range(half, shards.samples, 2):
                for suffix, data in ((extension, pictures[picture[row]]), ("txt", texts[text[row]].encode())):
                    member = tarfile.TarInfo(f"{row:08d}.{suffix}")
                    member.size = len(data)
                    target.addfile(member, io.BytesIO(data))
    return str(folder / "part-{000000..000001}.tar")


def write_model(folder: Path) -> None:
    """A folder that open_clip and gcl load alike: the architecture, its preprocessing, random weights."""
    import torch
    from open_clip import CLIP
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    half = (0.5, 0.5, 0.5)
    preprocess = {"mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": preprocess}))
    torch.manual_seed(0)
    save_file(CLIP(**MODEL).state_dict(), folder / "open_clip_model.safetensors")
