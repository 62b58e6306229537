"""Marqtune's words for a data set -> a Catalog: its schema, left and right keys with weights, and the weight key.

The schema maps a column to text, image_pointer, score or doc_id. "Left" is the query, "right" the document.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from gcl.data.catalog import Catalog, Download, Split, Task
from gcl.data.tables import open_table
from gcl.schema import Field, Modality

_KINDS = {"text": Modality.text, "image_pointer": Modality.image}
_OTHERS = ("score", "doc_id")


def catalog_of(
    name: str,
    training: str | Path,
    *,
    schema: Mapping[str, str],
    left_keys: Sequence[str],
    left_weights: Sequence[float],
    right_keys: Sequence[str],
    right_weights: Sequence[float],
    weight_key: str | None = None,
    image_headers: Mapping[str, str] | None = None,
    evaluation: str | Path | None = None,
    folder: str | Path | None = None,
) -> Catalog:
    """A catalog of one table of (left, right, score) rows, as Marqtune trains on.

    evaluation: a table of the same columns; it becomes the task "evaluation", whose tables are written into `folder`.
    Without it some queries and products are held out. Raises ValueError for words that do not fit together.
    """
    unknown = sorted(set(schema.values()) - {*_KINDS, *_OTHERS})
    if unknown:
        raise ValueError(f"The schema has {', '.join(unknown)}; expected {', '.join([*_KINDS, *_OTHERS])}.")
    query = _side("left", schema, left_keys, left_weights)
    document = _side("right", schema, right_keys, right_weights)
    identifier = _only(schema, "doc_id")
    score = weight_key or _only(schema, "score")
    if weight_key and schema.get(weight_key) != "score":
        raise ValueError(f"weightKey is {weight_key!r}, which the schema calls {schema.get(weight_key)!r}, not score.")
    catalog = Catalog(
        name=name,
        pairs=str(Path(training).absolute()),
        root=str(Path(training).absolute().parent),
        document_id=identifier or Catalog.document_id,
        query=query,
        document=document,
        score=score,
        download=Download(headers=dict(image_headers or {})),
    )
    if evaluation is not None:
        if folder is None or identifier is None:
            raise ValueError("An evaluation table needs a doc_id column, and a folder for the task's tables.")
        catalog.products = str(_products(catalog, [training, evaluation], Path(folder)))
        catalog.tasks = {"evaluation": _task(catalog, evaluation, Path(folder))}
        catalog.split = Split(queries=1.0, documents=1.0)
    return catalog


def _side(name: str, schema: Mapping[str, str], keys: Sequence[str], weights: Sequence[float]) -> dict[str, Field]:
    if len(keys) != len(weights):
        raise ValueError(f"{name}Keys has {len(keys)} columns, {name}Weights {len(weights)} weights.")
    for key in keys:
        if schema.get(key) not in _KINDS:
            raise ValueError(
                f"{name}Keys names {key!r}, which the schema calls {schema.get(key)!r}, not text or image_pointer."
            )
    return {
        _field(key): Field(_KINDS[schema[key]], weight, column=key) for key, weight in zip(keys, weights, strict=True)
    }


def _field(column: str) -> str:
    """A field's name: the column's, without what no field may have.

    >>> _field("Product Title"), _field("2nd image")
    ('Product_Title', 'f_2nd_image')
    """
    name = "".join(character if character.isascii() and character.isalnum() else "_" for character in column)
    return name if name[:1].isalpha() else f"f_{name}"


def _only(schema: Mapping[str, str], kind: str) -> str | None:
    found = [column for column, named in schema.items() if named == kind]
    if len(found) > 1:
        raise ValueError(f"The schema has several columns of the kind {kind}: {', '.join(found)}.")
    return found[0] if found else None


def _rows(catalog: Catalog, path: str | Path, columns: list[str]):
    table = open_table(str(path), root=Path(catalog.root), setting="evaluation")
    table.check_columns([(column, "schema") for column in columns])
    for block in table.blocks(columns):
        yield from zip(*(block.columns[column] for column in columns), strict=True)


def _products(catalog: Catalog, tables: Sequence[str | Path], folder: Path) -> Path:
    """One row a product of either table: the evaluation searches among all of them."""
    columns = [catalog.document_id, *(spec.column for spec in catalog.document.values())]
    seen: set[str] = set()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "products.csv", "w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(columns)
        for path in tables:
            for row in _rows(catalog, path, columns):
                if row[0] is not None and row[0] not in seen:
                    seen.add(row[0])
                    writer.writerow(["" if cell is None else _absolute(cell, path, spec) for cell, spec in
                                     zip(row, [None, *catalog.document.values()], strict=True)])  # fmt: skip
    return (folder / "products.csv").absolute()


def _absolute(cell: str, table: str | Path, spec: Field | None) -> str:
    """An image path as it is seen from anywhere."""
    if spec is None or spec.modality is not Modality.image or "://" in cell:
        return cell
    return str(Path(table).absolute().parent / cell.strip())


def _task(catalog: Catalog, evaluation: str | Path, folder: Path) -> Task:
    columns = [spec.column for spec in catalog.query.values()]
    others = [catalog.document_id, *([catalog.score] if catalog.score else [])]
    ids: dict[tuple, str] = {}
    with (
        open(folder / "queries.csv", "w", newline="", encoding="utf-8") as queries_file,
        open(folder / "qrels.csv", "w", newline="", encoding="utf-8") as qrels_file,
    ):
        queries, qrels = csv.writer(queries_file), csv.writer(qrels_file)
        queries.writerow(["query_id", *columns])
        qrels.writerow(["query_id", catalog.document_id, "score"])
        for cells in _rows(catalog, evaluation, [*columns, *others]):
            key, document = cells[: len(columns)], cells[len(columns)]
            if document is None or not any(key):
                continue
            if key not in ids:
                ids[key] = f"q{len(ids)}"
                specs = catalog.query.values()
                row = [
                    "" if cell is None else _absolute(cell, evaluation, spec)
                    for cell, spec in zip(key, specs, strict=True)
                ]
                queries.writerow([ids[key], *row])
            qrels.writerow([ids[key], document, cells[-1] if catalog.score else 1])
    folder = folder.absolute()
    return Task(str(folder / "queries.csv"), str(folder / "qrels.csv"), corpus="all", document_id=catalog.document_id)
