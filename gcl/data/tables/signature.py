"""What a file is by its first bytes, whatever its name says: a page, a Git LFS pointer, an archive, a workbook."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

from gcl.data.images import GIT_LFS
from gcl.data.tables.source import is_zipped, suffix_of, unmarked_utf16

_START = 4096
_EXCEL = "an Excel file: name it .xlsx (pip install 'gcl-trainer[excel]') or save it as CSV (UTF-8)"
_KNOWN = (
    (GIT_LFS, "a Git LFS pointer, not the table itself: run git lfs pull"),
    (b"PAR1", "a Parquet file: name it .parquet"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file (.xls), or one with a password: save it as .xlsx without, or CSV (UTF-8)"),
    (b"%PDF-", "a PDF: export the table as CSV"),
    (b"SQLite format 3\0", "an SQLite database: export the table as CSV"),
    (b"ARROW1", "an Arrow (Feather) file: name it .arrow"),
    (b"Obj\x01", "an Avro file: write it as Parquet"),
    (b"ORC", "an ORC file: write it as Parquet"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it, or compress it with gzip"),
    (b"BZh", "compressed with bzip2: unpack it, or compress it with gzip"),
    (b"\xfd7zXZ\0", "compressed with xz: unpack it, or compress it with gzip"),
    (b"7z\xbc\xaf", "a 7-Zip archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\x89PNG", "a picture"),
    (b"GIF8", "a picture"),
    (b"{\\rtf", "a text document (RTF): save it as CSV (UTF-8)"),
)
_ARROW = (b"ARROW1", b"\xff\xff\xff\xff")  # a file, a stream
_CALLED = {".parquet": "Parquet", ".xlsx": "an Excel file", ".arrow": "an Arrow file", ".feather": "an Arrow file"}
_PAGE = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\0\0\xfe\xff")


def check_signature(file: Path, encoding: str | None) -> None:
    """Raises ValueError, saying what the file is, for one that is not what its name says. encoding: data.encoding."""
    if file.is_dir():
        return
    with open(file, "rb") as source:
        start = source.read(_START)
    suffix = suffix_of(file)
    if start.startswith(b"\x1f\x8b") != is_zipped(file) and start:
        zipped = "gzip: name it" if not is_zipped(file) else "not compressed with gzip: name it"
        name = f"{file.name}.gz" if not is_zipped(file) else file.name[:-3]
        what = _what_it_is(start, suffix, encoding) if is_zipped(file) else None
        raise ValueError(f"{file} is {what or f'{zipped} {name}'}.")
    if is_zipped(file):
        try:
            with gzip.open(file) as source:
                start = source.read(_START)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{file} cannot be unpacked, it is cut off or damaged ({error}).") from error
    if what := _what_it_is(start, suffix, encoding):
        raise ValueError(f"{file} is {what}.")


def _what_it_is(start: bytes, suffix: str, encoding: str | None) -> str | None:
    """None: it may be what its suffix says."""
    expected = {".parquet": (b"PAR1",), ".xlsx": (b"PK\x03\x04",), **dict.fromkeys((".arrow", ".feather"), _ARROW)}.get(
        suffix
    )
    if expected and start.startswith(expected):
        return None
    text = start.removeprefix(b"\xef\xbb\xbf")
    for magic, what in _KNOWN:
        if text.startswith(magic):
            return what
    if _PAGE.match(text):
        return "an HTML page, most likely one to sign in or an error: download the table itself"
    if text.lstrip().startswith((b"<?xml", b"<rss", b"<feed")):
        return "an XML file: gcl init reads product feeds; other XML has to be exported as CSV"
    if text.startswith(b"PK\x03\x04"):
        return _EXCEL if b"xl/" in start or b"[Content_Types].xml" in start else "a ZIP archive: unpack it"
    if expected and start.isascii() and b"\0" not in start:
        return f"text, not {_CALLED[suffix]}: name it .csv (or .json)"
    if expected:
        return f"not {_CALLED[suffix]}, or damaged: it begins with {start[:12]!r}"
    if (
        b"\0" in start
        and not start.startswith(_MARKS)
        and not (encoding or "").lower().startswith(("utf-16", "utf_16", "utf16", "utf-32"))
    ):
        if name := unmarked_utf16(start):
            return f"UTF-16 without a mark: set data.encoding={name}"
        line = start[: start.index(b"\0")].count(b"\n") + 1
        return (
            f"not a text, it has zero bytes (the first in line {line}): export it again, or delete them (tr -d '\\000')"
        )
    if suffix in (".csv", ".tsv") and re.match(rb'\s*(?:\[\s*)?\{\s*"', text):
        return "JSON: name it .json"
    return None
