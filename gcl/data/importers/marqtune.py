"""A data set in Marqtune's settings -> a Catalog: its schema, left and right keys with weights, and the weight key.

The schema maps a column to text, image_pointer, score or doc_id. "Left" is the query, "right" the document.

    python -m gcl.data.importers.marqtune settings.json conf/data/mine.yaml

writes the catalog of a JSON file of these settings: {"name", "training", "evaluation", "schema", "leftKeys",
"leftWeights", "rightKeys", "rightWeights", "weightKey", "imageHeaders"}; paths are relative to that file.

An evaluation is a table of the training table's columns, or a tar of `queries.csv` and `documents.jsonl`. Only these
two names are published; their content is assumed, and a file of another form is refused: queries.csv has one row per
judgment with the left keys, the doc_id and, if there is one, the weight key; documents.jsonl has one object per
document with the doc_id and the right keys, and is the corpus; image pointers that are not URLs are relative to the
tar.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gcl.data.catalog import Catalog, Download, Split, Task
from gcl.data.tables.table import open_table
from gcl.errors import nearest, sentence_of
from gcl.files.atomic import write_text
from gcl.schema import Field, Modality

_KINDS = {"text": Modality.text, "image_pointer": Modality.image}
_OTHERS = ("score", "doc_id")
_EVALUATION = ("queries.csv", "documents.jsonl")


@dataclass(frozen=True)
class Settings:
    """Marqtune's settings of a data set; the names of columns are the tables'."""

    schema: Mapping[str, str]
    left_keys: Sequence[str]
    left_weights: Sequence[float]
    right_keys: Sequence[str]
    right_weights: Sequence[float]
    weight_key: str | None = None
    image_headers: Mapping[str, str] = field(default_factory=dict)

    def only(self, kind: str) -> str | None:
        """The column of a kind that one column may have."""
        columns = [column for column, named in self.schema.items() if named == kind]
        if len(columns) > 1:
            raise ValueError(f"The schema has several columns of the kind {kind}: {', '.join(columns)}.")
        return columns[0] if columns else None


def catalog_of(
    name: str,
    training: str | Path,
    settings: Settings,
    *,
    evaluation: str | Path | None = None,
    folder: str | Path | None = None,
) -> Catalog:
    """A catalog of one table of (left, right, score) rows, as Marqtune trains on.

    evaluation: a table of the same columns, or a tar as above; it becomes the task "evaluation", whose tables are
    written into `folder`. Without it some queries and documents are held out. Raises ValueError for settings that do
    not fit together.
    """
    schema = settings.schema
    unknown = sorted(set(schema.values()) - {*_KINDS, *_OTHERS})
    if unknown:
        raise ValueError(f"The schema has {', '.join(unknown)}; expected {', '.join([*_KINDS, *_OTHERS])}.")
    query = _side("left", schema, settings.left_keys, settings.left_weights)
    document = _side("right", schema, settings.right_keys, settings.right_weights)
    identifier, weight_key = settings.only("doc_id"), settings.weight_key
    score = weight_key or settings.only("score")
    if weight_key and schema.get(weight_key) != "score":
        raise ValueError(f"weightKey is {weight_key!r}, which the schema calls {schema.get(weight_key)!r}, not score.")
    table = Path(training).absolute()
    catalog = Catalog(
        name=name,
        pairs=str(table),
        root=str(table.parent),
        document_id=identifier or Catalog.document_id,
        query=query,
        document=document,
        score=score,
        download=Download(headers=dict(settings.image_headers)),
    )
    if evaluation is not None:
        if folder is None or identifier is None:
            raise ValueError("An evaluation table needs a doc_id column, and a folder for the task's tables.")
        target = Path(folder).absolute()
        target.mkdir(parents=True, exist_ok=True)
        queries, documents = _unpacked(Path(evaluation), target) if _is_tar(evaluation) else (evaluation, evaluation)
        near = Path(evaluation).absolute().parent
        catalog.products = str(_products(catalog, {training: table.parent, documents: near}, target))
        task = _task(catalog, queries, near, target)
        if queries is not documents:
            task.corpus = str(_corpus(catalog, documents, target))
        catalog.tasks = {"evaluation": task}
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
    """A field's name: the column's, without characters that a field's name may not have.

    >>> _field("Product Title"), _field("2nd image")
    ('Product_Title', 'f_2nd_image')
    """
    name = "".join(character if character.isascii() and character.isalnum() else "_" for character in column)
    return name if name[:1].isalpha() else f"f_{name}"


def _rows(catalog: Catalog, path: str | Path, columns: list[str]) -> Iterator[tuple]:
    table = open_table(str(path), root=Path(catalog.root or "."), setting="evaluation")
    table.check_columns([(column, "schema") for column in columns])
    for block in table.blocks(columns):
        yield from zip(*(block.columns[column] for column in columns), strict=True)


def _is_tar(path: str | Path) -> bool:
    return Path(path).name.lower().endswith((".tar", ".tar.gz", ".tgz"))


def _unpacked(archive: Path, folder: Path) -> tuple[Path, Path]:
    """Copies of an evaluation's two files. Nothing else of the archive is read, whatever its members are called."""
    files: dict[str, Path] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = Path(member.name).name
                source = tar.extractfile(member) if name in _EVALUATION and member.isfile() else None
                if source is None:
                    continue
                if name in files:
                    raise ValueError(f"{archive} has more than one {name}.")
                files[name] = folder / f"evaluation.{name}"
                with files[name].open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{archive} cannot be read as a tar: {error}.") from error
    if missing := [name for name in _EVALUATION if name not in files]:
        raise ValueError(f"{archive} has no {' and no '.join(missing)}: an evaluation is {' and '.join(_EVALUATION)}.")
    return files[_EVALUATION[0]], files[_EVALUATION[1]]


def _products(catalog: Catalog, tables: Mapping[str | Path, Path], folder: Path) -> Path:
    """One row per document of any table; the values of `tables` say what relative image pointers start from."""
    columns = [catalog.document_id, *_columns(catalog.document)]
    specs = [None, *catalog.document.values()]
    seen: set[str] = set()
    with open(folder / "products.csv", "w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(columns)
        for path, near in tables.items():
            for row in _rows(catalog, path, columns):
                if row[0] is not None and row[0] not in seen:
                    seen.add(row[0])
                    writer.writerow([_absolute(cell, near, spec) for cell, spec in zip(row, specs, strict=True)])
    return folder / "products.csv"


def _corpus(catalog: Catalog, documents: str | Path, folder: Path) -> Path:
    with open(folder / "corpus.csv", "w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow([catalog.document_id])
        writer.writerows([row[0]] for row in _rows(catalog, documents, [catalog.document_id]) if row[0] is not None)
    return folder / "corpus.csv"


def _columns(side: Mapping[str, Field]) -> list[str]:
    return [spec.column or name for name, spec in side.items()]


def _absolute(cell: str | None, near: Path, spec: Field | None) -> str:
    """A cell as it is; an image's path made absolute."""
    if cell is None or spec is None or spec.modality is not Modality.image or "://" in cell:
        return cell or ""
    return str(near / cell.strip())


def _task(catalog: Catalog, evaluation: str | Path, near: Path, folder: Path) -> Task:
    columns = _columns(catalog.query)
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
                row = [_absolute(cell, near, spec) for cell, spec in zip(key, specs, strict=True)]
                queries.writerow([ids[key], *row])
            qrels.writerow([ids[key], document, cells[-1] if catalog.score else 1])
    return Task(str(folder / "queries.csv"), str(folder / "qrels.csv"), corpus="all", document_id=catalog.document_id)


_NAMES = {"leftKeys": "left_keys", "leftWeights": "left_weights", "rightKeys": "right_keys",
          "rightWeights": "right_weights", "weightKey": "weight_key", "imageHeaders": "image_headers"}  # fmt: skip


def write_catalog(settings: Path, target: Path, name: str | None = None) -> Catalog:
    """The catalog of a JSON file of Marqtune's settings, written as a YAML for conf/data (JSON is YAML). name: in place
    of the settings' own. Raises FileNotFoundError or ValueError, in sentences."""
    given = _read(settings)
    training, evaluation = (
        settings.absolute().parent / given[key] if key in given else None for key in ("training", "evaluation")
    )
    for key, path in (("training", training), ("evaluation", evaluation)):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{settings}: {key} is {given[key]!r}, but there is no {path}.")
    assert training is not None  # needed
    own = Settings(given["schema"], **{ours: given[theirs] for theirs, ours in _NAMES.items() if theirs in given})
    folder = target.absolute().with_suffix("") if evaluation else None
    catalog = catalog_of(name or given["name"], training, own, evaluation=evaluation, folder=folder)
    text = json.dumps(asdict(catalog), indent=2, ensure_ascii=False, default=lambda value: value.value)
    write_text(target, f"# Marqtune's settings of {settings.name}, translated.\n{text}\n")
    return catalog


_FORMS = {
    "name": "a text", "training": "a path", "evaluation": "a path", "weightKey": "the name of a column",
    "schema": 'an object, {"column": "text"}', "imageHeaders": 'an object, {"header": "value"}',
    "leftKeys": "a list of columns", "rightKeys": "a list of columns",
    "leftWeights": "a list of numbers", "rightWeights": "a list of numbers",
}  # fmt: skip
_NEEDED = ("name", "training", "schema", "leftKeys", "leftWeights", "rightKeys", "rightWeights")


def _read(settings: Path) -> dict[str, Any]:
    """The settings, each of the form that it must have."""
    try:
        given = json.loads(settings.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {settings}.") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{settings} cannot be read as JSON: {error}.") from error
    if not isinstance(given, dict):
        raise ValueError(f"{settings} is not one JSON object: its settings are {', '.join(_FORMS)}.")
    if unknown := [key for key in given if key not in _FORMS]:
        raise ValueError(
            f"{settings} has {unknown[0]!r}.{nearest(unknown[0], _FORMS)} Its settings are {', '.join(_FORMS)}."
        )
    if missing := [key for key in _NEEDED if key not in given]:
        raise ValueError(f"{settings} lacks {', '.join(f'{key} ({_FORMS[key]})' for key in missing)}.")
    for key, value in given.items():
        if not _has_form(value, _FORMS[key]):
            raise ValueError(f"{settings}: {key} is {json.dumps(value)[:60]}; expected {_FORMS[key]}.")
    return given


def _has_form(value: object, form: str) -> bool:
    if form.startswith("a list"):
        kind = (int, float) if "numbers" in form else str
        return isinstance(value, list) and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)
    if form.startswith("an object"):
        return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    return isinstance(value, str)


def main(arguments: Sequence[str]) -> None:
    """`python -m gcl.data.importers.marqtune`."""
    parser = argparse.ArgumentParser(
        prog="python -m gcl.data.importers.marqtune",
        description="Writes the catalog of a JSON file of Marqtune's settings.",
        epilog="The settings: " + "; ".join(f"{key}: {form}" for key, form in _FORMS.items()) + f". Needed are "
        f"{', '.join(_NEEDED)}. Paths are relative to the file; the kinds of a schema are "
        f"{', '.join([*_KINDS, *_OTHERS])}.",
    )
    parser.add_argument("settings", type=Path, help="words.json, say")
    parser.add_argument("yaml", type=Path, help="the YAML to write, my_conf/data/mine.yaml")
    given = parser.parse_args(arguments)
    try:
        write_catalog(given.settings, given.yaml)
    except (ValueError, KeyError, OSError) as error:
        parser.exit(2, f"{sentence_of(error)}\n")
    where = given.yaml.parent.parent if given.yaml.parent.name == "data" else given.yaml.parent
    print(f"Written: {given.yaml}. Next: gcl doctor --config-dir {where} data={given.yaml.stem}")


if __name__ == "__main__":
    main(sys.argv[1:])
