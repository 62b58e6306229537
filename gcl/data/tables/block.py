"""Some rows of one file of a table, whatever its format, and what the readers of all formats share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as compute

BLOCK_BYTES = 8 << 20  # of a CSV; also the longest row it may have
BLOCK_ROWS = 4096
BLOCK_ROWS_WITH_BYTES = 64  # images in a Parquet column: a block holds that many of them

Cell = str | bytes | None


@dataclass
class Block:
    """Some rows of one file. `number` is the 1-based data row; `bad` holds rows that could not be read at all."""

    file: Path
    number: list[int]
    columns: dict[str, list[Cell]]
    bad: list[tuple[int, str, str]] = field(default_factory=list)  # (row number, reason, detail)


def suffix_of(file: Path) -> str:
    return Path(file.name[:-3] if file.name.lower().endswith(".gz") else file.name).suffix.lower()


def zipped(file: Path) -> bool:
    return file.name.lower().endswith(".gz")


def present(values: pa.Array) -> pa.Array:
    """Strings with what counts as missing made null: nothing, white space only, or a NaN that was written as text."""
    bare = compute.utf8_trim_whitespace(values)
    return compute.if_else(compute.is_in(bare, pa.array(["", "nan", "NaN"])), None, values)


def not_utf8(file: Path, detail: str) -> str:
    return f"{file} is not UTF-8 ({detail}): write it again as UTF-8, for example with iconv -f latin1 -t utf-8."
