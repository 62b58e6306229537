"""The search page and its HTTP interface over an Engine. Nothing is loaded from anywhere but this server."""

from __future__ import annotations

import asyncio
import json
import time
from functools import lru_cache
from importlib.resources import files
from string import Template
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, Form, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from gcl.data.images import READ, BadImage, check_image
from gcl.data.tables.quarantine import Bad
from gcl.retrieval.page.details import Side
from gcl.retrieval.page.document import asset as page_asset
from gcl.retrieval.page.thumbnails import small_picture
from gcl.schema import Modality, fields_of
from gcl.serve.engine import LONGEST_TEXT, MOST_RESULTS, BadRequest, Engine, Hit
from gcl.serve.limits import PICTURE_PIXELS, Limits
from gcl.serve.listen import LOOPBACK, Names
from gcl.table import readable_json

PICTURE_BYTES = 10_000_000
_PICTURE_SIDE = 320
_LOCAL = Names(LOOPBACK)
_FROM_PAGE = ("base.css", "dom.js")
_OWN = ("search.css", "search.js", "docs.js")
_TYPES = {"css": "text/css", "js": "text/javascript"}


class Product(BaseModel):
    """One result of one model."""

    place: int = Field(description="1 is the best")
    id: str
    title: str
    score: float = Field(description="cosine similarity of query and product")
    picture: str | None = Field(description="where its picture is, on this server")
    places: dict[str, int] = Field(description="its place with each model; 0: not among the results")


class ModelResults(BaseModel):
    """What one model found, best first."""

    model: str
    results: list[Product]


class Answer(BaseModel):
    """What every model found for one search."""

    models: list[ModelResults]
    milliseconds: float


class FieldInfo(BaseModel):
    """A field of the products and its weight in the catalog's schema."""

    modality: str
    weight: float


class CatalogInfo(BaseModel):
    """What can be searched, with what, and how."""

    name: str
    products: int
    models: list[str]
    fields: dict[str, FieldInfo]
    text: bool = Field(description="whether the models take a text")
    picture: bool = Field(description="whether the models take a picture")


class Refusal(BaseModel):
    """Why a request was refused, in a sentence."""

    detail: str


_REFUSALS: dict[int | str, dict[str, Any]] = {
    413: {"model": Refusal, "description": "the picture has too many bytes or pixels"},
    415: {"model": Refusal, "description": "the file is not a picture that can be read, or is too elongated"},
    422: {"model": Refusal, "description": "an empty search, or settings out of range"},
}
Text = Annotated[str | None, Form(max_length=LONGEST_TEXT, description="what somebody would type")]
Results = Annotated[int, Form(ge=1, le=MOST_RESULTS, description="results per model")]
_EXAMPLE = '{"image": 0.9, "title": 0.1}'
_ABOUT_WEIGHTS = f"weights of the products' fields as JSON, for example {_EXAMPLE}; by default those of the catalog"
Weights = Annotated[str | None, Form(description=_ABOUT_WEIGHTS)]


class _Json(JSONResponse):
    """No text of a catalog acts on the terminal of who asks with curl."""

    def render(self, content: Any) -> bytes:
        return readable_json(content, allow_nan=False, separators=(",", ":")).encode()


def build_app(engine: Engine, *, name: str, hosts: Names | None = _LOCAL) -> FastAPI:
    """The application: the HTTP interface, the products' pictures, and the pages that use them.

    hosts: the names the server answers to; None: any name.
    """
    app = FastAPI(
        title="gcl search",
        description=f"Search the catalog {name}.",
        version="1",
        docs_url=None,
        redoc_url=None,
        default_response_class=_Json,
    )
    app.add_middleware(Limits, body_bytes=PICTURE_BYTES + 100_000, names=hosts)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return _refused(422, f"{place}: {first['msg']}.")

    @app.exception_handler(BadRequest)
    def bad_request(_: Request, error: BadRequest) -> Response:
        return _refused(422, str(error))

    @app.exception_handler(BadImage)
    def bad_image(_: Request, error: BadImage) -> Response:
        return _refused_picture(error.bad)

    _add_interface(app, engine, name)
    _add_pictures(app, engine)
    _add_pages(app)
    return app


def _add_interface(app: FastAPI, engine: Engine, name: str) -> None:
    @app.get("/api/catalog", summary="What can be searched")
    def catalog() -> CatalogInfo:
        fields = {key: FieldInfo(modality=f.modality.value, weight=f.weight) for key, f in engine.fields.items()}
        return CatalogInfo(
            name=name,
            products=len(engine.documents),
            models=engine.labels,
            fields=fields,
            text=engine.accepts(Modality.text),
            picture=engine.accepts(Modality.image),
        )

    @app.get("/api/search", summary="Search by text", responses={422: _REFUSALS[422]})
    def search_text(
        text: Annotated[str, Query(max_length=LONGEST_TEXT, description="what somebody would type")],
        k: Annotated[int, Query(ge=1, le=MOST_RESULTS, description="results per model")] = 10,
        weights: Annotated[str | None, Query(description=_ABOUT_WEIGHTS)] = None,
    ) -> Answer:
        return _answer(engine, text, None, k, weights)

    @app.post("/api/search", summary="Search by text, picture or both", responses=_REFUSALS)
    async def search_form(
        text: Text = None,
        k: Results = 10,
        weights: Weights = None,
        picture: Annotated[UploadFile | None, File(description=f"{READ}; up to 10 MB")] = None,
    ) -> Answer:
        data = await picture.read() if picture is not None else None
        if data is not None and (refused := await asyncio.to_thread(_check, data)) is not None:
            return refused  # type: ignore[return-value]
        return await asyncio.to_thread(_answer, engine, text, data, k, weights)


def _add_pictures(app: FastAPI, engine: Engine) -> None:
    small = lru_cache(maxsize=4096)(lambda row: _picture(engine, row))

    @app.get("/pictures/{row}", summary="A product's picture, small", response_class=Response)
    def picture(row: int) -> Response:
        data = small(row) if 0 <= row < len(engine.documents) else None
        if data is None:
            return _refused(404, f"There is no picture {row}.")
        return Response(data, media_type="image/webp", headers={"cache-control": "private, max-age=3600"})


def _add_pages(app: FastAPI) -> None:
    @app.get("/static/{file}", include_in_schema=False)
    def static(file: str) -> Response:
        if file in _FROM_PAGE:
            return Response(page_asset(file), media_type=_TYPES[file.rpartition(".")[2]])
        return _file(file) if file in _OWN else _refused(404, f"There is no file {file!r}.")

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return _page("search", title="gcl search")

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return _page("docs", title="gcl search: HTTP interface")


def _answer(engine: Engine, text: str | None, picture: bytes | None, k: int, weights: str | None) -> Answer:
    begun = time.perf_counter()
    results = engine.search(text, picture, k=k, weights=_parsed(weights))
    models = [ModelResults(model=label, results=_products(engine, hits)) for label, hits in results.items()]
    return Answer(models=models, milliseconds=round(1000 * (time.perf_counter() - begun), 1))


def _products(engine: Engine, hits: list[Hit]) -> list[Product]:
    if not hits:
        return []
    images = fields_of(engine.fields, Modality.image)
    columns = [list(engine.fields).index(name) for name in images]
    rows = [hit.row for hit in hits]
    side = Side(engine.documents)
    present = np.any(engine.documents.present(np.array(rows, dtype=np.int64))[:, columns], axis=1)  # [k]
    return [
        Product(
            place=place,
            id=str(engine.documents.ids[hit.row]),
            title=side.title(hit.row),
            score=round(hit.score, 6),
            picture=f"/pictures/{hit.row}" if has else None,
            places=hit.places,
        )
        for place, (hit, has) in enumerate(zip(hits, present.tolist(), strict=True), 1)
    ]


def _parsed(weights: str | None) -> dict[str, float] | None:
    if weights is None or not weights.strip():
        return None
    try:
        parsed = json.loads(weights)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise BadRequest(f"weights is JSON, a number by field, for example {_EXAMPLE}.")
    return parsed


def _check(data: bytes) -> Response | None:
    """The refusal of an upload that cannot be searched with; None if it can."""
    if len(data) > PICTURE_BYTES:
        return _refused(413, f"The picture has {len(data) / 1e6:.1f} MB; the limit is {PICTURE_BYTES / 1e6:.0f} MB.")
    checked = check_image(data, max_pixels=PICTURE_PIXELS, limit="the limit")
    return _refused_picture(checked) if isinstance(checked, Bad) else None


def _refused_picture(bad: Bad) -> Response:
    sentence = f"The picture cannot be used: {bad}."
    if bad.reason == "image has too many pixels":
        return _refused(413, sentence)
    return _refused(415, sentence if READ in sentence else f"{sentence} Pictures are read as {READ}.")


def _picture(engine: Engine, row: int) -> bytes | None:
    data = Side(engine.documents).picture(row)
    return small_picture(data, _PICTURE_SIDE) if data else None


def _page(name: str, *, title: str) -> Response:
    head = Template(_text("head.html")).substitute(name=name, title=title)
    return Response(head + _text(f"{name}.html"), media_type="text/html")


def _file(name: str) -> Response:
    return Response(_text(name), media_type=_TYPES[name.rpartition(".")[2]])


def _text(name: str) -> str:
    return (files("gcl.serve") / "static" / name).read_text(encoding="utf-8")


def _refused(status: int, sentence: str) -> Response:
    return _Json({"detail": sentence}, status_code=status)
