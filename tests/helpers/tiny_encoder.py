"""A tiny encoder with its records, made the same in every process."""

import io

import numpy as np
import torch
from PIL import Image

from gcl.model.load import load_model
from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Field, Modality, Schema

SCHEMA = Schema(
    query={"query": Field(Modality.text)},
    document={
        "image": Field(Modality.image, weight=0.9),
        "title": Field(Modality.text, weight=0.1, prompt="a photo of {}"),
    },
)
COLORS, THINGS = ("red", "blue", "green", "black"), ("shoe", "shirt", "mug", "lamp", "bag")


def tiny_encoder(seed: int = 0):
    torch.manual_seed(seed)
    return load_model("gcl-tiny", schema=SCHEMA)


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def documents(count: int) -> ListRecords:
    """Every third has no picture, every fourth (of the others) no title."""
    records = []
    for n in range(count):
        title = f"{COLORS[n % 4]} {THINGS[n % 5]} number {n}"
        image = None if n % 3 == 2 else picture(n)
        records.append({"image": image, "title": None if n % 4 == 3 and image else title})
    return ListRecords([f"d{n:03d}" for n in range(count)], records, SCHEMA.document)


def queries(count: int) -> ListRecords:
    texts = [f"{COLORS[n % 4]} {THINGS[n % 5]}" for n in range(count)]
    return ListRecords([f"q{n}" for n in range(count)], [{"query": text} for text in texts], SCHEMA.query)
