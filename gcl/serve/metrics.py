"""Counters of a service, written as Prometheus reads them (text format 0.0.4)."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Histogram:
    """How many values were at most each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self._count, self._sum = tuple(bounds), [0] * (len(bounds) + 1), 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        with self._lock:
            self._count[bisect_left(self.bounds, value)] += 1
            self._sum += value

    def lines(self, name: str, **labels: str) -> list[str]:
        """
        >>> histogram = Histogram((1, 4))
        >>> for size in (1, 3, 9): histogram.observe(size)
        >>> print(*histogram.lines("size", path="/"), sep="\\n")
        size_bucket{path="/",le="1"} 1
        size_bucket{path="/",le="4"} 2
        size_bucket{path="/",le="+Inf"} 3
        size_sum{path="/"} 13.0
        size_count{path="/"} 3
        """
        with self._lock:
            counts, whole = list(self._count), self._sum
        lines, so_far = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), counts, strict=True):
            so_far += count
            lines.append(f"{name}_bucket{_braced({**labels, 'le': bound})} {so_far}")
        return [*lines, f"{name}_sum{_braced(labels)} {whole}", f"{name}_count{_braced(labels)} {so_far}"]


class Metrics:
    """Requests and how long each took to its last byte, by route."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._seconds: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(_SECONDS))

    def around(self, app: Any) -> Any:
        """ASGI middleware that counts what the application answers, refusals included."""

        async def counted(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            begun, status = time.perf_counter(), 499  # who asked left before the answer began

            async def noted(message: dict) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, noted)
            except Exception:
                status = 500
                raise
            finally:
                route = getattr(scope.get("route"), "path", "other")  # never what was asked for: that has no bound
                method = scope["method"] if scope["method"] in ("GET", "POST") else "other"
                self._requests[route, method, str(status)] += 1
                self._seconds[route].observe(time.perf_counter() - begun)

        return counted

    def text(self, gauges: Mapping[str, tuple[str, float]], batch_size: Histogram) -> str:
        """gauges: {name: (help, value)}."""
        requests = [
            f"gcl_requests_total{_braced({'path': path, 'method': method, 'status': status})} {count}"
            for (path, method, status), count in sorted(self._requests.items())
        ]
        seconds = [
            line for path, one in sorted(self._seconds.items()) for line in one.lines("gcl_request_seconds", path=path)
        ]
        parts = [
            _family("gcl_requests_total", "counter", "Requests answered.", requests),
            _family("gcl_request_seconds", "histogram", "From a request's first byte to its answer's last.", seconds),
            _family("gcl_batch_size", "histogram", "Searches that a model answered together.",
                    batch_size.lines("gcl_batch_size")),
            *(_family(name, "gauge", about, [f"{name} {value}"]) for name, (about, value) in gauges.items()),
        ]  # fmt: skip
        return "\n".join(parts) + "\n"


def _family(name: str, kind: str, about: str, lines: Sequence[str]) -> str:
    return "\n".join([f"# HELP {name} {about}", f"# TYPE {name} {kind}", *lines])


def _braced(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""
