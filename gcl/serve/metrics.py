"""Counters of a service, as Prometheus reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gcl.serve.engine import TOGETHER

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, TOGETHER)


class Metrics:
    """Requests and how long each took to its last byte, by route; searches that a model answered together; gauges."""

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """gauges: {name: (help, what tells its value)}."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "gcl_requests_total", "Requests answered.", ["path", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "gcl_request_seconds", "From a request's first byte to its answer's last.", ["path"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.batch_size = Histogram(
            "gcl_batch_size", "Searches that a model answered together.", buckets=_SIZES, registry=registry
        )
        for name, (about, value) in gauges.items():
            Gauge(name, about, registry=registry).set_function(value)

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
                self._requests.labels(route, method, str(status)).inc()
                self._seconds.labels(route).observe(time.perf_counter() - begun)

        return counted

    def text(self) -> bytes:
        return generate_latest(self._registry)
