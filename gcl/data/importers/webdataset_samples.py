"""One foreign tar -> its samples: places of values, or the reason why a sample cannot be used.

A sample is the members of one shard that share a key, wherever they lie in it. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gcl.data.importers.webdataset_layout import JSON, Layout, Target, is_image, map_file, split_name
from gcl.data.store.records import MOST_TEXT
from gcl.data.store.shard_writer import content_hash
from gcl.data.store.tar import Member, TarDamage, members
from gcl.data.tables.images import check_image, own_pixel_limit
from gcl.data.tables.quarantine import Bad, too_long
from gcl.schema import SIDES, Schema

_MOST_JSON = 16 << 20
_LARGEST_SCORE = 3.4e38  # pairs keep scores as float32

Place = tuple[int, int, bytes]  # offset, length, content hash


class Sample(NamedTuple):
    number: int  # place in its shard, from 1
    key: str
    places: dict[Target, Place]
    score: float
    document_id: str | None


class Refused(NamedTuple):
    """A sample (or, with no key and number 0, a whole shard) that was left out."""

    shard: Path
    number: int
    key: str | None
    bad: Bad


@dataclass
class ShardContent:
    """What one shard holds. others: members of no field, by extension."""

    path: Path
    size: int = 0
    sha256: str = ""
    samples: list[Sample] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


@dataclass
class _Parts:
    """A sample's members while its shard is walked."""

    number: int
    members: dict[str, Member] = field(default_factory=dict)  # by suffix
    last: int = 0  # place among the shard's members of the sample's latest one
    bad: Bad | None = None


def read_shard(path: Path, *, layout: Layout, schema: Schema, max_pixels: int) -> ShardContent:
    """Every sample of a shard, whole or refused with its reason. Images are decoded once, to the end."""
    content = ShardContent(path)
    try:
        data = map_file(path)
    except OSError as error:
        content.refused.append(Refused(path, 0, None, Bad("shard cannot be opened", str(error))))
        return content
    content.size, content.sha256 = len(data), hashlib.sha256(data).hexdigest()
    with own_pixel_limit():
        for key, parts in _collect(data, layout, content).items():
            found = parts.bad or _read_sample(data, key, parts, layout, schema, max_pixels)
            if isinstance(found, Bad):
                content.refused.append(Refused(path, parts.number, key, found))
            else:
                content.samples.append(found)
    return content


def _collect(data: bytes, layout: Layout, content: ShardContent) -> dict[str, _Parts]:
    """The shard's members by key, in order of first sight."""
    samples: dict[str, _Parts] = {}
    known = {*layout.suffixes, *([JSON] if layout.reads_json else [])}
    damage, count, scattered, latest = None, 0, False, None
    try:
        for member in members(data):
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
    if damage and latest is None or not samples and not damage:
        bad = damage or Bad("shard has no sample", f"{content.others.total():,} members of other kinds")
        content.refused.append(Refused(content.path, 0, None, bad))
    elif damage:
        _refuse_incomplete(samples, latest, damage, scattered)
    return samples


def _refuse_incomplete(samples: dict[str, _Parts], latest: _Parts, damage: Bad, scattered: bool) -> None:
    """Of a damaged shard the sample read last may lack members; where members do not lie together, any may."""
    latest.bad = damage
    everything = set().union(*(parts.members for parts in samples.values()))
    for parts in samples.values():
        if scattered and parts.members.keys() != everything:
            parts.bad = parts.bad or damage


def _read_sample(data: bytes, key: str, parts: _Parts, layout: Layout, schema: Schema, max_pixels: int) -> Sample | Bad:
    about, json_place = {}, None
    if layout.reads_json and (member := parts.members.get(JSON)) is not None:
        if member.size > _MOST_JSON:
            return Bad("JSON cannot be read", f"it has {member.size:,} bytes, at most {_MOST_JSON:,} are read")
        json_place = (member.start, member.size)
        about = _json(data[member.start : member.start + member.size])
        if isinstance(about, Bad):
            return about
    places: dict[Target, Place] = {}
    for suffix, member in parts.members.items():
        for side, name in layout.suffixes.get(suffix, ()):
            if (side, name) in places:
                return Bad("field occurs twice", f"{side} {name}: .{suffix} is another member of the same field")
            picture = is_image(schema.side(side)[name])
            if not picture and member.size > MOST_TEXT:
                return too_long(member.size, name)
            value = data[member.start : member.start + member.size]
            bad = _check_value(value, picture, max_pixels)
            if bad is not None:
                return Bad(bad.reason, f"{name}: {bad.detail}")
            if value:
                places[side, name] = (member.start, member.size, content_hash(value))
    for target, column in layout.json_keys.items():
        text = _json_text(about.get(column))
        if isinstance(text, Bad):
            return Bad(text.reason, f"{column}: {text.detail}")
        if text and len(text) > MOST_TEXT:
            return too_long(len(text), column)
        if text:
            places[target] = (*json_place, content_hash(text.encode()))
    for side in SIDES:
        if not any(target[0] == side for target in places):
            return Bad(f"no {side}", f"it has {', '.join(sorted(parts.members))}")
    score = 1.0 if layout.score is None else about.get(layout.score)
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= _LARGEST_SCORE:
        return Bad("no score", f"{layout.score} is {score!r:.80}")
    identifier = None if layout.document_id is None else _json_text(about.get(layout.document_id))
    if layout.document_id is not None and (not identifier or isinstance(identifier, Bad)):
        return Bad("no document id", f"{layout.document_id} is missing or no text")
    return Sample(parts.number, key, places, float(score), identifier)


def _check_value(value: bytes, image: bool, max_pixels: int) -> Bad | None:
    if image:
        checked = check_image(value, max_pixels=max_pixels)
        return checked if isinstance(checked, Bad) else None
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return Bad("text is not UTF-8", str(error))
    return None


def _json(value: bytes) -> dict[str, Any] | Bad:
    try:
        about = json.loads(value)
    except (ValueError, RecursionError) as error:
        return Bad("JSON cannot be read", str(error))
    if not isinstance(about, dict):
        return Bad("JSON cannot be read", f"it is {type(about).__name__}, not an object")
    return about


def _json_text(value: Any) -> str | Bad | None:
    """A JSON value as the text RecordStore reads there later."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return Bad("JSON value is no text", f"it is {type(value).__name__}")
    text = str(value)
    return text if text.isascii() or _is_unicode(text) else Bad("text is not UTF-8", "it has half a surrogate pair")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
