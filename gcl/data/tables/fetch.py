"""One file by http or https, as `prepare` fetches what a table names: the table may come from anybody.

1. a name that means a private address is refused, and so is a connection that ended at one (whatever the name meant
   when it was looked up), and every redirect is checked like the first URL
2. the catalog's own headers go to the hosts it names, a login in the URL to the URL's host alone
3. `timeout` is for all of it, to the last byte: a server that sends one byte at a time gains nothing
"""

from __future__ import annotations

import io
import ipaddress
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64encode
from email.utils import parsedate_to_datetime
from functools import cache, partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, InvalidURL
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from gcl.data.catalog import Download
from gcl.data.masked import masked
from gcl.data.network import cause_of
from gcl.files.progress import duration

AGAIN = {408, 425, 429, 500, 502, 503, 504}  # what a server says when asking later may help
LONGEST_WAIT = 30.0  # seconds, whatever Retry-After asks for
_REDIRECTS = 5
_PIECE = 1 << 16
_ALLOWED = "%/:=&?~#+!$,;'@()*[]"  # what `quote` leaves: a URL may be half escaped already
_PRIVATE = "a private address"
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses as IPv6 networks see them (RFC 6052)


class Failure(Exception):
    """A request that failed: why, and whether to ask again, after at least `after` seconds. kind: the reason without
    what is of this URL alone, so that failures can be counted; None: the detail is that already."""

    def __init__(self, detail: str, *, again: bool, after: float = 0.0, kind: str | None = None) -> None:
        super().__init__(masked(detail))
        self.again, self.after, self.kind = again, after, kind or masked(detail)


def host_of(url: str) -> str:
    """The host a URL names, as data.download.hosts lists it: with its port where that is not the usual one; "" where
    it names none.

    >>> host_of("https://me:pw@CDN.shop.example:443/1.jpg"), host_of("http://127.0.0.1:8000/1.jpg")
    ('cdn.shop.example', '127.0.0.1:8000')
    """
    try:
        parts = urlsplit(url)
        usual = {"http": 80, "https": 443}.get(parts.scheme)
        return f"{parts.hostname or ''}{'' if parts.port in (None, usual) else f':{parts.port}'}"
    except ValueError:
        return ""


def fetch(url: str, settings: Download) -> bytes:
    """The bytes behind a URL. Raises Failure."""
    until = time.monotonic() + settings.timeout
    base = {"User-Agent": "gcl", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
    try:
        address, login = _without_login(url)
        request = urllib.request.Request(quote(address, safe=_ALLOWED), headers=base)
        if login:
            request.add_unredirected_header("Authorization", login)
        _add_own_headers(request, settings)
        with _opener(settings, until).open(request, timeout=settings.timeout) as response:
            return _body(response, settings)
    except urllib.error.HTTPError as error:
        with error:
            kind, wait = f"HTTP {error.code} {error.reason}", _retry_after(error)
            asked = f": the server asks to wait {duration(wait)}; data.download.rate asks it less often" if wait else ""
            again, after = error.code in AGAIN, min(wait, LONGEST_WAIT)
            raise Failure(f"{kind}{asked}", again=again, after=after, kind=kind) from None
    except (InvalidURL, UnicodeError) as error:
        raise Failure(f"this is not a URL ({error})", again=False, kind="not a URL") from None
    except (OSError, HTTPException) as error:  # no address, no connection, silence, a connection that broke
        reason = getattr(error, "reason", error)
        if reason == "no host given":
            raise Failure("this is not a URL (it names no host)", again=False, kind="not a URL") from None
        again = not isinstance(reason, ssl.SSLCertVerificationError)
        raise Failure(cause_of(error) or f"{type(reason).__name__} {reason}".strip(), again=again) from None
    except ValueError as error:
        raise Failure(f"this is not a URL ({error})", again=False, kind="not a URL") from None


def _without_login(url: str) -> tuple[str, str | None]:
    """The URL without "name:password@", and these as a header's value."""
    parts = urlsplit(url)
    login, _, place = parts.netloc.rpartition("@")
    if not login:
        return url, None
    return urlunsplit(parts._replace(netloc=place)), f"Basic {b64encode(unquote(login).encode()).decode()}"


def _add_own_headers(request: urllib.request.Request, settings: Download) -> None:
    if host_of(request.full_url) in {host.lower() for host in settings.hosts}:
        for name, value in settings.headers.items():
            request.add_unredirected_header(name, os.path.expandvars(value))


def _body(response: HTTPResponse, settings: Download) -> bytes:
    most, expected = settings.max_bytes, response.headers.get("Content-Length", "")
    if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise Failure(f"it is sent as {response.headers['Content-Encoding']}", again=False)
    pieces, size = [], 0
    try:
        while piece := response.read1(_PIECE):
            size += len(piece)
            pieces.append(piece)
            if size > most:
                raise Failure(f"more than {most:,} bytes, data.download.max_bytes", again=False)
    except TimeoutError:
        detail = f"timed out: not finished after {settings.timeout:g} s, {size:,} bytes arrived"
        raise Failure(detail, again=True, kind="timed out") from None
    if expected.isdigit() and size != int(expected):
        raise Failure(f"{size:,} of {int(expected):,} bytes arrived", again=True, kind="cut short")
    if not size:
        raise Failure("the answer is empty", again=True)
    data = b"".join(pieces)
    start = data[:512].lstrip().lower()
    if start.startswith((b"<", b"{")) and b"<svg" not in start:  # "please wait", "not found", as if all were well
        detail = f"it holds a page, not an image (of a login, say): {data[:40]!r}"
        raise Failure(detail, again=True, kind="a page, not an image")
    return data


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds; 0 where the server says nothing."""
    said = (error.headers.get("Retry-After") if error.headers else None) or ""
    if said.isdigit():
        return float(said)
    try:
        return max(parsedate_to_datetime(said).timestamp() - time.time(), 0.0)
    except ValueError:
        return 0.0


def is_private(address: str) -> bool:
    """Whether an IP address is one of this machine or of a network of its own, in whatever form it is written.

    >>> is_private("169.254.169.254"), is_private("::ffff:10.0.0.1"), is_private("8.8.8.8")
    (True, True, False)
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    return not ip.is_global or ip.is_multicast


def _refuse_private(host: str) -> None:
    """Raises Failure for a name that means private addresses only; what cannot be looked up fails later."""
    try:
        found = {str(place[0]) for *_, place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return
    if found and all(map(is_private, found)):
        raise Failure(_private(host, min(found)), again=False, kind=_PRIVATE)


def _private(host: str, address: str) -> str:
    which = "" if host == address else f" ({address})"
    return f"{host}{which} is a private address: data.download.private=true fetches from such"


class _Web(urllib.request.AbstractHTTPHandler):
    """Opens http and https URLs."""

    def __init__(self, settings: Download, until: float) -> None:
        super().__init__()
        self._private, self._until = settings.private, until

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_Connection, **self._guards(request)), request)

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_SecureConnection, context=_tls(), **self._guards(request)), request)

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def _guards(self, request: urllib.request.Request) -> dict[str, Any]:
        host = urlsplit(request.full_url).hostname or ""
        if not self._private:
            _refuse_private(host)
        proxied = request.host != urlsplit(request.full_url).netloc  # then the proxy's address is the environment's
        return {"until": self._until, "private": self._private or proxied}


class _Guarded(HTTPConnection):
    """A connection that ends at `until` and, unless `private`, at no private address."""

    def __init__(self, host: str, *, until: float, private: bool, **options: Any) -> None:
        super().__init__(host, **options | {"timeout": max(until - time.monotonic(), 1e-3)})
        self._private = private
        self.response_class = partial(_Response, until=until)  # type: ignore[assignment]

    def connect(self) -> None:
        super().connect()
        address = self.sock.getpeername()[0]
        if not self._private and is_private(address):
            raise Failure(_private(self.host, address), again=False, kind=_PRIVATE)


class _Connection(_Guarded):
    pass


class _SecureConnection(_Guarded, HTTPSConnection):
    pass


class _Response(HTTPResponse):
    """One whose header and body arrive before `until`."""

    def __init__(self, sock: socket.socket, *given: Any, until: float, **options: Any) -> None:
        super().__init__(sock, *given, **options)
        self.fp = io.BufferedReader(_Until(sock, until))


class _Until(io.RawIOBase):
    """What a socket receives. Raises TimeoutError at `until`: a socket's own timeout begins anew with every byte."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._raw, self._until = sock, sock.makefile("rb", buffering=0), until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https only; the catalog's own headers stay behind where https would become http."""

    max_redirections = max_repeats = _REDIRECTS + 1  # fewer are refused below, in a sentence

    def __init__(self, settings: Download) -> None:
        self._settings = settings

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        url = urljoin(req.full_url, headers["Location"] or "")
        if urlsplit(url).scheme not in ("http", "https"):
            fp.close()
            raise Failure(f"it redirects to {url}", again=False, kind="redirected to another scheme")
        if sum(getattr(req, "redirect_dict", {}).values()) >= _REDIRECTS:
            fp.close()
            detail = f"it redirects more than {_REDIRECTS} times, the last time to {url}"
            raise Failure(detail, again=False, kind="redirected too often")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, request: Any, response: Any, code: int, message: str, headers: Any, url: str) -> Any:
        scheme = urlsplit(url).scheme
        address, _ = _without_login(url)  # what a foreign server says is no login of the catalog's
        following = super().redirect_request(request, response, code, message, headers, address)
        if following is not None and (scheme == "https" or request.type == "http"):
            _add_own_headers(following, self._settings)
        return following


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _opener(settings: Download, until: float) -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Web(settings, until),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(settings),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
