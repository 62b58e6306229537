"""What people graded after a catalog was prepared: a file of judgments, added to its tasks for one measurement.

task,query_id,product_id,grade        without task, a line counts in every task that has its query and product
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gcl.data.tables.block import Block, Reading
from gcl.data.tables.cells import canonical_id, parse_number
from gcl.data.tables.formats import SUFFIXES
from gcl.data.tables.source import suffix_of
from gcl.data.tables.table import open_table
from gcl.data.tables.trec import is_trec
from gcl.errors import ConfigError
from gcl.files.atomic import write_text
from gcl.retrieval.tasks.task import JudgedPairs, RetrievalTask
from gcl.retrieval.tasks.trec import read_qrels
from gcl.table import Table, plain_csv

GRADES = ("not relevant", "hardly relevant", "partly relevant", "relevant", "exactly right")
"""What the grades 0 to 4 say, on every page that asks for one."""
HIGHEST = len(GRADES) - 1
COLUMNS = ("task", "query_id", "product_id", "grade")
_PRODUCT = ("product_id", "document_id")
_VALUE = ("grade", "score", "relevance")
_READING = Reading(missing=("",))  # a product may be called NA


class Line(NamedTuple):
    """A judgment. task: the only one it counts in; None: every one."""

    query: str
    product: str
    value: float
    task: str | None = None


@dataclass
class Judgments:
    """The judgments of a file, and what became of them.

    graded: their values are grades from 0 to 4, else relevances on the scale of the tasks.
    """

    path: Path
    lines: list[Line]
    graded: bool
    _used: set[int] = field(default_factory=set)
    _notes: dict[str, str] = field(default_factory=dict)  # by task

    def added_to(self, task: RetrievalTask, name: str) -> RetrievalTask:
        """The task with these judgments; its own ones of the same pairs are replaced. name: what lines call it.

        Grades become relevances of the task: 4 counts as its largest one, the others in proportion. Raises ConfigError
        for a relevance beyond the largest.
        """
        query_at = {str(key): place for place, key in enumerate(task.queries.ids)}
        product_at = {str(key): place for place, key in enumerate(task.corpus.ids)}
        mine = {
            number: line
            for number, line in enumerate(self.lines)
            if line.task in (None, name) and line.query in query_at and line.product in product_at
        }
        query = np.array([query_at[line.query] for line in mine.values()], dtype=np.int64)
        document = np.array([product_at[line.product] for line in mine.values()], dtype=np.int64)
        judged, size = task.judgments, len(task.corpus)
        largest = float(judged.relevance.max(initial=0)) or float(HIGHEST)
        relevance = np.array([line.value for line in mine.values()]) * (largest / HIGHEST if self.graded else 1)
        if relevance.max(initial=0) > largest:
            raise ConfigError(
                f"judgments={self.path}: a relevance of {relevance.max():g}, but those of {task.title} go up to "
                f"{largest:g}. Give relevances on its scale, or grades from 0 to {HIGHEST} in a column called grade, "
                "which are converted."
            )
        kept = (judged.document < 0) | ~np.isin(judged.query * size + judged.document, query * size + document)
        self._used |= mine.keys()
        replaced = int((~kept).sum())
        scale = f"; grades 0 to {HIGHEST} count as 0 to {largest:g}" if self.graded and largest != HIGHEST else ""
        added = len(mine) - replaced
        self._notes[name] = (
            f"{task.title}: {added:,} judgment{'s' if added != 1 else ''} added and {replaced:,} replaced from "
            f"{self.path.name}{scale}."
        )
        merged = JudgedPairs(
            np.concatenate([judged.query[kept], query]),
            np.concatenate([judged.document[kept], document]),
            np.concatenate([judged.relevance[kept], relevance]),
            judged.outside,
            judged.complete,
        )
        return replace(task, judgments=merged)

    def notes(self, *, queries: Iterable[str], products: Iterable[str], tasks: Iterable[str]) -> list[str]:
        """What each task has got, and how many lines belong to none, and why. queries, products: all ids of the
        catalog; tasks: those that were measured. Raises ConfigError where no line belongs to a task."""
        known_queries, known_products, known_tasks = set(map(str, queries)), set(map(str, products)), {None, *tasks}
        why: dict[str, list[Line]] = {}
        for number, line in enumerate(self.lines):
            if number in self._used:
                continue
            if line.query not in known_queries:
                reason = "of a query that the catalog does not have"
            elif line.product not in known_products:
                reason = "of a product that the catalog does not have"
            elif line.task not in known_tasks:
                reason = "of a task that is not measured"
            else:
                reason = "of a query or product that no measured task has (evaluate.part, evaluate.tasks)"
            why.setdefault(reason, []).append(line)
        told = [
            f"{len(left):,} of {len(self.lines):,} judgments from {self.path.name} were left out, {reason}: for "
            f"example query {left[0].query!r}, product {left[0].product!r}."
            for reason, left in why.items()
        ]
        if not self._used:
            raise ConfigError(f"judgments={self.path} has no judgment for what is measured. {' '.join(told)}")
        return [*self._notes.values(), *told]


def read_judgments(path: str | Path) -> Judgments:
    """A table with the columns query_id, product_id (or document_id), grade (0 to 4; or score or relevance, on the
    scale of the tasks) and perhaps task; or TREC qrels, whose relevances are on the scale of the tasks.

    Raises ConfigError, FileNotFoundError or KeyError, in a sentence, for a line without an id, a value out of range,
    and a pair that is judged twice, differently.
    """
    path = Path(path)
    if path.is_file() and (suffix_of(path) not in SUFFIXES or is_trec(path)):
        qrels = read_qrels(path)
        # below 0 is "spam" in some collections, and as good as 0 to every metric
        return Judgments(path, [Line(q, d, max(v, 0.0)) for q, own in qrels.items() for d, v in own.items()], False)
    table = open_table(path.name, root=path.parent, setting="judgments", reading=_READING)
    product, value = (_only(path, table.columns, names) for names in (_PRODUCT, _VALUE))
    names = ["query_id", product, value, *(["task"] if "task" in table.columns else [])]
    table.check_columns([(name, "judgments") for name in names])
    graded = value == "grade"
    seen: dict[Line, Line] = {}  # by the line without its value
    for block in table.blocks(names):
        for where, line in _lines(path, block, names, graded):
            key = line._replace(value=0)
            if seen.setdefault(key, line) != line:
                raise ConfigError(
                    f"{where}: query {line.query!r} and product {line.product!r} are judged {line.value:g} here and "
                    f"{seen[key].value:g} above: keep one of the two."
                )
    if not seen:
        raise ConfigError(f"judgments={path} holds no judgment.")
    return Judgments(path, list(seen.values()), graded)


def _lines(path: Path, block: Block, names: list[str], graded: bool) -> Iterator[tuple[str, Line]]:
    """(its place in the file, the judgment) of each row."""
    for number, reason, detail in block.bad:
        raise ConfigError(f"judgments={path}, row {number}: {reason} {detail}".rstrip() + ".")
    for number, *cells in zip(block.number, *(block.columns[name] for name in names), strict=True):
        where = f"judgments={path}, row {number}"
        query, product, text, *task = (None if cell is None else str(cell) for cell in cells)
        if query is None or product is None or text is None:
            empty = [name for name, cell in zip(names, cells, strict=True) if cell is None]
            raise ConfigError(f"{where}: {' and '.join(empty)} is empty.")
        value = parse_number(text, block.decimal)
        if value is None or not 0 <= value <= (HIGHEST if graded else 3.4e38):
            wanted = f"a grade from 0 to {HIGHEST}" if graded else "a relevance of at least 0"
            raise ConfigError(f"{where}: expected {wanted}, given {text!r}.")
        yield where, Line(_identifier(query), _identifier(product), value, task[0] if task else None)


def _identifier(text: str) -> str:
    """An id, without the apostrophe that keeps a spreadsheet from running it."""
    return canonical_id(text[1:] if text.startswith("'") and plain_csv(text[1:]) == text else text)


def _only(path: Path, columns: list[str], names: tuple[str, ...]) -> str:
    given = [name for name in names if name in columns]
    if len(given) != 1:
        raise ConfigError(
            f"judgments={path}: expected one of the columns {', '.join(names)}; its columns are "
            f"{', '.join(columns[:20])}."
        )
    return given[0]


def write_judgments(path: Path, grades: Mapping[Any, float]) -> Path:
    """{(task, query id, product id): grade} as a table that `read_judgments` reads."""
    return write_text(path, Table(COLUMNS, [[*pair, f"{grade:g}"] for pair, grade in grades.items()]).csv())
