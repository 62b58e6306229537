"""Engines that take JSON over HTTP: their requests are sent to an address (`url=…`), or written as files with a script
that sends them. So what a file says and what is sent cannot differ.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from gcl.exports.engines.engine import Collection, How, Layout, Setting
from gcl.exports.engines.payload import Batch
from gcl.files.atomic import write_text

VECTOR = "\0vector"
"""Stands for a vector in a document."""


def numbers(batch: Batch) -> list[str]:
    """Its vectors as JSON, each number in as many digits as tell it from any other float32."""
    vectors = batch.table.column("vector")
    width, parts = vectors.type.list_size, vectors.chunks
    texts = [text for part in parts for text in part.flatten().cast("float").cast("string").to_pylist()]
    return [f"[{','.join(texts[at : at + width])}]" for at in range(0, len(texts), width)]


def encode(body: Any, vector: str) -> str:
    """JSON in which `vector` takes the place of VECTOR."""
    return json.dumps(body, allow_nan=False).replace(json.dumps(VECTOR), vector, 1)


class Http(Collection):
    """A collection of a server. In paths, {name} is the collection's."""

    client: ModuleType
    """How it is asked."""
    hows: ClassVar[Sequence[How]] = tuple(How)
    """How it can search."""
    made: ClassVar[tuple[str, str]] = ("POST", "/{name}")
    """How `schema` is sent."""
    deleted: ClassVar[str] = "/{name}"
    added: ClassVar[str]
    """Where documents are posted."""
    around: ClassVar[tuple[str, str, str]] = ("", "\n", "\n")
    """What is before, between and after documents."""
    finished: ClassVar[str] = ""
    """What is posted when all are there."""
    counted: ClassVar[tuple[str, Sequence[str | int]]]
    """Where documents are counted, and where the answer has the number."""

    absent: ClassVar[Sequence[int]] = (404,)
    """The statuses by which there is no collection, and one can be made."""

    @classmethod
    def settings(cls, layout: Layout, url: str | None) -> list[Setting]:
        """Exact, the index at several depths, words."""
        every = [Setting("exact", How.exact, options={"exact": True}), *Setting.graph(), *Setting.words(layout)]
        return [setting for setting in every if setting.how in cls.hows]

    def __init__(self, layout: Layout, folder: Path, url: str | None) -> None:
        self.layout = layout
        self.asks = self.client.connect(url or "http://localhost", layout.name)

    @property
    def name(self) -> str:
        return self.layout.name

    def schema(self) -> Any:
        """The body that makes the collection."""
        raise NotImplementedError

    def document(self, name: str, row: dict[str, Any]) -> Sequence[Any]:
        """A document with VECTOR in it, and lines before it."""
        return [{"id": name, "vector": VECTOR, **row}]

    def documents(self, batch: Batch) -> str:
        """What adds them."""
        before, between, after = self.around
        rows = zip(batch.ids, batch.rows, numbers(batch), strict=True)
        return before + between.join(encode(one, v) for id, row, v in rows for one in self.document(id, row)) + after

    def send(self, method: str, path: str, body: Any = None, missing: Sequence[int] = ()) -> Any:
        return self.asks.web.send(method, path.replace("{name}", self.name), body, missing=missing)

    def rows(self) -> int | None:
        path, place = self.counted
        answer = self.send("GET", path, missing=self.absent)
        if answer is None:
            return None
        for key in place:
            answer = answer[key]
        return int(answer)

    def create(self) -> None:
        self.drop()
        self.send(*self.made, self.schema())

    def add(self, batch: Batch, *, again: bool = False) -> None:
        """A document replaces the one of its id."""
        self.send("POST", self.added, self.documents(batch))

    def finish(self) -> None:
        if self.finished:
            self.send("POST", self.finished)

    def drop(self) -> None:
        self.send("DELETE", self.deleted, missing=(404,))

    def close(self) -> None:
        self.asks.web.close()

    @classmethod
    def write(cls, layout: Layout, batches: Iterable[Batch], folder: Path) -> Sequence[Path]:
        """create.json, documents/ and load.sh."""
        server, documents = cls(layout, folder, None), folder / "documents"
        (folder / "load.sh").unlink(missing_ok=True)  # which needs all of them
        shutil.rmtree(documents, ignore_errors=True)
        for batch in batches:
            write_text(documents / f"{batch.start:09d}.json", server.documents(batch))
        created = write_text(folder / "create.json", json.dumps(server.schema(), indent=1))
        return [created, documents, write_text(folder / "load.sh", server._script())]

    def _script(self) -> str:
        web = self.asks.web
        keyed = f' -H "{web.key}$key"' if web.key else ""
        refused = "|".join(f"*'{text}'*" for text in web.refusals) or "-"
        return "\n".join([
            "#!/bin/sh",
            f"# Loads these files, up to what is refused: sh load.sh ADDRESS{' KEY' if web.key else ''}",
            "set -e", "url=${1:?an address, as http://localhost:9200}", "key=$2", 'cd "$(dirname "$0")"',
            "send() {  # method path [file]", '  file=${3:-/dev/null}',
            '  answer=$(curl -sS --fail-with-body -X "$1" -H "Content-Type: application/json" '
            f'--data-binary "@$file"{keyed} "$url$2") ||', '    { echo "$file: $answer" >&2; exit 1; }',
            f'  case $answer in {refused}) echo "$file: $answer" >&2; exit 1 ;; esac', "}",
            f"send {self.made[0]} '{self.made[1]}' create.json", "for file in documents/*; do",
            f"  send POST '{self.added}' \"$file\"", "done",
            *([f"send POST '{self.finished}'"] if self.finished else []),
            "echo 'All documents are loaded.'", "",
        ]).replace("{name}", self.name)  # fmt: skip
