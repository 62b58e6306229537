"""`gcl index shards=… out=…`: an index over shards that came from elsewhere, and a list of what is wrong with them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from gcl.config.compose import options_from
from gcl.errors import ConfigError
from gcl.run.console import say, speak_plainly
from gcl.schema import Field, Modality, Schema

EXAMPLE = "gcl index shards='laion/{00000..00127}.tar' out=laion-index"


def _caption() -> dict[str, Field]:
    return {"text": Field(Modality.text, column="txt")}


def _picture() -> dict[str, Field]:
    return {"image": Field(Modality.image, column="jpg")}


@dataclass
class IndexOptions:
    """shards: tars, with {000..127} or wildcards, here or in an object store. out: the folder to write.
    query, document: fields as in a catalog's YAML; by default img2dataset's, a text `txt` and a picture `jpg`.
    score, document_id: keys of a sample's JSON. strict=false: status 0 although samples were refused."""

    shards: str = "???"
    out: str = "???"
    query: dict[str, Field] = field(default_factory=_caption)
    document: dict[str, Field] = field(default_factory=_picture)
    score: str | None = None
    document_id: str | None = None
    max_image_pixels: int = 100_000_000
    workers: int = 2
    strict: bool = True


def index_words(words: Sequence[str]) -> Path:
    """Writes documents.parquet, queries.parquet and pairs.parquet (row numbers and scores), as `prepare` does, and
    refused.csv; the shards stay as they are. Ends with status 1 where a sample was refused."""
    speak_plainly()
    options = options_from(IndexOptions, words, command=EXAMPLE)
    out = Path(options.out).absolute()
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"out={out} is not empty: name a new folder, or empty this one.")

    from gcl.data.importers.webdataset import index_shards
    from gcl.data.prepare.write_pairs import write_pairs
    from gcl.data.tables.images import own_pixel_limit
    from gcl.data.tables.remote import locate_shards
    from gcl.files.progress import counted

    paths = locate_shards(options.shards, root=Path.cwd(), copies=out.parent / "shards")
    with own_pixel_limit(), ThreadPoolExecutor(options.workers) as pool:
        found = index_shards(
            paths,
            out,
            Schema(options.query, options.document).check(),
            score=options.score,
            document_id=options.document_id,
            max_pixels=options.max_image_pixels,
            map_shards=lambda read, shards: counted(pool.map(read, shards), "shards", shown=True),
        )
    write_pairs(found.pairs, out / "pairs.parquet")
    with open(out / "refused.csv", "w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(["shard", "sample", "key", "reason", "detail"])
        writer.writerows([bad.shard, bad.number, bad.key or "", *bad.bad] for bad in found.refused)
    say(f"{len(paths):,} shards, {found.samples:,} samples: {len(found.pairs):,} pairs indexed in {out}.")
    for reason, count in found.reasons.most_common():
        say(f"  refused: {count:,}, {reason}")
    for extension, count in found.others.most_common(8):
        say(f"  not used: {count:,} members .{extension}")
    if found.refused:
        say(f"Every refused sample is listed in {out / 'refused.csv'}.")
        if options.strict:
            raise SystemExit(1)
    return out
