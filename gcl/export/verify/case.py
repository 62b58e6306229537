"""What a round trip compares: golden inputs, some of the run's dev tasks, and the run's own vectors of all of it.

It goes to another process as two files in a folder: words as JSON, numbers and encoded pictures as a NumPy archive that
is read without pickle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from open_clip.tokenizer import basic_clean

from gcl.data.store.records import Record
from gcl.export.formats.registry import unit
from gcl.export.verify.golden import damaged_texts, golden_images, golden_texts
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fusion import fuse
from gcl.retrieval.tasks.task import RetrievalTask
from gcl.schema import Field, Modality

_ROWS = 16  # encoded at once
_WORDS, _NUMBERS = "case.json", "case.npz"


@dataclass(frozen=True)
class Side:
    """M records: index[M, F] says which of the case's texts or pictures each field is, -1 where it is absent."""

    modalities: list[str]
    weights: list[float]
    index: np.ndarray = field(repr=False)

    def fused(self, texts: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Vectors of the case's texts [T, D] and pictures [I, D] -> the records' [M, D]."""
        width = max(texts.shape[1], images.shape[1] if len(images) else 0)
        embedding = np.zeros((*self.index.shape, width), dtype=np.float32)
        present = self.index >= 0
        for column, modality in enumerate(self.modalities):
            rows, source = present[:, column], texts if modality == "text" else images
            embedding[rows, column] = source[self.index[rows, column]]
        weight = torch.tensor(self.weights, dtype=torch.float32)
        return fuse(torch.from_numpy(embedding), weight, torch.from_numpy(present)).numpy()


@dataclass(frozen=True)
class TaskSample:
    """A task, or some of its queries and documents. whole: nothing was left out."""

    name: str
    queries: list[str]
    documents: list[str]
    query: Side
    document: Side
    whole: bool


@dataclass(frozen=True)
class Case:
    """texts, images: every value once; *_names: what to call it in a sentence; *_vectors: the run's, [n, D].

    damaged: rows of texts in need of a repair that not every format's tokenizer can do: measured, not refused.
    """

    texts: list[str]
    text_names: list[str]
    text_vectors: np.ndarray = field(repr=False)
    images: list[bytes] = field(repr=False)
    image_names: list[str] = field(repr=False)
    image_vectors: np.ndarray = field(repr=False)
    tasks: list[TaskSample] = field(repr=False)
    damaged: list[int] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        tasks, numbers = [], {"text_vectors": self.text_vectors, "image_vectors": self.image_vectors}
        for number, task in enumerate(self.tasks):
            words = asdict(task)
            for side in ("query", "document"):
                numbers[f"{number}.{side}"] = words[side].pop("index")
            tasks.append(words)
        numbers["pixels"] = np.frombuffer(b"".join(self.images), dtype=np.uint8)
        numbers["ends"] = np.cumsum([len(data) for data in self.images], dtype=np.int64)
        names = {"texts": self.texts, "text_names": self.text_names, "image_names": self.image_names,
                 "damaged": self.damaged}  # fmt: skip
        (folder / _WORDS).write_text(json.dumps({**names, "tasks": tasks}), encoding="utf-8")
        np.savez(folder / _NUMBERS, **numbers)


def read_case(folder: Path) -> Case:
    words = json.loads((folder / _WORDS).read_text("utf-8"))
    with np.load(folder / _NUMBERS, allow_pickle=False) as archive:
        numbers = {name: archive[name] for name in archive.files}
    tasks = []
    for number, task in enumerate(words.pop("tasks")):
        sides = {side: Side(**task.pop(side), index=numbers[f"{number}.{side}"]) for side in ("query", "document")}
        tasks.append(TaskSample(**task, **sides))
    ends, pixels = numbers["ends"].tolist(), numbers["pixels"].tobytes()
    images = [pixels[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    vectors = {name: numbers[name] for name in ("text_vectors", "image_vectors")}
    return Case(**words, images=images, tasks=tasks, **vectors)


def make_case(
    encoder: DualEncoder, tasks: Sequence[RetrievalTask] = (), *, queries: int = 100, documents: int = 300
) -> Case:
    """The golden inputs, and of each task at most so many queries and documents, drawn by a fixed seed: the judged
    documents of the queries first. Vectors are those of the run's model.

    Wrongly decoded characters and HTML entities of a task's texts are repaired first: the run does it by itself, the
    formats differ in how much of it they can (`golden.damaged_texts` measures that).
    """
    texts = {value: name for name, value in (golden_texts() | damaged_texts()).items()}
    images = {value: name for name, value in golden_images().items()} if encoder.tower(Modality.image) else {}
    samples = [_sample(encoder, task, texts, images, queries=queries, documents=documents) for task in tasks]
    return Case(
        [*texts], [*texts.values()], run_texts(encoder, [*texts]),
        [*images], [*images.values()], run_images(encoder, [*images]), samples,
        damaged=[row for row, name in enumerate(texts.values()) if name in damaged_texts()],
    )  # fmt: skip


@torch.inference_mode()
def run_texts(encoder: DualEncoder, texts: Sequence[str]) -> np.ndarray:
    """The run's unit vectors [n, D], prompts not applied."""
    return _through(encoder, Modality.text, lambda some: encoder.preprocess.text(list(some)), texts)


@torch.inference_mode()
def run_images(encoder: DualEncoder, images: Sequence[bytes]) -> np.ndarray:
    # decode=scaled is a way of reading training images fast; who loads an export decodes them whole
    read = replace(encoder.preprocess, decode="exact").image
    return _through(encoder, Modality.image, lambda some: torch.stack([read(data) for data in some]), images)


def in_parts(encode: Callable[[Sequence], np.ndarray], values: Sequence, width: int) -> np.ndarray:
    """[n, width] of all values, a few at a time."""
    parts = [encode(values[start : start + _ROWS]) for start in range(0, len(values), _ROWS)]
    return np.concatenate(parts).astype(np.float32) if parts else np.empty((0, width), dtype=np.float32)


def _through(encoder: DualEncoder, modality: Modality, read: Callable, values: Sequence) -> np.ndarray:
    tower = encoder.tower(modality)

    def encode(some: Sequence) -> np.ndarray:
        return unit(tower.head(encoder.trunk_features(modality, read(some))).float().numpy())

    return in_parts(encode, values, encoder.width)


def _sample(
    encoder: DualEncoder, task: RetrievalTask, texts: dict, images: dict, *, queries: int, documents: int
) -> TaskSample:
    random = np.random.default_rng(0)
    asked = _some(random, np.arange(len(task.queries)), queries)
    judged = task.judgments.document[np.isin(task.judgments.query, asked) & (task.judgments.document >= 0)]
    first = _some(random, np.unique(judged), documents)
    rest = np.setdiff1d(np.arange(len(task.corpus)), first)
    found = np.sort(np.concatenate([first, _some(random, rest, documents - len(first))])).astype(np.int64)
    sides = {}
    for side, records, rows, weights in (
        ("query", task.queries, asked, None), ("document", task.corpus, found, task.document_weights),
    ):  # fmt: skip
        fields = encoder.schema.side(side)
        weight = [spec.weight if weights is None else float(weights.get(key, 0.0)) for key, spec in fields.items()]
        named = ((f"{side} {records.ids[int(row)]}", records[int(row)]) for row in rows)
        index = _index(named, fields, texts, images)
        sides[side] = Side([spec.modality.value for spec in fields.values()], weight, index)
    return TaskSample(
        task.name, [str(task.queries.ids[int(row)]) for row in asked],
        [str(task.corpus.ids[int(row)]) for row in found], **sides,
        whole=len(asked) == len(task.queries) and len(found) == len(task.corpus),
    )  # fmt: skip


def _index(
    records: Iterable[tuple[str, Record]], fields: dict[str, Field], texts: dict[str, str], images: dict[bytes, str]
) -> np.ndarray:
    """Puts values that are new among texts and images; -> [M, F] their places."""
    places = {Modality.text: {v: n for n, v in enumerate(texts)}, Modality.image: {v: n for n, v in enumerate(images)}}
    rows = []
    for label, record in records:
        row = []
        for name, spec in fields.items():
            value = record.get(name)
            if value and spec.modality is Modality.text:
                value = basic_clean(spec.prompt.replace("{}", value))
            if not value:
                row.append(-1)
                continue
            known, names = places[spec.modality], texts if spec.modality is Modality.text else images
            if value not in known:
                known[value] = len(known)
                names[value] = f"{name} of {label}"
            row.append(known[value])
        rows.append(row)
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(fields))


def _some(random: np.random.Generator, rows: np.ndarray, most: int) -> np.ndarray:
    return rows if len(rows) <= most else np.sort(random.choice(rows, max(most, 0), replace=False))
