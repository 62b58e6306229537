"""Tables from elsewhere with a query and a document in every row: hard negatives, and the scores of a reranker.

Their columns are looked at before anything is prepared, their rows when the catalog is there.
"""

from __future__ import annotations

from pathlib import Path

from gcl.data.tables.block import Reading
from gcl.data.tables.table import Table, open_table

NEGATIVES = ("query", "document")
_SCORES = (("query_id", "query"), ("product_id", "document_id"), ("score", "relevance"))
_READING = Reading(missing=("",))


def negatives_table(path: str) -> Table:
    """plan.hard_negatives.file, with the columns `NEGATIVES`. Raises FileNotFoundError, KeyError or ValueError."""
    setting = "plan.hard_negatives.file"
    table = open_table(path, root=Path(), setting=setting)
    table.check_columns([(name, setting) for name in NEGATIVES])
    return table


def scores_table(path: Path) -> tuple[Table, list[str]]:
    """teacher.scores, and its columns of queries, of documents and of scores. Raises FileNotFoundError or
    ValueError."""
    table = open_table(path.name, root=path.parent, setting="teacher.scores", reading=_READING)
    columns = []
    for names in _SCORES:
        name = next((name for name in names if name in table.columns), None)
        if name is None:
            raise ValueError(
                f"teacher.scores={path} has no column {' or '.join(names)}; its columns are "
                f"{', '.join(table.columns[:20])}."
            )
        columns.append(name)
    return table, columns
