"""The page on which people judge a pool, and what it asks for. Judges see neither models nor the grades of others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, StringConstraints

from gcl.retrieval.page.details import Side
from gcl.retrieval.page.thumbnails import small_picture
from gcl.retrieval.tasks.judgments import GRADES, HIGHEST
from gcl.retrieval.tasks.task import RetrievalTask
from gcl.schema import Modality, fields_of
from gcl.serve.judging import Judging, Pair
from gcl.serve.listen import LOOPBACK, Names
from gcl.serve.refusal import BadRequest
from gcl.serve.shell import new_app, refused, text

_BODY_BYTES = 20_000
_PICTURE_SIDE = 640
_FILES = ("judge.css", "judge.js")
_LOCAL = Names(LOOPBACK)
_Judge = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60)]


class Place(NamedTuple):
    """The rows of a pair of the pool in its task."""

    task: RetrievalTask
    query: int
    document: int


class Word(BaseModel):
    """What a judge says of a pair: a grade, or null to skip it."""

    judge: _Judge
    pair: tuple[str, str, str]
    grade: int | None = Field(ge=0, le=HIGHEST)


class Undo(BaseModel):
    """A judge's wish to take the last word back."""

    judge: _Judge


def build_app(
    judging: Judging, places: Sequence[Place], *, name: str, export: Path, hosts: Names | None = _LOCAL
) -> FastAPI:
    """The application. places: of the judging's pairs. export: where qrels.csv is written, when somebody asks for it
    and when the server ends. hosts: the names it answers to; None: any."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        judging.export(export)

    app = new_app(
        body_bytes=_BODY_BYTES, hosts=hosts, scripts=_FILES, title="gcl judge", openapi_url=None, lifespan=lifespan
    )
    shown = _Shown(judging.pairs, places)

    def state(judge: str) -> dict[str, Any]:
        number = judging.current(judge)
        pair = None if number is None else shown(number)
        return {"catalog": name, "grades": GRADES, "pair": pair, "progress": judging.progress(judge)}

    @app.exception_handler(OSError)
    def unwritten(_: Request, error: OSError) -> Response:
        return refused(507, f"The judgment was not kept: {error}")

    @app.get("/api/next")
    def following(judge: Annotated[_Judge, Query()]) -> dict[str, Any]:
        return state(judge)

    @app.post("/api/judge")
    def judge(word: Word) -> dict[str, Any]:
        try:
            judging.say(word.judge, Pair(*word.pair), word.grade)
        except KeyError:
            raise BadRequest("This pair is not of the pool that is judged now: load the page again.", 404) from None
        return state(word.judge)

    @app.post("/api/undo")
    def undo(asked: Undo) -> dict[str, Any]:
        return {"undone": judging.undo(asked.judge), **state(asked.judge)}

    @app.get("/api/qrels.csv")
    def qrels() -> Response:
        headers = {"content-disposition": 'attachment; filename="qrels.csv"'}
        return Response(judging.export(export).read_bytes(), media_type="text/csv; charset=utf-8", headers=headers)

    @app.get("/pictures/{side}/{number}")
    def picture(side: str, number: int) -> Response:
        data = shown.picture(side, number) if 0 <= number < len(places) else None
        return refused(404, "There is no such picture.") if data is None else Response(
            data, media_type="image/webp", headers={"cache-control": "no-store"})  # fmt: skip

    @app.get("/")
    def page() -> Response:
        return Response(text("judge.html"), media_type="text/html")

    return app


class _Shown:
    """What a judge sees of a pair."""

    def __init__(self, pairs: Sequence[Pair], places: Sequence[Place]) -> None:
        self.pairs, self.places = pairs, places
        self.picture = lru_cache(maxsize=512)(self._picture)
        self._sides: dict[int, Side] = {}
        self._of_search: dict[tuple[str, str], list[int]] = {}
        for number, pair in enumerate(pairs):
            self._of_search.setdefault(pair[:2], []).append(number)

    def __call__(self, number: int) -> dict[str, Any]:
        pair, (task, query, document) = self.pairs[number], self.places[number]
        queries = self._side(task.queries)
        asked, record = task.queries[query], task.corpus[document]
        together = self._of_search[pair[:2]]
        return {
            "key": pair,
            "search": " · ".join(str(asked[name]) for name in queries.titles if asked[name]),
            "search_picture": f"/pictures/query/{number}" if queries.picture(query) else None,
            "title": self._side(task.corpus).title(document),
            "fields": [[name, record[name]] for name in fields_of(task.corpus.side, Modality.text) if record[name]],
            "picture": f"/pictures/document/{number}" if self._side(task.corpus).picture(document) else None,
            "place": together.index(number) + 1,
            "of": len(together),
        }

    def _side(self, records: Any) -> Side:
        return self._sides.setdefault(id(records), Side(records))

    def _picture(self, side: str, number: int) -> bytes | None:
        task, query, document = self.places[number]
        known = {"query": (task.queries, query), "document": (task.corpus, document)}
        if side not in known:
            return None
        records, row = known[side]
        data = self._side(records).picture(row)
        return small_picture(data, _PICTURE_SIDE) if data else None
