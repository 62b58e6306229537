"""What never reaches the application: bodies that are too large, requests from other sites, unknown hosts."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

PICTURE_PIXELS = 50_000_000
_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}


class Limits:
    """ASGI middleware. A body is counted as it comes in, whatever its headers say, and refused with 413.

    hosts: names this server answers to (None: any), so that no foreign name can be pointed at a server on loopback.
    A browser's request from a page of another site is refused with 403.
    """

    def __init__(self, app: Any, *, body_bytes: int, hosts: frozenset[str] | None) -> None:
        self.app, self.body_bytes, self.hosts = app, body_bytes, hosts

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if self.hosts is not None and _name(host) not in self.hosts:
            await _refuse(send, 421, f"This server does not answer to the name {_name(host)!r}.")
            return
        if origin and urlsplit(origin).netloc != host:
            await _refuse(send, 403, "This server answers its own page only, not a page of another site.")
            return
        too_large = f"The request is too large; the limit is {self.body_bytes / 1e6:.0f} MB."
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.body_bytes:
            await _refuse(send, 413, too_large)
            return
        await self._count(scope, receive, send, too_large)

    async def _count(self, scope: dict, receive: Any, send: Any, too_large: str) -> None:
        received, begun, refused = 0, False, False

        async def counted() -> dict:
            nonlocal received, refused
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
            await _refuse(send, 413, too_large)


def _name(host: str) -> str:
    """
    >>> _name("127.0.0.1:8000"), _name("[::1]:80"), _name("LOCALHOST")
    ('127.0.0.1', '[::1]', 'localhost')
    """
    return (host if host.endswith("]") else host.rpartition(":")[0] or host).lower()


async def _refuse(send: Any, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *_HEADERS.items()]})
    await send({"type": "http.response.body", "body": body})
