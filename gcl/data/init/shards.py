"""Ready shards (.tar) -> the YAML of their catalog, by what the first samples hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from gcl.data.importers.webdataset import IMAGE_EXTENSIONS, TEXT_EXTENSIONS, is_litter, map_file
from gcl.data.init.inputs import Input
from gcl.data.init.names import fit
from gcl.data.init.page import Draft, Page
from gcl.data.store.tar import members

_MEMBERS = 300  # looked at
_TEXTS = (*TEXT_EXTENSIONS, "caption", "cls")
_OF_IMG2DATASET = ("key", "status", "error_message", "width", "height", "original_width", "original_height", "exif",
                   "sha256", "md5", "url")  # fmt: skip


def draft_shards(given: Input, *, name: str, place: Callable[[str], str], begin: str) -> Draft:
    """The YAML of a catalog of shards. Raises ValueError for tars without an image or a text."""
    kinds, keys = _members(given.files[0])
    image = next((kind for kind in IMAGE_EXTENSIONS if kinds[kind]), None)
    texts = [kind for kind in _TEXTS if kinds[kind]]
    named = {role: max(keys, key=lambda key: fit(key, role), default="") for role in ("query", "title", "id", "score")}
    named = {role: key for role, key in named.items() if key and fit(key, role) >= 0.5}
    query = named.get("query") or next(iter(texts), None) or ("caption" if "caption" in keys else None)
    if image is None or query is None:
        raise ValueError(
            f"{given.files[0].name} holds {', '.join(f'.{kind}' for kind in kinds) or 'nothing'}: each sample needs an "
            f"image ({', '.join(IMAGE_EXTENSIONS)}) and a text (.txt, or a key of its .json such as caption or query)."
        )
    page = Page()
    page.remark(begin)
    page.line("name", name)
    count = f"{len(given.files)} shards" if len(given.files) > 1 else "one shard"
    page.line("shards", place(given.path), f"{count}, read where they are")
    if "id" in named:
        page.line("document_id", named["id"], "a key of each sample's JSON")
    page.line("query", None)
    page.line(
        "query", {"modality": "text", "column": query}, "a text of the image, which serves as the search", indent=2
    )
    title = named.get("title") if named.get("title") != query else None
    page.line("document", None)
    form: dict[str, Any] = {"modality": "image", "column": image} | ({"weight": 0.9} if title else {})
    page.line("image", form, indent=2)
    if title:
        page.line(
            "title", {"modality": "text", "weight": 0.1} | ({"column": title} if title != "title" else {}), indent=2
        )
    if "score" in named:
        page.line("score", named["score"], "more is better")
    told = [f"{Path(given.path).name}: {count} with .{image}, {query} serves as the search"]
    rest = [key for key in keys if key not in (*named.values(), query, *_OF_IMG2DATASET)]
    notes = [f"keys of the samples' JSON that are not used: {', '.join(rest[:12])}"] if rest else []
    return Draft(page.text(), told, notes)


def _members(file: Path) -> tuple[Counter[str], list[str]]:
    """How often each extension occurs among the first members, and the keys of their JSON whose values are texts or
    numbers."""
    kinds: Counter[str] = Counter()
    keys: dict[str, None] = {}
    try:
        data = map_file(file)
        for member in islice(members(data), _MEMBERS):
            if member.refused or is_litter(member.name):
                continue
            kind = Path(member.name).name.partition(".")[2].lower()
            kinds[kind] += 1
            if kind == "json" and member.size < 1 << 20:
                content = json.loads(data[member.start : member.start + member.size])
                if isinstance(content, dict):
                    keys |= {key: None for key, value in content.items() if isinstance(value, str | int | float)}
    except (ValueError, OSError) as error:
        if not kinds:  # what follows the first members is judged by who reads all of them
            raise ValueError(f"{file} cannot be read as shards: {error}.") from error
    return kinds, list(keys)
