"""General sets: what a model could do before it learned a catalog, as retrieval tasks with schemas of their own.

Zero-shot classification is one of them: the images are the queries, the classes the documents, and every template is
a text field of a class, so that a class is the mean of its templates' unit vectors (Radford et al. 2021,
https://arxiv.org/abs/2103.00020, section 3.1.4) and the accuracy is the hit rate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from gcl.data.store.records import Record
from gcl.data.tables.block import Reading
from gcl.data.tables.table import open_table
from gcl.retrieval.tasks.task import ListRecords, RetrievalTask, task_from_qrels
from gcl.schema import Field, Modality, Schema

_AS_WRITTEN = Reading(missing=("", "nan", "NaN"))  # a label may be called None


@dataclass(frozen=True)
class General:
    """A set: its tasks, what reads them, and how much of `metric` (the mean over the tasks) may be lost.

    tasks: measured at the beginning and the end; quick: the ones of a validation.
    """

    name: str
    schema: Schema
    tasks: Sequence[RetrievalTask]
    quick: Sequence[RetrievalTask]
    metrics: tuple[str, ...]
    metric: str
    limit: float


def read_folder(name: str, folder: str | Path) -> RetrievalTask:
    """corpus.jsonl (_id, title, text), queries.jsonl (_id, text) and qrels/test.tsv, as BEIR's data sets come
    (Thakur et al. 2021, https://arxiv.org/abs/2104.08663); a document is its title and its text."""
    folder = Path(folder)
    corpus = {str(line["_id"]): _joined(line) for line in _json_lines(folder / "corpus.jsonl")}
    queries = {str(line["_id"]): line.get("text") for line in _json_lines(folder / "queries.jsonl")}
    qrels: dict[str, dict[str, float]] = {}
    path = folder / "qrels" / "test.tsv"
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            row = line.rstrip("\n").split("\t")
            if (number == 1 and row[-1:] == ["score"]) or not line.strip():
                continue
            if len(row) != 3:
                raise ValueError(f"{path}, line {number}: {len(row)} columns, expected query-id, corpus-id and score.")
            if row[0] not in queries:
                raise ValueError(f"{path}, line {number}: there is no query {row[0]!r} in queries.jsonl.")
            qrels.setdefault(row[0], {})[row[1]] = float(row[2])
    side = {"text": Field(Modality.text)}
    asked = [key for key in queries if key in qrels]
    return task_from_qrels(
        name,
        ListRecords(asked, [{"text": queries[key]} for key in asked], side),
        ListRecords(list(corpus), [{"text": text} for text in corpus.values()], side),
        qrels,
    )


def classification(
    name: str,
    table: str | Path,
    *,
    image: str = "image",
    label: str = "label",
    classes: Sequence[str] | None = None,
    templates: Sequence[str] = ("a photo of a {}.",),
) -> tuple[RetrievalTask, Schema]:
    """Images to be told apart by the classes' names alone.

    table: its column `image` holds paths (from the table's folder) or bytes, `label` one of the classes.
    classes: by default the values of `label`. templates: sentences with "{}" for the class.
    """
    table, setting = Path(table), f"evaluate.retention.{name}"
    if bad := [template for template in templates if template.count("{}") != 1]:
        raise ValueError(f"{setting}.templates: {bad[0]!r} must contain '{{}}' once, where the class goes.")
    if not templates:
        raise ValueError(f"{setting}.templates is empty: give at least one sentence with '{{}}'.")
    images, labels = _labelled_images(table, image, label, setting)
    names = sorted(set(labels)) if classes is None else [str(one) for one in classes]
    if unknown := [value for value in labels if value not in set(names)]:
        known = ", ".join(names[:5])
        raise ValueError(f"{table}: the label {unknown[0]!r} is not one of {setting}.classes ({known} …).")
    schema = Schema(
        query={"image": Field(Modality.image)},
        document={f"template_{n}": Field(prompt=template) for n, template in enumerate(templates)},
    )
    ids = [str(number) for number in range(len(images))]
    task = task_from_qrels(
        name,
        ListRecords(ids, _image_records(images, table.parent), schema.query),
        ListRecords(names, [dict.fromkeys(schema.document, one) for one in names], schema.document),
        {number: {value: 1.0} for number, value in zip(ids, labels, strict=True)},
    )
    return task, schema


def _labelled_images(table: Path, image: str, label: str, setting: str) -> tuple[list[str | bytes], list[str]]:
    """The image (a path or bytes) and the label of each row. Raises ValueError for a row without one of them."""
    opened = open_table(table.name, root=table.parent, setting=f"{setting}.images", reading=_AS_WRITTEN)
    opened.check_columns([(image, f"{setting}.image"), (label, f"{setting}.label")])
    images: list[str | bytes] = []
    labels: list[str] = []
    empty: list[int] = []
    for block in opened.blocks([label], [image]):
        for source, text in zip(block.columns[image], block.columns[label], strict=True):
            if source is None or text is None:
                empty.append(len(images) + len(empty) + 1)
            else:
                images.append(source[0] if isinstance(source, list) else source)
                labels.append(str(text).strip())
    if empty:
        rows = len(images) + len(empty)
        raise ValueError(f"{table}, row {empty[0]}: the image or the label is missing ({len(empty)} of {rows} rows).")
    return images, labels


class _ImageRecord(dict):
    """A record of one image, read when it is asked for."""

    def __init__(self, source: Path | bytes) -> None:
        super().__init__(image=None)
        self.source = source

    def get(self, name: str, default: Any = None) -> bytes:
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def _image_records(images: Sequence[str | bytes], root: Path) -> list[Record]:
    gone = [path for path in images if isinstance(path, str) and not (root / path).is_file()]
    if gone:
        raise FileNotFoundError(f"There is no image {root / gone[0]} ({len(gone)} of {len(images)} are missing).")
    return [_ImageRecord(one if isinstance(one, bytes) else root / one) for one in images]


def _joined(line: Mapping[str, Any]) -> str:
    return " ".join(part for part in (line.get("title"), line.get("text")) if part)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                value["_id"]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path}, line {number}: no JSON object with an _id ({error}).") from None
            yield value


def _opened(path: Path) -> TextIO:
    try:
        return open(path, encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no {path}: a folder holds corpus.jsonl, queries.jsonl and qrels/test.tsv."
        ) from None
