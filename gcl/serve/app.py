"""The search page and its HTTP interface over an Engine. Nothing is loaded from anywhere but this server."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from string import Template
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, Query, Request, UploadFile
from fastapi.responses import PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool

from gcl.data.images import READ, BadImage
from gcl.data.store.records import Records, images_of, shortened, title_fields
from gcl.retrieval.page.thumbnails import small_picture
from gcl.schema import Modality, fields_of
from gcl.serve import engine as asks
from gcl.serve import shapes
from gcl.serve.embeddings import embeddings_of
from gcl.serve.engine import Engine, Hit
from gcl.serve.facets import Facet
from gcl.serve.listen import LOOPBACK, Names
from gcl.serve.metrics import CONTENT_TYPE, Metrics
from gcl.serve.pictures import PICTURE_BYTES, Pictures, checked
from gcl.serve.pictures import refused as not_usable
from gcl.serve.refusal import BadRequest
from gcl.serve.shell import Json, new_app, refused, text

_SMALL, _LARGE = 320, 960  # pixels of a picture's longer side
_OVERLOADED = 500  # searches waiting: the service is alive, and should get no more
_LOCAL = Names(LOOPBACK)
_NO_PICTURES = Pictures()
_FILES = ("search.css", "search.js", "cards.js", "docs.js")


def build_app(
    engine: Engine,
    *,
    name: str,
    hosts: Names | None = _LOCAL,
    links: Mapping[int, str] | None = None,
    pictures: Pictures = _NO_PICTURES,
) -> FastAPI:
    """The application: the HTTP interface, the products' pictures, and the pages that use them.

    hosts: the names the server answers to; None: any name. links: row -> the address of a product's own page.
    pictures: where pictures that JSON names come from.
    """
    app = new_app(
        body_bytes=PICTURE_BYTES + 100_000,
        hosts=hosts,
        scripts=_FILES,
        title="gcl search",
        description=f"Search the catalog {name}.",
        version="1",
    )

    @app.exception_handler(BadImage)
    def bad_image(_: Request, error: BadImage) -> Response:
        refusal = not_usable(error)
        return refused(refusal.status, str(refusal))

    _add_catalog(app, engine, name, links or {})
    _add_searches(app, engine, pictures)
    _add_embeddings(app, engine, pictures)
    _add_pictures(app, engine)
    _add_pages(app)
    _add_operation(app, engine)
    return app


def _add_catalog(app: FastAPI, engine: Engine, name: str, links: Mapping[int, str]) -> None:
    @app.get("/api/catalog", summary="What can be searched")
    def catalog() -> shapes.CatalogInfo:
        return shapes.CatalogInfo(
            name=name,
            products=len(engine.documents),
            models=engine.labels,
            fields={
                key: shapes.FieldInfo(modality=f.modality.value, weight=f.weight) for key, f in engine.fields.items()
            },
            filters={key: _filter_info(facet) for key, facet in engine.facets.items()},
            text=engine.accepts(Modality.text),
            picture=engine.accepts(Modality.image),
            mix=engine.mix,
            by_query=engine.by_query,
        )

    @app.get("/api/products/{id:path}", summary="A product in full", responses={404: shapes.REFUSALS[404]})
    def product(id: str) -> shapes.ProductDetails:
        row = engine.row_of(id)
        record, texts = engine.documents[row], fields_of(engine.fields, Modality.text)
        images = [image for key in fields_of(engine.fields, Modality.image) for image in images_of(record[key])]
        values = {key: facet.of(row) for key, facet in engine.facets.items() if key not in texts}
        return shapes.ProductDetails(
            id=id,
            title=_titles(engine.documents, [row])[0],
            link=links.get(row),
            texts={key: str(record[key]) for key in texts if record[key]},
            columns={key: value for key, value in values.items() if value is not None},
            pictures=[f"/pictures/{row}?number={number}" for number in range(len(images))],
        )


def _filter_info(facet: Facet) -> shapes.FilterInfo:
    if facet.values is None:
        return shapes.FilterInfo(least=float(np.nanmin(facet.column)), most=float(np.nanmax(facet.column)))
    count = np.bincount(facet.column[facet.column >= 0], minlength=len(facet.values))
    order = np.argsort(-count, kind="stable").tolist()
    return shapes.FilterInfo(values={facet.values[place]: int(count[place]) for place in order})


def _add_searches(app: FastAPI, engine: Engine, pictures: Pictures) -> None:
    @app.get("/api/search", summary="Search by text", responses={422: shapes.REFUSALS[422]})
    def searchtext(
        text: shapes.TextQuery = None,
        k: shapes.ResultsQuery = 10,
        weights: shapes.WeightsQuery = None,
        filters: shapes.FiltersQuery = None,
        like: shapes.LikeQuery = None,
        mix: shapes.MixQuery = None,
    ) -> shapes.Answer:
        chosen = _parsed("weights", weights), _parsed("filters", filters)
        return _answers(engine, [asks.Query(text, None, like, mix, k, *chosen)])[0]

    @app.post("/api/search", summary="Search by text, picture or both", responses=shapes.REFUSALS)
    async def search_form(
        text: shapes.TextForm = None,
        k: shapes.ResultsForm = 10,
        weights: shapes.WeightsForm = None,
        filters: shapes.FiltersForm = None,
        like: shapes.LikeForm = None,
        mix: shapes.MixForm = None,
        picture: Annotated[UploadFile | None, File(description=f"{READ}; up to 10 MB")] = None,
    ) -> shapes.Answer:
        data = None if picture is None else await run_in_threadpool(checked, await picture.read())
        query = asks.Query(text, data, like, mix, k, _parsed("weights", weights), _parsed("filters", filters))
        return (await run_in_threadpool(_answers, engine, [query]))[0]

    @app.post("/api/searches", summary="Several searches in one request", responses=shapes.REFUSALS)
    def searches(asked: shapes.Searches) -> shapes.Answers:
        queries = []
        for number, one in enumerate(asked.searches):
            given = one.model_dump(exclude={"picture"})
            try:
                image = None if one.picture is None else pictures.required(one.picture)
                queries.append(engine.check(asks.Query(image=image, **given)))
            except BadRequest as error:
                raise BadRequest(f"searches.{number}: {error}", error.status) from None
        return shapes.Answers(answers=_answers(engine, queries))


def _add_embeddings(app: FastAPI, engine: Engine, pictures: Pictures) -> None:
    about: dict[int | str, dict[str, Any]] = {200: {"model": shapes.EmbeddingList}, **shapes.REFUSALS}

    @app.post("/v1/embeddings", summary="Vectors of texts, pictures and products", responses=about, response_model=None)
    def embeddings(asked: shapes.Embeddings) -> Response:
        return Json(embeddings_of(engine, asked, pictures))


def _add_pictures(app: FastAPI, engine: Engine) -> None:
    small = lru_cache(maxsize=4096)(lambda row, number: _picture(engine, row, number, _SMALL))

    @app.get("/pictures/{row}", summary="A product's picture", response_class=Response)
    def picture(
        row: int,
        number: Annotated[int, Query(description="which of several, from 0")] = 0,
        large: Annotated[bool, Query(description=f"up to {_LARGE} pixels instead of {_SMALL}")] = False,
    ) -> Response:
        known = 0 <= row < len(engine.documents) and 0 <= number
        data = (_picture(engine, row, number, _LARGE) if large else small(row, number)) if known else None
        if data is None:
            return refused(404, f"There is no picture {row}.")
        return Response(data, media_type="image/webp", headers={"cache-control": "private, max-age=3600"})


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return _page("search", title="gcl search", scripts=("dom.js", "cards.js", "search.js"))

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return _page("docs", title="gcl search: HTTP interface", scripts=("dom.js", "docs.js"))


def _add_operation(app: FastAPI, engine: Engine) -> None:
    metrics = Metrics({
        "gcl_products": ("Products in the catalog.", lambda: len(engine.documents)),
        "gcl_waiting": ("Searches that no model has begun with.", lambda: engine.waiting),
    })  # fmt: skip
    engine.on_batch = metrics.batch_size.observe
    app.add_middleware(metrics.around)

    @app.get("/health/live", summary="Whether the process answers", response_class=PlainTextResponse)
    async def live() -> str:
        return "ok\n"

    @app.get(
        "/health/ready", summary="Whether searches are taken: 503 where too many wait", response_class=PlainTextResponse
    )
    async def ready() -> Response:
        waiting = engine.waiting
        if waiting > _OVERLOADED:
            return PlainTextResponse(f"{waiting} searches are waiting\n", 503)
        return PlainTextResponse("ok\n")

    @app.get("/metrics", summary="Counters as Prometheus reads them", response_class=PlainTextResponse)
    def counters() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)


def _answers(engine: Engine, queries: Sequence[asks.Query]) -> list[shapes.Answer]:
    begun = time.perf_counter()
    found = engine.search_all(queries)
    took = round(1000 * (time.perf_counter() - begun), 1)
    return [
        shapes.Answer(
            models=[
                shapes.ModelResults(model=label, results=_products(engine, hits)) for label, hits in results.items()
            ],
            milliseconds=took,
        )
        for results in found
    ]


def _products(engine: Engine, hits: list[Hit]) -> list[shapes.Product]:
    rows = [hit.row for hit in hits]
    shown = zip(hits, _titles(engine.documents, rows), engine.images(rows), strict=True)
    return [
        shapes.Product(
            place=place,
            id=str(engine.documents.ids[hit.row]),
            title=title,
            score=round(hit.score, 6),
            picture=f"/pictures/{hit.row}" if images else None,
            pictures=images,
            places=hit.places,
        )
        for place, (hit, title, images) in enumerate(shown, 1)
    ]


def _titles(documents: Records, rows: Sequence[int]) -> list[str]:
    """What each row is called: its first text, or its id; their images are not read."""
    titles: list[str | None] = [None] * len(rows)
    for name in title_fields(documents.side):
        if missing := [place for place, title in enumerate(titles) if not title]:
            values = documents.column(name, np.array([rows[place] for place in missing], dtype=np.int64))
            for place, value in zip(missing, values, strict=True):
                titles[place] = str(value or "") or None
    return [shortened(title or f"({documents.ids[row]})") for title, row in zip(titles, rows, strict=True)]


def _parsed(name: str, written: str | None) -> dict[str, Any] | None:
    if written is None or not written.strip():
        return None
    try:
        parsed = json.loads(written)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        example = shapes.WEIGHTS_EXAMPLE if name == "weights" else shapes.FILTERS_EXAMPLE
        what = "a number by field" if name == "weights" else "what is wanted by column"
        raise BadRequest(f"{name} is JSON, {what}, for example {example}.")
    return parsed


def _picture(engine: Engine, row: int, number: int = 0, side: int = _SMALL) -> bytes | None:
    record = engine.documents[row]
    images = [image for name in fields_of(engine.fields, Modality.image) for image in images_of(record[name])]
    return small_picture(images[number], side) if number < len(images) else None


def _page(name: str, *, title: str, scripts: Sequence[str]) -> Response:
    tags = "\n".join(f'<script src="/static/{script}" defer></script>' for script in scripts)
    head = Template(text("head.html")).substitute(title=title, scripts=tags)
    return Response(head + text(f"{name}.html"), media_type="text/html")
