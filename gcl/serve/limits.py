"""What never reaches the application: bodies that are too large, requests from other sites, unknown hosts."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gcl.serve.listen import Names, name_of

PICTURE_PIXELS = 50_000_000
_LINGER_SECONDS = 2.0
_PAGES = ("/", "/docs")
_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}
_FOREIGN = "This server answers its own page only, not a page of another site."


class Limits:
    """ASGI middleware. A body is counted as it comes in, whatever its headers say, and refused with 413.

    names: what this server answers to (None: any). A browser's request from a page of another site is refused with
    403, whatever its method: a search costs work, and an image that loads tells what is in the catalog. Other sites
    may link to the pages.
    """

    def __init__(self, app: Any, *, body_bytes: int, names: Names | None) -> None:
        self.app, self.body_bytes, self.names = app, body_bytes, names

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        host = _values(scope, b"host")
        if self.names is not None and not (len(host) == 1 and self.names.answer(host[0])):
            name = name_of(host[0]) if host else ""
            await _refuse(
                receive,
                send,
                421,
                f"This server does not answer to the name {name!r}. If it is its own: start it with hosts=[{name}].",
            )
        elif _from_another_site(scope, host[0] if host else ""):
            await _refuse(receive, send, 403, _FOREIGN)
        elif any(_number(length) > self.body_bytes for length in _values(scope, b"content-length")):
            await _refuse(receive, send, 413, self._too_large)
        else:
            await self._count(scope, receive, send)

    @property
    def _too_large(self) -> str:
        return f"The request is too large; the limit is {self.body_bytes / 1e6:.0f} MB."

    async def _count(self, scope: dict, receive: Any, send: Any) -> None:
        received, begun, refused = 0, False, False

        async def counted() -> dict:
            nonlocal received, refused
            if refused:
                return {"type": "http.disconnect"}
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.body_bytes:
                refused = True
                return {"type": "http.disconnect"}
            return message

        async def answered(message: dict) -> None:
            nonlocal begun
            if refused and not begun:
                return
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS.items()]}
            await send(message)

        try:
            await self.app(scope, counted, answered)
        except Exception:
            if not refused:
                raise
        if refused and not begun:
            await _refuse(receive, send, 413, self._too_large)


def _from_another_site(scope: dict, host: str) -> bool:
    """Whether a browser says so. Sec-Fetch-Site comes with every request to loopback and HTTPS, Origin with POST."""
    if any(origin.lower().partition("://")[2] != host.lower() for origin in _values(scope, b"origin")):
        return True
    if all(site in ("same-origin", "none") for site in _values(scope, b"sec-fetch-site")):
        return False
    followed = _values(scope, b"sec-fetch-mode") == ["navigate"] and _values(scope, b"sec-fetch-dest") == ["document"]
    return not followed or scope["method"] not in ("GET", "HEAD") or scope["path"] not in _PAGES


def _values(scope: dict, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _number(length: str) -> float:
    """Of a Content-Length; anything that is not a number, or has too many digits, is too large."""
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else float("inf")


async def _refuse(receive: Any, send: Any, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *_HEADERS.items()]})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await _linger(receive)
    await send({"type": "http.response.body", "body": b""})


async def _linger(receive: Any) -> None:
    """Throws away what still comes in for a moment: were the connection closed at once, the reset would take the
    refusal from a client that is still sending before it reads."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _LINGER_SECONDS
    while (left := end - loop.time()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except asyncio.TimeoutError:  # another class than the built-in one in Python 3.10
            return
        if not message.get("more_body", False):
            return
