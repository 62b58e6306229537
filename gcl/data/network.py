"""What the errors of a network mean, in plain words, whichever client raised them (urllib, aiohttp, a store's)."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from http import HTTPStatus

_BY_NAME = {  # of clients that are not imported here
    "TooManyRedirects": "it redirects without end",
    "ServerDisconnectedError": "the server closed the connection",
    "IncompleteRead": "the server closed the connection",
    "NonHttpUrlRedirectClientError": "it redirects to what is neither http nor https",
    "InvalidUrlClientError": "this is not a URL",
}


def cause_of(error: BaseException) -> str | None:
    """Why a request failed; None: this says nothing of the network.

    >>> cause_of(ConnectionRefusedError(111, "Connection refused"))
    'the connection is refused: nothing answers there, or a firewall is between'
    >>> cause_of(OSError("the disk"))
    """
    return next(filter(None, map(_meaning, _chain(error))), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those it was made of, the innermost last."""
    seen: list[BaseException] = []
    left: list[object] = [error]
    while left:
        one = left.pop()
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            left += [getattr(one, name, None) for name in ("__cause__", "os_error", "certificate_error", "reason")]
    return reversed(seen)


def _meaning(error: BaseException) -> str | None:
    match error:
        case ssl.SSLCertVerificationError():
            return f"the server's certificate is not accepted: {error.verify_message}"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "HTTP_REQUEST"):
            return "the server does not speak https there: write http://"
        case ssl.SSLError():
            return f"the encrypted connection failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
        case socket.gaierror(errno=socket.EAI_AGAIN):
            return "the name of the host cannot be looked up: is there a network?"
        case socket.gaierror():
            return "there is no host of this name"
        case TimeoutError():
            return "timed out"
        case ConnectionRefusedError():
            return "the connection is refused: nothing answers there, or a firewall is between"
        case ConnectionError():
            return "the server closed the connection"
        case OSError(errno=errno.ENETUNREACH | errno.EHOSTUNREACH):
            return "there is no way to the host: is there a network?"
    return _BY_NAME.get(type(error).__name__) or _status(error)


def _status(error: BaseException) -> str | None:
    """Of an answer: aiohttp calls its code status, urllib code."""
    code = getattr(error, "status", None) or getattr(error, "code", None)
    if not isinstance(code, int) or code not in range(300, 600):
        return None
    known = {status.value: f" {status.phrase}" for status in HTTPStatus}
    return f"HTTP {code}{known.get(code, '')}"
