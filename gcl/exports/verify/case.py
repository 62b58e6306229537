"""The case of a round trip: golden inputs, some of the run's dev tasks, and the run's own vectors of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from open_clip.tokenizer import basic_clean

from gcl.data.store.records import Record, Records, images_of
from gcl.exports.formats.registry import unit
from gcl.exports.verify.golden import damaged_texts, golden_images, golden_texts
from gcl.model.dual_encoder import DualEncoder
from gcl.model.fusion import fuse, fuse_images
from gcl.model.rotation import Rotation
from gcl.model.settings import Decode
from gcl.retrieval.tasks.task import RetrievalTask
from gcl.schema import Field, Modality, SideName

Value = TypeVar("Value", str, bytes)
_ROWS = 16  # encoded at once


@dataclass(frozen=True)
class CaseSide:
    """M records: value[V, 3] says, value by value, of which record and field it is, and which of the case's texts or
    images. A field without a value is absent, one with several images a set."""

    modalities: list[str]
    weights: list[float]
    records: int
    value: np.ndarray = field(repr=False)

    def fused(self, texts: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Vectors of the case's texts [T, D] and images [I, D] -> the records' [M, D]."""
        embedding, present = self.fields(texts, images)
        return fuse(embedding, torch.tensor(self.weights, dtype=torch.float32), present).numpy()

    def fields(self, texts: np.ndarray, images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The same -> [M, F, D] and present[M, F]."""
        width = max(texts.shape[1], images.shape[1] if len(images) else 0)
        embedding = torch.zeros(self.records, len(self.modalities), width)
        present = torch.zeros(self.records, len(self.modalities), dtype=torch.bool)
        for column, modality in enumerate(self.modalities):
            owner, _, place = self.value[self.value[:, 1] == column].T
            source = torch.from_numpy((texts if modality == "text" else images)[place])
            rows, fused = fuse_images(source, torch.from_numpy(owner))
            embedding[rows, column], present[rows, column] = fused, True
        return embedding, present


@dataclass(frozen=True)
class TaskSample:
    """A task, or some of its queries and documents. whole: nothing was left out."""

    name: str
    queries: list[str]
    documents: list[str]
    query: CaseSide
    document: CaseSide
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

    def rotated(self, rotation: Rotation, width: int | None) -> Case:
        """The same inputs, with the vectors that an export of rotated and perhaps cut vectors has to give."""
        text, image = (unit(rotation.turn(vectors, width)) for vectors in (self.text_vectors, self.image_vectors))
        return replace(self, text_vectors=text, image_vectors=image)


@dataclass(frozen=True)
class Orders:
    """A case and what is asked of it. fields: of a document, where exported embeddings are compared; near: as in
    `worker.compare`."""

    case: Case
    formats: Sequence[str]
    fields: Sequence[str]
    near: float
    threads: int


class _Distinct(Generic[Value]):
    """Values in the order of their first appearance, each once, and a name for each."""

    def __init__(self, named: Mapping[str, Value]) -> None:
        self.names: list[str] = []
        self._place: dict[Value, int] = {}
        for name, value in named.items():
            self.place(value, name)

    def place(self, value: Value, name: str) -> int:
        """Where the value is; one that is new gets this name and is put at the end."""
        if value not in self._place:
            self._place[value] = len(self._place)
            self.names.append(name)
        return self._place[value]

    @property
    def values(self) -> list[Value]:
        return list(self._place)


def make_case(
    encoder: DualEncoder, tasks: Sequence[RetrievalTask] = (), *, queries: int = 100, documents: int = 300
) -> Case:
    """The golden inputs, and at most this many queries and documents of each task, drawn by a fixed seed: the judged
    documents of the queries first. Vectors are those of the run's model.

    Wrongly decoded characters and HTML entities in a task's texts are repaired first: the run does it by itself, the
    formats differ in how much of it they can do (`golden.damaged_texts` measures that).
    """
    texts = _Distinct(golden_texts() | damaged_texts())
    images = _Distinct(golden_images() if encoder.tower(Modality.image) else {})
    samples = [_sample(encoder, task, texts, images, queries=queries, documents=documents) for task in tasks]
    return Case(
        texts.values, texts.names, run_texts(encoder, texts.values),
        images.values, images.names, run_images(encoder, images.values), samples,
        damaged=[row for row, name in enumerate(texts.names) if name in damaged_texts()],
    )  # fmt: skip


@torch.inference_mode()
def run_texts(encoder: DualEncoder, texts: Sequence[str]) -> np.ndarray:
    """The run's unit vectors [n, D], prompts not applied."""
    return _through(encoder, Modality.text, lambda some: encoder.preprocess.text(list(some)), texts)


@torch.inference_mode()
def run_images(encoder: DualEncoder, images: Sequence[bytes]) -> np.ndarray:
    """The run's unit vectors [n, D] of encoded files."""
    # decode=scaled is a way of reading training images fast; users of an export decode them whole
    read = replace(encoder.preprocess, decode=Decode.exact).image
    return _through(encoder, Modality.image, lambda some: torch.stack([read(data) for data in some]), images)


def in_blocks(encode: Callable[[Sequence], np.ndarray], values: Sequence, width: int) -> np.ndarray:
    """[n, width] of all values, a few at a time."""
    blocks = [encode(values[start : start + _ROWS]) for start in range(0, len(values), _ROWS)]
    return np.concatenate(blocks).astype(np.float32) if blocks else np.empty((0, width), dtype=np.float32)


def _through(
    encoder: DualEncoder, modality: Modality, read: Callable[[Sequence], torch.Tensor], values: Sequence
) -> np.ndarray:
    def encode(some: Sequence) -> np.ndarray:
        tower = encoder.required_tower(modality)
        return unit(tower.head(encoder.trunk_features(modality, read(some))).float().numpy())

    return in_blocks(encode, values, encoder.width)


def _sample(
    encoder: DualEncoder, task: RetrievalTask, texts: _Distinct[str], images: _Distinct[bytes], *, queries: int,
    documents: int,
) -> TaskSample:  # fmt: skip
    random = np.random.default_rng(0)
    query_rows = _some(random, np.arange(len(task.queries)), queries)
    judged = task.judgments.document[np.isin(task.judgments.query, query_rows) & (task.judgments.document >= 0)]
    first = _some(random, np.unique(judged), documents)
    rest = np.setdiff1d(np.arange(len(task.corpus)), first)
    document_rows = np.sort(np.concatenate([first, _some(random, rest, documents - len(first))])).astype(np.int64)

    def side(name: SideName, records: Records, rows: np.ndarray, weights: Mapping[str, float] | None) -> CaseSide:
        fields, hidden = encoder.schema.side(name), task.hidden if name == "document" else ()
        weight = [spec.weight if weights is None else float(weights.get(key, 0.0)) for key, spec in fields.items()]
        weight = [0.0 if key in hidden else own for key, own in zip(fields, weight, strict=True)]
        named = ((f"{name} {records.ids[int(row)]}", records[int(row)]) for row in rows)
        modalities = [spec.modality.value for spec in fields.values()]
        return CaseSide(modalities, weight, len(rows), _values(named, fields, texts, images))

    return TaskSample(
        task.name, [str(task.queries.ids[int(row)]) for row in query_rows],
        [str(task.corpus.ids[int(row)]) for row in document_rows],
        query=side("query", task.queries, query_rows, None),
        document=side("document", task.corpus, document_rows, task.document_weights),
        whole=len(query_rows) == len(task.queries) and len(document_rows) == len(task.corpus),
    )  # fmt: skip


def _values(
    records: Iterable[tuple[str, Record]], fields: dict[str, Field], texts: _Distinct[str], images: _Distinct[bytes]
) -> np.ndarray:
    """Adds the records' values to texts and images; -> record, field and place of each, [V, 3]."""
    values = []
    for row, (label, record) in enumerate(records):
        for column, (name, spec) in enumerate(fields.items()):
            value = record.get(name)
            if isinstance(value, str):
                text = basic_clean(spec.prompt.replace("{}", value))
                places = [texts.place(text, f"{name} of {label}")] if value and text else []
            else:
                places = [images.place(image, f"{name} of {label}") for image in images_of(value)]
            values += [(row, column, place) for place in places]
    return np.array(values, dtype=np.int64).reshape(-1, 3)


def _some(random: np.random.Generator, rows: np.ndarray, most: int) -> np.ndarray:
    return rows if len(rows) <= most else np.sort(random.choice(rows, max(most, 0), replace=False))
