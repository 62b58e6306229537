"""Lines of TREC files, as trec_eval takes them: columns separated by any white space, comments that begin with #."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from gcl.data.tables.source import not_decodable, open_text

QRELS = "query_id 0 document_id relevance"
RUN = "query_id Q0 document_id rank score tag"
_VALUE = re.compile(r"[^ \t\r\n\v\f]+")  # of an id, other white space is a part


def trec_lines(path: str | Path, form: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, its columns) of each line. form: QRELS or RUN. Raises ValueError for another number of columns,
    and for a file without lines."""
    expected, number = len(form.split()), 0
    for number, values in _lines(Path(path)):
        if len(values) != expected:
            raise ValueError(f"{path}, line {number}: {len(values)} columns, expected {expected} ({form}).")
        yield number, values
    if not number:
        raise ValueError(f"{path} is empty: expected lines of {expected} columns ({form}).")


def is_trec(path: Path) -> bool:
    """Whether a file's first lines are TREC qrels: four columns, the last of them a number."""
    try:
        lines = [values for _, values in islice(_lines(path), 3)]
    except ValueError:  # a table in another encoding
        return False
    return bool(lines) and all(len(values) == 4 and re.fullmatch(r"-?\d+(\.\d+)?", values[3]) for values in lines)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with open_text(path, None) as source:
            for number, line in enumerate(source, start=1):
                if not line.startswith("#") and (values := _VALUE.findall(line)):
                    yield number, values
    except UnicodeError:
        raise ValueError(not_decodable(path, None)) from None
