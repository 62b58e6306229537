"""The bytes of a table's file as UTF-8, however they were written and compressed."""

from __future__ import annotations

import codecs
import gzip
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from gcl.table import cut

PIECE = 1 << 20  # bytes read at a time
_MOST_GUESSED = 64 << 20  # bytes from which an encoding is guessed
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),  # before that of UTF-16, with which it begins
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def suffix_of(file: Path) -> str:
    """The suffix that says the format: of catalog.csv.gz, ".csv"."""
    return Path(file.name[:-3] if is_zipped(file) else file.name).suffix.lower()


def is_zipped(file: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return file.name.lower().endswith(".gz")


def open_raw(file: Path) -> io.BufferedReader:
    """The bytes, unpacked."""
    return cast(io.BufferedReader, gzip.open(file, "rb")) if is_zipped(file) else open(file, "rb")


@contextmanager
def open_bytes(file: Path, encoding: str | None) -> Iterator[io.BufferedReader]:
    """The file's characters as UTF-8, without a mark. encoding: None: as the mark says, UTF-8 without one."""
    with open_raw(file) as source:
        start = source.read(4)
        mark, marked = next((item for item in _MARKS if start.startswith(item[0])), (b"", None))
        source.seek(len(mark) if marked == "utf-8" else 0)
        encoding = marked or _encoding_of(source, encoding)
        if encoding == "utf-8":
            yield source
        else:
            decode = codecs.getincrementaldecoder(encoding)().decode
            yield _changed(source, lambda data, final: decode(data, final).encode())


def doubled_quotes(source: io.BufferedReader, quote: bytes) -> io.BufferedReader:
    """A text in which backslashes escape quotation marks, themselves and line ends, as one that doubles the marks."""
    escaped, rest = re.compile(rb"\\([\\\r\n" + re.escape(quote) + rb"])"), b""

    def change(data: bytes, final: bool) -> bytes:
        nonlocal rest
        data = rest + data
        odd = (len(data) - len(data.rstrip(b"\\"))) % 2 if not final else 0  # the sign that it escapes is to come
        data, rest = data[: len(data) - odd], data[len(data) - odd :]
        return escaped.sub(lambda match: 2 * quote if match[1] == quote else match[1], data)

    return _changed(source, change)


def _changed(source: io.BufferedReader, change: Callable[[bytes, bool], bytes]) -> io.BufferedReader:
    return io.BufferedReader(_Changed(source, change), PIECE)


def _encoding_of(source: io.BufferedReader, encoding: str | None) -> str:
    """`encoding` is how files that are not UTF-8 are written: tables of one catalog come from several programs."""
    if encoding is None:
        return "utf-8"
    start = source.read(PIECE)
    source.seek(0)
    if not start.isascii() or (b"\0" not in start and codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))):
        with suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder("utf-8")().decode(start)
            return "utf-8"
    return codecs.lookup(encoding).name


def place_in(stream: io.BufferedReader) -> int:
    """How many bytes of its file a stream of `open_bytes` has read so far, packed ones where the file is compressed."""
    source = stream
    while isinstance(raw := getattr(source, "raw", None), _Changed):
        source = raw.source
    return cast(io.BufferedReader, source.fileobj if isinstance(source, gzip.GzipFile) else source).tell()


@contextmanager
def open_text(file: Path, encoding: str | None) -> Iterator[IO[str]]:
    """The file's characters."""
    with open_bytes(file, encoding) as source:
        yield io.TextIOWrapper(source, encoding="utf-8")


class _Changed(io.RawIOBase):
    """A stream of which each piece is changed on the way. change: (piece, whether it is the last one)."""

    def __init__(self, source: io.BufferedReader, change: Callable[[bytes, bool], bytes]) -> None:
        self.source, self._change, self._rest = source, change, b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            data = self.source.read(PIECE)
            self._rest = self._change(data, not data)
            if not data:
                break
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def not_decodable(file: Path, encoding: str | None) -> str:
    """The sentence about a file whose bytes are not of its encoding: the first such line, and which encoding fits."""
    with open_raw(file) as source:
        start = source.read(4)
    if wide := next((name for mark, name in _MARKS if start.startswith(mark) and name != "utf-8"), None):
        return f"{file} begins as {wide.upper()} and is not that to its end: it is cut off or damaged, get it again."
    line, place = _first_bad_line(file, encoding)
    shown = f" (line {place:,}: {cut(repr(line)[1:], 80)})" if line is not None else ""
    if encoding is not None:
        return f"{file} is not {encoding}{shown}, as data.encoding says."
    fitting = _fitting(line or b"")
    reads = cut(repr((line or b"").decode(fitting, "replace")), 80)
    return (
        f"{file} is not UTF-8{shown}: set data.encoding={fitting} if that is {reads}, or write the file again as "
        f"UTF-8, for example with iconv -f {fitting} -t utf-8."
    )


def unmarked_utf16(start: bytes) -> str | None:
    """Which UTF-16 the beginning of a file without a mark is written in, told by its zero bytes; None: neither."""
    even, odd, half = start[0::2].count(0), start[1::2].count(0), len(start) // 2
    for zeros, others, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if zeros > 0.3 * half and others < 0.1 * half:
            return name
    return None


def guess_encoding(file: Path) -> str | None:
    """What data.encoding has to be for the beginning of a text file to be read; None: nothing."""
    decoder, foreign, read = codecs.getincrementaldecoder("utf-8")(), b"", 0
    with open_raw(file) as source:
        start = source.read(4096)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return None
        if name := unmarked_utf16(start):
            return name
        source.seek(0)
        for line in iter(lambda: source.readline(PIECE), b""):
            try:
                decoder.decode(line)
            except UnicodeDecodeError:
                decoder.reset()
                foreign += line
            read += len(line)
            if read > _MOST_GUESSED or len(foreign) > PIECE // 16:
                break
    return _fitting(foreign) if foreign else None


def _first_bad_line(file: Path, encoding: str | None) -> tuple[bytes | None, int]:
    """The piece of the file, from the beginning of a line, in which decoding fails first, and the line's number."""
    with open_raw(file) as source:
        for number, line in enumerate(source, start=1):
            try:
                line.decode(encoding or "utf-8")
            except UnicodeError as error:
                place = error.start if isinstance(error, UnicodeDecodeError) else 0
                return line[max(place - 20, 0) : place + 40].strip(), number
    return None, 0


_SCRIPTS = (  # encoding, letters of its script, their least share among the characters that are not ASCII
    ("cp1251", "[\u0401-\u045f]", 0.95),
    ("cp932", "[\u3041-\u30ff]", 0.2),
    ("cp949", "[\uac00-\ud7a3]", 0.85),
    ("gb18030", "[\u4e00-\u9fff]", 0.8),
)


def _fitting(sample: bytes) -> str:
    """The encoding in which some bytes, which are not UTF-8, are most likely written: Windows's of the script."""
    foreign = sum(byte >= 128 for byte in sample)
    if foreign > 0.4 * len(sample.replace(b" ", b"")) or re.search(rb"[\x80-\xff]{4}", sample):
        for name, letters, share in _SCRIPTS:
            text = [sign for sign in sample.decode(name, "ignore") if not sign.isascii()]
            if len(re.findall(letters, "".join(text))) >= share * max(len(text), 1):
                return name
    try:
        sample.decode("cp1252")
    except UnicodeDecodeError:
        return "cp1250"
    return "cp1252"
