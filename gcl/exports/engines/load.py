"""Loading a collection, which goes on where an earlier attempt stopped, and loses nothing that others put there."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gcl.errors import ConfigError
from gcl.exports.engines.address import Place, place_id
from gcl.exports.engines.engine import Collection, Layout
from gcl.exports.engines.payload import Batch
from gcl.files.atomic import write_json
from gcl.files.progress import counted, doing, several

logger = logging.getLogger("gcl")


class Load:
    """One collection's. <collection>.loaded.json says which vectors are loaded, where, and how many.

    compared: whether the collection is only compared with what is deployed. replace: whether one that is there already
    is removed.
    """

    def __init__(self, place: Place, layout: Layout, *, compared: bool, replace: bool) -> None:
        self._place, self._layout, self._replace = place, layout, replace
        self._file = place.folder / f"{layout.name}.loaded.json"
        self._source = {
            "about": layout.about, "quantization": layout.quantization.value,
            "place": place.url and place_id(place.url), "compared": compared,
        }  # fmt: skip

    @property
    def _state(self) -> dict[str, Any]:
        return json.loads(self._file.read_text("utf-8")) if self._file.is_file() else {}

    def _note(self, rows: int, **more: bool) -> None:
        write_json(self._file, {"source": self._source, "rows": rows, **more})

    def start(self, collection: Collection) -> int | None:
        """The row at which a load goes on, all rows where it is finished; None: from the beginning.

        Raises ConfigError where that would remove what is not of this folder's loads.
        """
        state, layout, there = self._state, self._layout, collection.rows()
        self._place.reached = True
        of, rows, finished = state.get("source", {}), state.get("rows", 0), state.get("finished", False)
        ours = all(of.get(name) == self._source[name] for name in ("place", "compared"))
        if there is None or self._replace or (ours and not there):
            return None
        if of == self._source and (there == layout.rows if finished else there >= rows):
            return rows
        if not ours or (self._place.url is not None and (of != self._source or finished)):
            changed = f" (from here, {rows:,} were loaded)" if of == self._source else ""
            raise ConfigError(
                f"{self._place.shown} has a collection {layout.name} of {there:,} {several('document', there)} already"
                f"{changed}: give another name (collection=…), or replace=true."
            )
        return None

    def run(self, collection: Collection, batches: Callable[[int], Iterator[Batch]]) -> None:
        """Adds what is missing. batches: (row) -> the documents from there on."""
        start, layout, title = self.start(collection), self._layout, self._place.engine.title
        if start == layout.rows and self._state.get("finished"):
            logger.info(f"The {start:,} documents of {layout.name} are loaded already.")
            return
        there = 0 if start is None else collection.rows() or 0  # of an earlier attempt, more than it noted, perhaps
        if start is None:
            collection.create()
            start = 0
        coming = _read_ahead(batches(start))
        with ThreadPoolExecutor(1) as writer:  # the disk takes its time for each note
            noted = writer.submit(self._note, start)
            for batch in counted(coming, f"Loading {title}", total=layout.rows - start, unit="product", size=len):
                collection.add(batch, again=batch.start < there)
                noted.result()
                noted = writer.submit(self._note, batch.start + len(batch))
            noted.result()
        with doing("Building the indexes of the engine"):
            collection.finish()
        self._note(layout.rows, finished=True)

    def drop(self, collection: Collection) -> None:
        """Removes the collection, and what was noted of it."""
        collection.drop()
        self._file.unlink(missing_ok=True)


def _read_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same, each read while the one before is used."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch
