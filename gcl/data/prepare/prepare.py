"""Tables in, a prepared folder out: once for the same inputs, all of it or nothing.

1. the catalog's tables are opened, and a fingerprint made of them: equal inputs, equal name, nothing to do
2. under a lock, the folder is written under a temporary name (from_tables.py or from_shards.py), index.json last
3. it is renamed: whatever interrupts this, nothing that looks finished is left behind

The fingerprint is one SHA-256 of the content of every table; of image files the path as written, size and time of last
change (reading millions of images to learn that none changed would cost as much as preparing them); and everything of
the catalog that decides what is written. Not where the tables lie, what URLs in them hold, how many threads there are,
or the weights and prompts of the fields.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from gcl.data.catalog import Catalog, is_corpus
from gcl.data.prepare.bad_images import BAD_IMAGES
from gcl.data.prepare.bad_images import summary as images_in_words
from gcl.data.prepare.from_shards import build_shards
from gcl.data.prepare.from_tables import TableBuild
from gcl.data.prepare.parts import Part, write_part
from gcl.data.prepare.rows import column, image_columns, taken_images
from gcl.data.prepare.sources import Sources, open_sources, opened_catalog
from gcl.data.prepare.split import Built
from gcl.data.store.prepared import DEV_AND_TEST, FORMAT, INDEX, PARTS, digest_of, read_index, schema_to_dict
from gcl.data.store.verify import mark_verified
from gcl.data.tables.block import listed
from gcl.data.tables.image_paths import spellings
from gcl.data.tables.images import is_url
from gcl.data.tables.remote import locate_shards
from gcl.data.tables.table import Table
from gcl.data.titles import task_titles, title_of
from gcl.files.atomic import names_full_disk, synchronize, write_text
from gcl.files.digest import Digest, file_sha256
from gcl.files.lock import locked
from gcl.files.progress import doing
from gcl.schema import SIDES, Field
from gcl.table import Table as Shown

logger = logging.getLogger(__name__)
_RULES = 3  # raised when the same inputs would be prepared into something else
_LISTS = ("quarantine.csv", BAD_IMAGES)  # beside the folder where preparing fails
_MISSING = "missing"
_LEFT_OUT = {
    "queries_without_relevant": "queries without a relevant product",
    "judgments_outside_corpus": "judgments outside the corpus",
    "dangling_judgments": "judgments of products the catalog lacks",
}


def prepare(
    catalog: Catalog,
    folder: str | Path,
    *,
    progress: bool = True,
    report: Callable[[str], None] | None = None,
    most_shards: int | None = None,
) -> Path:
    """Prepares `catalog` into `<folder>/<name>-<first 12 digits of its fingerprint>` and returns that path; does
    nothing when it is there already. `report` receives a summary, line by line (None: the log does). `most_shards`:
    take at most this many of the ready shards, evenly spread.

    Several processes may call it at once: one works, the others wait for it. Raises FileNotFoundError, KeyError or
    ValueError, in sentences, for whatever is wrong with the catalog, before or while it is read.
    """
    catalog, root, folder = opened_catalog(catalog, folder)
    with doing(f"{catalog.name}: looking for changes of its tables and images", shown=progress):
        digest, build = _plan(catalog, root, folder, most_shards)
    target = folder / f"{catalog.name}-{digest[:12]}"
    if is_prepared(target, digest):
        return target
    with locked(folder / f".{target.name}.lock", waiting_for=f"{target} to be prepared"):
        if not is_prepared(target, digest):
            counts = _write(catalog, build, digest, target, progress=progress)
            shutil.rmtree(_parts(folder, catalog, digest), ignore_errors=True)
            for line in summary(counts, target, catalog):
                (report or logger.info)(line)
    return target


def prepare_part(catalog: Catalog, folder: str | Path, part: Part, *, progress: bool = True) -> Path:
    """Does one piece of the heavy work of `prepare`, which afterwards finds it done (see parts.py). Returns the
    piece's folder."""
    catalog, root, folder = opened_catalog(catalog, folder)
    if catalog.shards:
        raise ValueError("part= divides the checking of tables; ready shards are read where they are.")
    sources = open_sources(catalog, root, copies=folder / "tables")
    place = _parts(folder, catalog, fingerprint(catalog, sources))
    return write_part(catalog, sources, place, part, downloads=folder / "downloads", progress=progress)


def _parts(folder: Path, catalog: Catalog, digest: str) -> Path:
    return folder / f"{catalog.name}-parts-{digest[:12]}"


def _plan(catalog: Catalog, root: Path, folder: Path, most_shards: int | None) -> tuple[str, Callable[..., Built]]:
    """The fingerprint of what the catalog names, and the function that prepares it."""
    if catalog.shards:
        shards = locate_shards(catalog.shards, root=root, copies=folder / "shards", most=most_shards)
        return fingerprint_shards(catalog, shards), partial(build_shards, catalog, shards)
    sources = open_sources(catalog, root, copies=folder / "tables")
    digest = fingerprint(catalog, sources)
    parts = _parts(folder, catalog, digest)
    return digest, lambda target, **options: TableBuild(catalog, sources, target, parts=parts, **options).run()


def fingerprint(catalog: Catalog, sources: Sources) -> str:
    """Of a catalog of tables: 64 hexadecimal digits."""
    whole = hashlib.sha256(_decisive(catalog))
    for table in sources.tables:
        for file in table.files:
            whole.update(f"{file.suffixes} {file_sha256(file)}\n".encode())
    for table, side in sources.sides(catalog):
        _add_images(whole, table, side, sources.image_root)
    return whole.hexdigest()


def fingerprint_shards(catalog: Catalog, shards: Iterable[Path]) -> str:
    """Of ready shards: their paths (they stay where they are), sizes and times of last change."""
    whole = hashlib.sha256(_decisive(catalog))
    for path in shards:
        whole.update(f"{path}\0{_state(path)}\n".encode())
    return whole.hexdigest()


def _decisive(catalog: Catalog) -> bytes:
    """Everything of the catalog that decides what is written."""
    return json.dumps([FORMAT, _RULES, _settings(catalog)], sort_keys=True).encode()


def _settings(catalog: Catalog) -> dict[str, Any]:
    values = asdict(catalog)
    for name in ("name", "generator", "products", "pairs", "shards", "image_root"):
        values[name] = values[name] is not None
    for side in ("query", "document"):
        fields = catalog.schema.side(side)
        values[side] = [
            [name, spec.modality.value, column(name, spec), spec.columns, spec.separator, spec.images, spec.text]
            for name, spec in fields.items()
        ]
    for name in ("judgments", "complete"):  # without them a folder is what it was before they could be set
        if values.pop(name):
            values[name] = True  # the table's content is hashed
    values["tasks"] = [[name, _task(task)] for name, task in values["tasks"].items()]
    del (
        values["root"],
        values["store"]["workers"],
        values["download"],
        values["verify"],
        values["mix"],
        values["batches"],
        values["catalogs"],
    )
    return values


def _task(task: dict[str, Any]) -> dict[str, Any]:
    """Without the paths of tables, whose content is hashed, the weights of fields, and what people read."""
    corpus = {} if is_corpus(task["corpus"]) else {"corpus": "table"}
    rest = {key: value for key, value in task.items() if key not in ("document", "title")}
    return rest | {"queries": "", "qrels": ""} | corpus


def _add_images(whole: Digest, table: Table, side: Mapping[str, Field], image_root: Path | None) -> None:
    columns = image_columns(side)
    if not columns:
        return
    state = lru_cache(maxsize=1 << 17)(_image_state)  # a table of pairs names the same product's image again and again
    for block in table.blocks((), columns):
        folder = image_root or block.file.parent
        cells = [cell for cell in taken_images(block, side) if isinstance(cell, str) and not is_url(cell)]
        whole.update("\n".join([f"{cell}\0{state(cell, folder)}" for cell in cells]).encode())


def _image_state(cell: str, folder: Path) -> str:
    return next((state for path in spellings(cell, folder) if (state := _state(path)) != _MISSING), _MISSING)


def _state(path: Path) -> str:
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return _MISSING
    return f"{about.st_size} {about.st_mtime_ns}"


def is_prepared(folder: Path, digest: str) -> bool:
    """Whether a folder is complete and has this fingerprint."""
    try:
        return read_index(folder)["fingerprint"] == digest
    except (FileNotFoundError, ValueError):
        return False


def _write(
    catalog: Catalog, build: Callable[..., Built], digest: str, target: Path, *, progress: bool
) -> dict[str, Any]:
    host = socket.gethostname()
    for left in target.parent.glob(f".{target.name}.{host}.*.partial"):  # of a run that was killed: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    unfinished = target.parent / f".{target.name}.{host}.{os.getpid()}.partial"
    report_at = target.parent / f"{target.name}.quarantine.csv"
    unfinished.mkdir()
    try:
        with names_full_disk(target):
            built = build(unfinished, report_at=report_at, progress=progress)
            with doing(f"{catalog.name}: finishing", shown=progress):
                _commit(catalog, built, digest, unfinished)
    except BaseException:
        for name in _LISTS:
            if (unfinished / name).exists():
                os.replace(unfinished / name, target.parent / f"{target.name}.{name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    for name in _LISTS:
        (target.parent / f"{target.name}.{name}").unlink(missing_ok=True)
    if not is_prepared(target, digest):
        _replace(unfinished, target)
    else:  # a machine that does not see our lock was faster; it wrote the same
        shutil.rmtree(unfinished)
    mark_verified(target, [shard["name"] for shard in built.shards])
    return built.counts


def _commit(catalog: Catalog, built: Built, digest: str, folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".parquet", ".npy"))
    index = {
        "format": FORMAT,
        "name": catalog.name,
        "fingerprint": digest,
        "schema": schema_to_dict(catalog.schema),
        "counts": built.counts,
        "shards": built.shards,
        "tables": {
            path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": file_sha256(path)}
            for path in files
        },
    }
    write_text(folder / INDEX, json.dumps(index | {"sha256": digest_of(index)}, indent=1, ensure_ascii=False))


def _replace(unfinished: Path, target: Path) -> None:
    if target.exists():  # half of a copy, damaged, or of another format: nothing that can be used
        try:
            read_index(target)
        except (FileNotFoundError, ValueError) as error:
            logger.warning(f"Prepared again, since what was there could not be used: {error}")
        shutil.rmtree(target)
    try:
        os.rename(unfinished, target)
    except OSError:  # another machine put its own there meanwhile
        read_index(target)
        shutil.rmtree(unfinished)
    synchronize(target.parent)


WHY_NOT_TRAINED = {
    "held_by_tasks": "with a query of a task",
    "queries_held_out": "with a held-out query",
    "products_held_out": "with a held-out product",
    "score_0": "with the score 0, which training takes as negatives",
}


def _why_so_few(counts: dict[str, Any]) -> str:
    why = [f"{count:,} {WHY_NOT_TRAINED[name]}" for name, count in counts["left"].items() if count]
    return f" (the others: {', '.join(why)})" if why else ""


def decisions(counts: dict[str, Any]) -> list[str]:
    """What was decided on the way, and what it means."""
    lines = list(counts.get("notes", ()))
    if hidden := sorted({name for task in counts["tasks"].values() for name in task.get("hidden", ())}):
        lines.append(f"documents are shown without {' and '.join(hidden)} to queries that were made of it")
    if missing := counts.get("own_pairs_without_field"):
        lines.append(f"{missing:,} products show nothing else and make no such pair")
    together = counts.get("together", {})
    if together.get("groups"):
        lines.append(
            f"products that fall into the same half as others, as variants of each other: {together['records']:,} in "
            f"{together['groups']:,} groups, the largest of {together['largest']:,} (data.split.group, copies)"
        )
    if common := together.get("too_common"):
        lines.append(
            f"{common:,} images or texts are those of so many products that they hold none together: placeholders?"
        )
    if dissolved := together.get("dissolved"):
        lines.append(f"{dissolved:,} products would have been one group by images and texts; they fall each by itself")
    return lines


def summary(counts: dict[str, Any], folder: Path, catalog: Catalog) -> list[str]:
    """What was prepared, in lines for people."""
    lines = [
        f"Prepared in {folder}",
        f"products {counts['products']:,} ({counts['products_of_training']:,} in the training half), "
        f"queries {counts['queries']:,} ({counts['queries_of_training']:,} in the training half)",
        f"pairs {counts['pairs']:,}, of them for training {counts['training_pairs']:,}{_why_so_few(counts)}",
        *decisions(counts),
    ]
    left_out = [
        f"{bad:,} of {counts['rows'][table]:,} rows of {table}" for table, bad in counts["bad_rows"].items() if bad
    ]
    if left_out:
        lines.append(f"bad rows: {', '.join(left_out)}; see {folder / 'quarantine.csv'}")
        for table, reasons in counts.get("bad_reasons", {}).items():
            lines.append(f"  {table}: {', '.join(f'{reason} {count:,}' for reason, count in reasons.items())}")
    for table, columns in counts.get("missing_words", {}).items():
        words = [
            f"{word!r} {count:,} times in {name}" for name, each in columns.items() for word, count in each.items()
        ]
        lines.append(f"words for a missing value (data.missing) in {table}: {listed(words)}")
    for table, columns in counts.get("html", {}).items():
        cells = [f"{count:,} in {name}" for name, count in columns.items()]
        lines.append(f"cells that look like HTML in {table}: {listed(cells)} (text: html in the field strips it)")
    fields = {f"{side}.{name}": spec for side in SIDES for name, spec in catalog.schema.side(side).items()}
    lines += images_in_words(counts, fields, folder)
    if counts.get("pairs_of_quarantined_products"):
        lines.append(f"pairs left out with a quarantined product: {counts['pairs_of_quarantined_products']:,}")
    if counts.get("merged_product_rows"):
        lines.append(f"product rows that repeat an earlier one: {counts['merged_product_rows']:,}")
    if not counts["tasks"]:
        return lines
    header = ["task", "dev queries", "test queries", "judgments", "products searched"]
    rows, notes, titles = [], [], task_titles(catalog)
    for name, task in counts["tasks"].items():
        queries = [task[part]["queries"] for part in PARTS]
        title = title_of(name, titles)
        rows.append([title, *queries, sum(task[part]["judgments"] for part in PARTS), task["corpus"]])
        if left_out := [f"{task[key]:,} {what}" for key, what in _LEFT_OUT.items() if task.get(key)]:
            notes.append(f"{title}: left out: {', '.join(left_out)}")
    tasks = Shown(header, rows, formats=dict.fromkeys(header[1:], ","), notes=notes)
    return [*lines, "", *tasks.text().split("\n"), DEV_AND_TEST]
