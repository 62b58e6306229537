"""What all servers of pages have in common: limits, refusals in a sentence, and the pages' own files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from gcl.retrieval.page.document import asset
from gcl.serve.limits import Limits
from gcl.serve.listen import Names
from gcl.serve.refusal import BadRequest
from gcl.table import readable_json

_FROM_PAGE = ("base.css", "dom.js")
_TYPES = {"css": "text/css", "js": "text/javascript"}


class Json(JSONResponse):
    """No text of a catalog acts on the terminal of who asks with curl."""

    def render(self, content: Any) -> bytes:
        return readable_json(content, allow_nan=False, separators=(",", ":")).encode()


def refused(status: int, sentence: str) -> Response:
    """Why a request is not answered."""
    return Json({"detail": sentence}, status_code=status)


def new_app(*, body_bytes: int, hosts: Names | None, scripts: Sequence[str], **options: Any) -> FastAPI:
    """An application behind the limits. scripts: the scripts and style sheets of its pages, served at /static/ with
    those of the report; options: of FastAPI. Raised BadRequests become refusals."""
    app = FastAPI(docs_url=None, redoc_url=None, default_response_class=Json, **options)
    app.add_middleware(Limits, body_bytes=body_bytes, names=hosts)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return refused(422, f"{place}: {first['msg']}.")

    @app.exception_handler(BadRequest)
    def bad_request(_: Request, error: BadRequest) -> Response:
        return refused(error.status, str(error))

    @app.get("/static/{file}", include_in_schema=False)
    def static(file: str) -> Response:
        if file not in (*_FROM_PAGE, *scripts):
            return refused(404, f"There is no file {file!r}.")
        content = asset(file) if file in _FROM_PAGE else text(file)
        return Response(content, media_type=_TYPES[file.rpartition(".")[2]])

    return app


def text(name: str) -> str:
    """A file of the servers' own pages."""
    return (files("gcl.serve") / "static" / name).read_text(encoding="utf-8")
