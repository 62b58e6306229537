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
import re
import shutil
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from gcl.data.catalog import Catalog, is_corpus
from gcl.data.prepare.bad_images import BAD_IMAGES
from gcl.data.prepare.bad_images import summary as images_in_words
from gcl.data.prepare.earlier import changes, earlier_folder, image_state, state_of
from gcl.data.prepare.from_shards import build_shards
from gcl.data.prepare.from_tables import TableBuild
from gcl.data.prepare.parts import Part, has_pieces, write_part, write_piece
from gcl.data.prepare.rows import column, image_columns, taken_images
from gcl.data.prepare.sources import Sources, open_sources, opened_catalog
from gcl.data.prepare.split import Built
from gcl.data.store.away import copy_here, is_away, put_away
from gcl.data.store.prepared import DEV_AND_TEST, FORMAT, INDEX, PARTS, digest_of, read_index, schema_to_dict
from gcl.data.store.remote_shards import RemoteShard, ShardCache, place_of
from gcl.data.store.verify import mark_verified
from gcl.data.tables.block import listed
from gcl.data.tables.download import summary as downloads_in_words
from gcl.data.tables.folder import partitions_of
from gcl.data.tables.formats import format_of
from gcl.data.tables.images import is_url
from gcl.data.tables.remote import locate_shards
from gcl.data.tables.table import Table
from gcl.data.titles import task_titles, title_of
from gcl.distributed.engines import On
from gcl.files.atomic import names_full_disk, synchronize, write_text
from gcl.files.digest import Digest, file_sha256
from gcl.files.lock import locked
from gcl.files.progress import counted, doing
from gcl.schema import SIDES, Field
from gcl.table import Table as Shown

logger = logging.getLogger(__name__)
_RULES = 3  # raised when the same inputs would be prepared into something else
_LISTS = ("quarantine.csv", BAD_IMAGES)  # beside the folder where preparing fails
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
    pieces: Pieces | None = None,
) -> Path:
    """Prepares `catalog` into `<folder>/<name>-<first 12 digits of its fingerprint>` and returns that path; does
    nothing when it is there already. Of a folder in an object store (a URL) the path is that of its tables here.
    `report` receives a summary, line by line (None: the log does). `most_shards`: take at most this many of the ready
    shards, evenly spread. `pieces`: the engine that does the heavy work, if it is not this process.

    Several processes may call it at once: one works, the others wait for it. Raises FileNotFoundError, KeyError or
    ValueError, in sentences, for whatever is wrong with the catalog, before or while it is read.
    """
    given = folder
    if pieces is not None:
        _check_shared("engine=", folder)
    catalog, root, folder = opened_catalog(catalog, folder)
    with doing(f"{catalog.name}: looking for changes of its tables and images", shown=progress):
        digest, build = _plan(catalog, root, folder, most_shards)
    target = folder / f"{catalog.name}-{digest[:12]}"
    url = f"{str(given).rstrip('/')}/{target.name}" if is_away(given) else None

    def is_done() -> bool:
        return is_prepared(target, digest) and (url is None or place_of(target) == url)

    if is_done():
        return target
    with locked(folder / f".{target.name}.lock", waiting_for=f"{target} to be prepared"):
        if not is_done() and not (url and copy_here(url, target) and is_done()):
            if not is_prepared(target, digest):  # it may have been killed when it was not yet away
                earlier = earlier_folder(folder, catalog)
                _name_other_pieces(folder, catalog, digest)
                if pieces is not None and has_pieces(catalog):
                    pieces.check(catalog, root, folder, _parts(folder, catalog, digest), earlier, progress=progress)
                counts = _write(catalog, build, digest, target, progress=progress)
                shutil.rmtree(_parts(folder, catalog, digest), ignore_errors=True)
                lines = summary(counts, target, catalog)
                if earlier is not None and earlier != target:
                    with doing(f"{catalog.name}: counting what changed", shown=progress), suppress(OSError, ValueError):
                        lines += changes(earlier, target, catalog.schema)
                for line in lines:
                    (report or logger.info)(line)
            if url:
                put_away(target, url, read_index(target)["shards"], ShardCache.below(folder, catalog.cache_gb))
    return target


@dataclass(frozen=True)
class Pieces:
    """The heavy work of `prepare` in `count` pieces, on an engine. Another engine, or another number of workers, takes
    up the pieces that are there."""

    on: On
    count: int

    def check(
        self, catalog: Catalog, root: Path, folder: Path, place: Path, earlier: Path | None, *, progress: bool
    ) -> None:
        """Does the pieces that are not done, of rows that `earlier` (see earlier.py) has not. Raises ProcessLost, in a
        sentence, where one fails, and ValueError where their results do not arrive."""
        parts = [part for number in range(1, self.count + 1) if not (part := Part(number, self.count)).is_done(place)]
        label = f"{catalog.name}: checking images on {self.on.engine.name}"
        work = partial(write_piece, catalog, root, folder, place, earlier)
        for _ in counted(self.on.map(work, parts), label, shown=progress, total=len(parts), unit="piece"):
            pass
        if lost := [part for part in parts if not part.is_done(place)]:
            raise ValueError(
                f"{len(lost)} of {len(parts)} pieces that were done on {self.on.engine.name} are not below {place}: "
                "cache_dir has to be a folder that all of its workers reach under this name."
            )


def _name_other_pieces(folder: Path, catalog: Catalog, digest: str) -> None:
    """Says which pieces of the catalog are not of this state."""
    own, pattern = _parts(folder, catalog, digest), re.compile(rf"{re.escape(catalog.name)}-parts-[0-9a-f]{{12}}")
    others = [path.name for path in sorted(folder.glob("*-parts-*")) if pattern.fullmatch(path.name) and path != own]
    if others:
        logger.info(
            f"{', '.join(others)} in {folder}: pieces (part=) of other settings or of other contents of the tables and "
            "images, which are not used. Give gcl prepare the settings that they were made with, or remove them."
        )


def prepare_part(catalog: Catalog, folder: str | Path, part: Part, *, progress: bool = True) -> Path | None:
    """Does one piece of the heavy work of `prepare`, which afterwards finds it done (see parts.py). Returns the
    piece's folder; None where the catalog is prepared already."""
    _check_shared("part=", folder)
    catalog, root, folder = opened_catalog(catalog, folder)
    if catalog.shards:
        raise ValueError("part= divides the checking of tables; ready shards are read where they are.")
    sources = open_sources(catalog, root, copies=folder / "tables")
    digest = fingerprint(catalog, sources)
    if is_prepared(folder / f"{catalog.name}-{digest[:12]}", digest):
        return None
    place = _parts(folder, catalog, digest)
    _name_other_pieces(folder, catalog, digest)
    if others := [path.name for path in sorted(place.glob("*-of-*/")) if not path.name.endswith(f"-of-{part.count}")]:
        logger.info(f"{place} has pieces of another number, too ({', '.join(others)}): they count as well.")
    earlier = earlier_folder(folder, catalog)
    return write_part(catalog, sources, place, part, downloads=folder / "downloads", progress=progress, earlier=earlier)


def _check_shared(what: str, folder: str | Path) -> None:
    if is_away(folder):
        raise ValueError(f"{what} needs a cache_dir that all machines reach as a folder, and {folder} is a URL.")


def _parts(folder: Path, catalog: Catalog, digest: str) -> Path:
    return folder / f"{catalog.name}-parts-{digest[:12]}"


def _plan(catalog: Catalog, root: Path, folder: Path, most_shards: int | None) -> tuple[str, Callable[..., Built]]:
    """The fingerprint of what the catalog names, and the function that prepares it."""
    if catalog.shards:
        cache = ShardCache.below(folder, catalog.cache_gb)
        shards = locate_shards(catalog.shards, root=root, copies=cache.folder, most=most_shards, cache=cache)
        return fingerprint_shards(catalog, shards), partial(build_shards, catalog, shards)
    sources = open_sources(catalog, root, copies=folder / "tables")
    digest = fingerprint(catalog, sources)
    parts = _parts(folder, catalog, digest)
    return digest, lambda target, **options: TableBuild(
        catalog, sources, target, parts=parts, earlier=earlier_folder(folder, catalog), **options
    ).run()


def fingerprint(catalog: Catalog, sources: Sources) -> str:
    """Of a catalog of tables: 64 hexadecimal digits."""
    whole = hashlib.sha256(_decisive(catalog))
    for table in sources.tables:
        if table.feed_files:
            whole.update(f"{len(table.feed_files)} of a feed\n".encode())
        for file in table.files:
            said = partitions_of(file)
            whole.update(f"{file.suffixes} {format_of(file).digest(file)}{said or ''}\n".encode())
    for table, side in sources.sides(catalog):
        _add_images(whole, table, side, sources.image_root)
    return whole.hexdigest()


def fingerprint_shards(catalog: Catalog, shards: Iterable[Path | RemoteShard]) -> str:
    """Of ready shards: their paths (they stay where they are), sizes and times of last change."""
    whole = hashlib.sha256(_decisive(catalog))
    for shard in shards:
        state = (shard.url, shard.digest) if isinstance(shard, RemoteShard) else (shard, state_of(shard))
        whole.update("{}\0{}\n".format(*state).encode())
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
    for name in ("changes_op", "changes_order"):
        if values[name] is None:
            del values[name]
    for name in ("judgments", "complete", "changes"):  # without them a folder is what it was before they could be set
        if values.pop(name):
            values[name] = True  # the table's content is hashed
    values["tasks"] = [[name, _task(task)] for name, task in values["tasks"].items()]
    del (
        values["root"],
        values["store"]["workers"],
        values["download"],
        values["verify"],
        values["cache_gb"],
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
    if not columns or not table.has_paths(columns):
        return
    state = lru_cache(maxsize=1 << 17)(image_state)  # a table of pairs names the same product's image again and again
    for block in table.blocks((), columns):
        folder = image_root or block.file.parent
        cells = [cell for cell in taken_images(block, side) if isinstance(cell, str) and not is_url(cell)]
        whole.update("\n".join([f"{cell}\0{state(cell, folder)}" for cell in cells]).encode())


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
    mark_verified(target, [shard["name"] for shard in built.shards if "://" not in shard["name"]])
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
    lines += downloads_in_words(counts.get("downloads", {}))
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
