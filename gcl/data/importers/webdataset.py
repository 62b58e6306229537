"""One tar of somebody else (img2dataset, WebDataset) -> its samples: places of values, or why a sample cannot be used.

1. `find_layout`: which members, and which keys of a sample's JSON, hold the fields of the schema
2. `ShardReader`: walks one tar and collects members by key; a sample is the members that share a key, wherever they lie
3. of each sample: its JSON, its fields' members (images decoded, texts as UTF-8), its texts in the JSON, its score, id

Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from gcl.data.catalog import MISSING_WORDS, BadImages, SameProduct
from gcl.data.images import check_image
from gcl.data.store.records import MOST_TEXT, Record
from gcl.data.store.remote_shards import RemoteShard
from gcl.data.store.shard_writer import content_hash
from gcl.data.store.tar import Member, TarDamage, members
from gcl.data.tables.block import listed
from gcl.data.tables.cells import canonical_id
from gcl.data.tables.quarantine import Bad, too_long
from gcl.schema import SIDES, Field, Modality, Schema, SideName

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "bin")
TEXT_EXTENSIONS = ("txt", "text")
_JSON = "json"
_MOST_JSON = 16 << 20
_LOOKED_AT = 20  # samples, to learn which keys their JSON has
_LONGEST_WORD = 100  # characters that a word for a missing value may have

Shard = Path | RemoteShard
Target = tuple[SideName, str]  # side, field
Place = tuple[int, int, bytes]  # offset, length, content hash


class Layout(NamedTuple):
    """Where a sample's values are: the targets of each known suffix, and the JSON keys of texts that have none."""

    suffixes: dict[str, list[Target]]
    json_keys: dict[Target, str]
    score: str | None
    document_id: str | None

    @property
    def reads_json(self) -> bool:
        """Whether a sample's JSON has to be opened."""
        return bool(self.json_keys) or self.score is not None or self.document_id is not None


@dataclass(frozen=True)
class Meaning:
    """How the values of samples are read. score: makes a number of a text, which a person or (decimal ".") a program
    wrote. missing: texts that say that there is no value. bad_images: what becomes of a sample whose image cannot be
    used. same: whether the first sample of a document counts, where another brings other content."""

    score: Callable[[str | None, str], float | Bad]
    decimal: str = "."
    missing: tuple[str, ...] = MISSING_WORDS
    bad_images: BadImages = BadImages.drop
    same: SameProduct = SameProduct.refuse


class Sample(NamedTuple):
    """A sample that can be used, with the place of each of its values in the shard. lost: the image fields that it is
    without, as they cannot be used, and why."""

    number: int  # place in its shard, from 1
    key: str
    places: dict[Target, Place]
    score: float
    document_id: str | None
    lost: tuple[tuple[Target, Bad], ...] = ()


class Refused(NamedTuple):
    """A sample (or, with no key and number 0, a whole shard) that was left out."""

    shard: Shard
    number: int
    key: str | None
    bad: Bad


@dataclass
class ShardContent:
    """What one shard holds. others: members of no field, by extension. queries: of each sample, where they are kept
    here and not in the shard."""

    path: Shard
    size: int = 0
    sha256: str = ""
    samples: list[Sample] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    queries: list[Record] = field(default_factory=list)


def find_layout(shards: Iterable[Shard], schema: Schema, *, score: str | None, document_id: str | None) -> Layout:
    """Where the schema's fields are in these shards. With `<name>` a field's name or its `column`, and the longest
    known suffix first (matched from the end of a member's name, so keys may have dots in them):

        key.<name>.<extension>    of an image extension or a text extension, as the field's modality asks
        key.<extension>           where `column` is such an extension (jpg, txt), or of any image extension where the
                                  schema has one image field alone
        key.json, key <name>      of a text field for which the first readable shard has no member of the above
    """
    suffixes: dict[str, list[Target]] = {}
    columns: dict[Target, str] = {}
    images = [name for side in SIDES for name, spec in schema.side(side).items() if _is_image(spec)]
    for side in SIDES:
        for name, spec in schema.side(side).items():
            column, extensions = spec.column or name, IMAGE_EXTENSIONS if _is_image(spec) else TEXT_EXTENSIONS
            columns[side, name] = column
            own = {f"{label}.{extension}".lower() for label in (name, column) for extension in extensions}
            if column in extensions or (_is_image(spec) and len(images) == 1):
                own |= set(extensions)
            for suffix in own:
                suffixes.setdefault(suffix, []).append((side, name))
    seen = next(filter(None, (_suffixes_in(shard, set(suffixes)) for shard in shards)), set())
    in_members = {target for suffix in seen for target in suffixes.get(suffix, ())}
    json_keys = {
        (side, name): column
        for (side, name), column in columns.items()
        if not _is_image(schema.side(side)[name]) and (side, name) not in in_members
    }
    return Layout(suffixes, json_keys, score, document_id)


def _is_image(spec: Field) -> bool:
    return spec.modality is Modality.image


def _suffixes_in(shard: Shard, known: set[str]) -> set[str]:
    """Known suffixes of a shard's members, up to where it is readable; of members without any {""}; empty for none."""
    suffixes: set[str] = set()
    try:
        for member in members(map_file(shard)):
            suffix = split_name(member.name, {*known, _JSON})[1]
            if suffix is not None and not is_litter(member.name):
                suffixes.add(suffix)
    except (TarDamage, OSError):
        pass
    return suffixes - {_JSON} or ({""} if suffixes else set())


def has_key(shards: Iterable[Shard], key: str) -> bool:
    """Whether the JSON of the first samples of the first readable shard has this key."""
    for shard in shards:
        try:
            data = map_file(shard)
            jsons = (one for one in members(data) if one.name.endswith(f".{_JSON}") and not is_litter(one.name))
            about = [_read_json(data, member) for member in islice(jsons, _LOOKED_AT)]
        except (TarDamage, OSError, _Unusable):
            continue
        if about:
            return any(key in values for values in about)
    return False


def is_litter(name: str) -> bool:
    """Whether a member is what a Mac adds to archives.

    >>> is_litter("a/._000.jpg"), is_litter("__MACOSX/000.jpg"), is_litter("a/000.jpg")
    (True, True, False)
    """
    parts = name.split("/")
    return parts[-1].startswith("._") or parts[-1] == ".DS_Store" or "__MACOSX" in parts


def split_name(name: str, known: set[str]) -> tuple[str, str | None]:
    """A member's name -> its sample's key and its suffix, the longest known one; None for a name with another end.

    >>> split_name("a/sku.123.title.txt", {"title.txt", "txt"}), split_name("a/1.pkl", {"txt"})
    (('a/sku.123', 'title.txt'), ('a/1.pkl', None))
    """
    folder, slash, base = name.rpartition("/")
    pieces = base.split(".")
    for start in range(max(1, len(pieces) - 2), len(pieces)):  # a suffix is `ext` or `field.ext`
        suffix, key = ".".join(pieces[start:]).lower(), ".".join(pieces[:start])
        if suffix in known and key:
            return folder + slash + key, suffix
    return name, None


def map_file(shard: Shard) -> bytes | mmap.mmap:
    """The bytes of a file, read where they are looked at; they stay readable whoever drops the file meanwhile. Of an
    object store it is fetched where it is not here."""
    with shard.open() if isinstance(shard, RemoteShard) else shard.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            return b""


@dataclass
class _Parts:
    """A sample's members while its shard is walked."""

    number: int
    members: dict[str, Member] = field(default_factory=dict)  # by suffix
    last: int = 0  # place among the shard's members of the sample's latest one
    bad: Bad | None = None


@dataclass(frozen=True)
class ShardReader:
    """Called with a shard, gives every sample of it, whole or refused with its reason. Images are decoded once, to the
    end. queries: whether the texts of queries come with them. Raises what fetching raises for a shard of an object
    store that does not arrive."""

    layout: Layout
    schema: Schema
    max_pixels: int
    meaning: Meaning
    queries: bool = False

    def __call__(self, shard: Shard) -> ShardContent:
        try:
            data = map_file(shard)  # once: others may drop a shard of an object store while it is read
        except OSError as error:
            if isinstance(shard, RemoteShard):
                raise
            bad = Bad("shard cannot be opened", str(error))
            return ShardContent(shard, refused=[Refused(shard, 0, None, bad)])
        content = ShardContent(shard, len(data), hashlib.sha256(data).hexdigest())
        for key, parts in self._collect(data, content).items():
            try:
                content.samples.append(self._sample(data, key, parts))
            except _Unusable as error:
                content.refused.append(Refused(content.path, parts.number, key, error.bad))
        if self.queries:
            content.queries = [self._query(data, sample) for sample in content.samples]
        if isinstance(shard, RemoteShard):
            shard.read_once(content.sha256)
        return content

    def _collect(self, data: bytes | mmap.mmap, content: ShardContent) -> dict[str, _Parts]:
        """The shard's members by key, in order of first sight."""
        samples: dict[str, _Parts] = {}
        known = {*self.layout.suffixes, *([_JSON] if self.layout.reads_json else [])}
        damage, count, scattered, latest = None, 0, False, None
        try:
            for member in members(data):
                if is_litter(member.name):
                    continue
                key, suffix = split_name(member.name, known)
                if suffix is None:
                    content.others[member.name.rpartition("/")[2].rpartition(".")[2].lower()] += 1
                    continue
                count += 1
                parts = samples.setdefault(key, _Parts(len(samples) + 1, last=count))
                scattered |= parts.last < count - 1
                if member.refused is not None:
                    parts.bad = Bad(member.refused, member.name)
                elif suffix in parts.members:
                    parts.bad = Bad("member occurs twice", member.name)
                parts.members[suffix], parts.last, latest = member, count, parts
        except TarDamage as error:
            damage = Bad(error.reason, error.detail)
        if latest is None:
            bad = damage or Bad("shard has no sample", f"{content.others.total():,} members of other kinds")
            content.refused.append(Refused(content.path, 0, None, bad))
        elif damage:
            # The sample read last may lack members; where members do not lie together, any may.
            latest.bad = damage
            everything = set().union(*(parts.members for parts in samples.values()))
            for parts in samples.values():
                if scattered and parts.members.keys() != everything:
                    parts.bad = parts.bad or damage
        return samples

    def _sample(self, data: bytes | mmap.mmap, key: str, parts: _Parts) -> Sample:
        """Raises _Unusable, as every stage below."""
        if parts.bad is not None:
            raise _Unusable(parts.bad)
        member = parts.members.get(_JSON) if self.layout.reads_json else None
        about = _read_json(data, member) if member else {}
        places, lost = self._member_places(data, parts)
        if member:
            places |= self._json_places(about, member)
        for side in SIDES:
            if not any(target[0] == side for target in places):
                for (_, name), bad in (one for one in lost if one[0][0] == side):
                    raise _Unusable(Bad(bad.reason, f"{name}: {bad.detail}"))
                raise _Unusable(Bad(f"no {side}", f"it has {', '.join(sorted(parts.members))}"))
        return Sample(parts.number, key, places, self._score(about), self._document_id(about), tuple(lost))

    def _member_places(
        self, data: bytes | mmap.mmap, parts: _Parts
    ) -> tuple[dict[Target, Place], list[tuple[Target, Bad]]]:
        """Of fields that are members, and the images among them that cannot be used."""
        places: dict[Target, Place] = {}
        lost: list[tuple[Target, Bad]] = []
        for suffix, member in parts.members.items():
            for side, name in self.layout.suffixes.get(suffix, ()):
                if (side, name) in places:
                    detail = f"{side} {name}: .{suffix} is another member of the same field"
                    raise _Unusable(Bad("field occurs twice", detail))
                value = data[member.start : member.start + member.size]
                if _is_image(self.schema.side(side)[name]):
                    checked = check_image(value, max_pixels=self.max_pixels)
                    bad = checked if isinstance(checked, Bad) else None
                    if bad is not None and self.meaning.bad_images != BadImages.drop:
                        lost.append(((side, name), bad))
                        continue
                elif member.size > MOST_TEXT:
                    raise _Unusable(too_long(member.size, name))
                else:
                    bad = _not_utf8(value)
                if bad is not None:
                    raise _Unusable(Bad(bad.reason, f"{name}: {bad.detail}"))
                if value and (_is_image(self.schema.side(side)[name]) or not self._is_missing(value.decode())):
                    places[side, name] = (member.start, member.size, content_hash(value))
        return places, lost

    def _json_places(self, about: dict[str, Any], member: Member) -> dict[Target, Place]:
        """Of fields that are values of the sample's JSON: their place is that of the whole JSON."""
        places: dict[Target, Place] = {}
        for target, column in self.layout.json_keys.items():
            text = _json_text(about.get(column))
            if isinstance(text, Bad):
                raise _Unusable(Bad(text.reason, f"{column}: {text.detail}"))
            if text and len(text) > MOST_TEXT:
                raise _Unusable(too_long(len(text), column))
            if text and not self._is_missing(text):
                places[target] = (member.start, member.size, content_hash(text.encode()))
        return places

    def _query(self, data: bytes | mmap.mmap, sample: Sample) -> Record:
        query: Record = {}
        for (side, name), (start, size, _) in sample.places.items():
            if side == "query":
                key = self.layout.json_keys.get((side, name))
                value = data[start : start + size]
                query[name] = value.decode() if key is None else str(json.loads(value)[key])
        return query

    def _is_missing(self, text: str) -> bool:
        return len(text) < _LONGEST_WORD and text.strip() in self.meaning.missing

    def _score(self, about: dict[str, Any]) -> float:
        if self.layout.score is None:
            return 1.0
        given = about.get(self.layout.score)
        given = str(given).lower() if isinstance(given, bool) else given  # as in a table: data.grades has its number
        text = None if isinstance(given, str) and self._is_missing(given) else _json_text(given)
        if isinstance(text, Bad):
            raise _Unusable(Bad(text.reason, f"{self.layout.score}: {text.detail}"))
        score = self.meaning.score(text, self.meaning.decimal if isinstance(given, str) else ".")
        if isinstance(score, Bad):
            detail = f": {score.detail}" if "data.decimal" in score.detail else ""
            raise _Unusable(Bad(score.reason, _said(self.layout.score, about) + detail))
        return score

    def _document_id(self, about: dict[str, Any]) -> str | None:
        if self.layout.document_id is None:
            return None
        identifier = _json_text(about.get(self.layout.document_id))
        if not identifier or isinstance(identifier, Bad) or self._is_missing(identifier):
            raise _Unusable(Bad("no document id", _said(self.layout.document_id, about)))
        return canonical_id(identifier)


class _Unusable(Exception):
    """Why a sample cannot be used."""

    def __init__(self, bad: Bad) -> None:
        super().__init__(*bad)
        self.bad = bad


def _said(key: str, about: dict[str, Any]) -> str:
    """What a sample's JSON says under a key that cannot be used."""
    if key in about:
        return f"{key} is {about[key]!r:.80}"
    return f"no key {key!r} in the JSON, which has {listed(list(about)) or 'none'}"


def _not_utf8(value: bytes) -> Bad | None:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return Bad("text is not UTF-8", str(error))
    return None


def _read_json(data: bytes | mmap.mmap, member: Member) -> dict[str, Any]:
    if member.size > _MOST_JSON:
        detail = f"it has {member.size:,} bytes, at most {_MOST_JSON:,} are read"
        raise _Unusable(Bad("JSON cannot be read", detail))
    try:
        about = json.loads(data[member.start : member.start + member.size])
    except (ValueError, RecursionError) as error:
        raise _Unusable(Bad("JSON cannot be read", str(error))) from error
    if not isinstance(about, dict):
        raise _Unusable(Bad("JSON cannot be read", f"it is {type(about).__name__}, not an object"))
    return about


def _json_text(value: Any) -> str | Bad | None:
    """A JSON value as the text RecordStore reads there later."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return Bad("JSON value is not a text", f"it is {type(value).__name__}")
    text = str(value)
    half_a_pair = not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
    return Bad("text is not UTF-8", "it has half a surrogate pair") if half_a_pair else text
