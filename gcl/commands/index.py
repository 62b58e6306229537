"""`gcl index shards=… out=…`: an index over shards that came from elsewhere, and a list of what is wrong with them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from gcl.errors import ConfigError
from gcl.files.atomic import replacing
from gcl.options import MISSING, number
from gcl.run.console import say, speak_plainly
from gcl.schema import Field, Modality, Schema
from gcl.table import ListFile


def _caption() -> dict[str, Field]:
    return {"text": Field(Modality.text, column="txt")}


def _image() -> dict[str, Field]:
    return {"image": Field(Modality.image, column="jpg")}


@dataclass
class IndexOptions:
    """Options of `gcl index`."""

    shards: str = MISSING
    """The tar files, as a pattern with {000..127} or wildcards, on disk or in an object store."""
    out: str = MISSING
    """The folder to write."""
    query: dict[str, Field] = field(default_factory=_caption)
    """Fields of the query as in a catalog's YAML; by default img2dataset's text, the member .txt."""
    document: dict[str, Field] = field(default_factory=_image)
    """Fields of the document as in a catalog's YAML; by default img2dataset's image, the member .jpg."""
    score: str | None = None
    """Key of a sample's JSON that holds the pair's score; null: all pairs have the same score."""
    document_id: str | None = None
    """Key of a sample's JSON that holds the document's id; null: the sample's own key."""
    max_image_pixels: int = number(100_000_000, least=1)
    """Images with more pixels are refused."""
    workers: int = number(2, least=1, most=1000)
    """Number of threads that read shards."""
    strict: bool = True
    """Whether the exit status is 1 if samples were refused."""


def run(options: IndexOptions) -> Path:
    """Writes documents.parquet, queries.parquet and pairs.parquet (row numbers and scores), as `prepare` does, and
    refused.csv; the shards stay as they are. Exits with status 1 if a sample was refused, unless strict=false."""
    speak_plainly()
    out = Path(options.out).absolute()
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"out={out} is not empty: give a new folder, or empty this one.")

    from gcl.data.prepare.from_shards import index_shards
    from gcl.data.prepare.split import write_pairs
    from gcl.data.tables.remote import locate_shards
    from gcl.files.progress import counted

    paths = locate_shards(options.shards, root=Path.cwd(), copies=out.parent / "shards")
    with ThreadPoolExecutor(options.workers) as pool:
        index = index_shards(
            paths,
            out,
            Schema(options.query, options.document).check(),
            score=options.score,
            document_id=options.document_id,
            max_pixels=options.max_image_pixels,
            map_shards=lambda read, shards: counted(
                pool.map(read, shards), "Reading shards", total=len(paths), unit="shard"
            ),
        )
    write_pairs(index.pairs, out / "pairs.parquet")
    columns = ("shard", "sample", "key", "reason", "detail")
    with replacing(out / "refused.csv") as partial, ListFile(partial, columns) as target:
        for bad in index.refused:
            target.write(str(bad.shard), bad.number, bad.key or "", *bad.bad)
    say(f"{len(paths):,} shards, {index.samples:,} samples: {len(index.pairs):,} pairs indexed in {out}.")
    for reason, count in index.reasons.most_common():
        say(f"  refused: {count:,}, {reason}")
    for extension, count in index.others.most_common(8):
        say(f"  not used: {count:,} members .{extension}")
    if index.refused:
        say(f"Every refused sample is listed in {out / 'refused.csv'}.")
        if options.strict:
            raise SystemExit(1)
    return out
