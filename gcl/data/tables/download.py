"""Images that a table names by URL: fetched once, politely, into a folder that later runs read.

1. `fetch_all` asks for every URL the cache lacks, several at a time, each host at most `rate` times per second
2. a failure that may pass is retried later, as late as the server says; others are kept as the reason
3. a cached file's name is its URL's SHA-256 and it gets that name only when it is whole, so an interrupted run resumes
4. `read` gives what is in the cache; it is judged by its bytes (see images.py), never by its content type
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from gcl.data.catalog import Download
from gcl.data.store.key_table import KeyTable, text_key
from gcl.data.tables.quarantine import Bad
from gcl.data.tables.remote import is_remote
from gcl.files.atomic import write_bytes
from gcl.files.digest import text_sha256

NOT_DOWNLOADED = "image cannot be downloaded"
_AGAIN = {408, 425, 429, 500, 502, 503, 504}  # what a server says when asking later may help
_LONGEST_WAIT = 30.0  # seconds, whatever Retry-After asks for
_REDIRECTS = 5
_PIECE = 1 << 16


class _Failure(Exception):
    """A request that failed: why, and whether to ask again, after at least `after` seconds."""

    def __init__(self, detail: str, *, again: bool, after: float = 0.0) -> None:
        super().__init__(detail)
        self.again, self.after = again, after


class Downloads:
    """The images behind URLs. `read` gives what is in the cache, or why nothing is."""

    def __init__(self, settings: Download, folder: Path) -> None:
        """folder: the cache, unless the settings name one."""
        self.settings = settings
        self.folder = Path(settings.cache).expanduser() if settings.cache else folder
        self.fetched = 0
        self._failed: dict[str, Bad] = {}
        self._turn = _Turn(settings.rate)

    def place(self, url: str) -> Path:
        """The file that caches a URL."""
        name = text_sha256(url)
        return self.folder / name[:2] / name

    def read(self, url: str) -> bytes | Bad:
        """The image's bytes; Bad where fetching failed or was not tried."""
        url = url.strip()
        if not is_remote(url):
            return Bad("URL of a kind that is not read", url)
        try:
            return self.place(url).read_bytes()
        except FileNotFoundError:
            return self._failed.get(url) or Bad("URL was not downloaded", url)

    def fetch_all(self, urls: Iterable[str]) -> Iterator[str]:
        """Fetches what the cache lacks, `settings.workers` at a time; yields each that it asked for."""
        missing = (url for url in _distinct(urls) if not self.place(url).exists())
        pool = ThreadPoolExecutor(self.settings.workers, thread_name_prefix="download")
        try:
            first = itertools.islice(missing, 2 * self.settings.workers)
            waiting = {pool.submit(self._fetch, url): url for url in first}
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    url = waiting.pop(future)
                    if (bad := future.result()) is not None:
                        self._failed[url] = bad
                    else:
                        self.fetched += 1
                    for following in itertools.islice(missing, 1):
                        waiting[pool.submit(self._fetch, following)] = following
                    yield url
        finally:
            self._turn.stop()  # an interrupted run does not wait for its turn
            pool.shutdown(cancel_futures=True)

    def _fetch(self, url: str) -> Bad | None:
        for attempt in range(self.settings.retries + 1):
            try:
                data = self._request(url)
            except _Failure as failure:
                bad = Bad(NOT_DOWNLOADED, f"{url}: {failure}")
                if not failure.again or attempt == self.settings.retries:
                    return bad
                self._turn.sleep(max(failure.after, min(0.5 * 2**attempt, _LONGEST_WAIT)))
            else:
                self._keep(url, data)
                return None
        return bad

    def _request(self, url: str) -> bytes:
        if not url.lower().startswith(("http://", "https://")):
            return _open_stored(url)
        headers = {"User-Agent": "gcl", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
        try:
            own = {name: os.path.expandvars(value) for name, value in self.settings.headers.items()}
            request = urllib.request.Request(quote(url, safe=_ALLOWED), headers=headers | own)
            self._turn.wait(request.host)
            deadline = time.monotonic() + self.settings.timeout
            with _opener(set(self.settings.headers)).open(request, timeout=self.settings.timeout) as response:
                return self._body(response, deadline)
        except urllib.error.HTTPError as error:
            with error:
                raise _Failure(
                    f"HTTP {error.code} {error.reason}", again=error.code in _AGAIN, after=_retry_after(error)
                ) from None
        except (OSError, HTTPException) as error:  # no address, no connection, silence, a connection that broke
            reason = getattr(error, "reason", error)
            raise _Failure(f"{type(reason).__name__} {reason}".strip(), again=True) from None
        except ValueError as error:
            raise _Failure(f"this is not a URL ({error})", again=False) from None

    def _body(self, response: HTTPResponse, deadline: float) -> bytes:
        most, expected = self.settings.max_bytes, response.headers.get("Content-Length", "")
        if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            raise _Failure(f"it is sent as {response.headers['Content-Encoding']}", again=False)
        pieces, size = [], 0
        while piece := response.read1(_PIECE):
            size += len(piece)
            pieces.append(piece)
            if size > most:
                raise _Failure(f"more than {most:,} bytes, data.download.max_bytes", again=False)
            if time.monotonic() > deadline:
                raise _Failure(f"not finished after {self.settings.timeout:g} s, {size:,} bytes arrived", again=True)
        if expected.isdigit() and size != int(expected):
            raise _Failure(f"{size:,} of {int(expected):,} bytes arrived", again=True)
        if not size:
            raise _Failure("the answer is empty", again=True)
        data = b"".join(pieces)
        if data.lstrip()[:1] in (b"<", b"{"):  # "please wait", "not found" and the like, as if all were well
            raise _Failure(f"it holds a page, not an image: {data[:40]!r}", again=True)
        return data

    def _keep(self, url: str, data: bytes) -> None:
        write_bytes(self.place(url), data)


_ALLOWED = "%/:=&?~#+!$,;'@()*[]"  # what `quote` leaves: a URL may be half escaped already


def _open_stored(url: str) -> bytes:
    """An object of a store (s3, gs, hf, …); its client has its own credentials, timeouts and retries."""
    import fsspec

    try:
        with fsspec.open(url, "rb") as source:
            return source.read()
    except Exception as error:  # every store's client raises its own kinds
        raise _Failure(f"{type(error).__name__} {error}", again=not isinstance(error, OSError | ImportError)) from None


def _distinct(urls: Iterable[str]) -> Iterator[str]:
    seen = KeyTable()  # a third of a set's memory: there may be tens of millions
    for url in urls:
        url = url.strip()
        if is_remote(url):
            before = len(seen)
            seen.add(text_key(url), 0)
            if len(seen) > before:
                yield url


class _Turn:
    """At most `rate` requests per second to one host, evenly spaced; waiting ends when it is stopped."""

    def __init__(self, rate: float | None) -> None:
        self._rate, self._lock, self._stopped = rate, threading.Lock(), threading.Event()
        self._next: dict[str, float] = {}

    def wait(self, host: str) -> None:
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next.get(host, now))
            self._next[host] = turn + 1 / self._rate
        self.sleep(turn - now)

    def sleep(self, seconds: float) -> None:
        if seconds > 0 and self._stopped.wait(seconds):
            raise _Failure("interrupted", again=False)

    def stop(self) -> None:
        self._stopped.set()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https only, and takes the catalog's own headers (a key, say) to no other host."""

    max_redirections = _REDIRECTS

    def __init__(self, private: set[str]) -> None:
        self._private = {name.capitalize() for name in private}  # urllib stores names so

    def redirect_request(self, request: Any, response: Any, code: int, message: str, headers: Any, url: str) -> Any:
        if urlsplit(url).scheme not in ("http", "https"):
            raise _Failure(f"it redirects to {url}", again=False)
        following = super().redirect_request(request, response, code, message, headers, url)
        if following is not None and urlsplit(url)[:2] != urlsplit(request.full_url)[:2]:
            for name in self._private:
                following.remove_header(name)
        return following


def _opener(private: set[str]) -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(private),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _retry_after(error: urllib.error.HTTPError) -> float:
    seconds = (error.headers.get("Retry-After") if error.headers else None) or ""
    return min(float(seconds), _LONGEST_WAIT) if seconds.isdigit() else 0.0
