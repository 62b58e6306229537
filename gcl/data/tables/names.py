"""Records, as tables that people wrote name them."""

from __future__ import annotations

from gcl.data.store.records import Records, texts_of
from gcl.data.tables.cells import canonical_id


def rows_by_name(records: Records, *, texts: bool = False) -> dict[str, int]:
    """The row of each id, in the form of `canonical_id`; with `texts`, also of each text that is no id."""
    row_of = {canonical_id(str(name)): row for row, name in enumerate(records.ids)}
    for row, text in enumerate(texts_of(records) if texts else ()):
        row_of.setdefault(canonical_id(text), row)
    return row_of
