"""TREC run and qrels files: what every retrieval tool reads (trec_eval, ir_measures, pytrec_eval).

    run:    query_id Q0 document_id rank score tag        qrels:  query_id 0 document_id relevance

The columns are separated by white space, so ids that contain any are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from gcl.data.tables.trec import QRELS, RUN, trec_lines
from gcl.files.atomic import replacing
from gcl.retrieval.tasks.task import Qrels, Run


def write_run(path: str | Path, run: Mapping[str, Sequence[tuple[str, float]]], *, tag: str = "gcl") -> Path:
    """Writes a run, best first. Scores are written so that they read back to the same float.

    trec_eval ignores the order of the lines: it sorts by score and breaks ties by document id descending, so its
    figures may differ from ours (id ascending) where scores tie.
    """

    def lines() -> Iterator[str]:
        for query, results in run.items():
            name = _identifier(query)
            for rank, (document, score) in enumerate(results, start=1):
                yield f"{name} Q0 {_identifier(document)} {rank} {float(score)!r} {tag}\n"

    return _write(path, lines())


def read_run(path: str | Path) -> Run:
    """{query: [(document, score)]} in the order of the rank column, of the lines where that holds no numbers."""
    ranked: dict[str, list[tuple[int, str, float]]] = {}
    for number, (query, _, document, rank, score, _) in trec_lines(path, RUN):
        try:
            place = int(rank) if rank.isdecimal() else number
            ranked.setdefault(query, []).append((place, document, _number(score)))
        except ValueError:
            raise ValueError(f"{path}, line {number}: the score {score!r} is not a number.") from None
    return {
        query: [(d, s) for _, d, s in sorted(results, key=lambda item: item[0])] for query, results in ranked.items()
    }


def write_qrels(path: str | Path, qrels: Mapping[str, Mapping[str, float]]) -> Path:
    """Writes judgments. Whole numbers are written as integers, which trec_eval insists on; others as they are."""

    def lines() -> Iterator[str]:
        for query, judged in qrels.items():
            name = _identifier(query)
            for document, relevance in judged.items():
                value = int(relevance) if float(relevance).is_integer() else repr(float(relevance))
                yield f"{name} 0 {_identifier(document)} {value}\n"

    return _write(path, lines())


def read_qrels(path: str | Path) -> Qrels:
    """{query: {document: relevance}}. Raises ValueError for a pair that is judged twice."""
    qrels: Qrels = {}
    for number, (query, _, document, relevance) in trec_lines(path, QRELS):
        judged = qrels.setdefault(query, {})
        if document in judged:
            raise ValueError(
                f"{path}, line {number}: query {query!r} and document {document!r} are judged a second time."
            )
        try:
            judged[document] = _number(relevance)
        except ValueError:
            raise ValueError(f"{path}, line {number}: the relevance {relevance!r} is not a number.") from None
    return qrels


def _number(text: str) -> float:
    """Raises ValueError for what is none, or not finite."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _identifier(name: object) -> str:
    text = str(name)
    if not text or any(character.isspace() for character in text):
        raise ValueError(
            f"The id {text!r} cannot be written to a TREC file, because it contains white space or is empty."
        )
    return text


def _write(path: str | Path, lines: Iterable[str]) -> Path:
    with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.writelines(lines)
    return Path(path)
