"""A strict walk over a tar's headers: which members lie where, and exactly where an archive stops being one.

Header by header over a memory map, nothing is unpacked. Archives that two readers could understand differently are
refused at that point instead of being guessed at. Format: POSIX.1-2017, pax, "ustar Interchange Format", and GNU's
long names (https://www.gnu.org/software/tar/manual/html_node/Standard.html).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

Data = bytes | mmap.mmap
BLOCK = 512
# Of a header of ours all but name, size and checksum: tarfile's defaults (no owner, no time) and the mode 0644.
_AFTER_NAME = b"0000644\0" + 2 * b"0000000\0"
_AFTER_SIZE = b"00000000000\0"
_AFTER_CHECKSUM = b"0" + bytes(100) + b"ustar\x0000" + bytes(247)
_CONSTANT_SUM = sum(_AFTER_NAME + _AFTER_SIZE + _AFTER_CHECKSUM) + 8 * ord(" ")
_ZEROS = bytes(BLOCK)
_LONGEST_HEADER = 1 << 20  # bytes of a long name or a pax header; real ones have a few hundred
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_ABOUT_OTHERS = (b"x", b"g", b"L", b"K")  # kinds whose data is about the members after them
_EMPTY_KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"5": None, b"6": "a pipe"}


class Member(NamedTuple):
    """A member's name and the place of its data. refused: why it must not be used ("member is a link"), or None."""

    name: str
    start: int
    size: int
    refused: str | None = None


class TarDamage(ValueError):
    """From some byte on an archive is not a tar. `reason` is one of few; the message says where and why."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def members(data: Data) -> Iterator[Member]:
    """The file members of an archive (`data`: bytes or a memory map), in order; folders are passed over.

    Raises TarDamage where a header is wrong, data is cut, or the end-of-archive mark is missing or not the end:
    members yielded before are whole (or refused), but a sample's further members may be lost.
    """
    _check_start(data)
    headers = _Headers(data)
    long_name: bytes | None = None  # of the next member: GNU's, longer than a header's field
    extended: dict[str, str] = {}  # what a pax header says of the next member
    for offset, kind, size, start, own_name in headers:
        cut = start + size > len(data)
        content = data[start : start + size] if kind in _ABOUT_OTHERS and not cut else b""
        label = extended["path"].encode("utf-8", "surrogateescape") if "path" in extended else long_name or own_name
        if cut and kind not in _ABOUT_OTHERS:
            yield _member(label, start, size, "member is cut")
        if cut:
            raise TarDamage("shard is cut", f"the member at byte {offset:,} has {size:,} bytes, the file ends before")
        match kind:
            case b"x":
                extended = _pax(content, offset)
                headers.next_size = extended.get("size")
            case b"g":
                if _pax(content, offset).keys() & {"path", "size", "linkpath"}:
                    raise TarDamage("tar header is damaged", f"at byte {offset:,} a global header renames all members")
            case b"L":
                long_name = content.rstrip(b"\0")
            case b"K":
                pass  # a link's long target: links are refused
            case _:
                if not (kind == b"5" or (kind == b"\0" and label.endswith(b"/"))):
                    yield _member(label, start, size, _refusal(kind, extended))
                long_name, extended, headers.next_size = None, {}, None


class _Header(NamedTuple):
    """offset: where the header begins. size: bytes of data from `start`. name: as the header's own field says it."""

    offset: int
    kind: bytes
    size: int
    start: int
    name: bytes


class _Headers:
    """The headers of an archive up to its end mark, each checked. `next_size` overrides the size field of the next
    header that is a member's: the data of a large member, or of one in pax format, is longer than its field can say."""

    def __init__(self, data: Data) -> None:
        self.data, self.offset = data, 0
        self.next_size: str | None = None

    def __iter__(self) -> Iterator[_Header]:
        while (block := self._block(self.offset)) != _ZEROS:
            header = self._header(block, self.offset)
            yield header
            self.offset = header.start + -(-header.size // BLOCK) * BLOCK
            if self.offset > len(self.data):
                raise TarDamage("shard is cut", f"it ends at byte {len(self.data):,} inside the padding of a member")
        _check_end(self.data, self.offset)

    def _block(self, offset: int) -> bytes:
        block = self.data[offset : offset + BLOCK]
        if not block and offset == self.offset:
            raise TarDamage("shard is cut", f"it ends at byte {offset:,} without the end-of-archive mark")
        if len(block) < BLOCK:
            raise TarDamage("shard is cut", f"it ends inside a header at byte {len(self.data):,}")
        return block

    def _header(self, block: bytes, offset: int) -> _Header:
        size, kind, start = _check_header(block, offset), block[156:157], offset + BLOCK
        if kind in _EMPTY_KINDS and size:
            raise TarDamage("tar header is damaged", f"at byte {offset:,} a member without data claims {size:,} bytes")
        # A sparse member's map of holes continues in further blocks while a flag says so: at byte 482 of the header,
        # at byte 504 of the others.
        more = kind == b"S" and block[482]
        while more:
            more, start = self._block(start)[504], start + BLOCK
        if kind in _ABOUT_OTHERS:
            if size > _LONGEST_HEADER:
                raise TarDamage(
                    "tar header is damaged", f"at byte {offset:,} a name or pax header claims {size:,} bytes"
                )
        elif self.next_size is not None:
            size = _number(self.next_size, offset)
        return _Header(offset, kind, size, start, _name(block))


def pack_header(name: str, size: int) -> bytes:
    """The ustar header of a file member, 512 bytes: what tarfile writes (today's; older ones filled the device
    fields), in a fraction of its time. Raises ValueError for what such a header cannot hold."""
    label = name.encode()
    if len(label) > 100 or size >= 8**11:
        raise ValueError(f"A tar member of {size:,} bytes named {name!r}: at most 8 GiB and 100 bytes of name.")
    digits = b"%011o\0" % size
    checksum = b"%06o\0 " % (_CONSTANT_SUM + sum(label) + sum(digits))
    return b"".join((label.ljust(100, b"\0"), _AFTER_NAME, digits, _AFTER_SIZE, checksum, _AFTER_CHECKSUM))


def _check_start(data: Data) -> None:
    if not len(data):
        raise TarDamage("shard is empty", "the file has no bytes")
    for magic, name in _COMPRESSED.items():
        if data[: len(magic)] == magic:
            raise TarDamage("shard is compressed", f"it is {name}: decompress it first, rows are read in place")
    first = data[:BLOCK]
    if len(first) < BLOCK or (first != _ZEROS and not _checksum_fits(first)):
        raise TarDamage("shard is not a tar", f"it starts with {bytes(first[:40])!r}")


def _check_end(data: Data, offset: int) -> None:
    for start in range(offset, len(data), 1 << 20):
        if data[start : start + (1 << 20)].strip(b"\0"):
            raise TarDamage("data after the end of the archive", f"the end-of-archive mark is at byte {offset:,}")


def _check_header(header: bytes, offset: int) -> int:
    """The size field of a header whose checksum is right."""
    if not _checksum_fits(header):
        raise TarDamage("tar header is damaged", f"wrong checksum at byte {offset:,}")
    field = header[124:136]
    if field[0] == 0x80:  # base 256, for members of 8 GiB and more
        return int.from_bytes(field[1:], "big")
    return _number(field.rstrip(b"\0 ").lstrip(b" ").decode("latin-1") or "0", offset, base=8)


def _checksum_fits(header: bytes) -> bool:
    digits = header[148:156].strip(b"\0 ")
    if not digits or digits.strip(b"01234567"):
        return False
    rest = header[:148] + header[156:]
    difference = sum(rest) + 8 * ord(" ") - int(digits, 8)
    return difference == 0 or difference == 256 * sum(byte > 127 for byte in rest)  # old writers added signed bytes


def _number(text: str, offset: int, *, base: int = 10) -> int:
    digits = "0123456789"[:base]
    if not text or text.strip(digits):
        raise TarDamage("tar header is damaged", f"at byte {offset:,} the size is {text[:20]!r}")
    return int(text, base)


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pax(content: bytes, offset: int) -> dict[str, str]:
    """Records "length key=value\\n" of a pax header."""
    records: dict[str, str] = {}
    while content:
        digits, _, _ = content.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        record = content[len(digits) + 1 : length]
        key, separator, value = record[:-1].partition(b"=")
        if not separator or record[-1:] != b"\n" or length > len(content):
            raise TarDamage("tar header is damaged", f"the pax header at byte {offset:,} is malformed")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        content = content[length:]
    return records


def _refusal(kind: bytes, extended: dict[str, str]) -> str | None:
    if kind == b"S" or any(key.startswith("GNU.sparse") for key in extended):
        return "member is sparse"
    if kind in (b"0", b"\0", b"7"):
        return None
    return f"member is {_EMPTY_KINDS.get(kind, 'of an unknown kind')}"


def _member(label: bytes, start: int, size: int, refused: str | None) -> Member:
    try:
        name = label.decode()
    except UnicodeDecodeError:
        return Member(label.decode("utf-8", "backslashreplace"), start, size, "member name is not UTF-8")
    if name.startswith("/") or "\0" in name or ".." in name.split("/"):
        return Member(name, start, size, "member name is unsafe")
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return Member(name, start, size, refused)
