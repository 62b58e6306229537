"""Texts and pictures of all kinds, and what a run makes of them."""

import io

import numpy as np
import torch
from PIL import Image

from gcl.schema import Field, Images, Modality, Schema

TEXTS = (
    "Red running SHOES!", "", "café & 😀 naïve", "far beyond the context " * 60, "红色 运动鞋，新款！",
    "don't_stop  me", "“ﬁne” &amp; dandy", "42",
)  # fmt: skip
SCHEMA = Schema(
    query={"query": Field(Modality.text, prompt="search: {}")},
    document={"image": Field(Modality.image, weight=0.9), "title": Field(Modality.text, weight=0.1)},
)

SETS = Schema(
    query={"query": Field(Modality.text)},
    document={
        "image": Field(Modality.image, weight=0.7),
        "title": Field(Modality.text, weight=0.3, prompt="a {}"),
        "views": Field(Modality.image, weight=0.2, images=Images.all),
    },
)


def pictures():
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 255, (11, 9, 4), dtype=np.uint8), "RGBA")
    found = {}
    for mode, form, size in (
        ("RGB", "PNG", (70, 50)), ("RGB", "JPEG", (40, 90)), ("L", "PNG", (60, 60)), ("P", "PNG", (90, 60)),
        ("RGBA", "PNG", (33, 80)), ("LA", "PNG", (70, 70)), ("CMYK", "JPEG", (80, 40)), ("1", "PNG", (64, 50)),
    ):  # fmt: skip
        picture, file = noise.resize(size, Image.Resampling.BICUBIC), io.BytesIO()
        (picture.convert("RGB") if mode == "P" else picture).convert(mode).save(file, form)
        found[f"{mode} {form}"] = file.getvalue()
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.convert("RGB").resize((50, 80)).save(turned, "PNG", exif=exif)
    return found | {"on its side": turned.getvalue()}


@torch.inference_mode()
def embed(encoder, texts=TEXTS, images=None):
    """What the run computes: unit vectors of texts and of encoded pictures."""

    def vectors(modality, value):
        part = encoder.tower(modality)
        return torch.nn.functional.normalize(part.head(part.trunk(value)), dim=-1).numpy()

    out = [vectors(Modality.text, encoder.preprocess.text(list(texts)))]
    if images:
        pixels = encoder._pixels(torch.stack([encoder.preprocess.image(data) for data in images]))
        out.append(vectors(Modality.image, pixels))
    return out
