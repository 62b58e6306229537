"""Images that a table names by URL: fetched once, politely, into a folder that later runs read.

1. `fetch_all` asks for every URL the cache lacks, several at a time, each host at most `rate` times per second
2. a failure that may pass is retried later, as late as the server says, and once more when all others are done; others
   are kept as the reason
3. a cached file's name is its URL's SHA-256 and it gets that name only when it is whole, so an interrupted run resumes
4. `read` gives what is in the cache; it is judged by its bytes (see images.py), never by its content type
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import cache, partial
from pathlib import Path

from gcl.data.catalog import Download
from gcl.data.masked import masked
from gcl.data.store.key_table import KeyTable, text_key
from gcl.data.tables.fetch import LONGEST_WAIT, Failure, fetch, host_of
from gcl.data.tables.quarantine import Bad
from gcl.data.tables.remote import is_remote
from gcl.files.atomic import write_bytes
from gcl.files.digest import text_sha256
from gcl.files.progress import counted
from gcl.table import Table, Value

NOT_DOWNLOADED = "image cannot be downloaded"
_HOSTS, _SHOWN = 100, 20  # that are counted one by one, and shown
_FIRST = 1000  # URLs whose hosts are listed where it is not said which of them get the headers


class Downloads:
    """The images behind URLs. `read` gives what is in the cache, or why nothing is."""

    def __init__(self, settings: Download, folder: Path) -> None:
        """folder: the cache, unless the settings name one."""
        self.settings = settings
        self.folder = Path(settings.cache).expanduser() if settings.cache else folder
        self.fetched = 0
        self._arrived: Counter[str] = Counter()  # URLs in the cache, by host
        self._failed: dict[str, Failure] = {}

    def place(self, url: str) -> Path:
        """The file that caches a URL."""
        name = text_sha256(url)
        return self.folder / name[:2] / name

    def read(self, url: str) -> bytes | Bad:
        """The image's bytes; Bad where fetching failed or was not tried."""
        url = url.strip()
        if not is_remote(url):
            kinds = "read are https://, http://, s3://, gs:// and hf://datasets/"
            told = "write the path without file://" if url.lower().startswith("file:") else kinds
            return Bad("URL of a kind that is not read", f"{masked(url)}: {told}")
        try:
            return self.place(url).read_bytes()
        except FileNotFoundError:
            if (failure := self._failed.get(url)) is None:
                return Bad("URL was not downloaded", masked(url))
            return Bad(NOT_DOWNLOADED, f"{masked(url)}: {failure}")

    def fetch_all(self, urls: Iterable[str], *, retries: int | None = None) -> Iterator[str]:
        """Fetches what the cache lacks, `settings.workers` at a time; yields each that it asked for. retries: None, as
        many as the settings say.

        Raises ValueError where headers are set and no host to send them to."""
        missing, self._turn = self._missing(urls), _Turn(self.settings.rate)
        ask = partial(self._fetch, retries=self.settings.retries if retries is None else retries)
        begun = list(itertools.islice(missing, _FIRST))
        self._check_hosts(begun)
        missing = itertools.chain(begun, missing)
        pool = ThreadPoolExecutor(self.settings.workers, thread_name_prefix="download")
        try:
            first = itertools.islice(missing, 2 * self.settings.workers)
            waiting = {pool.submit(ask, url): url for url in first}
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    url = waiting.pop(future)
                    if (failure := future.result()) is not None:
                        self._failed[url] = failure
                    else:
                        self.fetched += 1
                        self._arrived[host_of(url)] += 1
                    for following in itertools.islice(missing, 1):
                        waiting[pool.submit(ask, following)] = following
                    yield url
        finally:
            self._turn.stop()  # an interrupted run does not wait for its turn
            pool.shutdown(cancel_futures=True)

    def _missing(self, urls: Iterable[str]) -> Iterator[str]:
        for url in _distinct(urls):
            if self.place(url).exists():
                self._arrived[host_of(url)] += 1
            else:
                yield url

    def fetch_shown(self, urls: Callable[[], Iterable[str]], label: str, *, shown: bool, twice: bool = False) -> None:
        """`fetch_all`, showing how far it is. urls: called once more where it takes long enough to be shown. twice:
        what failed in a way that may have passed is asked for once more, when all others are done."""
        total = cache(lambda: self.expected(urls()))
        for _ in counted(self.fetch_all(urls()), label, shown=shown, total=total, unit="image"):
            pass
        if again := [url for url, failure in self._failed.items() if twice and failure.again]:
            for url in again:
                del self._failed[url]
            second = self.fetch_all(again, retries=0)
            for _ in counted(second, f"{label}, second pass", shown=shown, total=len(again), unit="image"):
                pass

    def counts(self) -> dict[str, dict[str, int]]:
        """{host: {"downloaded" or why not: URLs}}, the most used hosts first; those after the 100th together."""
        failed = Counter((host_of(url), failure.kind) for url, failure in self._failed.items())
        hosts: dict[str, Counter[str]] = {host: Counter(downloaded=count) for host, count in self._arrived.items()}
        for (host, kind), count in failed.items():
            hosts.setdefault(host, Counter(downloaded=0))[kind] += count
        ordered = sorted(hosts.items(), key=lambda one: (-one[1].total(), one[0]))
        shown, others = dict(ordered[:_HOSTS]), sum((counts for _, counts in ordered[_HOSTS:]), Counter())
        if others:
            shown[f"{len(ordered) - _HOSTS:,} other hosts"] = others
        return {host: dict(sorted(counts.items())) for host, counts in shown.items()}

    def expected(self, urls: Iterable[str]) -> int:
        """How many it will have asked for once it has been asked for all of these."""
        missing = (url for url in _distinct(urls) if url not in self._failed and not self.place(url).exists())
        return self.fetched + len(self._failed) + sum(1 for _ in missing)

    def _fetch(self, url: str, *, retries: int) -> Failure | None:
        for attempt in itertools.count():
            try:
                data = self._request(url)
            except Failure as failure:
                if not failure.again or attempt == retries:
                    return failure
                self._turn.sleep(max(failure.after, min(0.5 * 2**attempt, LONGEST_WAIT)))
            else:
                write_bytes(self.place(url), data)
                return None
        raise AssertionError("itertools.count does not end")

    def _request(self, url: str) -> bytes:
        if not url.lower().startswith(("http://", "https://")):
            return _open_stored(url, self.settings.max_bytes)
        self._turn.wait(host_of(url))
        return fetch(url, self.settings)

    def _check_hosts(self, urls: list[str]) -> None:
        """Raises ValueError where there are headers, and nothing says who may see them."""
        if not self.settings.headers or self.settings.hosts:
            return
        hosts = Counter(host_of(url) for url in urls if url.lower().startswith("http"))
        if hosts:
            named = ", ".join(f"{host} ({count:,})" for host, count in hosts.most_common(10))
            raise ValueError(
                f"data.download.headers is set, and no host to send them to. The first rows name {named}. Say which of "
                f"them are yours: data.download.hosts=[{','.join(host for host, _ in hosts.most_common(10))}]"
            )


def summary(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What `Downloads.counts` say, in lines for people."""
    rows: list[Sequence[Value]] = []
    for host, outcomes in list(counts.items())[:_SHOWN]:
        reasons = [f"{kind} {count:,}" for kind, count in outcomes.items() if kind != "downloaded"]
        images, arrived = sum(outcomes.values()), outcomes.get("downloaded", 0)
        rows.append([host, images, arrived, arrived / images, ", ".join(reasons)])
    more = len(counts) - _SHOWN
    table = Table(
        ["host", "images", "downloaded", "share", "the others"], rows, align="lrrrl",
        formats={"images": ",", "downloaded": ",", "share": ".1%"},
        notes=[f"and {more:,} more hosts"] if more > 0 else [],
    )  # fmt: skip
    return table.text().split("\n") if rows else []


def _open_stored(url: str, most: int) -> bytes:
    """An object of a store (s3, gs, hf, …); its client has its own credentials, timeouts and retries."""
    import fsspec

    try:
        with fsspec.open(url, "rb") as source:
            data = source.read(most + 1)
    except Exception as error:  # every store's client raises its own kinds
        again, kind = not isinstance(error, OSError | ImportError), type(error).__name__
        raise Failure(f"{kind} {error}", again=again, kind=kind) from None
    if len(data) > most:
        raise Failure(f"more than {most:,} bytes, data.download.max_bytes", again=False)
    return data


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
            raise Failure("interrupted", again=False)

    def stop(self) -> None:
        self._stopped.set()
